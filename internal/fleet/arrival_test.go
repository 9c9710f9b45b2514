package fleet

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// What a node is told while it is joining waits for that: changes, of what it then runs, and all
// orders. It neither refuses them nor says that others have changed something.
func TestOrdersWaitForANodeThatIsJoining(t *testing.T) {
	for name, order := range map[string]func(m *member) error{
		"change": func(m *member) error { _, err := m.weigh("b", 3); return err },
		"own": func(m *member) error {
			_, err := m.dir.Do(m.t.Context(), director.Change{By: "ops", Apply: func(c *config.Config) error { c.Logging.Level = "debug"; return nil }})
			return err
		},
		"rollback": func(m *member) error {
			_, err := m.dir.Rollback(m.t.Context(), 1, director.Change{By: "ops"})
			return err
		},
		"hold": func(m *member) error { _, err := m.hold(time.Minute); return err },
		"release": func(m *member) error {
			r, err := m.release(0)
			if err == nil && r.Alone != nil {
				err = r.Alone
			}
			return err
		},
		"confirm": func(m *member) error { _, err := m.dir.Confirm(m.t.Context(), 0, "ops", ""); return err },
		"order": func(m *member) error {
			_, err := m.Order(m.t.Context(), Shutdown, []string{"b"}, "ops", "")
			return err
		},
		"cancel": func(m *member) error {
			if _, _, err := m.Cancel(m.t.Context(), "", "ops"); err == nil || errors.As(err, new(*RefusedError)) {
				return errors.New("cancelled, or refused by the fleet")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				b := join(t, store, "b", folder(t, oneService))
				b.does = func(string) (string, error) { go b.stop(); return "draining", nil }
				dir := folder(t, oneService)
				a := join(t, store, "a", dir)
				a.kill()
				must(t)(b.try("a", 2, time.Minute)) // a does not know it
				synctest.Wait()
				l := store.link()
				store.set(func() { l.cut = errCut })
				a = begin(t, l, "a", dir)
				ended := make(chan error, 1)
				go func() { ended <- order(a) }()
				time.Sleep(time.Second) // so that the second pause between two attempts, or the third, is the last
				select {
				case err := <-ended:
					t.Fatal(name, "has not waited:", err)
				default:
				}
				store.set(func() { l.cut = nil })
				err := <-ended
				if name == "rollback" { // it knows by now that it took over more than one change
					refused(t, err, "cannot be undone on this node, which joined the fleet then")
				} else if err != nil {
					t.Error(err)
				}
				if name == "change" {
					synctest.Wait()
					a.runs(3, "a2 b3")
				}
			})
		})
	}
}

// Nobody waits for longer than some seconds for a node that does not join, and later not at all;
// nor does somebody who has gone.
func TestOrdersDoNotWaitForLong(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		l := store.link()
		store.set(func() { l.cut = errCut })
		dir := folder(t, oneService)
		m := begin(t, l, "a", dir)
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := m.dir.Do(gone, director.Change{Apply: func(c *config.Config) error { return setWeight(c, "a", 2) }}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gone: %v", err)
		}
		for _, want := range []time.Duration{joinWithin, joinWithin} {
			_, err := m.weigh("a", 2)
			refused(t, err, "fleet edge takes no changes from this node now: no route to the store")
			if got := time.Since(began); got != want {
				t.Errorf("refused after %v; want %v", got, want)
			}
		}
		// One that leaves says so at once.
		store.set(func() { l.cut = nil })
		time.Sleep(2 * longestPause)
		must(t)(m.weigh("a", 2))
		store.set(func() { l.cut = errCut })
		time.Sleep(2 * lease)
		began = time.Now()
		_, err := m.weigh("a", 3)
		refused(t, err, "no route to the store")
		if got := time.Since(began); got != 0 {
			t.Errorf("refused after %v", got)
		}
	})
}
