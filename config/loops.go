package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/txlb/txlb/config/internal/address"
)

// Loop is a host through which a connection comes back to the
// service that it left, again and again: the host is a listener of this process.
type Loop struct {
	Service, Group, Host string // Host is "" for a mirror
	Address              string
	Listener             string // the service that the host is a listener of
	Pos                  Pos    // of the host

	back []string // the services from Listener to Service, without these two
}

// maxWays bounds for how many loops the way back is searched, and how many services
// of it are named.
const maxWays = 8

// String says what is wrong and what would be right.
func (l Loop) String() string {
	way := fmt.Sprintf("is a listener of service %q itself", l.Listener)
	if l.Listener != l.Service {
		way = fmt.Sprintf("is a listener of service %q, which leads back to service %q", l.Listener, l.Service)
	}
	switch n := len(l.back); {
	case n > maxWays:
		way += fmt.Sprintf(" through %s and %d more", strings.Join(l.back[:maxWays], ", "), n-maxWays)
	case n > 0:
		way += " through " + strings.Join(l.back, ", ")
	}
	what := fmt.Sprintf("host %q", l.Host)
	if l.Host == "" {
		what = "a mirror"
	}
	return fmt.Sprintf("%s of service %q, group %q, has the address %s, which %s: its connections would loop forever; give it another address",
		what, l.Service, l.Group, l.Address, way)
}

// Same tells whether two loops have the same host and the same service.
func (l Loop) Same(o Loop) bool {
	return l.Service == o.Service && l.Group == o.Group && l.Host == o.Host && l.Address == o.Address && l.Listener == o.Listener
}

// Loops returns the hosts that are part of a loop through groups that take clients, those of
// a service in their order. addresses returns the addresses that a host stands for;
// if it is nil or returns nil, the host's own address counts. A name counts only if
// a listener has the same name. Hosts that take no clients do not count.
//
// A listener on every address is reached at each address of this machine's
// interfaces, which are read only if they matter.
func Loops(c *Config, addresses func(*Host) []string) []Loop {
	g := newLoopGraph(c)
	for from, s := range c.Services {
		routed := s.Routed()
		for _, group := range s.Groups {
			if group.Enabled || routed[group.Name] {
				g.leadAll(from, group, addresses)
			}
		}
	}
	return g.loops()
}

// leadAll notes where the hosts of a group lead.
func (g *loopGraph) leadAll(from int, group *Group, addresses func(*Host) []string) {
	for _, h := range group.Hosts {
		if h.State != "ready" || h.Weight == 0 {
			continue
		}
		var list []string
		if addresses != nil {
			list = addresses(h)
		}
		if list == nil {
			g.lead(from, group, h, h.Address)
		}
		for _, a := range list {
			g.lead(from, group, h, a)
		}
	}
	for i := range group.Mirrors {
		if m := &group.Mirrors[i]; m.Percent > 0 {
			g.lead(from, group, &Host{Pos: m.Pos}, m.Address)
		}
	}
}

// NoNewLoop tells, at little cost, that c has no loop that was lacks; false says nothing.
// c shares with was what is the same (changes.Share).
func (c *Config) NoNewLoop(was *Config) bool {
	if !c.inPlace(was) {
		return false
	}
	leads := map[string]bool{} // ports that changed services lead to
	for i, s := range c.Services {
		before := was.Services[i]
		if s == before {
			continue
		}
		if !slices.Equal(s.Listen, before.Listen) {
			return false
		}
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				leads[portOf(h.Address)] = true
			}
			for i := range g.Mirrors {
				leads[portOf(g.Mirrors[i].Address)] = true
			}
		}
	}
	for _, s := range c.Services {
		for i := range s.Listen {
			if leads[portOf(s.Listen[i].Address)] {
				return false
			}
		}
	}
	return true
}

// portOf returns the port of an address, "unix" of that of a UNIX socket.
func portOf(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return "unix"
	}
	return address[strings.LastIndexByte(address, ':')+1:]
}

// loopGraph has an edge from each service to the services that its hosts lead to.
type loopGraph struct {
	services  []*Service
	listeners map[string]*loopPort // by port, as splitListen has it
	edges     [][]loopEdge         // by the service that they leave
	own       func() map[netip.Addr]bool
}

// loopPort is which services listen on a port: by address, the unspecified ones
// standing for every address, and by a text that is not an address.
type loopPort struct {
	addresses map[netip.Addr][]int
	names     map[string][]int
}

type loopEdge struct {
	to      int
	group   *Group
	host    *Host
	address string
}

func newLoopGraph(c *Config) *loopGraph {
	g := &loopGraph{services: c.Services, listeners: map[string]*loopPort{}, own: sync.OnceValue(ownAddresses)}
	for i, s := range c.Services {
		for _, l := range s.Listen {
			host, port := address.Split(l.Address)
			if port == "0" { // nobody knows yet which it is
				continue
			}
			if g.listeners[port] == nil {
				g.listeners[port] = &loopPort{map[netip.Addr][]int{}, map[string][]int{}}
			}
			on := g.listeners[port]
			if ip, err := netip.ParseAddr(host); err == nil {
				on.addresses[ip] = append(on.addresses[ip], i)
			} else if host == "" {
				on.addresses[netip.IPv6Unspecified()] = append(on.addresses[netip.IPv6Unspecified()], i)
			} else {
				on.names[host] = append(on.names[host], i)
			}
		}
	}
	return g
}

// lead notes where an address leads.
func (g *loopGraph) lead(from int, group *Group, h *Host, target string) {
	// Fast path: no service listens on the port.
	on := g.listeners[portOf(target)]
	if on == nil {
		return
	}
	to := func(services []int) {
		for _, i := range services {
			if g.edges == nil {
				g.edges = make([][]loopEdge, len(g.services))
			}
			g.edges[from] = append(g.edges[from], loopEdge{i, group, h, target})
		}
	}
	at, err := netip.ParseAddrPort(target)
	ip := at.Addr().Unmap()
	if err != nil {
		host, _ := address.Split(target)
		if ip, err = netip.ParseAddr(host); err != nil {
			to(on.names[host])
			return
		}
	}
	switch ip { // a connect to every target goes to this machine
	case netip.IPv6Unspecified():
		ip = netip.IPv6Loopback()
	case netip.IPv4Unspecified():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	to(on.addresses[ip])
	every6, every4 := on.addresses[netip.IPv6Unspecified()], on.addresses[netip.IPv4Unspecified()]
	if !ip.Is4() {
		every4 = nil
	}
	if every4 == nil && every6 == nil || !ip.IsLoopback() && !g.own()[ip.WithZone("")] {
		return
	}
	to(every4)
	to(every6)
}

// ownAddresses are those of this machine's interfaces.
func ownAddresses() map[netip.Addr]bool {
	list, _ := net.InterfaceAddrs() // without them loopback is known
	own := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own
}

// loops returns the edges that are part of a cycle: those within a strongly
// connected component (Tarjan).
func (g *loopGraph) loops() (list []Loop) {
	if g.edges == nil {
		return nil
	}
	component := g.components()
	for from, edges := range g.edges {
		for _, e := range edges {
			if component[from] != component[e.to] {
				continue
			}
			l := Loop{
				Service: g.services[from].Name, Group: e.group.Name, Host: e.host.Name, Address: e.address,
				Listener: g.services[e.to].Name, Pos: e.host.Pos,
			}
			if len(list) < maxWays {
				l.back = g.way(e.to, from)
			}
			list = append(list, l)
		}
	}
	return list
}

// components numbers the strongly connected components and returns that of each
// service. It keeps its own stack: chains of services may be long.
func (g *loopGraph) components() []int {
	n := len(g.edges)
	index, low, component := make([]int, n), make([]int, n), make([]int, n) // index: from 1 on
	var path, stack []int                                                   // of the search; of what has no component yet
	next := make([]int, n)                                                  // edge to follow
	seen, found := 0, 0
	for root := range n {
		if index[root] != 0 {
			continue
		}
		path = append(path, root)
		for len(path) > 0 {
			v := path[len(path)-1]
			if index[v] == 0 {
				seen++
				index[v], low[v] = seen, seen
				stack = append(stack, v)
			}
			if next[v] < len(g.edges[v]) {
				w := g.edges[v][next[v]].to
				next[v]++
				if index[w] == 0 {
					path = append(path, w)
				} else if component[w] == 0 {
					low[v] = min(low[v], index[w])
				}
				continue
			}
			path = path[:len(path)-1]
			if len(path) > 0 {
				low[path[len(path)-1]] = min(low[path[len(path)-1]], low[v])
			}
			if low[v] != index[v] {
				continue
			}
			found++
			for {
				w := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				component[w] = found
				if w == v {
					break
				}
			}
		}
	}
	return component
}

// way returns the services on the shortest path between two.
func (g *loopGraph) way(from, to int) (between []string) {
	before := map[int]int{from: from}
	queue := []int{from}
	for len(queue) > 0 && queue[0] != to {
		v := queue[0]
		queue = queue[1:]
		for _, e := range g.edges[v] {
			if _, been := before[e.to]; !been {
				before[e.to] = v
				queue = append(queue, e.to)
			}
		}
	}
	for v := before[to]; v != from && to != from; v = before[v] {
		between = append(between, g.services[v].Name)
	}
	slices.Reverse(between)
	return between
}

// loops warns of hosts whose connections would come back. It is not an error,
// because existing files must load.
func (k *checker) loops(c *Config) {
	for _, l := range Loops(c, nil) {
		k.warn(l.Pos.Line, "%v", l)
	}
}
