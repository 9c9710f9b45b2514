//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
)

// kind is a kind of client with the servers it talks to.
type kind struct {
	name     string
	programs []string  // of Debian
	policies [2]string // the schedulers of the service's two groups
	mortal   bool      // its servers keep no state, so they may be killed
	servers  func(ctx context.Context, p place) ([]*servers.Server, error)
	fill     func(ctx context.Context, p place, s *servers.Server) error // nil: nothing to be put into them
	clients  int                                                         // at once
	turn     func(ctx context.Context, w *worker) []failure
}

// kinds are all there are.
func kinds() []kind {
	return []kind{
		{"echo", nil, [2]string{"leastc", "roundr"}, true, echoServers(roleEcho), nil, 24, echoTurn(false)},
		{"greeting", nil, [2]string{"roundr", "p2c"}, true, echoServers(roleGreeting), nil, 12, echoTurn(true)},
		{"curl", []string{"curl", "nginx"}, [2]string{"weightr", "weightlc"}, true, nginxServers, nil, 5, curlTurn},
		{"pgbench", []string{servers.Initdb}, [2]string{"leastc", "weightrr"}, false, postgresServers, fillPostgres, 2, pgbenchTurn},
		{"redis", []string{"redis-server", "redis-benchmark"}, [2]string{"rand", "weightlc"}, false, redisServers, nil, 2, redisTurn},
		{"rsync", []string{"rsync"}, [2]string{"weightrr", "leastc"}, false, rsyncServers, nil, 2, rsyncTurn},
	}
}

// worker is one client, which takes one turn after the other.
type worker struct {
	place
	service *service
	number  int
	rng     *rand.Rand
	block   []byte // random bytes to send
	turns   int    // taken
}

// work takes turns until enough ends; hard ends even the one under way, and
// then what it says counts for nothing.
func (w *worker) work(hard context.Context, enough <-chan struct{}, rec *record) {
	const pause = 100 * time.Millisecond // after a failure
	for ; ; w.turns++ {
		select {
		case <-enough:
			return
		case <-hard.Done():
			return
		default:
		}
		failures := w.service.turn(hard, w)
		if hard.Err() != nil {
			return
		}
		for _, f := range failures {
			rec.failed(w.service.name, f)
		}
		if len(failures) > 0 {
			wait(hard, pause)
		}
	}
}

// wait lets time pass, for the pace alone.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// sessionPatience is how long a session may stand still or a program run
// before that is an error.
const sessionPatience = 60 * time.Second

// echoTurn returns the turn that is one session with an echo server: a few
// frames of random sizes, sent and read at the same time, and one of several
// ways to end.
func echoTurn(greet bool) func(context.Context, *worker) []failure {
	return func(ctx context.Context, w *worker) []failure {
		f := failure{start: time.Now()}
		f.err = echoSession(ctx, w, greet, &f)
		f.end = time.Now()
		if f.err == nil {
			return nil
		}
		return []failure{f}
	}
}

// echoSession is one session. It notes in f what a failure would have to know.
func echoSession(ctx context.Context, w *worker, greet bool, f *failure) (err error) {
	conn, err := (&net.Dialer{Timeout: sessionPatience}).DialContext(ctx, "tcp", w.service.addr)
	if err != nil {
		return fmt.Errorf("connect to txlb: %w", err)
	}
	c := conn.(*net.TCPConn)
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := c.SetDeadline(time.Now().Add(sessionPatience)); err != nil {
		return err
	}
	in := bufio.NewReaderSize(c, 64<<10)
	if greet {
		if err := greeted(in, f); err != nil {
			return err
		}
	}
	most := []int{8, 8, 14, 22}[w.rng.IntN(4)] // bits of the largest frame
	// Most sessions take their time, so that a server has some in its hands
	// whenever it is killed; a few outlast several changes.
	pause := []time.Duration{0, time.Millisecond, 30 * time.Millisecond, 30 * time.Millisecond}[w.rng.IntN(4)]
	if w.rng.IntN(50) == 0 {
		pause = 400 * time.Millisecond
	}
	for i := range 1 + w.rng.IntN(4) {
		if i > 0 && pause > 0 {
			wait(ctx, time.Duration(w.rng.Int64N(int64(pause))))
		}
		// The number of bits is random, so that each size of frames has a share.
		size := 1 + w.rng.IntN(1<<(1+w.rng.IntN(most)))
		if err := w.frame(c, in, size, f); err != nil {
			return err
		}
	}
	switch n := w.rng.IntN(20); {
	case n == 0: // by a reset
		return c.SetLinger(0)
	case n < 4: // all at once
		return nil
	}
	// In good order: the server ends when the client has.
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("end the session: %w", err)
	}
	switch n, err := in.WriteTo(io.Discard); {
	case err != nil:
		return fmt.Errorf("wait for the server's end: %w", err)
	case n > 0:
		return fmt.Errorf("%w: %d after the last answer", errWrong, n)
	}
	return nil
}

// greeted reads the name of the server.
func greeted(in *bufio.Reader, f *failure) error {
	line, err := in.ReadString('\n')
	f.host = strings.TrimSuffix(line, "\n")
	if err != nil {
		return fmt.Errorf("wait for the first byte: %w", err)
	}
	return nil
}

// frame sends size bytes and reads them back.
func (w *worker) frame(c *net.TCPConn, in *bufio.Reader, size int, f *failure) error {
	start := w.rng.IntN(len(w.block))
	f.sent = true
	sums := make(chan uint32, 1)
	written := make(chan error, 1)
	go func() {
		sum, err := w.send(c, size, start)
		if err != nil {
			// Nothing will be answered, so the reader must not wait for it; what
			// has been answered already is read first.
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
		}
		sums <- sum
		written <- err
	}()
	got, theirs, err := readAnswer(in, size, f)
	if err != nil {
		_ = c.Close()
	}
	sent, sendErr := <-sums, <-written
	switch {
	case sendErr != nil && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)):
		return fmt.Errorf("send %d bytes: %w", size, sendErr)
	case err != nil:
		return err
	case theirs != sent:
		return fmt.Errorf("%w: of %d bytes with the sum %08x the server got %08x", errWrong, size, sent, theirs)
	case got != sent:
		return fmt.Errorf("%w: of %d bytes with the sum %08x there came back %08x", errWrong, size, sent, got)
	}
	return nil
}

// send sends a frame out of the random block, all around from start, and
// returns its sum.
func (w *worker) send(c net.Conn, size, start int) (sum uint32, err error) {
	if _, err := c.Write(binary.BigEndian.AppendUint32(nil, uint32(size))); err != nil {
		return 0, err
	}
	for size > 0 {
		part := w.block[start:min(len(w.block), start+size)]
		sum = crc32.Update(sum, castagnoli, part)
		if _, err := c.Write(part); err != nil {
			return 0, err
		}
		size -= len(part)
		start = 0
	}
	return sum, nil
}

// readAnswer reads what comes back for a frame: in the first answer the name
// of the server, then the bytes, of which it returns the sum, then the sum
// that the server has made of them.
func readAnswer(in *bufio.Reader, size int, f *failure) (sum, theirs uint32, err error) {
	if f.host == "" {
		if err := greeted(in, f); err != nil {
			return 0, 0, err
		}
	}
	for left := size; left > 0; {
		part, err := in.Peek(min(left, in.Size(), max(1, in.Buffered())))
		if err != nil {
			return 0, 0, fmt.Errorf("after %d of %d bytes: %w", size-left, size, err)
		}
		sum = crc32.Update(sum, castagnoli, part)
		left -= len(part)
		if _, err := in.Discard(len(part)); err != nil {
			return 0, 0, err
		}
	}
	var tail [4]byte
	if _, err := io.ReadFull(in, tail[:]); err != nil {
		return 0, 0, fmt.Errorf("after all %d bytes, before their sum: %w", size, err)
	}
	return sum, binary.BigEndian.Uint32(tail[:]), nil
}

// curlTurn is one curl that fetches a few pages over as few connections as it
// needs.
func curlTurn(ctx context.Context, w *worker) []failure {
	ctx, cancel := context.WithTimeout(ctx, 2*sessionPatience)
	defer cancel()
	names := []string{"empty", "18k", "18k", "18k", "1m", "5m"}
	argv := []string{
		debian.Path("curl"), "-q", "-s", "--noproxy", "*", "--max-time", strconv.Itoa(int(sessionPatience.Seconds())),
		"-w", `%{exitcode} %{http_code} %header{x-host} %{errormsg}\n`,
	}
	var asked []string
	var files []string
	for i := range 1 + w.rng.IntN(4) {
		name := names[w.rng.IntN(len(names))]
		file := filepath.Join(w.dir, fmt.Sprintf("page-%d-%d", w.number, i))
		argv = append(argv, "-o", file, "http://"+w.service.addr+"/"+name)
		asked, files = append(asked, name), append(files, file)
	}
	defer removeAll(files)
	start := time.Now()
	out, err := servers.Call(ctx, w.dir, nil, nil, argv...)
	end := time.Now()
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != len(asked) {
		return []failure{{start: start, end: end, sent: true, err: fmt.Errorf("curl told of %d pages, not of %d: %w", len(lines), len(asked), err)}}
	}
	var failures []failure
	for i, line := range lines {
		if f := judgePage(line, files[i], asked[i]); f != nil {
			f.start, f.end = start, end
			failures = append(failures, *f)
		}
	}
	return failures
}

// judgePage reads curl's line about one page, and the page. It returns nil if
// both are as they should be. The times are for the caller to fill in.
func judgePage(line, file, name string) *failure {
	fields := strings.SplitN(line, " ", 4)
	if len(fields) != 4 {
		return &failure{sent: true, err: fmt.Errorf("curl said %q", line)}
	}
	exit, status, host, message := fields[0], fields[1], fields[2], fields[3]
	const couldNotConnect = "7"
	f := &failure{host: host, sent: exit != couldNotConnect}
	switch {
	case exit != "0":
		f.err = fmt.Errorf("%s: curl's exit code %s: %s", name, exit, message)
		return f
	case status != "200":
		f.err = fmt.Errorf("%w: %s: HTTP status %s", errWrong, name, status)
		return f
	}
	body, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		body, err = nil, nil // curl makes no file of nothing
	}
	if err != nil {
		f.err = err
		return f
	}
	if !bytes.Equal(body, page(pages()[name])) {
		f.err = fmt.Errorf("%w: %s is not what the server has", errWrong, name)
		return f
	}
	return nil
}

func removeAll(paths []string) {
	for _, p := range paths {
		_ = os.RemoveAll(p) // the whole folder goes at the end anyway
	}
}

// program is a turn that is one run of a program, which says by its exit status
// whether every session of it went well. Its servers are never killed, so
// nothing explains a failure, whatever the program was doing.
func program(ctx context.Context, run func(context.Context) error) []failure {
	ctx, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	start := time.Now()
	if err := run(ctx); err != nil {
		return []failure{{start: start, end: time.Now(), sent: true, err: err}}
	}
	return nil
}

// pgbench runs pgbench against a database.
func pgbench(ctx context.Context, p place, addr string, args ...string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	argv := append([]string{servers.InPostgreSQL("pgbench"), "-h", host, "-p", port, "-U", pgUser}, args...)
	return servers.Call(ctx, p.dir, nil, []string{"PGPASSWORD=" + p.secret}, append(argv, "postgres")...)
}

// pgbenchTurn is one pgbench: in turn long sessions with all kinds of
// statements, and a new session for each transaction.
func pgbenchTurn(ctx context.Context, w *worker) []failure {
	args := [][]string{
		{"-T", "2", "-c", "4", "-M", "prepared"},
		{"-t", "20", "-c", "2", "-C"},
		{"-T", "1", "-c", "4", "-S", "-M", "extended"},
		{"-t", "100", "-c", "2", "-C", "-S"},
	}[w.turns%4]
	return program(ctx, func(ctx context.Context) error {
		out, err := pgbench(ctx, w.place, w.service.addr, append([]string{"-n"}, args...)...)
		if err == nil && strings.Contains(out, "aborted") {
			err = fmt.Errorf("pgbench: %s", servers.Tail(out))
		}
		return err
	})
}

// redisTurn is one redis-benchmark: in turn kept sessions with pipelines, and a
// new session for each request.
func redisTurn(ctx context.Context, w *worker) []failure {
	host, port, _ := net.SplitHostPort(w.service.addr)
	argv := []string{debian.Path("redis-benchmark"), "-h", host, "-p", port, "-q", "-r", "1000", "-t", "set,get,incr,lpush,rpop"}
	switch size := 1 << w.rng.IntN(17); w.turns % 3 {
	case 0:
		argv = append(argv, "-n", "5000", "-c", "20", "-d", strconv.Itoa(min(size, 4096)))
	case 1:
		argv = append(argv, "-n", "500", "-c", "10", "-k", "0")
	case 2:
		argv = append(argv, "-n", "2000", "-c", "8", "-P", "8", "-d", strconv.Itoa(size))
	}
	return program(ctx, func(ctx context.Context) error {
		out, err := servers.Call(ctx, w.dir, nil, nil, argv...)
		if err == nil && strings.Contains(out, "rror") { // Error, or error
			err = fmt.Errorf("redis-benchmark: %s", servers.Tail(out))
		}
		return err
	})
}

// rsyncTurn fetches the tree from whichever host, or sends it there, and then
// compares every file.
func rsyncTurn(ctx context.Context, w *worker) []failure {
	tree := filepath.Join(w.dir, "tree")
	name := fmt.Sprintf("tree-%d-%d", w.number, w.turns)
	argv := []string{debian.Path("rsync"), "-a", "--timeout=30"}
	return program(ctx, func(ctx context.Context) error {
		if (w.number+w.turns)%2 == 0 {
			to := filepath.Join(w.dir, name)
			defer removeAll([]string{to})
			if _, err := servers.Call(ctx, w.dir, nil, nil, append(argv, "rsync://"+w.service.addr+"/tree/", to+"/")...); err != nil {
				return err
			}
			return sameTree(tree, to)
		}
		if _, err := servers.Call(ctx, w.dir, nil, nil, append(argv, tree+"/", "rsync://"+w.service.addr+"/up/"+name+"/")...); err != nil {
			return err
		}
		// It is at one of the hosts, which share the machine with the client.
		there, err := filepath.Glob(filepath.Join(w.dir, "*", "up", name))
		if err != nil || len(there) != 1 {
			return fmt.Errorf("%w: what rsync has sent is on %d hosts, not on one (%v)", errWrong, len(there), err)
		}
		defer removeAll(there)
		return sameTree(tree, there[0])
	})
}

// sameTree compares two folders file by file.
func sameTree(a, b string) error {
	left, err := sums(a)
	if err != nil {
		return err
	}
	right, err := sums(b)
	if err != nil {
		return err
	}
	for name, sum := range left {
		switch other, ok := right[name]; {
		case !ok:
			return fmt.Errorf("%w: %s did not arrive", errWrong, name)
		case other != sum:
			return fmt.Errorf("%w: %s is not what it was", errWrong, name)
		}
	}
	if len(left) != len(right) {
		return fmt.Errorf("%w: %d files became %d", errWrong, len(left), len(right))
	}
	return nil
}

// sums returns the checksum of each file below root.
func sums(root string) (map[string][sha256.Size]byte, error) {
	all := map[string][sha256.Size]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		all[name] = sha256.Sum256(body)
		return err
	})
	return all, err
}
