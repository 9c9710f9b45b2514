package fleet

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/words"
)

// apartAfter is how long a node has to be unheard, or a port closed, until that is a problem:
// longer than a process takes to start or to hand over, and than it takes to notice that a node is
// gone.
const apartAfter = 15 * time.Second

// maxApart is how many nodes that are not heard are named.
const maxApart = 3

// apart says what has kept this node and others from sharing checks for a while, "" if nothing
// has.
func (s *Shares) apart(now time.Time) string {
	if s == nil {
		return ""
	}
	var all []string
	if s.Closed != "" && now.Sub(s.ClosedSince) >= apartAfter {
		all = append(all, "other nodes cannot follow this one: "+printable(s.Closed))
	}
	if s.Stale != "" && now.Sub(s.StaleSince) >= apartAfter {
		all = append(all, "the files of this node's certificate are not right, and the former ones are in use: "+printable(s.Stale))
	}
	named, more := 0, 0
	for i := range s.Peers {
		p := &s.Peers[i]
		switch {
		case p.Live || now.Sub(p.Since) < apartAfter:
		case named >= maxApart:
			more++
		default:
			named++
			text := fmt.Sprintf("node %s is not heard", printable(p.Name))
			if p.Why != "" {
				text += ": " + printable(p.Why)
			}
			all = append(all, text)
		}
	}
	if more > 0 {
		is := "is"
		if more > 1 {
			is = "are"
		}
		all = append(all, fmt.Sprintf("nor %s %s", is, words.Count(more, "more node")))
	}
	return strings.Join(all, "; ")
}

// pending says that <fleet> has changed since this process has started, "" if it has not. n.mu is
// held.
func (n *Node) pending() string {
	if n.dir == nil {
		return ""
	}
	was, is := n.begun, n.dir.State().Config.Fleet
	was.Pos, is.Pos = config.Pos{}, config.Pos{}
	switch {
	case reflect.DeepEqual(was, is):
		return ""
	case is.Name == "":
		return "<fleet> is removed, and this process goes on as a node until upgrade or a restart"
	}
	return "a change of <fleet> waits for upgrade or a restart"
}
