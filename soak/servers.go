//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
)

// patience bounds every wait for what must come soon: a server that starts, a
// host that comes back, counters that settle.
const patience = servers.Patience

// until calls ready, again and again, until it returns nil, ctx ends or patience
// is over.
func until(ctx context.Context, ready func() error) error {
	const pause = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// place is where the servers and the clients of one service live.
type place struct {
	dir    string
	secret string // password of the servers that want one, of this run alone
}

// server makes one with a folder and an address of its own. It does not run
// yet.
func (p place) server(name string) (*servers.Server, error) {
	as, err := servers.Unprivileged()
	if err != nil {
		return nil, err
	}
	addr, err := servers.FreeAddr()
	if err != nil {
		return nil, err
	}
	return servers.New(p.dir, name, addr, as)
}

// several makes n servers, each by one, named a, b, c.
func (p place) several(n int, one func(name string) (*servers.Server, error)) ([]*servers.Server, error) {
	var all []*servers.Server
	for i := range n {
		s, err := one(string(rune('a' + i)))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// The echo servers are this program itself in another role, because a process
// is what can be killed.
const (
	roleEcho     = "role-echo"     // ADDRESS NAME: the client speaks first
	roleGreeting = "role-greeting" // ADDRESS NAME: the server does
)

// playRole runs the role that args ask for, if they do, until the process is
// killed.
func playRole(args []string) (status int, played bool) {
	if len(args) != 3 || args[0] != roleEcho && args[0] != roleGreeting {
		return 0, false
	}
	ln, err := net.Listen("tcp", args[1])
	for err == nil {
		var c net.Conn
		if c, err = ln.Accept(); err == nil {
			go echo(c, args[2], args[0] == roleGreeting)
		}
	}
	fmt.Fprintln(os.Stderr, "soak: the echo server:", err)
	return 1, true
}

// castagnoli is the polynomial of the checksums: processors know it.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// echo serves one connection. A frame is its length (4 bytes, big-endian) and
// as many bytes; the answer is the same bytes, sent as they come, and their
// CRC as the server has seen it. Its name and a newline come before all
// answers, or before everything with greet: a client that got a byte knows
// whose it is.
func echo(c net.Conn, name string, greet bool) {
	defer func() { _ = c.Close() }()
	greeted := false
	greeting := func() error {
		if greeted {
			return nil
		}
		greeted = true
		_, err := io.WriteString(c, name+"\n")
		return err
	}
	if greet && greeting() != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for {
		// An error means that the client or txlb has gone; it is for the client
		// to judge.
		if _, err := io.ReadFull(c, buf[:4]); err != nil || greeting() != nil {
			return
		}
		sum := uint32(0)
		for left := int(uint32(buf[0])<<24 | uint32(buf[1])<<16 | uint32(buf[2])<<8 | uint32(buf[3])); left > 0; {
			n, err := c.Read(buf[:min(left, len(buf))])
			if err != nil {
				return
			}
			sum = crc32.Update(sum, castagnoli, buf[:n])
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
			left -= n
		}
		if _, err := c.Write([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}); err != nil {
			return
		}
	}
}

// echoServers returns the launch of servers that play role.
func echoServers(role string) func(context.Context, place) ([]*servers.Server, error) {
	return func(_ context.Context, p place) ([]*servers.Server, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return p.several(3, func(name string) (*servers.Server, error) {
			s, err := p.server(name)
			if err != nil {
				return nil, err
			}
			s.User = nil // go run puts the binary where nobody may not look
			s.Argv = []string{self, role, s.Addr, name}
			return s, nil
		})
	}
}

// pages are nginx's files by name.
func pages() map[string]int {
	return map[string]int{"empty": 0, "18k": 18 << 10, "1m": 1 << 20, "5m": 5 << 20}
}

// nginxServers are three nginx, one process each, so that killing the process
// kills the server. They share their pages and tell their names in a header.
func nginxServers(_ context.Context, p place) ([]*servers.Server, error) {
	root := filepath.Join(p.dir, "pages")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	for name, size := range pages() {
		if err := os.WriteFile(filepath.Join(root, name), page(size), 0o644); err != nil {
			return nil, err
		}
	}
	return p.several(3, func(name string) (*servers.Server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		return s, s.Nginx(fmt.Sprintf("server { listen %s backlog=1024; root %s; add_header X-Host %s always; }", s.Addr, root, name))
	})
}

// page returns the content of a page of that size.
func page(size int) []byte {
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return body
}

// pgUser owns the databases.
const pgUser = "soak"

// postgresServers are two PostgreSQL, each with a data folder of its own. Their
// tables have the same shape, so that pgbench can talk to both; what is in
// them differs, so a session cannot move.
func postgresServers(ctx context.Context, p place) ([]*servers.Server, error) {
	password := filepath.Join(p.dir, "password")
	if err := os.WriteFile(password, []byte(p.secret+"\n"), 0o644); err != nil {
		return nil, err
	}
	return p.several(2, func(name string) (*servers.Server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		return s, s.PostgreSQL(ctx, pgUser, password)
	})
}

// fillPostgres makes pgbench's tables.
func fillPostgres(ctx context.Context, p place, s *servers.Server) error {
	_, err := pgbench(ctx, p, s.Addr, "-i", "-q", "-s", "1")
	return err
}

// redisServers are two redis that keep nothing on disk.
func redisServers(_ context.Context, p place) ([]*servers.Server, error) {
	return p.several(2, func(name string) (*servers.Server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		return s, s.Redis("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-random")
	})
}

// rsyncServers are two rsync daemons with the same tree to fetch, and a folder
// each to send one to.
func rsyncServers(_ context.Context, p place) ([]*servers.Server, error) {
	tree := filepath.Join(p.dir, "tree")
	if err := writeTree(tree); err != nil {
		return nil, err
	}
	return p.several(2, func(name string) (*servers.Server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(s.Dir, "rsyncd.conf")
		up := filepath.Join(s.Dir, "up")
		if err := os.Mkdir(up, 0o755); err != nil {
			return nil, err
		}
		if s.User != nil {
			if err := os.Chown(up, int(s.User.Uid), int(s.User.Gid)); err != nil {
				return nil, err
			}
		}
		conf := fmt.Sprintf("use chroot = no\nreverse lookup = no\nlog file = %s/rsyncd.log\n"+
			"[tree]\npath = %s\nread only = yes\n[up]\npath = %s\nread only = no\n", s.Dir, tree, up)
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(s.Addr)
		s.Argv = []string{debian.Path("rsync"), "--daemon", "--no-detach", "--config=" + file, "--address=" + host, "--port=" + port}
		return s, nil
	})
}

// writeTree makes the tree that rsync carries: many small files and a few
// large ones.
func writeTree(root string) error {
	for i := range 200 {
		dir := filepath.Join(root, strconv.Itoa(i%10), strconv.Itoa(i%7))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		size := i * 37
		if i%20 == 0 {
			size = 1<<20 + i
		}
		body := page(size)
		for j := range body { // no two files alike
			body[j] += byte(i)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file %d", i)), body, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// launch starts servers side by side and puts into each what fill, if there is
// one, has for it.
func launch(ctx context.Context, p place, all []*servers.Server, fill func(context.Context, place, *servers.Server) error) error {
	problems := make(chan error, len(all))
	for _, s := range all {
		go func() {
			err := s.Start(ctx)
			if err == nil && fill != nil {
				err = fill(ctx, p, s)
			}
			problems <- err
		}()
	}
	var err error
	for range all {
		err = errors.Join(err, <-problems)
	}
	return err
}
