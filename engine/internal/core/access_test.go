package core

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/sched"
)

// A client that is denied gets no host. One that has been given a host stays in, and
// one without an address is not asked about.
func TestB89DeniedClientsReachNoHost(t *testing.T) {
	foe := netip.MustParseAddr("192.0.2.1")
	host := sched.NewHost("a", sched.TCPAddr(netip.MustParseAddrPort("10.0.0.1:80")))
	other := sched.NewHost("b", sched.TCPAddr(netip.MustParseAddrPort("10.0.0.2:80")))
	table, err := sched.NewTable(sched.Policy{Scheduler: "roundr"}, []sched.Member{{Host: host, Weight: 1}, {Host: other, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	svc := newService("web", 1)
	denying := true
	route := &engine.Route{
		Table: table, Timeouts: engine.Timeouts{Connect: time.Second, Total: time.Minute},
		Denied: func(a netip.Addr) bool { return denying && a == foe },
	}
	svc.Route.Store(route)
	gate := Gate{Report: func(engine.Failure) {}}
	begin := func(from string) *Admission {
		var addr sched.Addr
		if from != "" {
			addr = sched.TCPAddr(netip.MustParseAddrPort(from))
		}
		a := new(Admission)
		a.Begin(&gate, newEntry(svc, engine.ListenOptions{}), new(Attempt), addr, 1)
		return a
	}
	a := begin("192.0.2.1:5000")
	if step := a.Next(1); step.Do != Refuse || step.Why != AccessDenied || a.Host != nil || step.Why.Termination().String() != "PR" {
		t.Errorf("a denied client: %+v, host %v", step, a.Host)
	}
	a.End(2, AccessDenied.Termination(), Last{})
	for _, from := range []string{"192.0.2.2:5000", ""} {
		b := begin(from)
		if step := b.Next(1); step.Do != Connect {
			t.Errorf("a client from %q: %+v", from, step)
		}
		b.End(2, Normal, Last{})
	}
	denying = false
	c := begin("192.0.2.1:5001")
	c.Next(1)
	denying = true
	c.Answered(1, syscall.ECONNREFUSED)
	if step := c.Next(1); step.Do != Connect {
		t.Errorf("a client that was let in before: %+v", step)
	}
	c.End(2, Normal, Last{})
	if s := svc.stats(); s.Refused["access"] != 1 || s.Ended["PR"] != 1 || s.Sessions != 4 || s.Active != 0 {
		t.Errorf("counted: %+v", s)
	}
}

// Where a PROXY header says who the client is, rules are about that address, and not
// about the proxy's.
func TestB89RulesAreAboutTheClientOfTheHeader(t *testing.T) {
	foe := netip.MustParseAddr("192.0.2.1")
	table, err := sched.NewTable(sched.Policy{Scheduler: "roundr"}, []sched.Member{{Host: sched.NewHost("a", sched.TCPAddr(netip.MustParseAddrPort("10.0.0.1:80"))), Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	svc := newService("web", 1)
	svc.Route.Store(&engine.Route{
		Table: table, Timeouts: engine.Timeouts{Connect: time.Second, Total: time.Minute, Hello: time.Second},
		Denied: func(a netip.Addr) bool { return a == foe },
	})
	entry := newEntry(svc, engine.ListenOptions{Proxy: engine.ProxyRequire})
	gate := Gate{Report: func(engine.Failure) {}}
	for _, c := range []struct {
		proxy, client string
		want          Action
	}{{"10.1.1.1:1", "192.0.2.1:5000", Refuse}, {"192.0.2.1:1", "192.0.2.2:5000", Connect}} {
		var a Admission
		var free Attempts
		a.Begin(&gate, entry, free.Get(), sched.TCPAddr(netip.MustParseAddrPort(c.proxy)), 1)
		if step := a.Next(1); step.Do != Hear {
			t.Fatalf("%+v: %+v before the header", c, step)
		}
		header := proxyproto.Append(nil, proxyproto.V1, netip.MustParseAddrPort(c.client), netip.MustParseAddrPort("192.0.2.9:80"))
		if _, step := a.Heard(1, header, false, &free); step.Do != c.want {
			t.Errorf("a client at %s behind the proxy %s: %+v", c.client, c.proxy, step)
		}
		a.End(2, Normal, Last{})
	}
}
