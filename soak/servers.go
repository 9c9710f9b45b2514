//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/debian"
)

// patience bounds every wait for what must come soon: a server that starts, a
// host that comes back, counters that settle.
const patience = 20 * time.Second

// server is one program behind txlb. It can be killed and started again on the
// same port. It belongs to one goroutine at a time.
type server struct {
	name  string
	addr  string
	argv  []string
	user  *syscall.Credential // nil: as the soak itself
	log   string              // file, appended to at each start
	end   syscall.Signal      // asks it to end
	probe func(addr string) error

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd is gone
}

// start runs the server and returns when it answers.
func (s *server) start(ctx context.Context) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	s.cmd = exec.Command(s.argv[0], s.argv[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = filepath.Dir(s.log), log, log
	// A group of its own, so that Ctrl-C reaches the soak alone; and the kernel
	// ends the server should the soak die without a chance to.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: s.user}
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.ended = make(chan struct{})
	go reap(s.cmd, s.ended)
	err = until(ctx, func() error {
		select {
		case <-s.ended:
			return fmt.Errorf("it has ended: %w", errFinal)
		default:
			return s.probe(s.addr)
		}
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s does not answer on %s: %w\n%s", s.name, s.addr, err, lastWords(s.log))
	}
	return err
}

// reap waits for the end of cmd. How it ended says nothing: killing it is what
// the soak does.
func reap(cmd *exec.Cmd, ended chan<- struct{}) {
	_ = cmd.Wait()
	close(ended)
}

// running tells whether the server has been started and has not ended.
func (s *server) running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// kill kills the server as it is. When it returns, the kernel has closed every
// socket of the server: connects to it are refused.
func (s *server) kill() {
	if !s.running() {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.ended
}

// freeze stops the server where it is. The kernel still takes connections for
// it, which wait in the queue; when the server is killed, they are reset before
// anybody has seen them.
func (s *server) freeze() error {
	if !s.running() {
		return fmt.Errorf("host %s has ended by itself: %s", s.name, lastWords(s.log))
	}
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop host %s: %w", s.name, err)
	}
	return nil
}

// stop ends the server if it runs.
func (s *server) stop() {
	if !s.running() {
		return
	}
	_ = s.cmd.Process.Signal(s.end) // it may end this moment
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.kill()
	}
}

// errFinal says that trying again is of no use.
var errFinal = errors.New("not worth another try")

// until calls ready, again and again, until it returns nil, says errFinal, ctx
// ends or patience is over.
func until(ctx context.Context, ready func() error) error {
	const pause = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil || errors.Is(err, errFinal) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// lastWords returns the end of a log.
func lastWords(log string) string {
	const most = 1000
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-most):]))
}

// place is where the servers and the clients of one service live.
type place struct {
	dir    string
	ports  *ports
	secret string // password of the servers that want one, of this run alone
}

// ports gives out addresses that a killed server finds free again. They are on
// a loopback address of this process alone, made of its number: neither another
// soak nor an outgoing connection, which the kernel binds to 127.0.0.1, can
// take one.
type ports struct {
	host string
	next atomic.Int32
}

func newPorts() *ports {
	pid := os.Getpid() // 22 bits at most
	p := &ports{host: net.IPv4(127, byte(64+pid>>16&63), byte(pid>>8), byte(pid)).String()}
	p.next.Store(20000)
	return p
}

// free returns an address that nobody has been given before.
func (p *ports) free() string {
	return net.JoinHostPort(p.host, strconv.Itoa(int(p.next.Add(1))))
}

// unprivileged returns whom real servers run as: nobody if the soak is root,
// which some servers refuse to be; nil, the soak's own user, otherwise.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("whom to run servers as: %w", err)
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user nobody: %w", err)
	}
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user nobody: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// server makes one with a folder and an address of its own. It does not run
// yet.
func (p place) server(name string) (*server, error) {
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(p.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, err
		}
	}
	return &server{
		name: name, addr: p.ports.free(), user: as, end: syscall.SIGTERM, probe: connects,
		log: filepath.Join(dir, "log"),
	}, nil
}

// several makes n servers, each by one, named a, b, c.
func (p place) several(n int, one func(name string) (*server, error)) ([]*server, error) {
	var all []*server
	for i := range n {
		s, err := one(string(rune('a' + i)))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// call runs a program to its end and returns what it wrote. It is killed with
// everything it has started when ctx ends.
func call(ctx context.Context, dir string, as *syscall.Credential, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, shorten(string(out)))
	}
	return string(out), err
}

// shorten makes one line of what a program wrote.
func shorten(out string) string {
	const most = 300
	line := strings.Join(strings.Fields(out), " ")
	if len(line) > most {
		line = "..." + line[len(line)-most:]
	}
	return line
}

// connects is the probe of servers that accept as soon as they can serve.
func connects(addr string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
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
func echoServers(role string) func(context.Context, place) ([]*server, error) {
	return func(_ context.Context, p place) ([]*server, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return p.several(3, func(name string) (*server, error) {
			s, err := p.server(name)
			if err != nil {
				return nil, err
			}
			s.user = nil // go run puts the binary where nobody may not look
			s.argv = []string{self, role, s.addr, name}
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
func nginxServers(_ context.Context, p place) ([]*server, error) {
	root := filepath.Join(p.dir, "pages")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	for name, size := range pages() {
		if err := os.WriteFile(filepath.Join(root, name), page(size), 0o644); err != nil {
			return nil, err
		}
	}
	return p.several(3, func(name string) (*server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		dir := filepath.Dir(s.log)
		file := filepath.Join(dir, "nginx.conf")
		conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events { worker_connections 2048; }
http {
    access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p;
    fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
    server { listen %[2]s backlog=1024; root %[3]s; add_header X-Host %[4]s always; }
}
`, dir, s.addr, root, name)
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			return nil, err
		}
		s.argv = []string{debian.Path("nginx"), "-c", file, "-p", dir, "-e", "stderr"}
		return s, nil
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

// initdb is where Debian keeps the programs of PostgreSQL, of any version: out
// of the search path, or wrapped for its own clusters.
const initdb = "/usr/lib/postgresql/*/bin/initdb"

// postgres returns where a program of PostgreSQL is.
func postgres(program string) string {
	return filepath.Join(filepath.Dir(debian.Path(initdb)), program)
}

// pgUser owns the databases.
const pgUser = "soak"

// postgresServers are two PostgreSQL, each with a data folder of its own. Their
// tables have the same shape, so that pgbench can talk to both; what is in
// them differs, so a session cannot move.
func postgresServers(ctx context.Context, p place) ([]*server, error) {
	password := filepath.Join(p.dir, "password")
	if err := os.WriteFile(password, []byte(p.secret+"\n"), 0o644); err != nil {
		return nil, err
	}
	return p.several(2, func(name string) (*server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		dir := filepath.Dir(s.log)
		data := filepath.Join(dir, "data")
		if _, err := call(ctx, dir, s.user, nil, postgres("initdb"), "-D", data, "-U", pgUser, "-A", "scram-sha-256",
			"--pwfile", password, "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(s.addr)
		s.argv = []string{postgres("postgres"), "-D", data, "-h", host, "-p", port, "-k", "", "-F"}
		s.end = syscall.SIGINT // ends its sessions and itself
		s.probe = func(string) error {
			_, err := call(ctx, dir, s.user, nil, postgres("pg_isready"), "-q", "-h", host, "-p", port)
			return err
		}
		return s, nil
	})
}

// fillPostgres makes pgbench's tables.
func fillPostgres(ctx context.Context, p place, s *server) error {
	_, err := pgbench(ctx, p, s.addr, "-i", "-q", "-s", "1")
	return err
}

// redisServers are two redis that keep nothing on disk.
func redisServers(_ context.Context, p place) ([]*server, error) {
	return p.several(2, func(name string) (*server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(s.addr)
		s.argv = []string{
			debian.Path("redis-server"), "--bind", host, "--port", port, "--save", "", "--appendonly", "no",
			"--dir", filepath.Dir(s.log), "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-random",
		}
		return s, nil
	})
}

// rsyncServers are two rsync daemons with the same tree to fetch, and a folder
// each to send one to.
func rsyncServers(_ context.Context, p place) ([]*server, error) {
	tree := filepath.Join(p.dir, "tree")
	if err := writeTree(tree); err != nil {
		return nil, err
	}
	return p.several(2, func(name string) (*server, error) {
		s, err := p.server(name)
		if err != nil {
			return nil, err
		}
		dir := filepath.Dir(s.log)
		file := filepath.Join(dir, "rsyncd.conf")
		up := filepath.Join(dir, "up")
		if err := os.Mkdir(up, 0o755); err != nil {
			return nil, err
		}
		if s.user != nil {
			if err := os.Chown(up, int(s.user.Uid), int(s.user.Gid)); err != nil {
				return nil, err
			}
		}
		conf := fmt.Sprintf("use chroot = no\nreverse lookup = no\nlog file = %s/rsyncd.log\n"+
			"[tree]\npath = %s\nread only = yes\n[up]\npath = %s\nread only = no\n", dir, tree, up)
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(s.addr)
		s.argv = []string{debian.Path("rsync"), "--daemon", "--no-detach", "--config=" + file, "--address=" + host, "--port=" + port}
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
func launch(ctx context.Context, p place, servers []*server, fill func(context.Context, place, *server) error) error {
	problems := make(chan error, len(servers))
	for _, s := range servers {
		go func() {
			err := s.start(ctx)
			if err == nil && fill != nil {
				err = fill(ctx, p, s)
			}
			problems <- err
		}()
	}
	var all []error
	for range servers {
		all = append(all, <-problems)
	}
	return errors.Join(slices.DeleteFunc(all, func(err error) bool { return err == nil })...)
}
