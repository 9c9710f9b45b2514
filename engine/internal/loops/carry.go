//go:build linux

package loops

import (
	"math"

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

// tally adds to the counter what the goroutine has been awake for until now.
func (l *loop) tally(now int64) {
	l.count.awake.Add(now - l.tallied)
	l.tallied = now
}

// idle tells whether nothing can be done before an event comes.
func (l *loop) idle() bool { return len(l.ready) == 0 && len(l.bulk) == 0 && !l.timing.due(l.now) }

// allIdle is idle of the loop and of those that it carries.
func (l *loop) allIdle() bool {
	for _, c := range l.carried {
		if !c.idle() {
			return false
		}
	}
	return l.idle()
}

// payOff acknowledges what is owed before the goroutine sleeps.
func (l *loop) payOff() {
	l.acknowledge(&l.owing)
	l.acknowledge(&l.owed)
	for _, c := range l.carried {
		c.acknowledge(&c.owing)
		c.acknowledge(&c.owed)
	}
}

// turnCarried gives every carried loop that may have something to do a turn.
// It returns whether there were events.
func (l *loop) turnCarried() (busy bool) {
	for i := 0; i < len(l.carried); i++ {
		c := l.carried[i]
		if !c.due && c.idle() {
			continue
		}
		c.due = false
		events := c.poll.ready()
		busy = busy || len(events) > 0
		c.now = l.eng.clock()
		c.turn(events)
		if c.quit {
			l.drop(c)
			c.home <- struct{}{}
			i--
		}
	}
	return busy
}

// leave gives the loop to another goroutine and returns when it is back.
func (l *loop) leave() {
	give := l.leaving
	l.leaving = nil
	l.tally(l.eng.clock())
	give()
	<-l.home
	l.tallied = l.eng.clock()
}

// adopt makes the loop carry another, which nobody runs now. It returns false
// if the poller has no room for it.
func (l *loop) adopt(c *loop) bool {
	if l.poll.add(int32(c.poll.ep), keyCarried+int32(c.index), 0, unix.EPOLLIN) != 0 {
		return false
	}
	c.due = true
	l.carried = append(l.carried, c)
	return true
}

// drop ends adopt. Nobody runs the other loop then.
func (l *loop) drop(c *loop) {
	l.poll.remove(int32(c.poll.ep))
	for i := range l.carried {
		if l.carried[i] == c {
			l.carried = append(l.carried[:i], l.carried[i+1:]...)
			return
		}
	}
}
