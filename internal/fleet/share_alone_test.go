package fleet

import (
	"errors"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

// threeOf starts three nodes with this check.
func threeOf(t *testing.T, hosts []*backend, check string, relative bool) (nodes []*sharer) {
	t.Helper()
	store := newMemoryStore()
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, shareAt(t, store, name, services(hosts, check), testkit.Nobody(t), fleetKey, relative))
	}
	for _, n := range nodes {
		n.shared(2, "at first")
	}
	return nodes
}

// cutOff makes all probes of a node fail, and as many connects as it takes.
func (s *sharer) cutOff(host string) {
	s.t.Helper()
	s.mu.Lock()
	s.cut = true
	s.mu.Unlock()
	target := s.target(host)
	if !target.Host.Fail() {
		s.t.Fatal("the failed connect does not take it out")
	}
	s.eng.failures <- engine.Failure{Host: target.Host, Err: errors.New("cut off")}
}

// alone requires that each node has found the host itself, though one cannot reach it.
func alone(t *testing.T, nodes []*sharer, addr string) {
	t.Helper()
	for _, n := range nodes {
		if s := n.Status().Shares; s.Mine != 1 || s.Learned != 0 {
			t.Errorf("node %s: %v", n.name, s)
		}
	}
	for _, odd := range nodes {
		before := odd.checked()[addr]
		odd.cutOff("h0")
		testkit.Eventually(t, "node "+odd.name+" finds it down twice", func() bool { return odd.checked()[addr] >= before+2 })
		for _, n := range nodes {
			if n.up("h0") == (n == odd) {
				t.Errorf("node %s has it up: %v, %s is cut off", n.name, n.up("h0"), odd.name)
			}
		}
		odd.mu.Lock()
		odd.cut = false
		odd.mu.Unlock()
		testkit.Eventually(t, "node "+odd.name+" finds it up", func() bool { return odd.up("h0") })
	}
}

// Without a check only nodes that have lost a host probe it: they do not speak for others.
func TestUnwatchedHostsAreNotShared(t *testing.T) {
	hosts := []*backend{newBackend(t)}
	alone(t, threeOf(t, hosts, "", false), hosts[0].addr)
}

// An address of the own machine is another host on each node.
func TestRelativeHostsAreNotShared(t *testing.T) {
	hosts := []*backend{newBackend(t)}
	alone(t, threeOf(t, hosts, quickCheck, true), hosts[0].addr)
}

// A node that is cut off from the hosts takes out its own only.
func TestOneCutOffNodeTakesNothingOut(t *testing.T) {
	hosts := []*backend{newBackend(t)}
	nodes := threeOf(t, hosts, quickCheck, false)
	learns, odd := learner(t, nodes)
	odd.cutOff("h0")
	before := odd.checked()[hosts[0].addr]
	testkit.Eventually(t, "it finds it down", func() bool { return odd.checked()[hosts[0].addr] >= before+2 })
	if odd.up("h0") || !learns.up("h0") {
		t.Errorf("up: %v, and %v on the one that is cut off", learns.up("h0"), odd.up("h0"))
	}
}

// While all hosts are down, each node looks for the first that answers, as it does alone.
func TestAllLookWhileAllIsDown(t *testing.T) {
	nodes, hosts := three(t, 1)
	learns, _ := learner(t, nodes)
	hosts[0].stop()
	testkit.Eventually(t, "it has learned that it is down", func() bool {
		return !learns.up("h0") && learns.target("h0").Status().CheckedBy != ""
	})
	before := learns.checked()[hosts[0].addr]
	testkit.Eventually(t, "it checks it too", func() bool { return learns.checked()[hosts[0].addr] > before })
	if learns.target("h0").Status().CheckedBy == "" {
		t.Error("it checks it because others do not")
	}
}
