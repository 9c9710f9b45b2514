package status

import (
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/txlb/txlb/engine"
)

// A listener with freeBind is on standby while no interface has its address.
func TestStandby(t *testing.T) {
	s := state(t, `<service name="web">
		<listen ip="192.0.2.1:80" freeBind="yes"/><listen ip="192.0.2.2:80" freeBind="yes"/><listen ip="192.0.2.3:80"/>
		<listen ip="[2001:db8::1]:80" freeBind="yes"/><listen ip="*:81" freeBind="yes"/><listen ip="127.0.0.9:82" freeBind="yes"/>
		<group name="g"/></service>`)
	var listeners []engine.Listener
	for _, a := range []string{"192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "[2001:db8::1]:80", "*:81", "127.0.0.9:82"} {
		addr := a
		if a == "*:81" {
			addr = "[::]:81"
		}
		listeners = append(listeners, engine.Listener{Service: "web", Listen: a, Addr: addr})
	}
	prefix := func(s string) net.Addr {
		ip, n, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		return &net.IPNet{IP: ip, Mask: n.Mask}
	}
	has := []net.Addr{prefix("127.0.0.1/8"), prefix("192.0.2.2/24"), prefix("2001:db8::2/64")}
	f := Facts{State: s, Listeners: listeners}
	f.Movable = movable(s.Config, listeners, func() ([]net.Addr, error) { return has, nil })
	if want := []string{"192.0.2.1:80", "[2001:db8::1]:80"}; !slices.Equal(Read(f).Services[0].Standby, want) || len(f.Movable) != 5 {
		t.Errorf("standby: %v of %v", Read(f).Services[0].Standby, f.Movable)
	}
	has = append(has, prefix("192.0.2.1/32"))
	f.Movable = movable(s.Config, listeners, func() ([]net.Addr, error) { return has, nil })
	if want := []string{"[2001:db8::1]:80"}; !slices.Equal(Read(f).Services[0].Standby, want) {
		t.Errorf("with the address: %v", Read(f).Services[0].Standby)
	}
	f.Movable = movable(s.Config, listeners, func() ([]net.Addr, error) { return nil, errors.New("unknown") })
	if list := Read(f).Services[0].Standby; len(list) > 0 {
		t.Errorf("without knowledge: %v", list)
	}
	if list := movable(s.Config, listeners[2:3], func() ([]net.Addr, error) {
		t.Error("addresses are looked up for nothing")
		return nil, nil
	}); list != nil {
		t.Errorf("without freeBind: %v", list)
	}
}
