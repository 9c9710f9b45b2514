package testkit

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// Clock measures time in which this process could run. It stands still while the
// process does: because the machine is busy with others, or somebody has stopped the
// process. So a limit on it says how long the code may take, on any machine. It is
// never ahead of the time of day: what must not come early is measured by that.
type Clock struct {
	mu    sync.Mutex
	began time.Time
	woke  time.Time     // when it last looked
	still time.Duration // how long it stood still before that
	ended bool          // it looks no more, so it goes on with the time of day
	stop  func()
}

// clockTick is how often a clock looks. What it is late with is time in which the
// process did not run. Each look is a little late on a busy machine, so there are few:
// a clock must not stand still for what only waits for its turn.
const clockTick = 50 * time.Millisecond

// NewClock returns a clock that runs until Stop, or the end of the test. From then on it
// goes on with the time of day: helpers of a test may still wait by it while the test is
// cleaned up.
func NewClock(t testing.TB) *Clock {
	now := time.Now()
	c := &Clock{began: now, woke: now}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTimer(clockTick)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				c.look(tick)
			}
		}
	}()
	c.stop = sync.OnceFunc(func() {
		close(stop)
		<-ended
		c.mu.Lock()
		defer c.mu.Unlock()
		c.still += c.late(time.Now())
		c.ended = true
	})
	t.Cleanup(c.stop)
	return c
}

// Stop ends the work of a clock, which costs a little of a processor: where that is
// measured, no clock may run.
func (c *Clock) Stop() { c.stop() }

func (c *Clock) look(tick *time.Timer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.still += c.late(now)
	c.woke = now
	tick.Reset(clockTick)
}

// late returns for how long the process has not run since the last look.
func (c *Clock) late(now time.Time) time.Duration {
	if c.ended {
		return 0
	}
	return max(0, now.Sub(c.woke)-clockTick)
}

// Now returns how long the process has run since the clock was made.
func (c *Clock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	return now.Sub(c.began) - c.still - c.late(now)
}

// Since returns how long the process has run since an earlier Now.
func (c *Clock) Since(began time.Duration) time.Duration { return c.Now() - began }

// BestOf repeats a measurement until one keeps to its limit, at most n times. What
// others do on the machine can only make it look worse. If none does, the test fails
// with what each has said.
func BestOf(t testing.TB, n int, measure func() error) {
	t.Helper()
	var all []string
	for i := range n {
		err := measure()
		if err == nil {
			for _, said := range all {
				t.Log(said)
			}
			return
		}
		all = append(all, fmt.Sprintf("series %d of %d: %v", i+1, n, err))
		if t.Failed() {
			break
		}
	}
	for _, said := range all {
		t.Error(said)
	}
}
