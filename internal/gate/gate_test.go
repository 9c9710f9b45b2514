package gate

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/txlb/txlb/internal/testkit"
)

// The gate lets one in, kinds take turns, and who gives up is not waited for.
func TestGate(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		const key, hash, text = 0, 1, 2
		g := New(1, 3)
		if !g.Enter(t.Context().Done(), hash) || g.Free() != 0 || g.Places() != 1 {
			t.Fatal("the first has no place")
		}
		var order []string
		var running sync.WaitGroup
		come := func(name string, k Kind) {
			running.Go(func() {
				if g.Enter(t.Context().Done(), k) {
					order = append(order, name)
					g.Leave()
				}
			})
			synctest.Wait()
		}
		come("key 1", key)
		come("key 2", key)
		come("key 3", key)
		done := make(chan struct{})
		running.Go(func() {
			if g.Enter(done, hash) {
				t.Error("who gives up has a place")
			}
		})
		synctest.Wait()
		come("hash", hash)
		come("text", text)
		if n := g.Waiting(key); n != 3 {
			t.Errorf("%d wait", n)
		}
		close(done)
		synctest.Wait()
		g.Leave()
		running.Wait()
		if want := []string{"key 1", "hash", "text", "key 2", "key 3"}; !slices.Equal(order, want) {
			t.Errorf("the order is %q", order)
		}
		if g.Free() != 1 {
			t.Errorf("%d places are free", g.Free())
		}
	})
}
