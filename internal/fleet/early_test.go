package fleet

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// A node that learns of a change by the answer to its own one, and not by the watch, does not
// take its time for over.
func TestNotUndoneBeforeItsTime(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { b.link.stalled = true })
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		if _, err := b.weigh("b", 3); err == nil {
			t.Error("node b made a change of what it did not know")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		a.runs(2, "a4 b1")
		b.runs(2, "a4 b1")
		waits(t, "[2]", a, b)
		a.kill()
		store.set(func() { b.link.stalled = false })
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.runs(3, "a1 b1")
		waits(t, "[]", b)
	})
}

// A look at the whole store that is older than what this node has written does not take that away.
func TestOldLookKeepsWhatThisNodeWrote(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		entries, revision, err := a.link.Get(t.Context(), a.prefix())
		if err != nil {
			t.Fatal(err)
		}
		store.set(func() { a.link.stalled = true })
		must(t)(a.try("a", 4, time.Minute))
		if _, err := a.hold(time.Minute); err != nil {
			t.Fatal(err)
		}
		a.hearAll(entries, revision)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		a.runs(2, "a4 b1")
		waits(t, "[2]", a)
		holding(t, "by ops of a from node a until 55s, 10000", a)
	})
}

// A rollback on one node ends the wait of a change of both parts on another one, which takes back
// its own part, too, and also if a change came after it.
func TestRollbackElsewhereTakesBackTheOwnPart(t *testing.T) {
	for _, away := range []bool{false, true} {
		testkit.Bubble(t, func(t *testing.T) {
			store := newMemoryStore()
			a := join(t, store, "a", folder(t, oneService))
			b := join(t, store, "b", folder(t, oneService))
			must(t)(a.dir.Do(t.Context(), director.Change{By: "ops", Verb: "both", Confirm: time.Minute, Apply: func(c *config.Config) error {
				c.Logging.Level = "debug"
				return setWeight(c, "a", 4)
			}}))
			synctest.Wait()
			if away {
				store.set(func() { a.link.cut = errCut })
			}
			must(t)(b.dir.Rollback(t.Context(), 1, director.Change{By: "ops"}))
			if away {
				must(t)(b.weigh("b", 3))
				store.set(func() { a.link.cut = nil })
				time.Sleep(2 * longestPause)
			}
			synctest.Wait()
			waits(t, "[]", a, b)
			if got := a.dir.State().Config.Logging.Level; got != "info" {
				t.Errorf("level %s; want info", got)
			}
			time.Sleep(2 * saveEvery)
			if says := a.fileSays(); strings.Contains(says, `level="debug"`) {
				t.Errorf("the file says\n%s", says)
			}
		})
	}
}

// A second release during a slow one is another order.
func TestReleaseHasAnID(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		if _, err := a.hold(time.Minute); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for range 2 {
			if r, err := a.release(time.Hour); err != nil || !r.Held {
				t.Fatal(r, err)
			}
			a.mu.Lock()
			for _, h := range a.holds {
				seen[h.shared("a").Release.ID] = true
			}
			a.mu.Unlock()
		}
		if len(seen) != 2 || seen[""] {
			t.Errorf("releases %v", seen)
		}
	})
}
