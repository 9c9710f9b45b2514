package engine

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/sched"
)

// Plan is all that the engine should do; it replaces the plan before it.
type Plan struct {
	Services []Service
}

// Service is a set of listeners with the route of their sessions.
type Service struct {
	Name   string
	Listen []string // host:port, [v6]:port, *:port, :port or unix:/path; port 0 takes a free one
	Route  *Route

	// ListenOptions are those of addresses in Listen that have others than the
	// default. They hold for a listener from when it is opened.
	ListenOptions map[string]ListenOptions
}

// ListenOptions is how to listen on one address.
type ListenOptions struct {
	FreeBind bool // no interface has to have the address (IP_FREEBIND); Linux only
}

// Route is what a session needs to find a backend. It is immutable, and
// whoever needs it loads it once: one load, one generation.
type Route struct {
	Table    *sched.Table // nil: no group; clients are closed and counted
	Timeouts Timeouts
	// Tries is how many connects one session makes at most, the first included.
	// 0: each host that is up once, then at most three that are down.
	Tries int
}

// Timeouts of a session; 0 means none.
type Timeouts struct {
	Connect    time.Duration // one connect
	Total      time.Duration // all connects of one session
	Idle       time.Duration // no byte in either direction
	HalfClosed time.Duration // one side has ended, and no byte from the other
	Unacked    time.Duration // sent bytes wait for a peer's acknowledgement (TCP_USER_TIMEOUT); Linux only
	KeepAlive  time.Duration // a silent peer is asked whether it is there; if not, it is gone after twice that
}

// kept are the time-outs that the kernel keeps for us.
type kept struct{ unacked, alive time.Duration }

func (t *Timeouts) kept() kept { return kept{t.Unacked, t.KeepAlive} }

// keepAliveProbes is how many questions go unanswered before a peer is gone.
const keepAliveProbes = 4

// keepAlive is what the kernel is told: it counts seconds. The questions take as
// long together as the silence before them.
func (k kept) keepAlive() net.KeepAliveConfig {
	idle := max((k.alive + time.Second - 1).Truncate(time.Second), time.Second)
	interval := max((idle / keepAliveProbes).Truncate(time.Second), time.Second)
	return net.KeepAliveConfig{Enable: k.alive > 0, Idle: idle, Interval: interval, Count: keepAliveProbes}
}

// lingerFor bounds the wait for the last bytes before a reset.
const lingerFor = 30 * time.Second

// linger returns how long a reset waits for the bytes before it.
func (t *Timeouts) linger() time.Duration {
	if t.HalfClosed > 0 {
		return min(t.HalfClosed, lingerFor)
	}
	return lingerFor
}

// listenKey tells one listener from another. Two listeners on the same address
// cannot be, except where the kernel chooses the port.
type listenKey struct {
	listen  string
	service string // only with port 0
	nth     int    // only with port 0: which of the service's equal ones
}

// listeners returns the listeners that the plan asks for, each with the name
// of its service. It refuses a plan that names a service or an address twice
// or forgets a route.
func (p Plan) listeners() (map[listenKey]string, error) {
	services := map[string]bool{}
	owner := map[listenKey]string{}
	for _, s := range p.Services {
		if services[s.Name] {
			return nil, fmt.Errorf("engine: service %q is in the plan twice", s.Name)
		}
		services[s.Name] = true
		if s.Route == nil {
			return nil, fmt.Errorf("engine: service %q has no route", s.Name)
		}
		for i, listen := range s.Listen {
			key := listenKey{listen: listen}
			if a, err := parseListen(listen); err == nil && a.port == "0" {
				key.service = s.Name
				for _, other := range s.Listen[:i] {
					if other == listen {
						key.nth++
					}
				}
			}
			if other, taken := owner[key]; taken {
				return nil, fmt.Errorf("engine: services %q and %q both listen on %s", other, s.Name, listen)
			}
			owner[key] = s.Name
		}
	}
	return owner, nil
}

// byName returns the services by their names.
func (p Plan) byName() map[string]*Service {
	services := make(map[string]*Service, len(p.Services))
	for i := range p.Services {
		services[p.Services[i].Name] = &p.Services[i]
	}
	return services
}

// listenAddr is a listening address taken apart.
type listenAddr struct {
	path       string // of a UNIX socket; the rest is empty then
	host, port string // host "" is every address, IPv6 and IPv4
}

// parseListen reads the form that Service.Listen describes.
func parseListen(listen string) (listenAddr, error) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if path == "" {
			return listenAddr{}, fmt.Errorf("%q: unix: needs a path", listen)
		}
		return listenAddr{path: path}, nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listenAddr{}, fmt.Errorf("%q: want host:port, [v6]:port, *:port or unix:/path", listen)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return listenAddr{}, fmt.Errorf("%q: the port must be a number from 0 to 65535", listen)
	}
	if host == "*" {
		host = ""
	}
	return listenAddr{host: host, port: port}, nil
}

// port returns the port of a listener's address, "" where it has none.
func (k listenKey) port() string {
	a, _ := parseListen(k.listen)
	return a.port
}
