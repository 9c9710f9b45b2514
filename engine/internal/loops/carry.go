//go:build linux

package loops

import (
	"math"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A loop that has little to do is carried: the goroutine of another loop runs
// its turns beside its own. To be woken is most of what a request costs at low
// load, and a goroutine that carries is woken once for all of its loops. The
// loop itself notices nothing: its sessions, listeners and timers stay with it,
// and its poller is watched by the carrier's.
//
// Whoever runs a loop owns it. It changes hands between two turns, by tasks
// that the govern goroutine starts one after the other.

// keyCarried is the key of carried loop 0. Listeners count down from
// keyListener and never come near it.
const keyCarried = math.MinInt32

// A carrier is what the goroutine of a loop has to do beside the loop's own turns.
type carrier struct {
	poll  *poller
	awake *atomic.Int64 // ns that the goroutine was not asleep
	clock func() int64

	carried []*loop       // whose turns it runs
	tallied int64         // ns: until then its time awake is counted
	leaving func()        // gives its own loop to another goroutine after this turn
	due     bool          // while its own loop is carried: there may be events
	home    chan struct{} // says that it runs its own loop again
}

// tally adds to the counter what the goroutine has been awake for until now.
func (c *carrier) tally(now int64) {
	c.awake.Add(now - c.tallied)
	c.tallied = now
}

// idle tells whether no carried loop has something to do before an event comes.
func (c *carrier) idle() bool {
	for _, l := range c.carried {
		if !l.idle() {
			return false
		}
	}
	return true
}

// payOff pays what the carried loops owe before the goroutine sleeps.
func (c *carrier) payOff() {
	for _, l := range c.carried {
		l.acks.payAll(l.sys)
	}
}

// turn gives every carried loop that may have something to do a turn. It returns
// whether there were events.
func (c *carrier) turn() (busy bool) {
	for i := 0; i < len(c.carried); i++ {
		l := c.carried[i]
		if !l.carrier.due && l.idle() {
			continue
		}
		l.carrier.due = false
		events := l.poll.ready()
		busy = busy || len(events) > 0
		l.now = c.clock()
		l.turn(events)
		if l.quit {
			c.drop(l)
			l.carrier.home <- struct{}{}
			i--
		}
	}
	return busy
}

// leave gives the goroutine's own loop away and returns when it is back.
func (c *carrier) leave() {
	give := c.leaving
	c.leaving = nil
	c.tally(c.clock())
	give()
	<-c.home
	c.tallied = c.clock()
}

// adopt makes the goroutine carry a loop that nobody runs now. It returns false if the
// poller has no room for it.
func (c *carrier) adopt(l *loop) bool {
	if c.poll.add(int32(l.poll.ep), keyCarried+int32(l.index), 0, unix.EPOLLIN) != 0 {
		return false
	}
	l.carrier.due = true
	c.carried = append(c.carried, l)
	return true
}

// drop ends adopt. Nobody runs the loop then.
func (c *carrier) drop(l *loop) {
	c.poll.remove(int32(l.poll.ep))
	if i := slices.Index(c.carried, l); i >= 0 {
		c.carried = slices.Delete(c.carried, i, i+1)
	}
}

// sendHome lets the goroutines of the carried loops run them.
func (c *carrier) sendHome() {
	for _, l := range c.carried {
		l.carrier.home <- struct{}{}
	}
}
