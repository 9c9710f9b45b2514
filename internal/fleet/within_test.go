package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// A limit says who has not answered, and keeps whether a write may still take effect.
func TestWithin(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		err := within(t.Context(), time.Second, wait)
		if late := within(t.Context(), 5*time.Second/3, wait); late == nil || late.Error() != "the store has not answered within 1.7s" {
			t.Errorf("%v", late)
		}
		if unknown := (*UnknownError)(nil); errors.As(err, &unknown) || err == nil || err.Error() != "the store has not answered within 1s" {
			t.Errorf("%T %v", err, err)
		}
		err = within(t.Context(), time.Second, func(ctx context.Context) error { return &UnknownError{wait(ctx)} })
		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) || err.Error() != "the store has not answered within 1s" {
			t.Errorf("%T %v", err, err)
		}
	})
}

// A change about which the store says nothing at all may still take effect.
func TestSilentStore(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		store.set(func() { a.link.mute = true })
		_, err := a.weigh("a", 4)
		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			t.Errorf("%T %v", err, err)
		}
		if err == nil || !strings.Contains(err.Error(), "may still take effect") {
			t.Error(err)
		}
		a.runs(1, "a1 b1")
	})
}
