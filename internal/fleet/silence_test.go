package fleet

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// hanging is a store whose calls may not be answered.
type hanging struct {
	Store
	all   *atomic.Bool  // no call is
	renew *atomic.Int64 // so long a renewal takes
}

func (h hanging) wait(ctx context.Context) error {
	if !h.all.Load() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (h hanging) Get(ctx context.Context, prefix string) ([]Entry, int64, error) {
	if err := h.wait(ctx); err != nil {
		return nil, 0, err
	}
	return h.Store.Get(ctx, prefix)
}

func (h hanging) Renew(ctx context.Context, lease Lease) error {
	if err := h.wait(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(h.renew.Load())):
	}
	return h.Store.Renew(ctx, lease)
}

func (h hanging) Swap(ctx context.Context, key string, value []byte, was int64, lease Lease, also ...Write) (int64, Entry, error) {
	if err := h.wait(ctx); err != nil {
		return 0, Entry{}, &UnknownError{err}
	}
	return h.Store.Swap(ctx, key, value, was, lease, also...)
}

// joinHanging starts a node whose store may hang.
func joinHanging(t *testing.T, store *memoryStore, name string) (*member, hanging) {
	h := hanging{all: new(atomic.Bool), renew: new(atomic.Int64)}
	l := store.link()
	l.wrap = func(s Store) Store { h := h; h.Store = s; return h }
	m := begin(t, l, name, folder(t, oneService))
	synctest.Wait()
	return m, h
}

// A store that has gone silent is seen long before the lease ends, and the node says so until it
// is answered again.
func TestStoreThatFallsSilent(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		a, h := joinHanging(t, newMemoryStore(), "a")
		time.Sleep(3 * lease)
		synctest.Wait()
		h.all.Store(true)
		began := time.Now()
		for a.Status().Silent == 0 && time.Since(began) < lease {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		took := time.Since(began)
		s := a.Status()
		if took > lease/3+3*time.Second || !s.Joined || s.Silent < 3 || s.Silent > 7 {
			t.Errorf("after %v: joined %v, silent for %v s", took, s.Joined, s.Silent)
		}
		if text := s.String(); !strings.Contains(text, "ago, but the store has not answered for ") {
			t.Errorf("it says %s", text)
		}
		if n := len(a.log.Lines("the store does not answer")); n != 1 {
			t.Errorf("%d lines in the log\n%s", n, a.log)
		}
		h.all.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := a.Status(); !s.Joined || s.Silent != 0 || s.Why != "" || time.Since(s.Heard) > 2*time.Second {
			t.Errorf("it answers again: %+v", s)
		}
		must(t)(a.weigh("a", 2))
		// For longer than the lease: the node has left then, and says why.
		h.all.Store(true)
		time.Sleep(2 * lease)
		synctest.Wait()
		if s := a.Status(); s.Joined || s.Silent != 0 || !strings.Contains(s.String(), "not joined for ") {
			t.Errorf("%+v", s)
		}
		h.all.Store(false)
		time.Sleep(2 * longestPause)
		joinedAt(t, a)
	})
}

// A renewal that is late, or several, are no silence while the store answers other calls.
func TestLateRenewalsAreNoSilence(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		a, h := joinHanging(t, newMemoryStore(), "a")
		since := joinedAt(t, a)
		for _, late := range []time.Duration{time.Second, 2900 * time.Millisecond, 0} {
			h.renew.Store(int64(late))
			for end := time.Now().Add(5 * lease); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if s := a.Status(); s.Silent != 0 {
					t.Fatalf("renewals take %v: silent for %v s", late, s.Silent)
				}
			}
		}
		if !joinedAt(t, a).Equal(since) {
			t.Error("it has left")
		}
	})
}
