package etcd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/testkit"
)

// try is weigh with a change that waits to be confirmed.
func (m *member) try(t *testing.T, weight int, within time.Duration) (uint64, error) {
	return m.dir.Do(t.Context(), director.Change{
		By: "ops", From: m.name, Verb: fmt.Sprint("setHost web g a weight=", weight), Confirm: within,
		Apply: func(c *config.Config) error { c.Services[0].Groups[0].Hosts[0].Weight = weight; return nil },
	})
}

// runs waits until nodes run a weight, with so many changes that wait to be confirmed.
func runs(t *testing.T, weight, waiting int, all ...*member) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("nodes run weight %d, and %d changes wait", weight, waiting), func() bool {
		for _, m := range all {
			if m.weight() != weight || len(m.dir.State().Pending()) != waiting {
				return false
			}
		}
		return true
	})
}

// A change that waits to be confirmed is undone when etcd ends its lease, by a node that lives;
// confirmed on any node it stays. A store that stands still undoes nothing, and one that goes on
// makes one undo.
func TestConfirmAndItsLease(t *testing.T) {
	testkit.Long(t)
	members, urls := cluster(t, 1)
	a, b := join(t, "a", urls), join(t, "b", urls)
	joined(t, a, b)
	generation, err := a.try(t, 2, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	runs(t, 2, 1, a, b)
	if _, err := b.dir.Confirm(soon(t), generation, "ann", ""); err != nil {
		t.Fatal(err)
	}
	runs(t, 2, 0, a, b)

	// The store stands still for longer than the change may wait.
	if generation, err = a.try(t, 3, 15*time.Second); err != nil {
		t.Fatal(err)
	}
	runs(t, 3, 1, a, b)
	if err := members[0].Freeze(); err != nil {
		t.Fatal(err)
	}
	thaw := func() {
		if err := members[0].Thaw(); err != nil {
			t.Error(err)
		}
	}
	testkit.Eventually(t, "the time is over, and the nodes know no more", func() bool {
		p := a.dir.State().Pending()
		return !a.Status().Joined && !b.Status().Joined && len(p) == 1 && time.Now().After(p[0].Until)
	})
	if a.weight() != 3 || b.weight() != 3 {
		t.Errorf("undone without the store: %d, %d", a.weight(), b.weight())
	}
	if s := b.Status().String(); !strings.Contains(s, "its time is over, but without the store nothing is undone") {
		t.Errorf("status:\n%s", s)
	}
	if _, err := b.dir.Confirm(soon(t), generation, "ann", ""); err == nil || !strings.Contains(err.Error(), "is not undone either until the store is back") {
		t.Errorf("confirmed without the store: %v", err)
	}
	thaw()
	runs(t, 2, 0, a, b)
	if is := a.dir.State().Generation; is != generation+1 {
		t.Errorf("generation %d after %d: undone more than once", is, generation)
	}

	// The node that made it is gone when its time is over.
	joined(t, a, b)
	if generation, err = a.try(t, 4, 15*time.Second); err != nil {
		t.Fatal(err)
	}
	runs(t, 4, 1, a, b)
	a.HandOver() // as a crash: its key stays
	a.stop()
	runs(t, 2, 0, b)
	if is := b.dir.State().Generation; is != generation+1 {
		t.Errorf("generation %d after %d: undone more than once", is, generation)
	}
	testkit.Eventually(t, "an event says why", func() bool { // it follows the change
		events := b.dir.Events()
		return events[len(events)-1].Text == "not confirmed within 15s"
	})
}

// A hold on one node holds on both until etcd ends it, or another node releases it; without the
// store the nodes end it themselves.
func TestHoldAndItsLease(t *testing.T) {
	testkit.Long(t)
	members, urls := cluster(t, 1)
	a, b := join(t, "a", urls), join(t, "b", urls)
	joined(t, a, b)
	held := func(want bool) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("both hold: %v", want), func() bool {
			for _, m := range []*member{a, b} {
				if (m.dir.State().Services[0].Groups[0].Hold() != nil) != want {
					return false
				}
			}
			return true
		})
	}
	hold := func(m *member, within time.Duration) {
		t.Helper()
		if _, _, err := m.dir.Hold(soon(t), director.HoldOrder{By: "ops", Service: "web", Group: "g", For: within}); err != nil {
			t.Fatal(err)
		}
	}
	hold(a, time.Hour)
	held(true)
	if s := b.Status(); len(s.Holds) != 1 || s.Holds[0].Node != "a" {
		t.Errorf("status %+v", s.Holds)
	}
	r, err := b.dir.Release(soon(t), director.ReleaseOrder{By: "ops", Service: "web", Group: "g"})
	if err != nil || !r.Held || r.Alone != nil {
		t.Errorf("%+v, %v", r, err)
	}
	held(false)
	hold(b, 10*time.Second) // for so long that both are seen to hold, on a busy machine too
	held(true)
	held(false)
	store := open(t, config.Fleet{Store: urls})
	testkit.Eventually(t, "etcd deletes the key", func() bool {
		entries, _, err := store.Get(soon(t), "/txlb/edge/hold/")
		return err == nil && len(entries) == 0
	})
	hold(a, 15*time.Second)
	held(true)
	if err := members[0].Freeze(); err != nil {
		t.Fatal(err)
	}
	held(false)
	if err := members[0].Thaw(); err != nil {
		t.Fatal(err)
	}
	joined(t, a, b)
	held(false)
}

// Keys that are written together are heard together, or are not written.
func TestSwapOfSeveral(t *testing.T) {
	_, urls := cluster(t, 1)
	s := open(t, config.Fleet{Store: urls})
	ctx := soon(t)
	lease, err := s.Grant(ctx, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r1, _, err := s.Swap(ctx, "/s/a", []byte("1"), 0, 0, fleet.Write{Key: "/s/b", Value: []byte("b"), Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Swap(ctx, "/s/a", []byte("2"), 0, 0, fleet.Write{Key: "/s/b", Delete: true}); err != fleet.ErrMoved {
		t.Errorf("at a wrong revision: %v", err)
	}
	entries, _, err := s.Get(ctx, "/s/")
	if err != nil || len(entries) != 2 || entries[0].Revision != r1 || entries[1].Revision != r1 || string(entries[1].Value) != "b" {
		t.Errorf("%+v, %v", entries, err)
	}
	if _, _, err := s.Swap(ctx, "/s/a", []byte("3"), r1, 0, fleet.Write{Key: "/s/b", Delete: true}, fleet.Write{Key: "/s/none", Delete: true}); err != nil {
		t.Error(err)
	}
	if entries, _, err := s.Get(ctx, "/s/"); err != nil || len(entries) != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
}
