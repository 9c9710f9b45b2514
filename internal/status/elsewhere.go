package status

import (
	"fmt"
	"strings"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/words"
)

// Elsewhere tells how many sessions the other nodes of the fleet have with a host of a group, see
// [fleet.Node.Elsewhere].
type Elsewhere func(service, group string, h *director.Host) (sessions int64, known bool)

// Sessions are those that other nodes of the fleet have with a host. It is also its form in JSON.
type Sessions struct {
	Sessions int64 `json:"sessions"`
	Complete bool  `json:"complete"` // false: a node is not heard, and there may be more
}

// String is the number for people.
func (s *Sessions) String() string {
	if !s.Complete {
		return fmt.Sprintf(">=%d", s.Sessions)
	}
	return fmt.Sprint(s.Sessions)
}

// readElsewhere adds what other nodes have to the hosts of a group.
func (f *Facts) readElsewhere(service string, g *Group) {
	if f.Elsewhere == nil || f.Fleet == nil || f.Fleet.Shares == nil {
		return
	}
	for i := range g.Hosts {
		h := &g.Hosts[i]
		if n, known := f.Elsewhere(service, g.Config.Name, h.Host); known {
			h.Elsewhere = &Sessions{n, f.Fleet.Shares.Complete}
		}
	}
}

// ShowsElsewhere tells whether nodes of a fleet tell each other of sessions.
func (f *Facts) ShowsElsewhere() bool { return f.Fleet != nil && f.Fleet.Shares != nil }

// WhyIncomplete tells why other nodes may have more sessions than are known, "" if they have not.
func (f *Facts) WhyIncomplete() string {
	if !f.ShowsElsewhere() || f.Fleet.Shares.Complete {
		return ""
	}
	switch missing := f.Fleet.Shares.Missing; len(missing) {
	case 0:
	case 1:
		return "node " + missing[0] + " is not heard"
	default:
		return "nodes " + strings.Join(missing, ", ") + " are not heard"
	}
	return "this node has not joined, and may not know all nodes"
}

// stillOpen tells how far the drain of hosts is on all nodes of a fleet, "" if that is not known.
func stillOpen(hosts []*Host) string {
	var here int64
	all := Sessions{Complete: true}
	for _, h := range hosts {
		if h.Elsewhere == nil {
			return ""
		}
		here += h.Stats.Active
		all.Sessions += h.Elsewhere.Sessions
		all.Complete = all.Complete && h.Elsewhere.Complete
	}
	return fmt.Sprintf(": %s here, %s on other nodes", words.Count(int(here), "session"), all.Words())
}

// Words is the number in words, such as "at least 3 sessions".
func (s *Sessions) Words() string {
	if !s.Complete {
		return "at least " + words.Count(int(s.Sessions), "session")
	}
	return words.Count(int(s.Sessions), "session")
}
