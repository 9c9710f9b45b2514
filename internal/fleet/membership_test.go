package fleet

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// joinedAt tells since when a node has been joined.
func joinedAt(t *testing.T, m *member) time.Time {
	t.Helper()
	s := m.Status()
	if !s.Joined {
		t.Errorf("node %s has left: %s", m.name, s.Why)
	}
	return s.Since
}

// While the lease lasts, answers that are late cost nothing.
func TestSlowRenew(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		since := joinedAt(t, a)
		store.set(func() { a.link.slow = 1 })
		time.Sleep(3 * lease)
		if !joinedAt(t, a).Equal(since) {
			t.Errorf("it has left\n%s", a.log)
		}
		must(t)(a.weigh("a", 2))
		store.set(func() { a.link.slow = 100 })
		time.Sleep(2 * lease)
		if !says(a.log, "the store has not answered within") {
			t.Errorf("it has not left\n%s", a.log)
		}
		store.set(func() { a.link.slow = 0 })
		time.Sleep(2 * longestPause)
		joinedAt(t, a)
	})
}

// A node whose key somebody deletes while its watch is silent writes it again.
func TestKeyIsGone(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		time.Sleep(lease) // all is told
		store.set(func() { a.link.stalled = true; store.remove(nodeA) })
		time.Sleep(lease/3 + longestPause)
		synctest.Wait()
		store.set(func() {
			if store.keys[nodeA].Key == "" {
				t.Error("the key is not there")
			}
		})
		joinedAt(t, a)
	})
}

// A store that is restored in place says nothing by a watch. Nodes find out, and take no
// changes until somebody has decided what counts.
func TestStoreGoesBack(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		time.Sleep(lease)
		restore := store.backup()
		must(t)(a.weigh("a", 2))
		must(t)(a.weigh("a", 3))
		synctest.Wait()
		restore()
		_, err := a.weigh("a", 4)
		refused(t, err, "the store has gone back to an earlier state")
		if moved := (*director.MovedError)(nil); errors.As(err, &moved) {
			t.Errorf("from generation %d to %d", moved.Want, moved.Is)
		}
		time.Sleep(lease)
		synctest.Wait()
		for _, m := range []*member{a, b} {
			m.runs(3, "a3 b1")
			joinedAt(t, m)
			if p := m.Status().Problem; !strings.Contains(p, "the store has generation 1, and this node had 3: was it restored from a backup?") {
				t.Errorf("node %s: %s", m.name, p)
			}
			if _, err := m.weigh("a", 5); err == nil {
				t.Errorf("node %s has made a change", m.name)
			}
		}
		store.set(func() { store.remove(configKey) })
		time.Sleep(lease)
		synctest.Wait()
		for _, m := range []*member{a, b} {
			m.runs(4, "a3 b1")
		}
		must(t)(b.weigh("a", 5))
	})
}

// If the configuration is deleted in the store, the node that has run the newest writes it, and
// not one that lags.
func TestNewestWritesAgain(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		c := join(t, store, "c", folder(t, oneService))
		store.set(func() { b.link.stalled = true })
		must(t)(a.weigh("a", 2))
		must(t)(a.weigh("a", 3))
		synctest.Wait()
		store.set(func() { a.link.full = errors.New("a cannot write"); c.link.full = a.link.full })
		store.set(func() { store.remove(configKey); b.link.stalled = false; b.link.compact = true })
		time.Sleep(lease / 2)
		synctest.Wait()
		b.runs(1, "a1 b1")
		if p := b.Status().Problem; !strings.Contains(p, "the store has no configuration; node ") || !strings.Contains(p, "which ran generation 3 and this node 1") {
			t.Errorf("problem %q", p)
		}
		store.set(func() { c.link.full = nil })
		time.Sleep(2 * retryEvery)
		synctest.Wait()
		for _, m := range []*member{a, b, c} {
			m.runs(4, "a3 b1")
		}
	})
}

// A node that cannot write the configuration is not awaited for ever.
func TestNewestCannotWrite(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { b.link.stalled = true })
		must(t)(a.weigh("a", 2))
		synctest.Wait()
		store.set(func() { a.link.full = errors.New("a cannot write") })
		store.set(func() { store.remove(configKey); b.link.stalled = false; b.link.compact = true })
		time.Sleep(lease + 2*retryEvery)
		synctest.Wait()
		b.runs(2, "a1 b1")
	})
}

// What a node has not seen one by one it cannot undo: it would take back all of it.
func TestRollbackOfWhatWasMissed(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		must(t)(a.weigh("a", 2))
		b := join(t, store, "b", folder(t, oneService))
		undo := func(m *member, n int) error {
			_, err := m.dir.Rollback(t.Context(), n, director.Change{By: "ops"})
			return err
		}
		refused(t, undo(b, 1), "generation 2 cannot be undone on this node, which joined the fleet then", "use rollback on a node that made the changes one by one")
		must(t)(a.weigh("a", 3))
		synctest.Wait()
		refused(t, undo(b, 2), "generation 2 cannot be undone on this node")
		store.set(func() { b.link.cut = errCut })
		time.Sleep(2 * lease)
		must(t)(a.weigh("a", 4))
		must(t)(a.weigh("a", 5))
		store.set(func() { b.link.cut = nil })
		time.Sleep(2 * longestPause)
		synctest.Wait()
		b.runs(5, "a5 b1")
		refused(t, undo(b, 1), "generation 5 cannot be undone on this node, which caught up from generation 3 then")
		b.runs(5, "a5 b1")
		must(t)(a.weigh("a", 6))
		synctest.Wait()
		if err := undo(b, 1); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		a.runs(7, "a5 b1")
		events := b.dir.Events()
		var texts []string
		for _, e := range events {
			texts = append(texts, e.Text)
		}
		if all := strings.Join(texts, "; "); !strings.Contains(all, "joined the fleet") || !strings.Contains(all, "caught up from generation 3") {
			t.Errorf("events say %q", all)
		}
	})
}
