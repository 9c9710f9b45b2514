package engine_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// addressServer answers with the address that the connection comes from.
func addressServer(p *enginetest.Peer) {
	host, _, _ := net.SplitHostPort(p.RemoteAddr().String())
	p.Send([]byte(host))
	p.Fin()
}

// With source="client" the host sees the client's address, by whatever it was told. What
// cannot be is no fault of the host: the client is rejected for that reason.
func TestB92ClientsAddressIsTheSource(t *testing.T) {
	if err := connect.CanUseClients(); err != nil {
		t.Skip(err)
	}
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, addressServer))
		host := r.Hosts[0]
		host.SetSource(sched.Source{Client: true})
		const plain, headed = "127.0.0.1:0", "127.0.0.2:0"
		services := []engine.Service{
			{Name: "web", Listen: []string{plain}, Route: r.Route, ClientSource: "h0"},
			{Name: "headed", Listen: []string{headed}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{headed: {Proxy: engine.ProxyRequire}}},
		}
		r.Apply(services...)
		addr := map[string]string{}
		for _, l := range r.E.Listeners() {
			addr[l.Service] = l.Addr
		}
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: testkit.Patience}
		c, err := from.Dial("tcp", addr["web"])
		if err != nil {
			t.Fatal(err)
		}
		p := &enginetest.Peer{T: t, Conn: c}
		if got := string(p.Rest()); got != "127.0.0.9" {
			t.Errorf("the host saw %s, want 127.0.0.9", got)
		}
		_ = c.Close()
		for header, want := range map[string]string{
			"PROXY TCP4 127.0.0.77 127.0.0.1 1000 80\r\n": "127.0.0.77",
			"PROXY UNKNOWN\r\n":                           "127.0.0.1", // who connected
			"PROXY TCP6 2001:db8::1 ::1 1000 80\r\n":      "",
		} {
			p := enginetest.Dial(t, addr["headed"])
			p.Send([]byte(header))
			if got := string(p.Rest()); got != want {
				t.Errorf("%q: the host saw %q, want %q", header, got, want)
			}
			_ = p.Close()
		}
		headedStats := func() engine.ServiceStats { return r.E.Snapshot().Services["headed"] }
		testkit.Eventually(t, "all sessions end", func() bool { s := headedStats(); return s.Sessions == 3 && s.Active == 0 })
		if s := headedStats(); s.Refused["source"] != 1 || s.ConnectFailures["local"] != 1 || !host.Up() || s.Ended["RC"] != 1 {
			t.Errorf("of another family: refused %v, failures %v, ended %v, host up %v", s.Refused, s.ConnectFailures, s.Ended, host.Up())
		}
	})
}

// A process that may not use addresses of clients says so, and goes on as it was.
func TestB92ClientSourceNeedsACapability(t *testing.T) {
	if !sandbox.Unprivileged(t) {
		return
	}
	if connect.CanUseClients() == nil {
		t.Skip("this user may use addresses of clients")
	}
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, addressServer))
		err := r.E.Apply(engine.Plan{Services: []engine.Service{{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route, ClientSource: "h0"}}})
		if want := `service "web": host "h0": source="client" needs CAP_NET_ADMIN, which this process does not have`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		ask := func() string {
			c := r.Dial()
			defer func() { _ = c.Close() }()
			return string(c.Rest())
		}
		if got := ask(); got != "127.0.0.1" {
			t.Errorf("afterwards the host saw %q", got)
		}
		// A host that has it all the same takes no client, and is not to blame.
		r.Hosts[0].SetSource(sched.Source{Client: true})
		if got := ask(); got != "" {
			t.Errorf("without the capability the host saw %q", got)
		}
		r.Quiet()
		if s := r.Stats(); s.Refused["source"] != 1 || !r.Hosts[0].Up() {
			t.Errorf("refused %v, host up %v", s.Refused, r.Hosts[0].Up())
		}
	})
}

// Connections to a host go out by its interface; one that is not there is the host's
// fault, as a wrong address is.
func TestB92InterfaceOfConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, addressServer), enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Send([]byte("b")); p.Fin() }))
		r.Hosts[0].SetSource(sched.Source{Interface: "lo", Addr: connectFrom})
		ask := func() string {
			c := r.Dial()
			defer func() { _ = c.Close() }()
			return string(c.Rest())
		}
		for range 2 {
			if got := ask(); got != "127.0.0.8" && got != "b" {
				t.Errorf("the answer is %q", got)
			}
		}
		r.Hosts[0].SetSource(sched.Source{Interface: "none0"})
		for range 2 {
			if got := ask(); got != "b" {
				t.Errorf("the answer is %q", got)
			}
		}
		select {
		case f := <-r.E.Failures():
			if f.Host != r.Hosts[0] || !strings.Contains(f.Err.Error(), `there is no interface "none0"`) {
				t.Errorf("reported %v", f.Err)
			}
		case <-time.After(testkit.Patience):
			t.Error("nothing was reported")
		}
	})
}

var connectFrom = netip.MustParseAddr("127.0.0.8")
