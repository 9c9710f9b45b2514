package fleet

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// restarted makes the times of all leases begin again, as etcd does when it is started or elects.
func (m *memoryStore) restarted() {
	m.set(func() {
		for _, l := range m.leases {
			l.timer.Reset(l.ttl)
		}
	})
}

// A hold that is over is gone from the store, however long that would keep it: a node that starts
// then does not hold, and one that has started meanwhile ends it with the others.
func TestHoldThatTheStoreKeepsForLonger(t *testing.T) {
	for _, orders := range []string{"lives", "ends"} {
		t.Run(orders, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				a := join(t, store, "a", folder(t, oneService))
				b := join(t, store, "b", folder(t, oneService))
				if _, err := a.hold(5 * time.Minute); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				store.restarted()
				all := []*member{b}
				if orders == "ends" { // who has given the order counts no more
					a.stop()
				} else {
					all = append(all, a)
				}
				time.Sleep(3 * time.Minute)
				store.restarted()
				c := join(t, store, "c", folder(t, oneService))
				holding(t, "by ops of a from node a until 60s, 10000", all...)
				holding(t, "by ops of a from node a until 70s, 10000", c) // clocks may differ
				time.Sleep(62 * time.Second)
				all = append(all, c, join(t, store, "d", folder(t, oneService)))
				holding(t, "", all...)
				for _, m := range all {
					if s := m.Status(); len(s.Holds) > 0 {
						t.Errorf("status of %s: %+v", m.name, s.Holds)
					}
				}
				if got := store.keysBelow("/txlb/edge/hold/"); len(got) > 0 {
					t.Errorf("keys %q", got)
				}
				if _, err := c.hold(time.Minute); err != nil {
					t.Fatal(err)
				}
				holding(t, "by ops of c from node c until 60s, 10000", all...)
			})
		})
	}
}

// If no node is left that has counted the time, the clock tells a node that starts, and a hold
// that was extended lasts until its last end.
func TestHoldThatNobodyHasCounted(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		folders := []string{folder(t, oneService), folder(t, oneService)}
		a, b := join(t, store, "a", folders[0]), join(t, store, "b", folders[1])
		if _, err := b.hold(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := a.hold(5 * time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second)
		holding(t, "by ops of a from node a until 260s, 10000", a, b)
		store.restarted()
		a.stop()
		b.stop()
		time.Sleep(5*time.Minute - 35*time.Second)
		b = join(t, store, "b", folders[1])
		holding(t, "by ops of a from node a until 5s, 10000", b)
		if s := b.Status().String(); !strings.Contains(s, "held: group g of service web, by ops of a on node a, until "+time.Now().Add(5*time.Second).Local().Format("15:04:05")+" at most") {
			t.Errorf("status:\n%s", s)
		}
		time.Sleep(6 * time.Second)
		holding(t, "", b)
		a = join(t, store, "a", folders[0])
		holding(t, "", a, b)
		for _, m := range []*member{a, b} {
			if s := m.Status(); len(s.Holds) > 0 {
				t.Errorf("status of %s: %+v", m.name, s.Holds)
			}
		}
		if got := store.keysBelow("/txlb/edge/hold/"); len(got) != 1 {
			t.Fatalf("keys %q: the test has nothing to show", got)
		}
		// It is in nobody's way.
		if _, err := a.hold(time.Minute); err != nil {
			t.Fatal(err)
		}
		holding(t, "by ops of a from node a until 60s, 10000", a, b)
	})
}

// A node whose clock is wrong ends the hold of nobody else, and holds no longer than the order says.
func TestHoldWithWrongClocks(t *testing.T) {
	for clock, want := range map[time.Duration]string{-time.Hour: "by ops from node z until 30s, 10000", time.Hour: ""} {
		t.Run(clock.String(), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				value, err := json.Marshal(&held{Service: "web", Group: "g", ID: "x", Node: "z", By: "ops", Time: time.Now().Add(-clock), For: duration(30 * time.Second)})
				if err != nil {
					t.Fatal(err)
				}
				store.set(func() { store.put("/txlb/edge/hold/web/g", value, 0) })
				a := join(t, store, "a", folder(t, oneService))
				holding(t, want, a)
				time.Sleep(29 * time.Second)
				synctest.Wait()
				if got := store.keysBelow("/txlb/edge/hold/"); len(got) != 1 {
					t.Errorf("keys %q before the end", got)
				}
				time.Sleep(4 * time.Second)
				holding(t, "", a)
				if got := store.keysBelow("/txlb/edge/hold/"); len(got) > 0 {
					t.Errorf("keys %q after the end", got)
				}
			})
		})
	}
}

// A node that was there when a hold began goes by no clock but its own, also after it was away.
func TestHoldFromAnotherTime(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		value, err := json.Marshal(&held{Service: "web", Group: "g", ID: "x", Node: "z", By: "ops", Time: time.Now().Add(-time.Hour), For: duration(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		store.set(func() { store.put("/txlb/edge/hold/web/g", value, 0) })
		holding(t, "by ops from node z until 60s, 10000", a)
		store.set(func() { a.link.cut = errCut })
		time.Sleep(20 * time.Second)
		store.set(func() { a.link.cut = nil })
		time.Sleep(20 * time.Second)
		holding(t, "by ops from node z until 20s, 10000", a)
		time.Sleep(21 * time.Second)
		holding(t, "", a)
	})
}

// A release at once ends one that takes its time on all nodes, whatever the clock of the node says
// that has given that.
func TestReleaseFromAnotherTime(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a, b := join(t, store, "a", folder(t, oneService)), join(t, store, "b", folder(t, oneService))
		h := &held{Service: "web", Group: "g", ID: "x", Node: "z", By: "ops", Time: time.Now(), For: duration(time.Hour)}
		for range 2 {
			value, err := json.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			store.set(func() { store.put("/txlb/edge/hold/web/g", value, 0) })
			synctest.Wait()
			for _, m := range []*member{a, b} { // without clients, a release is over at once
				m.eng.queue(1000)
			}
			h.Released = &released{ID: "y", Node: "z", By: "ops", Time: time.Now().Add(-time.Hour), Over: duration(30 * time.Second)}
		}
		time.Sleep(time.Second)
		for _, m := range []*member{a, b} {
			if got := m.held(); got != "releasing" {
				t.Fatalf("node %s holds %q: the test has nothing to show", m.name, got)
			}
		}
		if r, err := a.release(0); err != nil || !r.Held || r.Alone != nil {
			t.Errorf("%+v, %v", r, err)
		}
		holding(t, "", a, b)
	})
}

// A store that does not delete the key is asked again, and the hold is over all the same.
func TestHoldThatCannotBeDeleted(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		if _, err := a.hold(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		store.restarted()
		store.set(func() { a.link.readOnly = true })
		time.Sleep(12 * time.Second)
		holding(t, "", a)
		if s := a.Status(); len(s.Holds) > 0 {
			t.Errorf("status: %+v", s.Holds)
		}
		// Another process of the node goes by the clock.
		a.HandOver()
		next := join(t, store, "a", filepath.Dir(a.file))
		a.stop()
		if got := store.keysBelow("/txlb/edge/hold/"); len(got) != 1 {
			t.Fatalf("keys %q: the test has nothing to show", got)
		}
		holding(t, "by ops of a from node a until 8s, 10000", next)
		time.Sleep(9 * time.Second)
		holding(t, "", next)
	})
}
