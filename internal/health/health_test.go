package health

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func parse(t testing.TB, s string) sched.Addr {
	t.Helper()
	a, err := sched.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ways are the two ways to make a TCP probe.
var ways = map[string]func(context.Context, Probe) Result{
	"Run": Run,
	"Connect": func(ctx context.Context, p Probe) (r Result) {
		Connect(ctx, []Probe{p}, func(_ int, got Result) { r = got })
		return r
	},
}

func TestTCP(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for way, probe := range ways {
		for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": path} {
			t.Run(way+" "+network, func(t *testing.T) {
				ln, err := net.Listen(network, address)
				if err != nil {
					t.Fatal(err)
				}
				addr := ln.Addr().String()
				if network == "unix" {
					addr = "unix:" + addr
				}
				p := Probe{Addr: parse(t, addr), Timeout: testkit.Patience}
				if r := probe(t.Context(), p); r.Code != L4OK || r.Took <= 0 || r.Took > testkit.Patience {
					t.Errorf("open: %v after %v", r, r.Took)
				}
				_ = ln.Close()
				if r := probe(t.Context(), p); r.Code != L4Con || r.OK() || !r.Tells() || r.Text == "" || strings.Contains(r.Text, addr) {
					t.Errorf("closed: %v", r)
				}
			})
		}
	}
}

func TestCodesHaveHAProxysNames(t *testing.T) {
	for c := range Codes {
		if s := Code(c).String(); s == "" || strings.ToUpper(s) != s {
			t.Errorf("code %d is %q", c, s)
		}
	}
	if got := (Result{Code: L7Sts, Text: "503 Service Unavailable"}).String(); got != "L7STS: 503 Service Unavailable" {
		t.Error(got)
	}
}

// B66: what has come when the deadline has passed is read all the same, once.
func TestLastLook(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = near.Close() }()
	if _, err := far.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	peeked := make([]byte, 1)
	if _, err := near.Read(peeked); err != nil { // the rest has come with it
		t.Fatal(err)
	}
	_ = near.SetDeadline(time.Unix(1, 0))
	c := &lastLook{Conn: near}
	rest := make([]byte, 10)
	if n, err := c.Read(rest); string(rest[:n]) != "bc" {
		t.Errorf("the last look found %q, %v", rest[:n], err)
	}
	if _, err := c.Read(rest); !timedOut(err) {
		t.Errorf("the look after the last: %v", err)
	}
}

// A probe that has failed tells how late it was.
func TestLateness(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	const timeout = 50 * time.Millisecond
	r := Run(t.Context(), Probe{Addr: parse(t, ln.Addr().String()), Type: Expect, Expect: "x", Timeout: timeout})
	if r.Code != L7Tout || r.Late != max(0, r.Took-timeout) {
		t.Errorf("%v took %v and was %v late", r, r.Took, r.Late)
	}
	_ = ln.Close()
	if r := Run(t.Context(), Probe{Addr: parse(t, ln.Addr().String()), Timeout: testkit.Patience}); r.OK() || r.Late != 0 {
		t.Errorf("%v took %v and was %v late", r, r.Took, r.Late)
	}
}

// A probe comes from its source; one that this machine does not have is told.
func TestSource(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	from := make(chan string, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			from <- host
			_, _ = c.Write([]byte("x"))
			_ = c.Close()
		}
	}()
	p := Probe{Addr: parse(t, ln.Addr().String()), Type: Expect, Expect: "x", Timeout: testkit.Patience, Source: netip.MustParseAddr("127.0.0.5")}
	if r := Run(t.Context(), p); !r.OK() {
		t.Error(r)
	} else if got := <-from; got != "127.0.0.5" {
		t.Errorf("the probe came from %s", got)
	}
	p.Type = TCP
	for way, probe := range ways {
		if r := probe(t.Context(), p); r.Code != L4OK {
			t.Errorf("%s: %v", way, r)
		}
		lost := p
		lost.Source = netip.MustParseAddr("192.0.2.77")
		if r := probe(t.Context(), lost); r.Code != L4Con || !strings.Contains(r.Text, "source 192.0.2.77 is not an address of this machine") {
			t.Errorf("%s: %v", way, r)
		}
	}
}
