package fleet

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// A node whose store has another history takes no changes and no confirm.
func TestOtherHistoryTakesNothing(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		must(t)(a.try("a", 4, time.Hour))
		synctest.Wait()
		a.mu.Lock()
		a.memory.Change = "another"
		a.mu.Unlock()
		const why = "the store has another generation 2 than this node had"
		_, err := a.weigh("b", 3)
		refused(t, err, why)
		_, err = a.dir.Confirm(t.Context(), 2, "ops", "")
		refused(t, err, why)
	})
}

// A confirm finds out that the store has gone back.
func TestConfirmFindsAStoreThatWentBack(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		restore := store.backup()
		must(t)(a.try("a", 4, time.Hour))
		synctest.Wait()
		store.set(func() { a.link.stalled = true })
		restore()
		_, err := a.dir.Confirm(t.Context(), 2, "ops", "")
		refused(t, err, errWentBack.Error())
	})
}

// Changes that wait outlive a store that has lost everything, with what is left of their time.
func TestConfirmOutlivesAnEmptiedStore(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		time.Sleep(10 * time.Second)
		store.set(func() {
			store.remove("/txlb/edge/confirm/2")
			store.remove(configKey)
		})
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if w := a.weights(); w != "a4 b1" {
			t.Errorf("node a runs %s", w)
		}
		waits(t, "[2]", a)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if w := a.weights(); w != "a1 b1" {
			t.Errorf("node a runs %s", w)
		}
		waits(t, "[]", a)
	})
}

// What a node has made itself it can undo, also if it had not followed it when another one
// changed something.
func TestOwnChangesAreNoLeap(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		ran := a.ran
		must(t)(a.weigh("a", 4))
		must(t)(a.weigh("a", 5))
		synctest.Wait()
		a.mu.Lock()
		a.ran = ran // as if it had not followed its own changes
		a.mu.Unlock()
		must(t)(b.weigh("b", 3))
		synctest.Wait()
		if _, err := a.dir.Rollback(t.Context(), 1, director.Change{By: "ops"}); err != nil {
			t.Error(err)
		}
		if w := a.weights(); w != "a5 b1" {
			t.Errorf("node a runs %s", w)
		}
	})
}

// An order that the store has taken is no error because the process hands over meanwhile.
func TestHoldDuringAnUpgrade(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { a.link.late = time.Second })
		ended := make(chan error, 1)
		go func() { _, err := a.hold(time.Minute); ended <- err }()
		time.Sleep(500 * time.Millisecond)
		thaw := a.dir.Freeze(errors.New("an upgrade is under way"))
		if err := <-ended; err != nil {
			t.Error(err)
		}
		holding(t, "by ops of a from node a until 59s, 10000", b)
		thaw()
		a.HandOver()
		next := join(t, store, "a", filepath.Dir(a.file))
		a.stop()
		holding(t, "by ops of a from node a until 60s, 10000", next)
		// Nobody can tell whether a release has arrived.
		store.set(func() { next.link.late, next.link.cut = 0, errCut })
		r, err := next.release(0)
		if err != nil || r.Alone == nil {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
