//go:build linux

package loops

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// An acceptor has the loop's part of each listener. Without room, descriptors or memory
// it takes all of them out of the poller, so that clients wait in the kernel's queues.
type acceptor struct {
	poll    *poller
	census  *census
	inbox   *inbox  // for the next step of a shard that leaves
	timers  *timers // of the loop: the beat calls resume
	now     *int64  // the loop's time
	backlog int
	accepts *atomic.Uint64
	open    func(fd int32, from sched.Addr, sh *shard) // opens the session of a connection

	turn       uint32   // of the loop, counted
	shards     []*shard // by index; nil where one is gone
	paused     bool     // all are out of the poller
	pausedTill int64    // and stay so until then
	resting    bool     // one of them rests alone
	halted     bool     // none accepts until proceed is called
}

// listen makes the loop accept from a shard.
func (a *acceptor) listen(sh *shard) error {
	sh.index = -1
	for i, other := range a.shards {
		if other == nil {
			sh.index = int32(i)
			break
		}
	}
	if sh.index < 0 {
		sh.index = int32(len(a.shards))
		a.shards = append(a.shards, nil)
	}
	sh.out = true
	if !a.paused && !a.halted {
		if err := a.watch(sh); err != nil {
			return err
		}
	}
	a.shards[sh.index] = sh
	return nil
}

// watch puts a shard into the poller: level-triggered, so that what one burst
// leaves is reported again, and exclusive, so that one connection on a shared
// socket wakes one loop.
func (a *acceptor) watch(sh *shard) error {
	if errno := a.poll.add(sh.fd, keyListener-sh.index, 0, unix.EPOLLIN|unix.EPOLLEXCLUSIVE); errno != 0 {
		return fmt.Errorf("listen on %s: epoll_ctl: %w", sh.bound, errno)
	}
	sh.out = false
	return nil
}

// unwatch takes a shard out of the poller.
func (a *acceptor) unwatch(sh *shard) {
	if !sh.out {
		sh.out = true
		a.poll.remove(sh.fd)
	}
}

// unlisten serves what waits in the shard's queue and closes it. It calls told
// when that is done, or when it has to wait for sessions to end first.
// Connections that the kernel completes between the last accept and the close are
// lost to a reset: nothing short of a packet filter can hold them back.
func (a *acceptor) unlisten(sh *shard, told func()) {
	sh.told = told
	if a.shards[sh.index] != sh { // it never listened
		a.closeShard(sh)
		return
	}
	a.unwatch(sh)
	sh.leaving = true
	// The queue has room for so many. Clients that come meanwhile are served too, up to
	// this number, so that a crowd cannot keep the listener from closing.
	sh.left = a.backlog + 1
	a.census.leaving()
	a.serveQueue(sh)
}

// serveQueue is one step of a shard that leaves. The next is a task, so that the
// sessions of the loop have their turn between the steps.
func (a *acceptor) serveQueue(sh *shard) {
	if a.shards[sh.index] != sh {
		return
	}
	n, why := a.acceptFrom(sh, min(acceptBurst, sh.left))
	sh.left -= n
	if why == faulty {
		sh.left -= maxFaults
	}
	switch {
	case why == noRoom:
		// Clients that come now could not be served for a while, so the kernel lets
		// none in. For those in the queue this changes nothing.
		_ = unix.Listen(int(sh.fd), 0)
		sh.held = true
		sh.tell()
	case why == queueEmpty || sh.left <= 0:
		a.closeShard(sh)
	default:
		a.inbox.submit(func() { a.serveQueue(sh) })
	}
}

// tell calls told, once.
func (sh *shard) tell() {
	if sh.told != nil {
		sh.told()
		sh.told = nil
	}
}

// closeShard closes a shard and forgets it.
func (a *acceptor) closeShard(sh *shard) {
	if (sh.uses == nil || sh.uses.Add(-1) == 0) && sh.gone {
		_ = unix.Shutdown(int(sh.fd), unix.SHUT_RDWR)
	}
	closeFD(sh.fd)
	if a.shards[sh.index] == sh {
		a.shards[sh.index] = nil
	}
	sh.open.Add(-1)
	if sh.leaving {
		sh.leaving = false
		a.census.left()
	}
	sh.tell()
}

// closeAll closes all shards and resets the clients in their queues.
func (a *acceptor) closeAll() {
	for _, sh := range a.shards {
		if sh != nil {
			a.closeShard(sh)
		}
	}
}

// stop is why acceptFrom has stopped.
type stop uint8

const (
	enough     stop = iota // it has made all the accepts that it should
	queueEmpty             // no connection waits
	noRoom                 // the limit of sessions, descriptors or memory is reached: the listeners rest
	faulty                 // one accept after the other fails: this listener rests
)

// acceptFrom accepts up to most connections. It returns how many, and why it
// stopped.
func (a *acceptor) acceptFrom(sh *shard, most int) (n int, why stop) {
	faults := 0
	for n < most {
		if !a.census.admit() {
			a.census.rests.Store(true)
			a.pause(0)
			return n, noRoom
		}
		var from unix.RawSockaddrAny
		fd, errno := accept(sh.fd, &from)
		if errno != 0 {
			a.census.leave(1)
		}
		switch {
		case errno == 0:
			n++
			faults = 0
			a.accepts.Add(1)
			a.open(fd, decodeAddr(&from), sh)
		case errno == unix.EAGAIN:
			return n, queueEmpty
		case connect.Shortage(errno):
			// The connection stays in the queue, and so readable, until something
			// is given back.
			a.pause(core.PauseFor)
			return n, noRoom
		default:
			// This connection has failed already, and the next may be well. If
			// none is, it is this listener that has a fault, and only that rests.
			if faults++; faults == maxFaults {
				a.rest(sh)
				return n, faulty
			}
		}
	}
	return n, enough
}

// pause takes all listeners of the loop out of the poller for at least d.
func (a *acceptor) pause(d int64) {
	if a.paused {
		return
	}
	a.paused = true
	a.pausedTill = *a.now + d
	for _, sh := range a.shards {
		if sh != nil {
			a.unwatch(sh)
		}
	}
	a.timers.beatBy(*a.now + core.PauseFor)
}

// rest takes one listener out of the poller until the next beat.
func (a *acceptor) rest(sh *shard) {
	a.unwatch(sh)
	a.resting = true
	a.timers.beatBy(*a.now + core.PauseFor)
}

// resume puts the listeners back; one that the poller does not take now is
// tried again. Those that leave go on.
func (a *acceptor) resume() {
	if *a.now < a.pausedTill || !a.census.hasRoom() {
		a.timers.beatBy(*a.now + core.PauseFor)
		return
	}
	a.paused, a.resting = false, false
	for _, sh := range a.shards {
		switch {
		case sh == nil:
		case sh.leaving:
			if sh.held {
				sh.held = false
				a.inbox.submit(func() { a.serveQueue(sh) })
			}
		case a.halted:
		case sh.out && a.watch(sh) != nil:
			a.pause(core.PauseFor)
			return
		}
	}
}

// halt takes all listeners out of the poller until proceed is called. Those that leave
// go on.
func (a *acceptor) halt() {
	a.halted = true
	for _, sh := range a.shards {
		if sh != nil {
			a.unwatch(sh)
		}
	}
}

// proceed ends what halt began.
func (a *acceptor) proceed() {
	if a.halted {
		a.halted = false
		a.paused = true // at the limit of sessions the listeners wait for room
		a.resume()
	}
}

// letGo closes a shard whose socket another process serves.
func (a *acceptor) letGo(sh *shard) {
	if a.shards[sh.index] == sh && !sh.leaving {
		a.unwatch(sh)
		a.closeShard(sh)
	}
}

// roomAgain puts the listeners back if they wait for room and there is some.
func (a *acceptor) roomAgain() {
	if a.paused && *a.now >= a.pausedTill && a.census.hasRoom() {
		a.resume()
	}
}

// beat tries again what rests.
func (a *acceptor) beat() {
	if a.paused || a.resting {
		a.resume()
	}
}

// event takes in that shard i has connections. It accepts as many as the event before
// found, and twice as many if that one was in the turn before and left some. So most
// bursts end without an accept that finds nothing; what is left is reported again.
func (a *acceptor) event(i int32) {
	sh := a.shards[i]
	if sh == nil || sh.out {
		return
	}
	if sh.leftAt == a.turn-1 {
		sh.burst = min(2*sh.burst, acceptBurst)
	}
	n, why := a.acceptFrom(sh, max(sh.burst, 1))
	sh.burst = n
	if why == enough {
		sh.leftAt = a.turn // perhaps
	}
}
