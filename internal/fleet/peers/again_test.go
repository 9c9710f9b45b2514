package peers

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// A node whose silence was noted just as it spoke is followed again, and is not lost for ever.
func TestSilenceIsNotForEver(t *testing.T) {
	a := startAt(t, "a", testkit.Nobody(t), bySecret(), func(x *Exchange) { x.opt.Beat = time.Second }) // it is not silent by chance
	b := start(t, "b", bySecret())
	b.Follow([]Member{{"a", a.addr}})
	b.sees(t, "a", true, "")
	b.mu.Lock()
	p := b.peers["a"]
	p.heard = time.Now()
	b.mu.Unlock()
	b.silence(p) // the timer, which waited for the lock
	if list, _ := b.Peers(); !list[0].Live {
		t.Error("a node that spoke a moment ago is lost")
	}
	b.mu.Lock()
	b.lose(p, errSilent)
	b.mu.Unlock()
	b.sees(t, "a", true, "")
}

// Names that are too long, or that JSON makes long, stop nothing.
func TestLongNames(t *testing.T) {
	a := startAt(t, "a", testkit.Nobody(t), bySecret(), func(x *Exchange) { x.opt.Beat = time.Second }) // ten megabytes take a while
	b := start(t, "b", bySecret())
	odd := strings.Repeat("<", maxName)
	all := map[Host]Finding{web: {Up: true}, {"web", "g", odd + "<", "10.0.0.1:80"}: {Up: true}}
	for i := range 3 * perEvent {
		all[Host{odd, odd, fmt.Sprintf("%d%s", i, odd[:500]), odd}] = Finding{Reason: odd}
	}
	sessions := map[Host]int64{}
	for h := range all {
		sessions[h] = 1
	}
	a.Tell(all, sessions)
	b.Follow([]Member{{"a", a.addr}})
	testkit.Eventually(t, "all are there that can be", func() bool {
		list, _ := b.Peers()
		return list[0].Live && list[0].Checks == len(all)-1
	})
	testkit.Eventually(t, "sessions too", func() (is bool) {
		b.mu.RLock()
		defer b.mu.RUnlock()
		return len(b.peers["a"].sessions) == len(all)-1
	})
}

// A node that is refused each time is warned of once, though each error has another port, and
// one whose streams end at once is not followed without a pause.
func TestStreamsThatEnd(t *testing.T) {
	var resets, ends atomic.Int32
	reset := odd(t, func(w http.ResponseWriter, _ *http.Request) {
		resets.Add(1)
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = c.Close()
		}
	})
	ready := odd(t, func(w http.ResponseWriter, _ *http.Request) {
		h := hi()
		h.Node, h.Beat = "ready", time.Second // it is ready before it counts as silent, on a busy machine too
		say(w, "hello", h)
		say(w, "ready", 1)
		ends.Add(1)
	})
	a := start(t, "a", bySecret())
	began := time.Now()
	a.Follow([]Member{reset, {"ready", ready.Addr}})
	testkit.Eventually(t, "it tries again", func() bool {
		return resets.Load() > 5 && ends.Load() > 1 && time.Since(began) > 3*time.Second
	})
	n, took := ends.Load(), time.Since(began)
	if most := 10 + int32((took-3*time.Second)/(longestPause/2)); n > most {
		t.Errorf("%d streams within %v, want %d at most", n, took, most)
	}
	if lines := a.log.Lines("cannot follow a node of the fleet"); len(lines) != 1 {
		t.Errorf("%q", lines)
	}
}

// A node whose process hands over to the next one is not lost, though its port is closed for a
// moment.
func TestHandOverIsNoLoss(t *testing.T) {
	testkit.BestOf(t, 5, func() error { return handOver(t) }) // a busy machine may take too long
}

func handOver(t *testing.T) (err error) {
	a, b := start(t, "a", bySecret()), start(t, "b", bySecret())
	lost := make(chan struct{}, 1)
	b.opt.Lost = func() {
		select {
		case lost <- struct{}{}:
		default:
		}
	}
	b.Follow([]Member{{"a", a.addr}})
	b.sees(t, "a", true, "")
	a.stop()
	testkit.Eventually(t, "its port is closed", func() bool {
		list, _ := b.Peers()
		b.mu.RLock()
		defer b.mu.RUnlock()
		return !list[0].Live || errors.Is(b.peers["a"].why, syscall.ECONNREFUSED)
	})
	next := startAt(t, "a", a.addr, bySecret())
	testkit.Eventually(t, "it follows the next process", func() bool {
		next.mu.RLock()
		defer next.mu.RUnlock()
		return next.followers == 1
	})
	b.sees(t, "a", true, "")
	select {
	case <-lost:
		err = fmt.Errorf("it was lost meanwhile:\n%s", b.log)
	default:
	}
	next.stop()
	return err
}
