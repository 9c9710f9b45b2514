package engine

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// admission takes a session from its accept to a host: a state machine that says
// what the session needs next and takes in what became of it. It makes no system
// call and knows no clock: times are nanoseconds on the engine's own clock. What it
// decides it also counts, so that an engine only carries out its steps.
//
// Invariants: a host is counted from the pick on and released exactly once; no host
// is picked twice, except one that was never asked for want of a descriptor; nothing
// follows a refusal but the end, and nothing follows the end.
//
// What has to be decided before a host is chosen (who may come in, what the client
// asks for, whether there is room) comes into next, as states before looking.
type admission struct {
	svc     *service
	gate    *gate
	host    *sched.Host // nil while the session has none
	attempt *attempt    // nil once the session stays with its host
	started int64       // ns: when the client was accepted
	era     uint32      // of the host, when the connect began
	state   admissionState
	why     refusal // once refused
}

// admissionState is where a session is on its way to a host.
type admissionState uint8

const (
	over       admissionState = iota // the session has ended, or has not begun
	looking                          // it has no host
	picked                           // it has a host that has not been asked yet
	asked                            // the host has not answered
	queueFull                        // the host is a UNIX socket whose queue is full
	admitted                         // the host has answered
	turnedAway                       // there is no host for the client
)

// attempt is what an admission knows while the session can still go to another
// host. An engine may use attempts again.
type attempt struct {
	from  sched.Addr
	tried sched.Tried
	began int64    // ns: the connect under way
	heard bool     // a host has failed that was asked: not all faults are our own
	next  *attempt // for a list of free ones
}

// reset makes the attempt as good as new.
func (a *attempt) reset() {
	a.from = sched.Addr{}
	a.tried.Reset()
	a.heard = false
}

// gate is what the admissions of one loop have in common.
type gate struct {
	index  int           // of their counters
	report func(Failure) // hands a failure to the director; it never waits
}

// action is what a session needs next. A connect, an answer and a time-out are told
// to answered, noSocket and deadline; these return the next step.
type action uint8

const (
	doNothing action = iota // the session waits for what it waited for before, or has ended
	doConnect               // connect to host, and tell answered, or noSocket
	doAgain                 // connect the same socket to the same host again, and tell answered
	doWait                  // tell answered when the host has answered, or deadline at until
	doRest                  // there is no descriptor: accept nobody, and tell deadline at until
	doRetry                 // close the host's socket, then ask next, now or later
	doRelay                 // move bytes; settle when the first has moved
	doRefuse                // close the host's socket, if there is one, and turn the client away
)

// step is an action with what belongs to it.
type admissionStep struct {
	do    action
	why   refusal // doRefuse
	until int64   // ns, doWait and doRest; never: there is no limit
}

// never is a time that does not come.
const never = math.MaxInt64

// begin counts a session of svc that was accepted from an address.
func (a *admission) begin(g *gate, svc *service, t *attempt, from sched.Addr, now int64) {
	*a = admission{svc: svc, gate: g, attempt: t, started: now, state: looking}
	t.from = from
	a.count().sessions.Add(1)
	a.count().active.Add(1)
}

// count returns the counters of the session's service.
func (a *admission) count() *counters { return &a.svc.counts[a.gate.index] }

// next looks for a host.
func (a *admission) next(now int64) admissionStep {
	if a.state != looking {
		return admissionStep{}
	}
	host, why := a.pick(now)
	if host == nil {
		return a.refuse(why)
	}
	return a.ask(host, now)
}

// pick picks a host that the session has not tried, if it may try another.
func (a *admission) pick(now int64) (host *sched.Host, why refusal) {
	route, tried := a.svc.route.Load(), &a.attempt.tried
	switch {
	case route.Table == nil:
		return nil, noGroup
	case route.spent(tried):
		return nil, a.noHost()
	case now >= a.totalLimit(route):
		return nil, outOfTime
	}
	host, _ = route.Table.Pick(a.attempt.from, tried)
	if host == nil {
		return nil, a.noHost()
	}
	if tried.Len() > 1 {
		a.count().redispatches.Add(1)
	}
	return host, 0
}

// lastResorts is how many hosts that are down a session tries where the route says
// nothing about tries: a group of thousands of dead hosts must not cost a connect
// to each.
const lastResorts = 3

// spent tells whether a session has used up its tries.
func (r *Route) spent(tried *sched.Tried) bool {
	if r.Tries > 0 {
		return tried.Len() >= r.Tries
	}
	return tried.LastResorts() >= lastResorts
}

// noHost tells why there is no host left: if each connect failed on our side, that
// says nothing about the hosts.
func (a *admission) noHost() refusal {
	if a.attempt.tried.Len() > 0 && !a.attempt.heard {
		return outOfResource
	}
	return noHost
}

// ask makes a host that was picked the session's own.
func (a *admission) ask(host *sched.Host, now int64) admissionStep {
	a.host, a.era = host, host.Era()
	a.attempt.began = now
	a.state = picked
	return admissionStep{do: doConnect}
}

// answered takes in what connect(2) has come to: 0, EINPROGRESS, or what has failed.
func (a *admission) answered(now int64, errno syscall.Errno) admissionStep {
	if a.state != picked && a.state != asked && a.state != queueFull {
		return admissionStep{}
	}
	switch {
	case errno == 0:
		a.state = admitted
		a.host.Connected(a.gate.index, time.Duration(now-a.attempt.began))
		return admissionStep{do: doRelay}
	case errno == syscall.EINPROGRESS:
		a.state = asked
		return a.awaited()
	case errno == syscall.EAGAIN && a.host.Addr().Path() != "":
		// Over TCP the kernel would wait for room in the queue. Here nothing tells
		// when there is some: the session asks again, less often the longer it has
		// waited.
		a.state = queueFull
		wait := min(max((now-a.attempt.began)/4, minQueueWait), maxQueueWait)
		return admissionStep{do: doWait, until: min(now+wait, a.connectLimit(a.svc.route.Load()))}
	}
	return a.fail(errno)
}

const (
	// minQueueWait and maxQueueWait bound how long a session waits before it asks a
	// full queue again: a server empties one within milliseconds, and one that has
	// not for 200 ms need not be asked more often than 20 times a second.
	minQueueWait = int64(time.Millisecond)
	maxQueueWait = int64(50 * time.Millisecond)
	// pauseFor is how long an engine without descriptors waits for some. Sessions
	// give them back all the time; asking ten times a second costs nothing.
	pauseFor = int64(100 * time.Millisecond)
)

// awaited waits for the host to answer.
func (a *admission) awaited() admissionStep {
	return admissionStep{do: doWait, until: a.connectLimit(a.svc.route.Load())}
}

// noSocket takes in that there is no socket to connect with, also after it was said
// that the connect is on its way. If that is for want of
// a descriptor the client is kept, because another host would need one just as well.
// The engine accepts nobody meanwhile, so few clients wait like this, and none beyond
// the time for all connects.
func (a *admission) noSocket(now int64, errno syscall.Errno) admissionStep {
	if a.state != picked && a.state != asked {
		return admissionStep{}
	}
	if !connect.Shortage(errno) {
		return a.fail(errno)
	}
	a.count().failed[local].Add(1)
	a.attempt.tried.Forget()
	a.leave()
	return admissionStep{do: doRest, until: now + pauseFor}
}

// noRoom takes in that the session cannot be watched for want of memory.
func (a *admission) noRoom() admissionStep {
	if a.state == over || a.state == admitted || a.state == turnedAway {
		return admissionStep{}
	}
	return a.refuse(outOfResource)
}

// deadline takes in that the time of a step is up.
func (a *admission) deadline(now int64) admissionStep {
	switch a.state {
	case looking: // it has waited for a descriptor
		return admissionStep{do: doRetry}
	case asked, queueFull:
	default:
		return admissionStep{}
	}
	route := a.svc.route.Load()
	switch {
	case now < a.connectLimit(route) && a.state == queueFull:
		return admissionStep{do: doAgain}
	case now < a.connectLimit(route): // the route has changed
		return a.awaited()
	case now < a.hostLimit(route):
		// The time for all connects is over, which says nothing about this host.
		return a.refuse(outOfTime)
	}
	return a.fail(syscall.ETIMEDOUT)
}

// retimed takes in that the route has other time-outs.
func (a *admission) retimed() admissionStep {
	if a.state != asked { // a full queue is asked again soon, and the others wait for no host
		return admissionStep{}
	}
	return a.awaited()
}

// totalLimit returns when the time for all connects of the session is over.
func (a *admission) totalLimit(r *Route) int64 { return after(a.started, r.Timeouts.Total) }

// hostLimit returns when the host has had the full time to answer. Only then is it
// the host's fault that the connect has taken too long.
func (a *admission) hostLimit(r *Route) int64 { return after(a.attempt.began, r.Timeouts.Connect) }

// connectLimit returns when the connect under way has taken too long.
func (a *admission) connectLimit(r *Route) int64 { return min(a.totalLimit(r), a.hostLimit(r)) }

// after returns when a time-out that began at from is over; 0 is none.
func after(from int64, d time.Duration) int64 {
	if d == 0 {
		return never
	}
	return from + int64(d)
}

// fail gives the host back and, if the fault is the host's, counts it against the
// host. The first failure that takes it down is reported.
func (a *admission) fail(errno syscall.Errno) admissionStep {
	host, why := a.host, classify(errno)
	a.count().failed[why].Add(1)
	a.attempt.heard = a.attempt.heard || why != local
	if why != local && host.FailIn(a.era) {
		a.gate.report(Failure{Host: host, Err: fmt.Errorf("connect to %v: %w", host.Addr(), connect.Reason(errno, host.Source()))})
	}
	a.leave()
	return admissionStep{do: doRetry}
}

// leave gives the pick back.
func (a *admission) leave() {
	a.host.Release(0, 0)
	a.host = nil
	a.state = looking
}

func (a *admission) refuse(why refusal) admissionStep {
	if a.host != nil {
		a.leave()
	}
	a.count().refused[why].Add(1)
	a.state, a.why = turnedAway, why
	return admissionStep{do: doRefuse, why: why}
}

// dropped takes in that the host has reset the connection before it took or gave a
// byte, as a process does that dies with connections in its queue: nothing can be
// lost or done twice, so the session goes to another host. This one is not marked
// down, because it did answer; the next connect tells. Where there is no other, the
// client gets the reset.
func (a *admission) dropped(now int64) admissionStep {
	if a.state != admitted || a.attempt == nil {
		return admissionStep{}
	}
	host, _ := a.pick(now)
	if host == nil {
		return admissionStep{do: doRelay}
	}
	a.count().failed[dropped].Add(1)
	a.resetEarly(a.attempt.from)
	a.attempt.heard = true
	a.leave()
	return a.ask(host, now)
}

var errResets = errors.New("it reset three clients in a row, each from another address, before the first byte of an answer")

// resetEarly takes in that the host has reset the session of this client before the
// first byte of an answer.
func (a *admission) resetEarly(client sched.Addr) {
	if a.host.ResetEarly(a.era, client) {
		a.gate.report(Failure{Host: a.host, Err: errResets, Suspect: true})
	}
}

// settle makes the session stay with its host and returns the attempt, nil if it was
// returned before.
func (a *admission) settle() *attempt {
	t := a.attempt
	a.attempt = nil
	return t
}

// end ends the session: it gives the host back and counts.
func (a *admission) end(now int64, how termination) {
	if a.state == over {
		return
	}
	if a.host != nil {
		if a.state == admitted {
			a.host.Times().Ended(a.gate.index, time.Duration(now-a.started))
		}
		a.leave()
	}
	a.state = over
	a.count().ended[how].Add(1)
	a.count().active.Add(-1)
}
