package fleet

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/testkit"
)

// What keeps nodes apart is a problem when it has lasted, and not before.
func TestApart(t *testing.T) {
	now := time.Now()
	old, young := now.Add(-apartAfter), now.Add(-apartAfter+time.Millisecond)
	node := func(name string, since time.Time, why string) peers.Peer {
		return peers.Peer{Name: name, Since: since, Why: why}
	}
	for _, c := range []struct {
		s    *Shares
		want string
	}{
		{nil, ""},
		{&Shares{Closed: "in use", ClosedSince: young, Peers: []peers.Peer{node("a", young, "x"), {Name: "b", Live: true, Since: old}}}, ""},
		{&Shares{Closed: "in use", ClosedSince: old}, "other nodes cannot follow this one: in use"},
		{&Shares{Stale: "no key", StaleSince: young}, ""},
		{&Shares{Stale: "no key", StaleSince: old}, "the files of this node's certificate are not right, and the former ones are in use: no key"},
		{&Shares{Peers: []peers.Peer{node("a", old, "refused"), node("b", young, "x"), node("c", old, "")}}, "node a is not heard: refused; node c is not heard"},
		{&Shares{Peers: []peers.Peer{node("a", old, ""), node("b", old, ""), node("c", old, ""), node("d", old, ""), node("e", old, "")}},
			"node a is not heard; node b is not heard; node c is not heard; nor are 2 more nodes"},
		{&Shares{Peers: []peers.Peer{{Name: "a", Live: true}, node("b", young, "x"), {Name: "c", Live: true}, node("d", old, "refused")}}, "node d is not heard: refused"},
		{&Shares{Peers: []peers.Peer{{Name: "a", Live: true}, node("b", old, ""), node("c", old, ""), node("d", old, ""), {Name: "e", Live: true}, node("f", old, "")}},
			"node b is not heard; node c is not heard; node d is not heard; nor is 1 more node"},
	} {
		if got := c.s.apart(now); got != c.want {
			t.Errorf("%+v: %q; want %q", c.s, got, c.want)
		}
	}
	s := Status{Node: "a", Joined: true, Apart: "node b is not heard", Nodes: []Info{{Member: Member{Name: "a", Ready: true, Problem: "p"}}, {Member: Member{Name: "b", Ready: true}}}}
	if text := s.String(); strings.Count(text, "p; checks are not shared with all, see below") != 1 || strings.Contains(text, s.Apart) {
		t.Error(text)
	}
}

// A change of <fleet> is told until the process ends.
func TestChangeOfFleetWaits(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		m := join(t, newMemoryStore(), "a", folder(t, strings.Replace(oneService, "<config>", `<config><fleet name="edge" store="http://127.0.0.1:1"/>`, 1)))
		if s := m.Status(); s.Waits != "" {
			t.Error(s.Waits)
		}
		change := func(f config.Fleet) {
			_, err := m.dir.Do(context.Background(), director.Change{By: "ann", Verb: "reload", Apply: func(c *config.Config) error { c.Fleet = f; return nil }})
			if err != nil {
				t.Fatal(err)
			}
		}
		was := m.dir.State().Config.Fleet
		other := was
		other.Lease *= 2
		for _, c := range []struct {
			f    config.Fleet
			want string
		}{{other, "a change of <fleet> waits for upgrade or a restart"}, {config.Fleet{}, "<fleet> is removed, and"}, {was, ""}} {
			change(c.f)
			if s := m.Status(); !strings.HasPrefix(s.Waits, c.want) || (c.want == "") != (s.Waits == "") || !strings.Contains(s.String(), c.want) {
				t.Errorf("%q; want %q", s.Waits, c.want)
			}
		}
	})
}
