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
