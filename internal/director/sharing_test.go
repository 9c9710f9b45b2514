package director

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// sharedHold is a hold of all nodes, as a fleet tells of it.
func sharedHold(release *ReleaseOrder) []SharedHold {
	o := HoldOrder{By: "ops", From: "node b", Service: "web", Group: "g", For: time.Hour, ID: "one"}
	return []SharedHold{{HoldOrder: o, Release: release}}
}

// A release of all nodes may be followed by another one, which lets the clients go faster. To be
// told of the same release twice changes nothing.
func TestSharedReleaseTwice(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		say := func(r *ReleaseOrder) {
			t.Helper()
			if err := d.HoldShared(t.Context(), sharedHold(r)); err != nil {
				t.Fatal(err)
			}
		}
		release := func(id string, over time.Duration) *ReleaseOrder {
			return &ReleaseOrder{By: "ops", From: "node b", Service: "web", Group: "g", Over: over, ID: id}
		}
		say(nil)
		began := time.Now()
		var out leavings
		for range 10 {
			w.join(out.after(began))
		}
		for range 5 {
			say(release("x", 1000*time.Second))
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		if g, _ := d.groupFor("web", "g"); !g.Hold().Released.Equal(began) || g.Hold().ReleaseID != "x" {
			t.Errorf("held: %+v", g.Hold())
		}
		// Of one without an ID, as earlier versions write it, nobody can tell whether it is new.
		say(release("", 2*time.Second))
		if g, _ := d.groupFor("web", "g"); !g.Hold().Released.Equal(began) {
			t.Errorf("held: %+v", g.Hold())
		}
		next := newWorld()
		d = heir(t, next, d)
		if g, _ := d.groupFor("web", "g"); g.Hold() == nil || g.Hold().ReleaseID != "x" || g.Hold().ID != "one" {
			t.Errorf("the next process holds %+v", g.Hold())
		}
		say(release("y", 2*time.Second))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if g, _ := d.groupFor("web", "g"); g.Hold() != nil {
			t.Errorf("still held: %+v", g.Hold())
		}
	})
}

// What one node has released alone, it does not hold again, and neither does the process that
// takes its place.
func TestReleasedAloneStaysReleased(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		say := func() {
			t.Helper()
			if err := d.HoldShared(t.Context(), sharedHold(nil)); err != nil {
				t.Fatal(err)
			}
			if g, _ := d.groupFor("web", "g"); g.Hold() != nil {
				t.Errorf("held: %+v", g.Hold())
			}
		}
		if err := d.HoldShared(t.Context(), sharedHold(nil)); err != nil {
			t.Fatal(err)
		}
		if r, err := d.releaseHere(t.Context(), ReleaseOrder{Service: "web", Group: "g"}); err != nil || !r.Held {
			t.Fatal(r, err)
		}
		say()
		d = heir(t, newWorld(), d)
		say()
		d = heir(t, newWorld(), d)
		say()
	})
}

// What the fleet says to be over is not held, and ends a hold that it has replaced.
func TestSharedHoldThatIsOver(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(twoGroups, "try"))
		say := func(id string, end time.Time, want time.Duration) {
			t.Helper()
			list := sharedHold(nil)
			list[0].ID, list[0].End = id, end
			if err := d.HoldShared(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			got := time.Duration(0)
			if g, _ := d.groupFor("web", "g"); g.Hold() != nil {
				got = time.Until(g.Hold().Until)
			}
			if got != want {
				t.Errorf("order %s: held for %v; want %v", id, got, want)
			}
		}
		now := time.Now()
		say("one", now, 0)
		say("two", now.Add(2*time.Hour), time.Hour)
		say("three", now.Add(time.Minute), time.Minute)
		say("three", now.Add(time.Second), time.Minute) // it counts by itself
		say("four", now.Add(-time.Second), 0)
		say("three", now.Add(time.Minute), 0) // it has ended here
		say("five", now.Add(time.Minute), time.Minute)
	})
}
