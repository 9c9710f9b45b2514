package main

import (
	"bufio"
	numbers "encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/keeper"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// keptPair runs txlb with a keeper. Both are started again after a kill.
type keptPair struct {
	t      *testing.T
	socket string
	config string
	files  int // that the keeper may have open; 0: no limit of ours

	txlb, keeping *process
}

func newKeptPair(t *testing.T, hosts string) *keptPair {
	t.Helper()
	return newKeptServices(t, `<service name="s"><listen ip="127.0.0.1:0"/><group name="g" enable="yes">`+hosts+`</group></service>`)
}

func newKeptServices(t *testing.T, services string) *keptPair {
	t.Helper()
	k := &keptPair{t: t, socket: filepath.Join(t.TempDir(), "k")}
	k.config = write(t, `<config><engine keeper="yes" loops="2"/><admin><metrics listen="127.0.0.1:0"/></admin>`+services+`</config>`)
	k.keeping = k.keeper()
	k.start()
	return k
}

func (k *keptPair) command(args ...string) *process {
	k.t.Helper()
	path, err := binary()
	if err != nil {
		k.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	if args[0] == "keeper" && k.files > 0 {
		cmd = exec.Command("sh", append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(k.files), path}, args...)...)
	}
	cmd.Env = append(os.Environ(), "TXLB_KEEPER="+k.socket)
	p := start(k.t, cmd)
	p.expect("msg=ready")
	return p
}

func (k *keptPair) keeper() *process { k.t.Helper(); return k.command("keeper") }
func (k *keptPair) start()           { k.t.Helper(); k.txlb = k.command("run", "-c", k.config) }

func (k *keptPair) dial() *net.TCPConn {
	k.t.Helper()
	conn, err := net.DialTimeout("tcp", k.txlb.addr("s", 0), patience)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

func (k *keptPair) metric(name string) int {
	k.t.Helper()
	return int(metric(k.t, k.txlb.expect(`part=metrics addr=(\S+)`), name))
}

// crash kills txlb and starts another one.
func (k *keptPair) crash() { k.t.Helper(); k.crashBy(syscall.SIGKILL) }

func (k *keptPair) crashBy(signal syscall.Signal) {
	k.t.Helper()
	k.txlb.signal(signal)
	k.crashed(signal)
	k.start()
}

// crashed waits until a signal has ended txlb.
func (k *keptPair) crashed(by syscall.Signal) {
	k.t.Helper()
	k.txlb.wait()
	if status, _ := k.txlb.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != by {
		k.t.Fatalf("txlb ended with %v, want %v", k.txlb.cmd.ProcessState, by)
	}
}

// checker is a server that sends back what it gets: streams that say how long they are, in their
// first 8 bytes, and end there. It tells of those that end early without a reset, and of bytes
// that are not those.
type checker struct {
	ln    net.Listener
	proxy bool // a PROXY header of version 2 comes first
	mu    sync.Mutex
	wrong []string
	whole atomic.Int64
	reset atomic.Int64
}

func newChecker(t *testing.T, proxy bool) *checker {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	c := &checker{ln: ln, proxy: proxy}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go c.serve(conn.(*net.TCPConn))
		}
	}()
	return c
}

func (c *checker) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *checker) serve(conn *net.TCPConn) {
	defer func() { _ = conn.Close() }()
	if c.proxy {
		const header = 28 // of version 2 for IPv4
		if n, err := io.ReadFull(conn, make([]byte, header)); err != nil {
			if err == io.ErrUnexpectedEOF {
				c.fail("an end after %d bytes of the header", n)
			}
			return
		}
	}
	c.check("server", conn, func(b []byte) error { _, err := conn.Write(b); return err }, func() error { return nil })
	_ = conn.CloseWrite()
}

// check reads a stream and gives it to each. failed returns the error of who writes to the same
// socket meanwhile. The kernel tells of a reset once: if that one has taken it, a read finds an
// end. ECONNRESET is its name only if no end came before.
func (c *checker) check(who string, conn io.Reader, each func([]byte) error, failed func() error) (whole bool) {
	var head [8]byte
	n, err := io.ReadFull(conn, head[:])
	if n == 0 && err == io.EOF { // a session that said nothing
		return true
	}
	if err != nil {
		if err == io.ErrUnexpectedEOF {
			c.fail("%s: an end after %d bytes of the head", who, n)
		}
		return false
	}
	_ = each(head[:])
	size := numbers.BigEndian.Uint64(head[:])
	buf, want := make([]byte, 32<<10), make([]byte, 32<<10)
	for at := uint64(0); ; {
		n, err := conn.Read(buf)
		patternOf(want[:n], at, size)
		if string(want[:n]) != string(buf[:n]) {
			c.fail("%s: wrong bytes after %d of %d", who, at, size)
			return false
		}
		if n > 0 {
			if at += uint64(n); each(buf[:n]) != nil {
				_, _ = io.Copy(io.Discard, conn)
				c.reset.Add(1)
				return false
			}
		}
		switch {
		case err == io.EOF && at == size:
			c.whole.Add(1)
			return true
		case err == io.EOF && errors.Is(failed(), syscall.ECONNRESET):
			c.reset.Add(1)
			return false
		case err == io.EOF:
			c.fail("%s: a false end after %d of %d", who, at, size)
			return false
		case errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
			c.reset.Add(1)
			return false
		case err != nil:
			c.fail("%s: after %d of %d: %v", who, at, size, err)
			return false
		}
	}
}

// patternOf fills b with the bytes of a stream from a place on.
func patternOf(b []byte, at, seed uint64) {
	for i := range b {
		x := ((at+uint64(i))/8 + seed) * 0x9E3779B97F4A7C15
		x ^= x >> 29
		b[i] = byte(x >> (8 * ((at + uint64(i)) % 8)))
	}
}

// stream sends a stream of a size and checks what comes back. more is called before each write.
func (c *checker) stream(conn *net.TCPConn, size uint64, more func()) {
	written := make(chan error, 1)
	write := func() error {
		buf := make([]byte, 24<<10)
		if _, err := conn.Write(numbers.BigEndian.AppendUint64(nil, size)); err != nil {
			return err
		}
		for at := uint64(0); at < size; {
			more()
			n := min(1+rand.Uint64N(uint64(len(buf))), size-at)
			patternOf(buf[:n], at, size)
			if _, err := conn.Write(buf[:n]); err != nil {
				return err
			}
			at += n
		}
		return conn.CloseWrite()
	}
	go func() { written <- write() }()
	c.check("client", conn, func([]byte) error { return nil }, func() error { return <-written })
}

func (c *checker) report(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.wrong[:min(len(c.wrong), 10)] {
		t.Error(one)
	}
}

func rounds(t *testing.T, usual int) int {
	if n, err := strconv.Atoi(os.Getenv("TXLB_ROUNDS")); err == nil {
		return n
	}
	if testing.Short() {
		return 1
	}
	return usual
}

// Sessions with streams under way, at many moments of a kill: each goes on exactly, or is reset
// on both sides.
func TestB105KeeperUnderLoad(t *testing.T) {
	for _, proxy := range []string{"off", "v2"} {
		t.Run("proxy "+proxy, func(t *testing.T) {
			t.Parallel()
			c := newChecker(t, proxy != "off")
			k := newKeptPair(t, `<host name="h" ip="`+c.ln.Addr().String()+`" proxyProtocol="`+proxy+`"/>`)
			for range rounds(t, 4) {
				var sessions sync.WaitGroup
				for i := range 40 {
					conn := k.dial()
					size := rand.Uint64N(1 << (10 + i%14))
					slow := i%4 == 0
					sessions.Go(func() {
						c.stream(conn, size, func() {
							if slow {
								time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
							}
						})
						_ = conn.Close()
					})
				}
				time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // any moment will do
				k.crash()
				sessions.Wait()
			}
			c.report(t)
			t.Logf("whole %d, reset %d", c.whole.Load(), c.reset.Load())
		})
	}
}

// Sessions that are silent outlive one crash after the other.
func TestB105KeeperIdle(t *testing.T) {
	t.Parallel()
	c := newChecker(t, false)
	k := newKeptPair(t, `<host name="h" ip="`+c.ln.Addr().String()+`"/>`)
	const size = 3
	var idle []*net.TCPConn
	for i := range 60 {
		conn := k.dial()
		idle = append(idle, conn)
		if i%3 > 0 { // the others have said nothing at all
			if _, err := conn.Write(numbers.BigEndian.AppendUint64(nil, size)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		kept(t, k, len(idle))
		k.crash()
	}
	for i, conn := range idle {
		_ = conn.SetDeadline(time.Now().Add(patience))
		if i%3 == 0 {
			c.stream(conn, size, func() {})
			continue
		}
		rest := make([]byte, size)
		patternOf(rest, 0, size)
		if _, err := conn.Write(rest); err != nil {
			t.Fatal(i, err)
		}
		_ = conn.CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != string(rest) {
			t.Fatal(i, got, err)
		}
	}
	c.report(t)
	if n := c.reset.Load(); n > 0 {
		t.Errorf("%d of the sessions were reset", n)
	}
}

// kept waits until so many sessions are kept.
func kept(t *testing.T, k *keptPair, n int) {
	t.Helper()
	eventually(t, "the sessions are kept", func() bool { return k.metric("txlb_keeper_sessions") == n })
}

// Without a keeper, and with one that does not answer, clients are served; when it is back, it is
// given all sessions.
func TestKeeperFails(t *testing.T) {
	t.Parallel()
	c := newChecker(t, false)
	k := newKeptPair(t, `<host name="h" ip="`+c.ln.Addr().String()+`"/>`)
	before := k.dial()
	kept(t, k, 1)

	k.keeping.signal(syscall.SIGSTOP)
	during := k.dial()
	eventually(t, "txlb knows that the keeper does not answer", func() bool { return k.metric(`txlb_facility{name="session_keeper"}`) == 0 })
	served := k.dial()
	c.stream(served, 100_000, func() {})
	_ = served.Close()
	k.keeping.signal(syscall.SIGCONT)
	kept(t, k, 2)

	k.keeping.signal(syscall.SIGKILL)
	<-k.keeping.done
	eventually(t, "txlb knows that there is no keeper", func() bool { return k.metric(`txlb_facility{name="session_keeper"}`) == 0 })
	after := k.dial()
	k.keeping = k.keeper()
	kept(t, k, 3)
	k.crash()
	for _, conn := range []*net.TCPConn{before, during, after} {
		c.stream(conn, 100_000, func() {})
	}
	c.report(t)
	if whole, reset := c.whole.Load(), c.reset.Load(); whole != 2*4 || reset != 0 {
		t.Errorf("%d streams were whole, %d reset", whole, reset)
	}
}

// A keeper that is full has as many sessions as it can, and these go on after each crash: what it
// has of the process before leaves no room for them at first.
func TestKeeperIsFull(t *testing.T) {
	t.Parallel()
	k := newKeptPair(t, `<host name="h" ip="`+backend(t, echo)+`"/>`)
	k.keeping.signal(syscall.SIGKILL)
	<-k.keeping.done
	const most = 100
	k.files = keeper.FilesFor(most)
	k.keeping = k.keeper()
	conns := map[*net.TCPConn]bool{}
	for range 3 * most {
		c := k.dial()
		if err := ask(c, "hello"); err != nil {
			t.Fatal(err)
		}
		conns[c] = true
	}
	for range 2 {
		kept(t, k, most)
		if k.metric(`txlb_facility{name="session_keeper"}`) != 1 {
			t.Error("a keeper that is full does not answer")
		}
		k.crash()
		for c := range conns {
			if err := ask(c, "again"); errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
				delete(conns, c)
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if len(conns) != most {
			t.Fatalf("%d sessions go on, want %d", len(conns), most)
		}
	}
}

// psql is a session of psql that has a temporary table and a prepared statement: a new session
// would have neither.
type psql struct {
	in     io.WriteCloser
	out    *os.File
	lines  *bufio.Reader
	number int
}

func newPsql(t *testing.T, addr string, number int) *psql {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(servers.InPostgreSQL("psql"), "-X", "-A", "-t", "-q", "-w", "-h", host, "-p", port, "-U", "tester", "postgres")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said testkit.Log
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && said.String() != "" {
			t.Logf("psql %d said: %s", number, &said)
		}
	})
	p := &psql{in, out.(*os.File), bufio.NewReader(out), number}
	if _, err := fmt.Fprintf(in, "create temporary table mine as select %d as number; prepare ask(int) as select number + $1 from mine;\n", number); err != nil {
		t.Fatal(err)
	}
	return p
}

// ask executes the prepared statement.
func (p *psql) ask() error {
	if _, err := fmt.Fprintln(p.in, "execute ask(1000);"); err != nil {
		return err
	}
	_ = p.out.SetReadDeadline(time.Now().Add(patience))
	line, err := p.lines.ReadString('\n')
	if want := strconv.Itoa(1000 + p.number); strings.TrimSpace(line) != want {
		return fmt.Errorf("psql %d: %q instead of %s: %w", p.number, line, want, err)
	}
	return nil
}

// 50 sessions of psql and 5,000 that are idle answer through the next process, after kill -9 and
// after a crash of the Go runtime, and are kept again.
func TestB105KeeperPsqlAndThousandsIdle(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, servers.Initdb)
	const queries, idle = 50, 5000
	dir, as := servers.Apart(t)
	at := listenFree(t)
	_ = at.Close()
	db, err := servers.New(dir, "db", at.Addr().String(), as)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.PostgreSQL(t.Context(), "tester", ""); err != nil {
		t.Fatal(err)
	}
	db.RunFor(t)
	service := `<service name=%q><listen ip="127.0.0.1:0"/><group name="g"><host name="h" ip=%q/></group></service>`
	k := newKeptServices(t, fmt.Sprintf(service, "s", backend(t, echo))+fmt.Sprintf(service, "db", db.Addr))

	var sessions []*psql
	for i := range queries {
		sessions = append(sessions, newPsql(t, k.txlb.addr("db", 0), i))
	}
	addr := k.txlb.addr("s", 0)
	conns := make([]net.Conn, idle)
	for i := range conns {
		if conns[i], err = net.DialTimeout("tcp", addr, patience); err != nil {
			t.Fatal(i, err)
		}
		defer func() { _ = conns[i].Close() }()
	}
	answer := func() {
		t.Helper()
		for _, p := range sessions {
			if err := p.ask(); err != nil {
				t.Fatal(err)
			}
		}
		for i, c := range conns {
			if err := ask(c, strconv.Itoa(i)); err != nil {
				t.Fatalf("idle session %d: %v", i, err)
			}
		}
	}
	answer()
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGABRT} {
		kept(t, k, queries+idle)
		began := time.Now()
		k.txlb.signal(signal)
		k.crashed(signal)
		ended := time.Since(began)
		k.start()
		ready := time.Since(began)
		answer()
		t.Logf("%v: it had ended after %v, the next was ready after %v, and all had answered after %v",
			signal, ended.Round(time.Millisecond), ready.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if revived, cut := k.metric("txlb_keeper_revived_total"), k.metric("txlb_keeper_cut_total"); revived != queries+idle || cut != 0 {
			t.Errorf("%v: %d sessions went on, %d did not", signal, revived, cut)
		}
	}
}

// Sessions go on where the OOM killer has ended txlb.
func TestB105KeeperOutOfMemory(t *testing.T) {
	t.Parallel()
	const idle = 20
	group := newMemoryGroup(t, 64<<20)
	k := newKeptPair(t, `<host name="h" ip="`+backend(t, echo)+`"/>`)
	var conns []net.Conn
	for range idle {
		c := k.dial()
		if err := ask(c, "hello"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	kept(t, k, idle)
	// Another process of the group needs more than there is; txlb is to be killed first.
	pid := strconv.Itoa(k.txlb.cmd.Process.Pid)
	group.put("/proc/"+pid+"/oom_score_adj", "1000")
	group.put(group.dir+"/cgroup.procs", pid)
	greedy := exec.Command("sh", "-c", `echo $$ > "$0" && exec dd if=/dev/zero of=/dev/null bs=256M count=1`, group.dir+"/cgroup.procs")
	out, err := greedy.CombinedOutput()
	select {
	case <-k.txlb.done:
	case <-time.After(patience):
		t.Skipf("the kernel kills nobody: %v %s", err, out)
	}
	k.crashed(syscall.SIGKILL)
	if n := group.kills(); n == 0 {
		t.Error("it was not the OOM killer")
	}
	k.start()
	for i, c := range conns {
		if err := ask(c, strconv.Itoa(i)); err != nil {
			t.Errorf("session %d: %v", i, err)
		}
	}
}

// memoryGroup is a control group with a limit of memory.
type memoryGroup struct {
	t      *testing.T
	dir    string
	events string // the file that counts kills
}

// newMemoryGroup skips the test where there can be none.
func newMemoryGroup(t *testing.T, limit int) *memoryGroup {
	t.Helper()
	g := &memoryGroup{t: t}
	parent, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	g.events = "memory.oom_control"
	if _, err := os.Stat(parent + "/cgroup.procs"); err != nil { // version 2
		parent, file, g.events = "/sys/fs/cgroup", "memory.max", "memory.events"
	}
	dir, err := os.MkdirTemp(parent, "txlb-test-")
	if err != nil {
		t.Skipf("no control group can be made: %v", err)
	}
	g.dir = dir
	t.Cleanup(func() { eventually(t, "the control group is removed", func() bool { return os.Remove(dir) == nil }) })
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Skipf("memory cannot be limited: %v", err)
	}
	return g
}

func (g *memoryGroup) put(path, text string) {
	g.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		g.t.Skipf("no process can be put into a control group: %v", err) // as when none can be made
	}
}

// kills returns how many processes the kernel has killed for want of memory.
func (g *memoryGroup) kills() int {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, g.events))
	if err != nil {
		g.t.Skipf("no process can be put into a control group: %v", err) // as when none can be made
	}
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(count))
			return n
		}
	}
	return 0
}
