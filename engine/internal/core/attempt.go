package core

import (
	"crypto/tls"
	"net"

	"github.com/txlb/txlb/internal/clienthello"
	"github.com/txlb/txlb/sched"
)

// Attempt is the part of an admission that is needed only while the session can
// still go to another host.
type Attempt struct {
	from     sched.Addr // the client
	tried    sched.Tried
	since    int64    // ns: when the session began to look for a host
	began    int64    // ns: the connect under way
	heard    bool     // a host failed by its own fault, so not every failure was local
	alien    bool     // a connect failed because it was to come from the client's address
	late     bool     // the last host did not answer in time
	startTLS startTLS // what its client has asked for ahead of TLS
	commands uint8    // SMTP: how many its client has sent ahead of TLS
	pledge   smtpStage
	dialed   bool // the client is the program itself: there is nobody to hear, or to give away
	wait     waiting
	group    chosen              // where a route rule has sent the session
	tls      *clientTLS          // nil: the client's TLS does not end here
	secure   *tls.Config         // of the host that was asked last; nil: it has none
	fallback func(net.Conn)      // of the route that gives the client away
	mirrors  []sched.MirrorShare // of the group; nil: nothing is copied, or Mirrors has been asked
	mirrored bool                // Mirrors has been asked
	next     *Attempt            // free, of Attempts
}

// Attempts keeps attempts and notes that are free. It belongs to one goroutine.
type Attempts struct {
	free  *Attempt
	notes *Notes
	hello *clienthello.Room // made for the first one
}

// attemptsAtOnce is how many attempts are allocated together: 4 KiB.
const attemptsAtOnce = 20

// Get returns a blank attempt.
func (l *Attempts) Get() *Attempt {
	if l.free == nil {
		// Together, so that those of another goroutine share no cache line with them.
		slab := make([]Attempt, attemptsAtOnce)
		for i := range slab {
			slab[i].next = l.free
			l.free = &slab[i]
		}
	}
	a := l.free
	l.free, a.next = a.next, nil
	return a
}

// Put takes an attempt back.
func (l *Attempts) Put(a *Attempt) {
	a.from = sched.Addr{}
	a.tried.Reset()
	a.heard, a.late, a.alien = false, false, false
	a.group, a.startTLS, a.commands = chosen{}, plainTLS, 0
	a.tls, a.secure = nil, nil
	a.wait, a.dialed, a.fallback = waiting{}, false, nil
	a.mirrors, a.mirrored = nil, false
	a.next = l.free
	l.free = a
}
