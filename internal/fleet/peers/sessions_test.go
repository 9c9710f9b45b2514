package peers

import (
	"fmt"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// hasSessions waits until so many sessions of a host are known.
func (n *node) hasSessions(t *testing.T, h Host, want int64) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%d sessions of %s", want, h.Name), func() bool { return n.Sessions(h.Service, h.Group, h.Name) == want })
}

// hasCounted waits until it is known whether a node has told the sessions of all hosts.
func (n *node) hasCounted(t *testing.T, name string, want bool) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("node %s has counted: %v", name, want), func() bool {
		list, _ := n.Peers()
		for _, p := range list {
			if p.Name == name {
				return p.Counted == want
			}
		}
		return false
	})
}

// The sessions of all live nodes are added up, with all addresses that a host has on any of
// them. What a node has told is taken out when it is not live any more, and counts once when its
// stream begins again.
func TestSessionsAreAddedUp(t *testing.T) {
	a, b, c := start(t, "a", bySecret()), start(t, "b", bySecret()), start(t, "c", bySecret())
	other := web
	other.Addr = "10.0.0.2:80" // of the same host: its name has another address there
	a.Tell(nil, map[Host]int64{web: 3, other: 2})
	b.Tell(nil, map[Host]int64{other: 4})
	c.Follow([]Member{{"a", a.addr}, {"b", b.addr}})
	c.hasSessions(t, web, 9)
	c.hasCounted(t, "a", true)
	a.Tell(nil, map[Host]int64{web: 1, other: 0})
	c.hasSessions(t, web, 5)
	b.Tell(nil, nil) // it does not know any more
	c.hasSessions(t, web, 1)
	c.hasCounted(t, "b", false)
	b.Tell(nil, map[Host]int64{web: 7})
	c.hasSessions(t, web, 8)
	c.hasCounted(t, "b", true)

	b.stop()
	c.sees(t, "b", false, "")
	c.hasSessions(t, web, 1)
	c.hasCounted(t, "b", false)
	again := startAt(t, "b", b.addr, bySecret())
	again.Tell(nil, map[Host]int64{web: 5})
	c.hasSessions(t, web, 6)
	c.Follow([]Member{{"b", b.addr}})
	a.stop()
	c.hasSessions(t, web, 5)
	c.stop()
	if n := len(c.totals); n != 0 {
		t.Errorf("%d hosts are left", n)
	}
}

// A node that has many hosts tells of some with each beat. Until all are told it does not count
// as one whose sessions are known.
func TestSessionsOfManyHosts(t *testing.T) {
	a, b := start(t, "a", bySecret()), start(t, "b", bySecret())
	all := map[Host]int64{}
	for i := range 3 * perBeat {
		all[Host{"web", "g", fmt.Sprint(i), "10.0.0.1:80"}] = 1
	}
	a.Tell(nil, all)
	b.Follow([]Member{{"a", a.addr}})
	wrong := 0
	testkit.Eventually(t, "all are known", func() bool {
		b.mu.RLock()
		known, counted := len(b.totals), b.peers["a"].counted
		b.mu.RUnlock()
		if counted && known < len(all) {
			wrong++
		}
		return counted
	})
	if wrong > 0 {
		t.Errorf("it counted before all were told")
	}
}

// An older version says no more than that it lives.
func TestSessionsOfAnOlderVersion(t *testing.T) {
	all := newTables()
	for _, e := range []event{
		{"sessions", []byte(`{"set":[{"s":"web","g":"g","h":"a","a":"10.0.0.1:80","n":3}]}`)}, {"beat", []byte(`{}`)},
	} {
		if _, err := all.take(e); err != nil {
			t.Fatal(err)
		}
	}
	if all.counted || all.sessions[web] != 3 {
		t.Errorf("%+v", all)
	}
	if _, err := all.take(event{"beat", []byte(`?`)}); err != nil || all.counted {
		t.Errorf("a beat that cannot be read: %+v, %v", all, err)
	}
}
