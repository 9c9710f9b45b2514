package fleet

import (
	"testing"
	"testing/synctest"
	"time"
)

// A node that learns of a change by the answer to its own one, and not by the watch, does not
// take its time for over.
func TestNotUndoneBeforeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
