package fleet

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// knowing is a store that may not answer, and knows why.
type knowing struct{ hanging }

func (knowing) Diagnose(context.Context) string { return "http://10.0.0.5:2379: connection refused" }

// A node that cannot join says what its store knows of that.
func TestNodeSaysWhyTheStoreDoesNotAnswer(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		h := hanging{all: new(atomic.Bool), renew: new(atomic.Int64)}
		h.all.Store(true)
		l := newMemoryStore().link()
		l.wrap = func(s Store) Store { h := h; h.Store = s; return knowing{h} }
		m := begin(t, l, "a", folder(t, oneService))
		time.Sleep(lease)
		synctest.Wait()
		const want = "the store has not answered within 3s: http://10.0.0.5:2379: connection refused"
		if s := m.Status(); s.Joined || s.Why != want || !says(m.log, want) {
			t.Errorf("joined %v, %s\n%s", s.Joined, s.Why, m.log)
		}
		h.all.Store(false)
		time.Sleep(lease)
		synctest.Wait()
		if s := m.Status(); !s.Joined {
			t.Errorf("not joined: %s", s.Why)
		}
	})
}
