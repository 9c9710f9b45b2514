package core

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/txlb/txlb/engine"
)

// ListenKey identifies a listener. Two listeners cannot have the same address,
// except where the kernel chooses the port.
type ListenKey struct {
	Listen  string
	service string // only with port 0
	nth     int    // only with port 0: which of the service's equal ones
}

// Compare orders keys by address, and equal addresses of a service as the plan has them.
func (k ListenKey) Compare(o ListenKey) int {
	return cmp.Or(strings.Compare(k.Listen, o.Listen), strings.Compare(k.service, o.service), cmp.Compare(k.nth, o.nth))
}

// OwnersOf returns the listeners that the plan asks for, each with its service. It
// rejects a plan that names a service or an address twice, or lacks a route, or has
// sources that the system does not allow.
func OwnersOf(p engine.Plan) (map[ListenKey]*engine.Service, error) {
	services := map[string]bool{}
	owner := map[ListenKey]*engine.Service{}
	for i := range p.Services {
		s := &p.Services[i]
		if services[s.Name] {
			return nil, fmt.Errorf("engine: service %q is in the plan twice", s.Name)
		}
		services[s.Name] = true
		if s.Route == nil {
			return nil, fmt.Errorf("engine: service %q has no route", s.Name)
		}
		for i, listen := range s.Listen {
			key := ListenKey{Listen: listen}
			if a, err := ParseListen(listen); err == nil && a.Port == "0" {
				key.service = s.Name
				for _, other := range s.Listen[:i] {
					if other == listen {
						key.nth++
					}
				}
			}
			if other, taken := owner[key]; taken {
				return nil, fmt.Errorf("engine: services %q and %q both listen on %s", other.Name, s.Name, listen)
			}
			owner[key] = s
		}
	}
	return owner, checkSources(p)
}

// ListenAddr is a listening address taken apart.
type ListenAddr struct {
	Path       string // of a UNIX socket; the rest is empty then
	Host, Port string // host "" is every address, IPv6 and IPv4
}

// ParseListen reads the form that Service.Listen describes.
func ParseListen(listen string) (ListenAddr, error) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if path == "" {
			return ListenAddr{}, fmt.Errorf("%q: unix: needs a path", listen)
		}
		return ListenAddr{Path: path}, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ListenAddr{}, fmt.Errorf("%q: want host:port, [v6]:port, *:port or unix:/path", listen)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return ListenAddr{}, fmt.Errorf("%q: the port must be a number from 0 to 65535", listen)
	}
	if host == "*" {
		host = ""
	}
	return ListenAddr{Host: host, Port: port}, nil
}

// Port returns the port of a listener's address, "" where it has none.
func (k ListenKey) Port() string {
	a, _ := ParseListen(k.Listen)
	return a.Port
}
