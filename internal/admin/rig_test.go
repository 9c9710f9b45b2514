package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	balancer "github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = testkit.Patience

var eventually = testkit.Eventually

// rig is an Admin over a real engine and director.
type rig struct {
	t    testing.TB
	a    *Admin
	eng  engine.Engine
	dir  *director.Director
	log  *testkit.Log
	addr string // of service web
	file string // the configuration's
	stop func() // ends everything; the end of the test does too
}

var (
	boss  = users.Caller{Name: "boss", From: "127.0.0.1:999", Role: users.Full}
	guest = users.Caller{Name: "guest", From: "127.0.0.1:998", Role: users.Readonly}
)

// newRig starts everything over a configuration. change edits the options.
func newRig(t testing.TB, doc string, change ...func(*Options)) *rig {
	t.Helper()
	run := balancer.Start(t, doc)
	r := &rig{t: t, eng: run.Engine, dir: run.Director, log: run.Log, file: run.File, addr: run.Addr("web")}
	opt := Options{Director: r.dir, Engine: r.eng, Log: run.Logger, Version: "test"}
	for _, c := range change {
		c(&opt)
	}
	r.a = New(opt)
	r.stop = sync.OnceFunc(run.Stop)
	t.Cleanup(r.stop)
	return r
}

// do executes a line that must succeed, and returns the text of its answers.
func (r *rig) do(line string) string {
	r.t.Helper()
	results, err := r.a.Run(r.t.Context(), boss, line)
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	var texts []string
	for _, one := range results {
		texts = append(texts, one.Text)
	}
	return strings.Join(texts, "\n")
}

// target returns the first address of a host that runs.
func (r *rig) target(service, group, host string) *sched.Host {
	r.t.Helper()
	h := edits.StateHost(r.dir.State(), service, group, host)
	if len(h.Targets) == 0 {
		r.t.Fatalf("unknown host %s in group %s of service %s", host, group, service)
	}
	return h.Targets[0].Host
}

// refused executes a line that must fail, change nothing, and say all of want
// on one line.
func (r *rig) refused(line string, want ...string) {
	r.t.Helper()
	before := r.dir.State()
	results, err := r.a.Run(r.t.Context(), boss, line)
	switch {
	case err == nil:
		r.t.Errorf("%s: not refused: %v", line, results)
		return
	case r.dir.State() != before:
		r.t.Errorf("%s: the state has changed", line)
	case strings.Contains(err.Error(), "\n"):
		r.t.Errorf("%s: more than a line: %v", line, err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			r.t.Errorf("%s: %q is not in: %v", line, w, err)
		}
	}
}

// backend is a server that answers each line with its name.
type backend struct {
	name, addr string
	listener   net.Listener
	conns      sync.WaitGroup
}

// serve starts a backend. It ends with the test, or with close.
func serve(t testing.TB, name string) *backend {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{name: name, addr: ln.Addr().String(), listener: ln}
	b.conns.Go(b.accept)
	t.Cleanup(b.close)
	return b
}

func (b *backend) accept() {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.conns.Go(func() {
			defer func() { _ = c.Close() }()
			lines := bufio.NewReader(c)
			for {
				if _, err := lines.ReadString('\n'); err != nil {
					return
				}
				if _, err := io.WriteString(c, b.name+"\n"); err != nil {
					return
				}
			}
		})
	}
}

func (b *backend) close() {
	_ = b.listener.Close()
	b.conns.Wait()
}

// client is one connection to the service.
type client struct {
	net.Conn
	lines *bufio.Reader
}

func dial(addr string) (*client, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	return &client{c, bufio.NewReader(c)}, nil
}

// ask returns the name of the host that answers.
func (c *client) ask() (string, error) {
	if _, err := io.WriteString(c, "who\n"); err != nil {
		return "", err
	}
	line, err := c.lines.ReadString('\n')
	return strings.TrimSpace(line), err
}

// dial connects a client whose first question is answered.
func (r *rig) dial() (c *client, host string) {
	r.t.Helper()
	c, err := dial(r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if host, err = c.ask(); err != nil {
		r.t.Fatal(err)
	}
	return c, host
}

// expectGone reads until the session is over.
func (c *client) expectGone(t testing.TB) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if line, err := c.lines.ReadString('\n'); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the session goes on: %q, %v", line, err)
	}
}

// load asks the service without pause until stop, which tells how often that
// went well, and fails the test for each time that it did not.
func (r *rig) load(clients int) (stop func() int64) {
	var asked atomic.Int64
	quit := make(chan struct{})
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				if err := visit(r.addr, 3); err != nil {
					r.t.Errorf("a client failed: %v", err)
					return
				}
				asked.Add(1)
			}
		})
	}
	return func() int64 {
		close(quit)
		running.Wait()
		return asked.Load()
	}
}

// visit connects, asks a few times, and ends cleanly.
func visit(addr string, times int) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for i := range times {
		if _, err := c.ask(); err != nil {
			return fmt.Errorf("question %d: %w", i, err)
		}
	}
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if _, err := c.lines.ReadByte(); err != io.EOF {
		return fmt.Errorf("want the end, got %v", err)
	}
	return nil
}

// doc has service web with a group "main" of hosts a, b and an empty-handed
// group "spare" with host c, and users.
func doc(a, b, c string) string {
	return fmt.Sprintf(`<config>
	<service name="web"><listen ip="127.0.0.1:0"/>
		<group name="main" scheduler="roundr" enable="yes"><host name="a" ip="%s"/><host name="b" ip="%s"/></group>
		<group name="spare"><host name="c" ip="%s"/></group>
	</service>
	<service name="mail"><listen ip="127.0.0.1:0"/><listen ip="127.0.0.1:0"/><access><allow net="*"/></access><route net="192.0.2.0/24" group="only"/><group name="only"><host name="m" ip="%s"/><mirror ip="127.0.0.1:9"/></group></service>
	<admin><user name="admin" password="$6$salt$secrethash" access="full"/><user name="looker" password="$6$salt$otherhash"/></admin>
	</config>`, a, b, c, c)
}
