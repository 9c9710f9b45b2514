//go:build linux

package loops

import (
	"encoding/json"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// keeping gives duplicates of sessions' sockets to a keeper, see [engine.Keeper], and takes
// back what a process before has left. The loops only put notes on its list: they never wait
// for it.
//
// While a keeper has a duplicate, close(2) sends nothing. So the end of a session is told to the
// peers by shutdown(2), or by a disconnect, which resets. Until then, a socket is set to reset
// the connection when its last descriptor is closed: where a process dies with no keeper, or
// before the keeper has the session, no peer sees an end that is none.
type keeping struct {
	keeper engine.Keeper
	eng    *Engine

	notes   atomic.Pointer[keepNote] // the newest first
	waiting atomic.Int32             // of them
	due     chan struct{}            // has a token when there are some
	stop    chan struct{}
	over    chan struct{}

	stats  atomic.Pointer[engine.KeeperStats]
	failed atomic.Pointer[string] // why there is no keeper; nil: there is one

	has    map[uint64]bool // of the goroutine: sessions that the keeper has
	count  engine.KeeperStats
	look   time.Time // when to look whether the keeper answers
	settle time.Time // when the keeper may close what was taken; zero: it has nothing
	full   bool      // the keeper has refused some since
}

const (
	// keepAfter is how old a session is when it is given to the keeper: one that ends before
	// costs it nothing.
	keepAfter = 10 * time.Millisecond
	// keepTogether is how long notes are gathered.
	keepTogether = 2 * time.Millisecond
	// keepLook is how often a keeper is asked whether it is there, also one that has failed.
	keepLook = time.Second
	// maxKeepNotes is how many notes wait at most, for a session to be kept.
	maxKeepNotes = 1 << 16
)

// keepNote says that a session is to be kept, or is no more.
type keepNote struct {
	next   *keepNote
	id     uint64
	begins bool
	fds    [2]int32 // begins: to be duplicated
	fd     int32    // else: to be closed; -1: none
	facts  keptFacts
}

// keptFacts is what is kept of a session beside its sockets.
type keptFacts struct {
	service      string
	host         *sched.Host
	origin       *core.Origin
	started      int64 // on the engine's clock
	header, took int
}

// keptState is keptFacts as the keeper has it. A later version may add fields.
type keptState struct {
	Version int            `json:"v"`
	Service string         `json:"service"`
	Host    string         `json:"host"`
	Addr    string         `json:"addr"`
	Client  netip.AddrPort `json:"client,omitzero"` // as a PROXY header has said
	To      netip.AddrPort `json:"to,omitzero"`
	Started time.Time      `json:"started"`
	Header  int            `json:"header,omitempty"`
	Took    int            `json:"took,omitempty"`
}

const keptVersion = 1

func newKeeping(e *Engine) *keeping {
	k := &keeping{keeper: e.opt.Keeper, eng: e, due: make(chan struct{}, 1), stop: make(chan struct{}), over: make(chan struct{}), has: map[uint64]bool{}}
	k.stats.Store(&engine.KeeperStats{})
	return k
}

// put adds a note. Any goroutine may call it; it never waits.
func (k *keeping) put(n *keepNote) {
	k.waiting.Add(1)
	for {
		n.next = k.notes.Load()
		if !k.notes.CompareAndSwap(n.next, n) {
			continue
		}
		if n.next == nil {
			select {
			case k.due <- struct{}{}:
			default:
			}
		}
		return
	}
}

// run is the goroutine. It ends after close.
func (k *keeping) run() {
	defer close(k.over)
	for {
		ending := false
		select {
		case <-k.due:
			select {
			case <-time.After(keepTogether):
			case <-k.stop:
			}
		case <-time.After(time.Until(k.look)):
		case <-k.stop:
			ending = true
		}
		k.step()
		if ending {
			return
		}
	}
}

// close ends the goroutine, behind all notes.
func (k *keeping) close() {
	close(k.stop)
	<-k.over
}

// step carries out the notes that are there.
func (k *keeping) step() {
	var list []*keepNote
	for n := k.notes.Swap(nil); n != nil; n = n.next {
		list = append(list, n)
	}
	k.waiting.Add(-int32(len(list)))
	keep, forget, fds := sortNotes(list)
	var ids []uint64
	for _, id := range forget {
		if k.has[id] {
			ids = append(ids, id)
			delete(k.has, id)
		}
	}
	if len(ids) > 0 {
		k.judge(k.keeper.Forget(ids))
	}
	k.keep(keep)
	for _, fd := range fds {
		closeFD(fd)
	}
	if now := time.Now(); now.After(k.look) {
		k.look = now.Add(keepLook)
		failed := k.failed.Load() != nil
		if _, err := k.keeper.Keep(nil); k.judge(err) && failed {
			k.again()
		}
		if !k.settle.IsZero() && now.After(k.settle) {
			k.settle = time.Time{}
			if k.judge(k.keeper.Done()) && k.full { // now it has room for them
				k.again()
			}
			k.full = false
		}
	}
	k.count.Kept = int64(len(k.has))
	stats := k.count
	k.stats.Store(&stats)
}

// again gives the keeper all sessions that it should have and has not.
func (k *keeping) again() {
	k.eng.walk(func(l *loop, s *session) bool { l.keepUp(s); return true })
}

// sortNotes tells what notes, the newest first, come to: what to keep, behind what to forget, and
// which descriptors to close after that. A session that has begun and ended is not kept at all.
func sortNotes(list []*keepNote) (keep []*keepNote, forget []uint64, fds []int32) {
	begun := map[uint64]int{} // where in keep
	for i := len(list) - 1; i >= 0; i-- {
		n := list[i]
		if n.begins {
			begun[n.id] = len(keep)
			keep = append(keep, n)
			continue
		}
		if at, ok := begun[n.id]; ok {
			keep[at] = nil
			delete(begun, n.id)
		}
		forget = append(forget, n.id) // the keeper may have it from before: see again
		if n.fd >= 0 {
			fds = append(fds, n.fd)
		}
	}
	var left []*keepNote
	for _, n := range keep {
		if n != nil {
			left = append(left, n)
		}
	}
	return left, forget, fds
}

// keep gives sessions to the keeper.
func (k *keeping) keep(notes []*keepNote) {
	if len(notes) == 0 {
		return
	}
	if k.failed.Load() != nil {
		k.count.Unkept += uint64(len(notes))
		return
	}
	var list []engine.Kept
	for _, n := range notes {
		if k.has[n.id] {
			continue
		}
		if protocol, err := unix.GetsockoptInt(int(n.fds[client]), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
			k.count.Unkept++ // MPTCP has no account
			continue
		}
		state, err := json.Marshal(n.facts.state(k.eng))
		if err != nil {
			k.count.Unkept++
			continue
		}
		list = append(list, engine.Kept{ID: n.id, Client: int(n.fds[client]), Backend: int(n.fds[backend]), State: state})
	}
	if len(list) == 0 {
		return
	}
	kept, err := k.keeper.Keep(list)
	k.judge(err)
	k.full = k.full || err == nil && kept < len(list)
	if err == nil {
		for _, one := range list[:kept] {
			k.has[one.ID] = true
		}
	} else {
		kept = 0
	}
	k.count.Unkept += uint64(len(list) - kept)
}

// judge takes in whether the keeper has answered, and tells it too. One that has not has nothing
// of ours when it is reached again.
func (k *keeping) judge(err error) bool {
	if err == nil {
		k.failed.Store(nil)
		return true
	}
	clear(k.has)
	why := err.Error()
	k.failed.Store(&why)
	return false
}

func (f *keptFacts) state(e *Engine) keptState {
	s := keptState{
		Version: keptVersion, Service: f.service, Host: f.host.Name(), Addr: f.host.Addr().String(),
		Started: e.epoch.Add(time.Duration(f.started)), Header: f.header, Took: f.took,
	}
	if f.origin != nil {
		s.Client, s.To = f.origin.Client, f.origin.To
	}
	return s
}

// facility tells whether the keeper answers.
func (k *keeping) facility() engine.Facility {
	f := engine.Facility{Name: engine.SessionKeeper, On: k != nil}
	if k == nil {
		f.Why = `keeper="no"`
	} else if why := k.failed.Load(); why != nil {
		f.On, f.Refused, f.Why = false, true, *why
	}
	return f
}

// takeOn goes on with what a process before has left. It is called once, after the first plan.
func (k *keeping) takeOn() {
	seen := map[uint64]bool{} // sockets: a process that took sessions on may have died of it
	took := false
	k.judge(k.keeper.Take(func(list []engine.Kept) {
		took = true
		var goOn []*adoption
		for _, one := range list {
			cookie, err := unix.GetsockoptUint64(one.Client, unix.SOL_SOCKET, unix.SO_COOKIE)
			if err != nil || seen[cookie] {
				_, _ = unix.Close(one.Client), unix.Close(one.Backend)
				continue
			}
			seen[cookie] = true
			if a := k.revival(one); a != nil {
				goOn = append(goOn, a)
			} else {
				k.count.Cut++
			}
		}
		k.count.Revived += uint64(len(goOn))
		_ = k.eng.land(goOn) // the engine is not closed: Apply has its mutex
	}))
	if took {
		k.settle = time.Now().Add(keepLook) // by then they have been given to it again
	}
	stats := k.count
	k.stats.Store(&stats)
}

// revival returns a session that goes on, nil if it is over: then its sockets are closed, or have
// been reset.
func (k *keeping) revival(one engine.Kept) *adoption {
	a := &adoption{fds: [2]int32{int32(one.Client), int32(one.Backend)}}
	var s keptState
	if err := json.Unmarshal(one.State, &s); err != nil || s.Version != keptVersion {
		dispose(a.fds, lost, lost)
		return nil
	}
	c, b := meterOf(a.fds[client]), meterOf(a.fds[backend])
	other := aside{s.Header, s.Took}
	if ofClient, ofBackend := other.fatesOf(c, b); ofClient != goesOn || ofBackend != goesOn {
		dispose(a.fds, ofClient, ofBackend)
		return nil
	}
	read, written := other.streams(c, b)
	a.pass = &core.Passport{
		Stage: core.Connected, Service: s.Service, Host: core.PassHost{Name: s.Host, Addr: s.Addr},
		Age: max(int64(time.Since(s.Started)), 0), In: uint64(read[client]), Out: uint64(written[backend]),
	}
	if s.Client.IsValid() {
		a.pass.Origin = &core.Origin{Client: s.Client, To: s.To}
	}
	for i, done := range [2]bool{client: b.Ended, backend: c.Ended} {
		if done {
			a.pass.Flows[i].Flags |= core.PassDone
		}
		a.pass.Ends[i].Flags = core.PassInline | core.PassNoDelay | core.PassSentOnce
		// What the process has written ahead of an end that never came is pushed by this.
		_ = setInt(a.fds[i], unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		_ = setInt(a.fds[i], unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
		_ = notSentOption.set(a.fds[i]) // it may have had a longer queue
	}
	a.pass.Ends[client].Flags |= core.PassTuned
	a.pass.Ends[backend].Flags |= core.PassAnswered
	if err := k.eng.locate(a, nil); err != nil {
		dispose(a.fds, lost, lost)
		return nil
	}
	return a
}

// dispose closes sockets of a session that does not go on. The keeper still has them.
func dispose(fds [2]int32, fates ...fate) {
	for i, fd := range fds {
		if fates[i] == whole {
			lingerOn(fd, false)
		} else {
			disconnect(fd)
		}
		closeFD(fd)
	}
}

// What follows is for the loops.

// keptAs says what a keeper has to do with a session.
type keptAs uint8

const (
	unkept  keptAs = iota
	guarded        // its sockets reset the connection when they are closed: see keeping
	young          // likewise, and it waits to be given to the keeper
	kept           // likewise, and the keeper has it, or will
)

// youth is a session that is going to be kept.
type youth struct {
	s          *session
	generation int32
	since      int64
}

// guard makes a session that is established one for the keeper, if it can be.
func (l *loop) guard(s *session) {
	if l.keeping == nil || s.ends[client].is(unixSocket) || s.ends[backend].is(unixSocket) || s.apart {
		return
	}
	for i := range s.ends {
		if !s.ends[i].is(lingers) {
			l.setLinger(&s.ends[i], true)
		}
	}
	s.kept = guarded
	if !s.flows[client].header {
		l.keepSoon(s)
	}
}

// keepSoon puts a session on the list of those that are kept when they are old enough.
func (l *loop) keepSoon(s *session) {
	if s.kept != guarded {
		return
	}
	s.kept = young
	l.youths = append(l.youths, youth{s, s.generation, l.now})
	l.timers.beatBy(l.now + int64(keepAfter))
}

// keepYouths gives the sessions to the keeper that are old enough.
func (l *loop) keepYouths() {
	n := 0
	for _, y := range l.youths {
		if y.since+int64(keepAfter) > l.now {
			break
		}
		n++
		if y.s.generation == y.generation && y.s.kept == young {
			l.keepUp(y.s)
		}
	}
	if n == 0 && len(l.youths) == 0 {
		return
	}
	l.youths = append(l.youths[:0], l.youths[n:]...)
	if len(l.youths) > 0 {
		l.timers.beatBy(l.youths[0].since + int64(keepAfter))
	}
}

// keepUp gives a session to the keeper.
func (l *loop) keepUp(s *session) {
	k := l.keeping
	if s.phase != established || s.kept < young || k.waiting.Load() > maxKeepNotes {
		return
	}
	s.kept = kept
	s.ends[client].set(shared)
	s.ends[backend].set(shared)
	k.put(&keepNote{
		id: l.idOf(s), begins: true, fds: [2]int32{s.ends[client].fd, s.ends[backend].fd},
		facts: keptFacts{service: s.Svc.Name, host: s.Host, origin: copied(s.Origin()), started: s.Started, header: int(s.headerSent), took: int(s.took)},
	})
}

// copied is for who reads it when the session may have ended.
func copied(o *core.Origin) *core.Origin {
	if o == nil {
		return nil
	}
	c := *o
	return &c
}

// unkeep makes the keeper forget a session, and then closes a descriptor of it; -1: none.
func (l *loop) unkeep(s *session, fd int32) { l.keeping.put(&keepNote{id: l.idOf(s), fd: fd}) }

// grow makes a session young again, or less, that leaves its host.
func (s *session) grow() {
	if s.kept > guarded {
		s.kept = guarded
	}
}

// guardAdopted is guard for a session that comes from another process, whose keeper may have had
// it. What it has moved beside its streams is the difference between what the kernel has counted
// and what the session has.
func (l *loop) guardAdopted(s *session) {
	if s.ends[client].is(unixSocket) || s.ends[backend].is(unixSocket) {
		return
	}
	for i := range s.ends {
		l.setLinger(&s.ends[i], l.keeping != nil)
	}
	if l.keeping == nil {
		return
	}
	s.kept = guarded
	c, b := meterOf(s.ends[client].fd), meterOf(s.ends[backend].fd)
	read, written := aside{}.streams(c, b)
	up, down := &s.flows[client], &s.flows[backend]
	s.took = int32(read[client] - int64(s.in) - int64(len(up.held)-int(up.taken)-int(up.ahead)))
	header := written[client] - int64(s.in)
	switch {
	case !c.Known || !b.Known || up.ahead > 0 || s.took < 0 || header < 0 || header > math.MaxUint8:
	case written[backend] != int64(s.out) || read[backend] != int64(s.out)+int64(len(down.held)-int(down.taken)):
		// It has had words of ours, such as those of STARTTLS.
	case up.header:
	default:
		s.headerSent = uint8(header)
		l.keepSoon(s)
	}
}

// setLinger sets or clears what makes the last close of an end a reset.
func (l *loop) setLinger(e *end, on bool) {
	l.sys.lingerOn(e.fd, on)
	if on {
		e.set(lingers)
	} else {
		e.clear(lingers)
	}
}
