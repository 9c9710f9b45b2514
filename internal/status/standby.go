package status

import (
	"net"
	"net/netip"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
)

// Movable is a listener with freeBind: its address may be on another machine.
type Movable struct {
	Service string
	Listen  string // as configured
	Addr    string // as bound
	Standby bool   // no interface of this machine has the address
}

// movable returns the listeners with freeBind, in the order of listeners. has are the addresses
// of the interfaces; it is called if there are such listeners. If it fails, none is on standby.
func movable(c *config.Config, listeners []engine.Listener, has func() ([]net.Addr, error)) (list []Movable) {
	free := map[[2]string]bool{}
	for i := range c.Services {
		for _, l := range c.Services[i].Listen {
			if l.FreeBind {
				free[[2]string{c.Services[i].Name, l.Address}] = true
			}
		}
	}
	for _, l := range listeners {
		if free[[2]string{l.Service, l.Listen}] {
			list = append(list, Movable{Service: l.Service, Listen: l.Listen, Addr: l.Addr})
		}
	}
	if len(list) == 0 {
		return nil
	}
	addresses, err := has()
	for i := range list {
		at, wrong := netip.ParseAddrPort(list[i].Addr)
		list[i].Standby = err == nil && wrong == nil && !at.Addr().IsUnspecified() && !here(at.Addr().Unmap().WithZone(""), addresses)
	}
	return list
}

// here tells whether an address is one of an interface. All of 127.0.0.0/8 is.
func here(a netip.Addr, addresses []net.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	for _, one := range addresses {
		if p, err := netip.ParsePrefix(one.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}
