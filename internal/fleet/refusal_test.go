package fleet

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// tried is how many writes a store was asked for by now.
func (m *memoryStore) tried() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.calls {
		if c.what == "write" {
			n++
		}
	}
	return n
}

// A store that renews leases and takes no writes is told: at once when a change is refused, with
// the next renewal when the node has something to say, and else within a minute or so. It is over
// soon after the store takes writes again, and nothing was written needlessly.
func TestStoreThatTakesNoWrites(t *testing.T) {
	for _, how := range []string{"change", "sessions", "rest"} {
		t.Run(how, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				l := store.link()
				sessions := int64(7)
				l.sessions = func() int64 {
					if how == "sessions" {
						sessions++
					}
					return sessions
				}
				a := begin(t, l, "a", folder(t, oneService))
				synctest.Wait()
				since := joinedAt(t, a)
				time.Sleep(3 * lease)
				store.set(func() { store.full = errors.New("etcd: mvcc: database space exceeded") })
				wait := lease/3 + time.Second
				switch how {
				case "change":
					_, err := a.weigh("a", 2)
					refused(t, err, "database space exceeded")
					wait = time.Second
				case "rest":
					wait = probeEvery + lease
				}
				time.Sleep(wait)
				synctest.Wait()
				const want = "but it cannot write to the store: etcd: mvcc: database space exceeded"
				if s := a.Status(); !s.Joined || s.Silent != 0 || !strings.Contains(s.String(), want) || !strings.Contains(s.Nodes[0].Problem, want[4:]) {
					t.Errorf("it says %s", s)
				}
				store.set(func() { store.calls = []call{} })
				time.Sleep(6 * lease)
				if n := store.tried(); n < 15 || n > 20 {
					t.Errorf("%d writes were tried in 18 renewals", n)
				}
				if n := len(a.log.Lines("the store refuses what this node asks")); n != 1 {
					t.Errorf("%d lines in the log\n%s", n, a.log)
				}
				var revision int64
				store.set(func() { store.full, revision = nil, store.revision })
				time.Sleep(lease / 3)
				synctest.Wait()
				if s := a.Status(); s.Refused != "" || strings.Contains(s.String(), "cannot") || !joinedAt(t, a).Equal(since) {
					t.Errorf("the store takes writes again: %s", s)
				}
				store.set(func() {
					if how != "sessions" && store.revision != revision {
						t.Error("something was written")
					}
					store.calls = []call{}
				})
				time.Sleep(10 * time.Minute)
				if n := store.tried(); how != "sessions" && n > 10 {
					t.Errorf("%d writes were tried in ten minutes at rest", n)
				}
				must(t)(a.weigh("a", 3))
			})
		})
	}
}

// One write that fails is no refusal.
func TestOneRefusedWriteIsNone(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		time.Sleep(lease)
		a.link.mu.Lock()
		a.link.full = errors.New("etcd: request is too large") // of what has no lease: a change
		a.link.mu.Unlock()
		_, err := a.weigh("a", 2)
		refused(t, err, "too large")
		for end := time.Now().Add(2 * lease); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if s := a.Status(); s.Refused != "" {
				t.Fatalf("it says %s", s)
			}
		}
	})
}
