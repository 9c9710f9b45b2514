package core

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"syscall"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
)

// Admission is a state machine that brings a session from its accept to a host. It
// tells the engine the next step, and the engine tells it the outcome. It makes no
// system calls and has no clock: times are nanoseconds on the engine's clock. It
// also counts what it decides, so an engine only carries out its steps.
//
// Invariants: a host is counted from the pick on and released exactly once; no host
// is picked twice, except one that was not asked because there was no descriptor;
// after a refusal comes only the end, and nothing after the end.
//
// Decisions that come before the choice of a host (access, routing, queueing)
// belong into Next, as states before looking. The first is the PROXY header, if the
// listener asks for one: all others depend on who the client is.
type Admission struct {
	Svc     *Service
	gate    *Gate
	Host    *sched.Host // nil while the session has none
	attempt *Attempt    // nil once the session stays with its host
	Started int64       // ns: when the client was accepted
	era     uint32      // of the host, when the connect began
	course
	state   admissionState
	Why     Refusal // once refused
	marks   marks
	counted bool   // against the limits of its service
	notes   *Notes // nil: there is nothing to note
}

// admissionState is how far a session has come on its way to a host.
type admissionState uint8

const (
	over       admissionState = iota // the session has ended, or has not begun
	unheard                          // its PROXY header has not come, or not as a whole
	untold                           // what its TLS asks for has not come, or not as a whole
	shaking                          // the handshake of its TLS, which ends here, is under way
	unwelcome                        // a header is required, and it comes from where none counts
	looking                          // it has no host
	queued                           // it waits until a host has room
	picked                           // it has a host that has not been asked yet
	asked                            // the host has not answered
	pledging                         // the host has answered, and is asked for TLS
	securing                         // the handshake with the host is under way
	queueFull                        // the host is a UNIX socket whose queue is full
	admitted                         // the host has answered
	turnedAway                       // there is no host for the client
)

// Gate is what the admissions of one loop have in common.
type Gate struct {
	Index  int                  // of their counters
	Report func(engine.Failure) // hands a failure to the director; it never waits
	Log    *engine.Lane         // takes records of sessions that end; nil: nobody does
	Past   *Past                // has the stories of the last that have ended; nil: nobody keeps them
	Active func() int64         // sessions of the engine, for the records
	Free   *Attempts            // of the loop's goroutine; nil: there is none such
	TLS    bool                 // the engine can make handshakes for them
	Gives  bool                 // the engine carries out GiveAway
}

// free returns where free notes are.
func (g *Gate) free() *Attempts {
	if g.Free == nil {
		return new(Attempts)
	}
	return g.Free
}

// Action is what a session needs next. The engine reports the outcome with
// Answered, NoSocket or Deadline, which return the next step.
type Action uint8

const (
	Nothing   Action = iota // go on waiting as before, or the session has ended
	Connect                 // connect to Host, then call Answered, or NoSocket
	Again                   // connect the same socket to Host again, then call Answered
	Queue                   // call Join
	Queued                  // call Called when told to, or Deadline at Until
	Hear                    // call Heard when the client has sent more, or Deadline at Until
	Wait                    // call Answered when Host has answered, or Deadline at Until
	Rest                    // there is no descriptor: stop accepting, and call Deadline at Until
	Retry                   // close the host's socket, then call Next, now or later
	Handshake               // make the client's handshake with TLS, then call Shook, or Deadline at Until; what has been read of the stream is its beginning
	Secure                  // make the handshake with Host, then call Secured, or Deadline at Until
	Pledge                  // send the host Say, then call HostSaid when it has said something, or Deadline at Until
	Relay                   // move bytes; call Settle when the first has moved
	GiveAway                // give the client to Fallback, and call End with Given
	Refuse                  // close the host's socket, if there is one, and reject the client
)

// Step is an action with its parameters.
type Step struct {
	Do    Action
	Why   Refusal // Refuse
	Until int64   // ns, Queued, Hear, Wait, Handshake, Secure and Rest; Never: there is no limit
	Need  int     // Hear: how many bytes there have to be at least
	Most  int     // Hear: how many bytes may be taken off the stream to see them, if that is more than Need
	Say   string  // Hear, Handshake and Refuse: to the client, before that; Pledge: to the host; "": nothing
	First bool    // Pledge and Secure: the host's PROXY header comes before that

	TLS *tls.Config // Handshake and Secure
}

// Never is a time that does not come.
const Never = math.MaxInt64

// Begin counts a session that was accepted from an address.
func (a *Admission) Begin(g *Gate, e *Entry, t *Attempt, from sched.Addr, now int64) {
	*a = Admission{Svc: e.Svc, gate: g, attempt: t, Started: now, state: e.first(from)}
	t.from, t.since, t.startTLS, t.dialed = from, now, e.startTLS, e.dialed
	if e.TLS != nil {
		t.tls = &clientTLS{config: e.TLS}
	}
	a.mark(isDialed, e.dialed)
	a.Count().sessions.Add(1)
	a.Count().active.Add(1)
}

// Count returns the counters of the session's service.
func (a *Admission) Count() *Counters { return &a.Svc.Counts[a.gate.Index] }

// Next asks for the client's header, or looks for a host.
func (a *Admission) Next(now int64) Step {
	switch a.state {
	case unheard:
		return a.awaitHeader(1)
	case untold:
		return a.awaitHello(1)
	case unwelcome:
		return a.refuse(proxySource)
	case looking:
	default:
		return Step{}
	}
	if a.denied() {
		return a.refuse(AccessDenied)
	}
	if a.Svc.limits.mode.Load() != 0 {
		if ok, why := a.within(now); !ok {
			return a.refuse(why)
		}
	}
	if a.awaitsTLS() && !a.attempt.startTLS.asksFirst() {
		return a.shake(now)
	}
	if a.awaitsTLS() || a.asksFor() {
		a.state, a.attempt.since = untold, now
		step := a.awaitHello(1)
		if a.attempt.startTLS == smtp {
			step.Say = smtpBanner
		}
		return step
	}
	if a.gate.Gives && a.falls() {
		return Step{Do: GiveAway}
	}
	host, why := a.pick(now)
	switch {
	case host != nil:
		return a.ask(host, now)
	case why == allFull:
		return a.enqueue()
	}
	return a.refuse(why)
}

// falls tells whether the client goes to the fallback of the service.
func (a *Admission) falls() bool {
	route := a.Svc.Route.Load()
	if route.Fallback == nil || a.attempt.dialed {
		return false
	}
	table := a.table(route)
	if table.Queue() != nil {
		return false
	}
	a.noteTable(table)
	a.attempt.fallback = route.Fallback
	return true
}

// Fallback returns whom the client is given to, with GiveAway.
func (a *Admission) Fallback() func(net.Conn) { return a.attempt.fallback }

// denied tells whether an access rule rejects the client. A client that was let in
// as far as a host stays in.
func (a *Admission) denied() bool {
	route := a.Svc.Route.Load()
	if route.Denied == nil || a.attempt.tried.Len() > 0 {
		return false
	}
	ip := a.attempt.from.IP().Addr()
	return ip.IsValid() && route.Denied(ip)
}

// pick picks a host that the session has not tried, if it may try another. With allFull
// it should wait for one: all are full, others have waited for longer, or the group holds
// its clients.
func (a *Admission) pick(now int64) (host *sched.Host, why Refusal) {
	route, tried := a.Svc.Route.Load(), &a.attempt.tried
	table := a.table(route)
	a.noteTable(table)
	none, passes := a.attempt.wait.none, a.attempt.wait.out && table.LetsOut()
	a.attempt.wait.none = false
	holds := table.AwaitsFor(tried) || table.Held() && !passes
	switch {
	case table == nil:
		return nil, noGroup
	case spent(route, tried) && !holds:
		return nil, a.noHost()
	case now >= a.totalLimit(route):
		return nil, outOfTime
	case spent(route, tried):
		return nil, a.await(table, true)
	}
	if q := table.Queue(); q != nil && q.Len() > 0 && !none && !passes {
		return nil, a.await(table, holds)
	}
	var verdict sched.Verdict
	if passes {
		host, verdict = table.PickOut(a.attempt.from, tried)
	} else {
		host, verdict = table.Pick(a.attempt.from, tried)
	}
	switch verdict {
	case sched.Full, sched.Held:
		return nil, a.await(table, verdict == sched.Held)
	case sched.None:
		return nil, a.noHost()
	}
	if tried.Len() > 1 {
		a.Count().redispatches.Add(1)
	}
	if table.Mirrors() != nil {
		a.noteMirrors(table)
	}
	return host, 0
}

// await notes what the session waits for: a host of a table that has room, or that its group
// holds its clients no more. Then it may try all hosts again: earlier tries do not count.
func (a *Admission) await(t *sched.Table, held bool) Refusal {
	a.attempt.wait.table, a.attempt.wait.parked = t, held
	if held {
		a.attempt.wait.out = false
		a.attempt.tried.Reset()
	}
	return allFull
}

// spent tells whether a session has used up its tries.
func spent(r *engine.Route, tried *sched.Tried) bool {
	if r.Tries > 0 {
		return tried.Len() >= r.Tries
	}
	return tried.LastResorts() >= lastResorts
}

// noHost returns the reason why no host is left. If every connect failed for a
// local reason, the hosts are not to blame.
func (a *Admission) noHost() Refusal {
	if a.attempt.tried.Len() > 0 && !a.attempt.heard {
		if a.attempt.alien {
			return noSource
		}
		return OutOfResource
	}
	return noHost
}

// ask makes a host that was picked the session's own.
func (a *Admission) ask(host *sched.Host, now int64) Step {
	era, up := host.Standing()
	a.Host, a.era = host, era
	a.mark(wasDown, !up)
	a.attempt.began = now
	a.state = picked
	a.noteAsked(now)
	a.notePick(now)
	return Step{Do: Connect}
}

// Answered handles the result of connect(2): 0, EINPROGRESS, or the error.
func (a *Admission) Answered(now int64, errno syscall.Errno) Step {
	if a.state != picked && a.state != asked && a.state != queueFull {
		return Step{}
	}
	switch {
	case errno == 0:
		return a.reached(now)
	case errno == syscall.EINPROGRESS:
		a.state = asked
		return a.awaited()
	case errno == syscall.EAGAIN && a.Host.Addr().Path() != "":
		// Over TCP the kernel would wait for room in the queue. For a UNIX socket no
		// event tells of room, so the session tries again, less often the longer it has
		// waited.
		a.state = queueFull
		wait := min(max((now-a.attempt.began)/4, minQueueWait), maxQueueWait)
		return Step{Do: Wait, Until: min(now+wait, a.connectLimit(a.Svc.Route.Load()))}
	}
	return a.fail(now, errno)
}

// admit gives the client to its host.
func (a *Admission) admit(now int64) Step {
	a.state = admitted
	a.connected = a.stamped(now)
	a.noteConnected(now)
	a.Host.Connected(a.gate.Index, time.Duration(now-a.attempt.began))
	return Step{Do: Relay}
}

// awaited waits for the host to answer.
func (a *Admission) awaited() Step {
	return Step{Do: Wait, Until: a.connectLimit(a.Svc.Route.Load())}
}

// NoSocket reports that there is no socket to connect with. It may also come after
// Answered said that the connect is in progress. If there is no descriptor, the
// client waits, because every other host would need one as well. The engine accepts
// no clients meanwhile, so few clients wait like this, and none longer than the
// time for all connects.
func (a *Admission) NoSocket(now int64, errno syscall.Errno) Step {
	if a.state != picked && a.state != asked {
		return Step{}
	}
	if !connect.Shortage(errno) {
		return a.fail(now, errno)
	}
	a.noteErrno(now, local, errno)
	a.Count().failed[local].Add(1)
	a.attempt.tried.Forget()
	a.leave()
	return Step{Do: Rest, Until: now + PauseFor}
}

// NoRoom reports that there is no memory to watch the session.
func (a *Admission) NoRoom(now int64) Step {
	switch a.state {
	case over, admitted, turnedAway:
		return Step{}
	case queued:
		a.unqueue(now)
	}
	if a.Host != nil {
		a.noteTry(now, abandoned, nil)
	}
	return a.refuse(OutOfResource)
}

// fail releases the host and, if the failure is the host's fault, counts it against
// the host. The failure that takes the host down is reported.
func (a *Admission) fail(now int64, errno syscall.Errno) Step {
	host, why := a.Host, classify(errno)
	if s := host.Source(); s != nil && s.Client {
		switch errno {
		case syscall.EINVAL: // a loopback address, for one, which does not leave this machine
			why = local
			fallthrough
		case connect.NotTransparent, connect.OtherFamily:
			a.attempt.alien = true
		}
	}
	if a.state == pledging || a.state == securing {
		a.noteTry(now, why, errLateTLS)
	} else {
		a.noteErrno(now, why, errno)
	}
	if a.blame(why) {
		doing := "connect to"
		if a.state == securing {
			doing = "TLS with"
		}
		a.gate.Report(engine.Failure{Host: host, Err: fmt.Errorf("%s %v: %w", doing, host.Addr(), connect.Reason(errno, a.Source()))})
	}
	a.leave()
	return Step{Do: Retry}
}

var errLateTLS = errors.New("it had accepted the connection, but its TLS was not ready in time")

// blame counts a failure of the session's host, and tells whether it took the host down.
func (a *Admission) blame(why connectFailure) (down bool) {
	a.Count().failed[why].Add(1)
	a.attempt.heard = a.attempt.heard || why != local
	a.attempt.late = why == timedOut
	down = why != local && a.Host.FailIn(a.era)
	if era, up := a.Host.Standing(); !up || era != a.era {
		a.attempt.tried.Fell()
	}
	return down
}

// Source returns where the connect to the session's host comes from. A client of a UNIX
// socket has no address: then the kernel chooses.
func (a *Admission) Source() connect.Source {
	s := a.Host.Source()
	if s == nil {
		return connect.Source{}
	}
	from := connect.Source{Addr: s.Addr, Interface: s.Interface}
	if s.Client {
		from.Addr = a.attempt.from.IP().Addr().Unmap().WithZone("")
		from.Transparent = from.Addr.IsValid()
	}
	return from
}

// leave releases the picked host.
func (a *Admission) leave() {
	a.Host.Release(0, 0)
	a.Host = nil
	a.state = looking
}

func (a *Admission) refuse(why Refusal) Step {
	if a.Host != nil {
		a.leave()
	}
	a.Count().refused[why].Add(1)
	a.state, a.Why = turnedAway, why
	return Step{Do: Refuse, Why: why}
}

// Dropped reports that the host has reset the connection before a byte moved, as
// happens when a process dies with connections in its queue. Nothing can be lost or
// done twice, so the session goes to another host, or waits for one if its group holds its
// clients. This host is not marked down, because it did answer; the next connect will show.
// If there is no other host, the client gets the reset.
func (a *Admission) Dropped(now int64) Step {
	if a.state != admitted || a.attempt == nil {
		return Step{}
	}
	host, why := a.pick(now)
	held := why == allFull && a.attempt.wait.parked
	if host == nil && !held {
		return Step{Do: Relay}
	}
	a.Count().failed[dropped].Add(1)
	a.noteTry(now, dropped, nil)
	a.reopened()
	a.ResetEarly(a.attempt.from)
	a.attempt.heard = true
	a.leave()
	if held {
		return a.enqueue()
	}
	return a.ask(host, now)
}

var errResets = errors.New("it reset three clients in a row, each from another address, before the first byte of an answer")

// ResetEarly reports that the host has reset this client's session before the first
// byte of an answer.
func (a *Admission) ResetEarly(client sched.Addr) {
	if a.Host.ResetEarly(a.era, client) {
		a.gate.Report(engine.Failure{Host: a.Host, Err: errResets, Suspect: true})
	}
}

// Candidate describes the session, whose ID the engine knows, to those who end
// sessions.
func (a *Admission) Candidate(id uint64) engine.Candidate {
	return engine.Candidate{
		ID: id, Service: a.Svc.Name, Host: a.Host, Connected: a.state == admitted, Era: a.era, WasDown: a.marks&wasDown != 0,
	}
}

// Settled tells whether the session stays with its host.
func (a *Admission) Settled() bool { return a.attempt == nil }

// WaitsForRoom tells whether the host is a UNIX socket whose queue is full.
func (a *Admission) WaitsForRoom() bool { return a.state == queueFull }

// Settle makes the session stay with its host. Its attempt goes to those that are free,
// if it has not before.
func (a *Admission) Settle(free *Attempts) {
	t := a.attempt
	if t == nil {
		return
	}
	if hold, ok := t.tried.Keep(); ok {
		a.note(free).hold = hold
	}
	a.attempt = nil
	free.Put(t)
}

// tellsTCP is the age in ns from which on the kernel is asked about the sockets of a session
// that ends as it should.
const tellsTCP = int64(time.Second)

// AsksTCP tells whether the engine asks the kernel what it knows of the sockets of a session
// that ends like this: one that had a host and ends in another way than it should, or one
// that has lasted. Others end without such a call.
func (a *Admission) AsksTCP(now int64, how Termination) bool {
	return how != Given && (how != Normal && a.Host != nil || now-a.Started > tellsTCP)
}

// End ends the session: it gives the host back and counts.
func (a *Admission) End(now int64, how Termination, last Last) {
	if a.state == over {
		return
	}
	how = a.endingOf(how)
	if held := a.Held(now); held > 0 {
		a.note(a.gate.free()).held = held
	}
	var host *sched.Host // that it had
	if a.Host != nil {
		if a.state == admitted {
			host = a.Host
			a.Host.Ended(a.gate.Index, time.Duration(now-a.Started))
		} else {
			a.noteTry(now, abandoned, nil)
		}
		a.leave()
	}
	a.record(now, how, &last)
	if a.state == queued {
		a.unqueue(now)
	}
	if a.counted {
		a.uncount(now)
	}
	switch {
	case a.attempt != nil:
		a.attempt.tried.Reset()
	case a.notes != nil:
		a.notes.hold.Leave()
		a.notes.hold = sched.Hold{}
	}
	if a.gate.Past != nil {
		a.gate.Past.add(a, host, now, how, &last, a.gate.free())
	}
	a.state = over
	a.Count().ended[how].Add(1)
	a.Count().active.Add(-1)
}
