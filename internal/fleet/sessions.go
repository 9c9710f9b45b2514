package fleet

import (
	"cmp"
	"slices"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet/peers"
)

// Elsewhere is how many sessions the other nodes have with a host, as they have last told: each
// tells what has changed once a second. known is false if nodes tell each other nothing, or not
// of this host: its address is another host on each machine. Shares.Missing has the nodes whose
// sessions are not in it.
func (n *Node) Elsewhere(service, group string, h *director.Host) (sessions int64, known bool) {
	s := n.sharing
	if s == nil || len(h.Targets) == 0 || slices.ContainsFunc(h.Targets, s.relative) {
		return 0, false
	}
	return s.exchange.Sessions(service, group, h.Config.Name), true
}

// missing are the nodes of the fleet whose sessions this one does not know, by name. complete is
// false if there may be others. n.mu is held.
func (n *Node) missing(s *Shares) (names []string, complete bool) {
	counted := map[string]bool{n.name: true}
	for i := range s.Peers {
		p := &s.Peers[i]
		counted[p.Name] = p.Live && p.Counted
		if !counted[p.Name] {
			names = append(names, p.Name)
		}
	}
	for name := range n.members {
		if _, is := counted[name]; !is { // it shares nothing
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, n.store != nil && len(names) == 0
}

// Silent are the nodes of Missing that share nothing.
func (s *Shares) Silent() (names []string) {
	for _, name := range s.Missing {
		if !slices.ContainsFunc(s.Peers, func(p peers.Peer) bool { return p.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// unheard is Info.Unheard of a node; self is this one.
func (s *Shares) unheard(self string, m *Member) string {
	if s == nil || m.Name == self {
		return ""
	}
	for i := range s.Peers {
		switch p := &s.Peers[i]; {
		case p.Name != m.Name:
		case p.Live:
			return ""
		default:
			return cmp.Or(p.Why, "it has said nothing yet")
		}
	}
	if m.Peer == "" {
		return "it has no <fleet listen>"
	}
	return "it has joined just now"
}
