package engine_test

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestKeepAliveAsTheKernelIsTold(t *testing.T) {
	for alive, want := range map[time.Duration]net.KeepAliveConfig{
		0:                       {Enable: false, Idle: time.Second, Interval: time.Second, Count: 4},
		time.Second:             {Enable: true, Idle: time.Second, Interval: time.Second, Count: 4},
		1500 * time.Millisecond: {Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 4},
		time.Minute:             {Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4},
		9 * time.Hour:           {Enable: true, Idle: 9 * time.Hour, Interval: 2*time.Hour + 15*time.Minute, Count: 4},
	} {
		if got := (core.Kept{Alive: alive}).KeepAlive(); got != want {
			t.Errorf("%v: %+v, want %+v", alive, got, want)
		}
	}
}

// Connections to a host come from its source address, IPv4 and IPv6, also when the
// source is changed while the host serves.
func TestSourceOfConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		tell := func(p *enginetest.Peer) {
			host, _, _ := net.SplitHostPort(p.RemoteAddr().String())
			p.Send([]byte(host))
		}
		for _, c := range []struct{ listen, source, other string }{
			{"127.0.0.1:0", "127.0.0.7", "127.1.2.3"},
			{"[::1]:0", "::1", "::1"},
		} {
			ln, err := net.Listen("tcp", c.listen)
			if err != nil {
				t.Skip(err)
			}
			r := newRig(t, opt, engine.Route{}, enginetest.ServeOn(t, ln, tell))
			for _, source := range []string{c.source, c.other} {
				r.Hosts[0].SetSource(sched.Source{Addr: netip.MustParseAddr(source)})
				if got := string(r.Dial().Rest()); got != source {
					t.Errorf("the connection came from %s, want %s", got, source)
				}
			}
			r.Hosts[0].SetSource(sched.Source{})
			if got := string(r.Dial().Rest()); got != "127.0.0.1" && got != "::1" {
				t.Errorf("without a source the connection came from %s", got)
			}
		}
	})
}

// A source that this machine does not have, or of another family, is a fault of
// that host alone, which the report names; so the next host serves.
func TestSourceThatIsNotThere(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		for source, reason := range map[string]string{
			"192.0.2.77": "source 192.0.2.77 is not an address of this machine", "2001:db8::1": "from 2001:db8::1: ",
		} {
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, answer("a")), enginetest.BackendServer(t, answer("b")))
			r.Hosts[0].SetSource(sched.Source{Addr: netip.MustParseAddr(source)})
			for range 2 {
				if got := r.Ask(); got != "b" {
					t.Errorf("%s: the answer is %q", source, got)
				}
			}
			if r.Hosts[0].Up() || !r.Hosts[1].Up() {
				t.Errorf("%s: hosts are up: %v, %v", source, r.Hosts[0].Up(), r.Hosts[1].Up())
			}
			select {
			case f := <-r.E.Failures():
				if f.Host != r.Hosts[0] || !strings.Contains(f.Err.Error(), reason) {
					t.Errorf("%s: reported %v", source, f.Err)
				}
			case <-time.After(testkit.Patience):
				t.Errorf("%s: nothing was reported", source)
			}
		}
	})
}

// With freeBind a listener opens on an address that no interface has.
func TestFreeBind(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, answer("a")))
		for _, address := range []string{"192.0.2.77:0", "[2001:db8::77]:0"} {
			with := func(o engine.ListenOptions) engine.Service {
				return engine.Service{Name: "free", Listen: []string{address}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{address: o}}
			}
			web := engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route}
			if err := r.E.Apply(engine.Plan{Services: []engine.Service{web, with(engine.ListenOptions{})}}); err == nil {
				t.Errorf("%s was bound without freeBind", address)
			}
			if err := r.E.Apply(engine.Plan{Services: []engine.Service{web, with(engine.ListenOptions{FreeBind: true})}}); err != nil {
				t.Errorf("with freeBind: %v", err)
			}
			r.Apply(web)
		}
	})
}

// UNIX sockets on both sides take no harm from options that only TCP has.
func TestKeptTimeoutsOfUNIXSockets(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		dir := t.TempDir()
		times := enginetest.TestTimeouts
		times.Unacked, times.KeepAlive = time.Second, time.Second
		r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.ServeOn(t, enginetest.ListenOn(t, "unix", filepath.Join(dir, "b")), enginetest.Echo))
		r.Hosts[0].SetSource(sched.Source{Addr: netip.MustParseAddr("127.0.0.1")})
		front := "unix:" + filepath.Join(dir, "f")
		r.Apply(engine.Service{Name: "web", Listen: []string{front}, Route: r.Route})
		c := enginetest.Dial(t, front)
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		route := *r.Route
		route.Timeouts.Unacked, route.Timeouts.KeepAlive = 0, 0
		r.Apply(engine.Service{Name: "web", Listen: []string{front}, Route: &route})
		c.Send([]byte("y"))
		c.Expect([]byte("y"))
	})
}
