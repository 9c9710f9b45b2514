package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// A node that cannot use what the store has as the configuration, such as one of an older version,
// judges orders as any other one, and obeys them. Otherwise an order would have no end, and such a
// node could not be told to shut down.
func TestOrderWithANodeThatCannotUseTheConfiguration(t *testing.T) {
	for name, blind := range map[string]string{"the judge": "a", "the one that is told": "c"} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				u := newUpgrading(t, "a", "b", "c")
				c := u.node("c")
				u.does("c", func(string) (string, error) {
					go func() { time.Sleep(time.Second); c.stop() }()
					return "draining, then shutting down", nil
				})
				n := u.node(blind).Node
				n.mu.Lock()
				n.newest, n.unusable = nil, errors.New("it has format 2; this one reads format 1")
				n.mu.Unlock()
				within, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				o, err := u.node("b").Order(within, Shutdown, []string{"c"}, "boss", "here")
				if err != nil || o.Summary() != "done on 1 node" {
					t.Errorf("%v, %v", o, err)
				}
			})
		})
	}
}

// Who gives an order whose answer is lost learns that it may be carried out.
func TestOrderWhoseAnswerIsLost(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		b := u.node("b")
		b.link.set(func() { b.link.lostReply = true })
		_, err := b.Order(t.Context(), Upgrade, nil, "boss", "here")
		if err == nil || !strings.Contains(err.Error(), "may still") || strings.Contains(err.Error(), "takes no changes") {
			t.Errorf("%v", err)
		}
	})
}
