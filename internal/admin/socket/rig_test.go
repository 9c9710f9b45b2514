//go:build unix

package socket

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	balancer "github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = testkit.Patience

var eventually = testkit.Eventually

// rig is a Server on a socket, over a real engine and director.
type rig struct {
	t      testing.TB
	server *Server
	eng    engine.Engine
	dir    *director.Director
	log    *testkit.Log
	path   string // of the socket
	web    string // address of service web
	stop   func() // ends everything; the end of the test does too
}

// newRig starts everything over a configuration. change edits the options.
func newRig(t testing.TB, doc string, change ...func(*Options)) *rig {
	t.Helper()
	return newBoundedRig(t, guard.LimitsFor(guard.Socket, 0).Conns, doc, change...)
}

// newBoundedRig is newRig with so many connections at once.
func newBoundedRig(t testing.TB, conns int, doc string, change ...func(*Options)) *rig {
	t.Helper()
	run := balancer.Start(t, doc)
	r := &rig{t: t, eng: run.Engine, dir: run.Director, log: run.Log, web: run.Addr("web"), path: filepath.Join(folder(t), "admin.sock")}
	source := &status.Source{
		Director: r.dir, Engine: r.eng, Version: "9.9", Started: time.Now(), SessionsLimit: 1000, FDLimit: 4000,
	}
	adm := admin.New(admin.Options{Director: r.dir, Engine: r.eng, Status: source, Log: run.Logger, Version: "9.9"})
	opt := Options{Admin: adm, Director: r.dir, Engine: r.eng, Status: source, Log: run.Logger, PipesLimit: 200}
	for _, c := range change {
		c(&opt)
	}
	r.server = New(opt)
	g := guard.New(guard.Options{Log: run.Logger, Change: func(_ guard.Kind, l *guard.Limits) { l.Conns, l.AtWork = conns, 0 }})
	ln, err := Listen(r.path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(ctx, g.Listen(guard.Socket, ln, nil)) }()
	var sampling sync.WaitGroup
	sampling.Go(func() { source.Run(ctx) })
	r.stop = sync.OnceFunc(func() {
		leave()
		sampling.Wait()
		if err := <-served; err != nil {
			t.Error(err)
		}
		run.Stop()
	})
	t.Cleanup(r.stop)
	return r
}

// folder returns a new folder with a short path, as sockets need.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// peer is a raw connection to the socket.
type peer struct {
	t testing.TB
	*net.UnixConn
	in *bufio.Reader
}

func (r *rig) dial() *peer {
	r.t.Helper()
	c, err := net.Dial("unix", r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &peer{r.t, c.(*net.UnixConn), bufio.NewReader(c)}
}

func (p *peer) say(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p, text); err != nil {
		p.t.Fatal(err)
	}
}

// rest reads until the end of the connection.
func (p *peer) rest() string {
	p.t.Helper()
	all, err := io.ReadAll(p.in)
	if err != nil {
		p.t.Fatalf("after %q: %v", all, err)
	}
	return string(all)
}

// until reads until the prompt.
func (p *peer) until(end string) string {
	p.t.Helper()
	var text strings.Builder
	for !strings.HasSuffix(text.String(), end) {
		b, err := p.in.ReadByte()
		if err != nil {
			p.t.Fatalf("after %q: %v", text.String(), err)
		}
		text.WriteByte(b)
	}
	return text.String()
}

// raw gives one line on a connection of its own and returns all that comes.
func (r *rig) raw(line string) string {
	r.t.Helper()
	p := r.dial()
	defer func() { _ = p.Close() }()
	p.say(line + "\n")
	return p.rest()
}

// ask is raw without the empty line at the end, which has to be there.
func (r *rig) ask(line string) string {
	r.t.Helper()
	text := r.raw(line)
	body, ok := strings.CutSuffix(text, "\n")
	if !ok || body != "" && !strings.HasSuffix(body, "\n") {
		r.t.Errorf("%s: the answer does not end with an empty line: %q", line, text)
	}
	return body
}

// client is a Client for the time of the test.
func (r *rig) client() *Client {
	r.t.Helper()
	c, err := Dial(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// do gives a line that must succeed.
func (r *rig) do(c *Client, line string) Answer {
	r.t.Helper()
	a, err := c.Do(r.t.Context(), line)
	if err == nil {
		err = a.Err()
	}
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	return a
}

// host returns what runs of a host.
func (r *rig) host(service, group, name string) *director.Host {
	r.t.Helper()
	for _, s := range r.dir.State().Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if s.Config.Name == service && g.Config.Name == group && h.Config.Name == name {
					return h
				}
			}
		}
	}
	r.t.Fatalf("unknown host %s in group %s of service %s", name, group, service)
	return nil
}

// changes returns the events that are changes.
func (r *rig) changes() []director.Event {
	return slices.DeleteFunc(r.dir.Events(), func(e director.Event) bool { return e.Kind != director.ConfigEvent })
}

// backendServer returns the address of a server that sends back what it gets. It
// ends with the test.
func backendServer(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) // without a pipe, which would stay
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Wait()
	})
	return ln.Addr().String()
}

var nobody = testkit.Nobody

// visit opens a session that has moved five bytes each way.
func (r *rig) visit() net.Conn {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.web, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "hello"); err != nil {
		r.t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// into reads the data of an answer.
func into[T any](t testing.TB, a Answer) (v T) {
	t.Helper()
	if err := json.Unmarshal(a.Data, &v); err != nil {
		t.Fatalf("%s: %v", a.Data, err)
	}
	return v
}

// doc has service web with the groups main (a, b) and spare.one (c, a backup),
// whose hosts are checked.
func doc(a, b, c string) string {
	return fmt.Sprintf(`<config>
	<service name="web"><listen ip="127.0.0.1:0"/>
		<group name="main" scheduler="roundr" enable="yes"><host name="a" ip="%s"/><host name="b" ip="%s" weight="4"/></group>
		<group name="spare.one"><check type="tcp" interval="200ms"/><host name="c" ip="%s"/><host name="d" ip="%s" backup="yes"/></group>
	</service>
	<service name="mail"><listen ip="127.0.0.1:0"/><group name="only"><host name="m" ip="%s"/></group></service>
	<admin><user name="admin" password="$6$salt$secrethash" access="full"/></admin>
	<manager><hostCheck interval="1" enable="yes"/></manager>
	</config>`, a, b, c, a, c)
}
