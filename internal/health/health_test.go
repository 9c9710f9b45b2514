package health

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/leaktest"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

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
				p := Probe{Addr: parse(t, addr), Timeout: 5 * time.Second}
				if r := probe(t.Context(), p); r.Code != L4OK || r.Took <= 0 || r.Took > 5*time.Second {
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

// full returns the address of a listener whose queue is full: it answers no
// SYN, like a host that has gone.
func full(t *testing.T) sched.Addr {
	t.Helper()
	return parse(t, fullListener(t))
}

func TestSilentHost(t *testing.T) {
	addr := full(t)
	for way, probe := range ways {
		for name, p := range map[string]Probe{
			"as a whole": {Addr: addr, Timeout: 100 * time.Millisecond},
			"to connect": {Addr: addr, Timeout: time.Hour, Connect: 100 * time.Millisecond},
		} {
			begun := time.Now()
			r := probe(t.Context(), p)
			if took := time.Since(begun); r.Code != L4Tout || r.Text != "no answer within 100ms" || r.Took < 100*time.Millisecond || took > 5*time.Second {
				t.Errorf("%s, %s: %v after %v (%v)", way, name, r, took, r.Took)
			}
		}
	}
}

// A probe ends with its context, and then says nothing about the host.
func TestProbeEndsWithItsContext(t *testing.T) {
	addr := full(t)
	for way, probe := range ways {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan Result, 1)
		go func() { ended <- probe(ctx, Probe{Addr: addr, Timeout: time.Hour}) }()
		cancel()
		if r := <-ended; r.Tells() || !strings.Contains(r.Text, "given up") {
			t.Errorf("%s: %v", way, r)
		}
	}
}

// The results of a batch are those of its probes, whatever comes first.
func TestConnectTellsProbesApart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	kinds := []struct {
		addr sched.Addr
		want Code
	}{{parse(t, ln.Addr().String()), L4OK}, {parse(t, gone.Addr().String()), L4Con}, {full(t), L4Tout}}
	var probes []Probe
	for i := range 300 { // more than one wait takes in
		probes = append(probes, Probe{Addr: kinds[i%3].addr, Timeout: 200 * time.Millisecond})
	}
	seen := map[int]Code{}
	Connect(t.Context(), probes, func(i int, r Result) {
		if _, twice := seen[i]; twice {
			t.Errorf("probe %d is reported twice", i)
		}
		seen[i] = r.Code
	})
	if len(seen) != len(probes) {
		t.Errorf("%d of %d are reported", len(seen), len(probes))
	}
	for i, got := range seen {
		if want := kinds[i%3].want; got != want {
			t.Errorf("probe %d of %v: %v, want %v", i, probes[i].Addr, got, want)
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
