package fleet

import (
	"fmt"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// elsewhere is what a node says of the sessions of a host on other nodes.
func (s *sharer) elsewhere(host string) string {
	state := s.dir.State()
	g := state.Services[0].Groups[0]
	for _, h := range g.Hosts {
		if h.Config.Name == host {
			n, known := s.Elsewhere("web", "g", h)
			shares := s.Status().Shares
			return fmt.Sprint(n, known, shares.Missing, shares.Complete)
		}
	}
	s.t.Fatalf("no host %s", host)
	return ""
}

// saysElsewhere waits until elsewhere is this.
func (s *sharer) saysElsewhere(host, want string) {
	s.t.Helper()
	got := ""
	defer func() {
		if s.t.Failed() {
			s.t.Logf("it says %s", got)
		}
	}()
	testkit.Eventually(s.t, fmt.Sprintf("node %s says %s", s.name, want), func() bool { got = s.elsewhere(host); return got == want })
}

// Each node knows the sessions that the others have with a host. A node that is not heard is
// named, and so is one that shares nothing: the sum is then not all.
func TestSessionsElsewhere(t *testing.T) {
	nodes, hosts := three(t, 2)
	a, b, c := nodes[0], nodes[1], nodes[2]
	for range 3 {
		b.target("h0").Host.Adopt()
	}
	for range 9 {
		c.target("h0").Host.Adopt()
	}
	a.target("h1").Host.Adopt()
	a.saysElsewhere("h0", "12 true [] true")
	a.saysElsewhere("h1", "0 true [] true")
	b.saysElsewhere("h0", "9 true [] true")
	b.saysElsewhere("h1", "1 true [] true")
	for range 3 {
		b.target("h0").Host.Release(0, 0)
	}
	a.saysElsewhere("h0", "9 true [] true")

	// One that shares nothing: its sessions are not known.
	alone := shareAt(t, a.link.memoryStore, "z", services(hosts, quickCheck), "", "", false)
	a.saysElsewhere("h0", "9 true [z] false")
	if _, known := alone.Elsewhere("web", "g", a.dir.State().Services[0].Groups[0].Hosts[0]); known {
		t.Error("it knows what nobody tells it")
	}
	alone.stop()
	a.saysElsewhere("h0", "9 true [] true")

	// One that is not heard, because it has another secret.
	odd := shareAt(t, a.link.memoryStore, "odd", services(hosts, quickCheck), testkit.Nobody(t), "another-secret-of-a-fleet", false)
	a.saysElsewhere("h0", "9 true [odd] false")
	odd.stop()
	c.kill()
	a.saysElsewhere("h0", "0 true [] true") // they have left

	// Without the store there may be nodes that this one has not heard of.
	a.link.set(func() { a.link.down = errCut })
	a.saysElsewhere("h0", "0 true [] false")
}

// Hosts whose address is another host on each machine have no sessions elsewhere.
func TestSessionsOfRelativeHosts(t *testing.T) {
	hosts := []*backend{newBackend(t)}
	nodes := threeOf(t, hosts, quickCheck, true)
	nodes[1].target("h0").Host.Adopt()
	nodes[0].saysElsewhere("h0", "0 false [] true")
}
