package sched

import (
	"crypto/tls"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"
)

// Host is one backend address with its counters and its health. It outlives
// the tables that list it, so that a change of weight or of neighbours loses
// no statistics and touches no running session. All methods may be called
// from any goroutine.
type Host struct {
	// The constant fields fill whole cache lines, and so do the fields that loops
	// write. A Host is then a whole number of lines, which the allocator aligns, so
	// that no two hosts share a line. (With 32-bit pointers it does not: hosts may
	// share a line there, which costs only time.)
	identity
	_ [(cacheLine - unsafe.Sizeof(identity{})%cacheLine) % cacheLine]byte
	connects
	_        [(cacheLine - unsafe.Sizeof(connects{})%cacheLine) % cacheLine]byte
	counters // a whole line as it is: a field of no size behind it would add a word
}

// connects is what connects that succeeded took, and what became of the sessions.
type connects struct {
	connected   atomic.Uint64
	connectTime atomic.Uint64 // ns, all together
	served      atomic.Uint64 // sessions that were connected and have ended
	serveTime   atomic.Uint64 // ns that they lasted, all together
	resets      earlyResets
}

type identity struct {
	name   string
	addr   Addr
	times  *Times
	source atomic.Pointer[Source]     // changes as seldom as the configuration
	proxy  atomic.Uint32              // ProxyProtocol; changes as seldom
	tls    atomic.Pointer[tls.Config] // changes as seldom
	turns  atomic.Pointer[hostTurns]  // nil: there were none
	peak   atomic.Pointer[peak]       // of turnarounds; nil: nobody asks for it
}

// counters are all that Pick and Release touch. Sessions now are picks less ended,
// so that a pick and its release count with one atomic addition each, and a
// compare-and-swap of picks detects every pick in between.
type counters struct {
	picks    atomic.Uint64 // sessions ever given to the host
	ended    atomic.Uint64 // those of them that were released
	lastUse  atomic.Uint64 // number of the last pick, counted from 1, for ties
	in, out  atomic.Uint64
	failures atomic.Uint64
	limit    atomic.Pointer[failLimit] // nil: the first failed connect takes the host down
	most     atomic.Uint32             // sessions at once; 0: any number
	health   atomic.Uint32             // the era, and in the last bit whether the host is down
}

// cacheLine is the size of a cache line in bytes.
const cacheLine = 64

// NewHost returns a host that is up and has never been picked. It has its own
// Times.
func NewHost(name string, addr Addr) *Host { return NewHostIn(new(Times), name, addr) }

// NewHostIn is NewHost for a host whose times are counted together with those of
// its group.
func NewHostIn(group *Times, name string, addr Addr) *Host {
	return &Host{identity: identity{name: name, addr: addr, times: group}}
}

// Name returns the name that the configuration gives the host.
func (h *Host) Name() string { return h.name }

// Addr returns the address to connect to.
func (h *Host) Addr() Addr { return h.addr }

// Source is where connections to a host come from. It is immutable.
type Source struct {
	Addr      netip.Addr // of this machine; not valid: the kernel chooses
	Client    bool       // the client's address, without its port
	Interface string     // they go out by it (SO_BINDTODEVICE); "": as the routes say
}

// Source returns where connections to the host come from; nil: the kernel chooses.
func (h *Host) Source() *Source { return h.source.Load() }

// SetSource sets what [Host.Source] returns.
func (h *Host) SetSource(s Source) {
	switch was := h.Source(); {
	case s == Source{}:
		h.source.Store(nil)
	case was == nil || *was != s:
		h.source.Store(&s)
	}
}

// ProxyProtocol returns the version of the PROXY header that goes ahead of each stream
// to the host; 0: none does.
func (h *Host) ProxyProtocol() int { return int(h.proxy.Load()) }

// SetProxyProtocol sets what [Host.ProxyProtocol] returns: 0, 1 or 2.
func (h *Host) SetProxyProtocol(version int) { h.proxy.Store(uint32(version)) }

// TLS returns how connections to the host are encrypted; nil: they are not.
func (h *Host) TLS() *tls.Config { return h.tls.Load() }

// SetTLS sets what [Host.TLS] returns. What it points to must not change any more.
func (h *Host) SetTLS(c *tls.Config) { h.tls.Store(c) }

// Times returns where the times of the host's connects and sessions are counted.
func (h *Host) Times() *Times { return h.times }

// Connected counts a connect that succeeded after d; for shard see
// [Times.Connected].
func (h *Host) Connected(shard int, d time.Duration) {
	h.connected.Add(1)
	h.connectTime.Add(uint64(d))
	h.times.Connected(shard, d)
}

// Ended counts a session that had the host and ended d after its client came; for shard see
// [Times.Connected].
func (h *Host) Ended(shard int, d time.Duration) {
	h.served.Add(1)
	h.serveTime.Add(uint64(d))
	h.times.Ended(shard, d)
}

// Up tells whether the host is up.
func (h *Host) Up() bool { return h.health.Load()&isDown == 0 }

// isDown is the last bit of Host.health; the era is in the others.
const isDown = 1

// Standing returns Era and Up of one moment.
func (h *Host) Standing() (era uint32, up bool) {
	health := h.health.Load()
	return health >> 1, health&isDown == 0
}

// Era counts how often the host has come back. What began in one era says nothing
// about the host in the next.
func (h *Host) Era() uint32 { return h.health.Load() >> 1 }

// load returns the picks of the host and its sessions now. What ended is read
// first, so that the sessions may be overstated for a moment but never
// negative.
func (h *Host) load() (picks, active uint64) {
	ended := h.ended.Load()
	picks = h.picks.Load()
	return picks, picks - ended
}

// Sessions returns how many sessions the host has now.
func (h *Host) Sessions() int64 {
	_, active := h.loadExactly()
	return int64(active)
}

// take counts a session that pick number n gives to the host.
func (h *Host) take(n uint64) {
	h.picks.Add(1)
	h.lastUse.Store(n + 1)
}

// untake takes a take back: the session that was given to the host goes to another one,
// and nobody has asked it.
func (h *Host) untake() {
	h.picks.Add(^uint64(0))
	if h.most.Load() != 0 {
		h.times.Queue.look()
	}
}

// claim is take, if the host is not full.
func (h *Host) claim(n uint64) bool {
	most := uint64(h.most.Load())
	if most == 0 {
		h.take(n)
		return true
	}
	for {
		picks, active := h.load()
		if active >= most {
			if picks, active = h.loadExactly(); active >= most {
				return false
			}
		}
		if h.picks.CompareAndSwap(picks, picks+1) { // nobody else has picked it meanwhile
			h.lastUse.Store(n + 1)
			return true
		}
	}
}

// full tells whether the host has as many sessions as it may.
func (h *Host) full() bool {
	most := uint64(h.most.Load())
	if most == 0 {
		return false
	}
	if _, active := h.load(); active < most {
		return false
	}
	_, active := h.loadExactly()
	return active >= most
}

// loadExactly is load without an overstatement: while it is read, no session ends.
func (h *Host) loadExactly() (picks, active uint64) {
	for {
		ended := h.ended.Load()
		picks = h.picks.Load()
		if h.ended.Load() == ended {
			return picks, picks - ended
		}
	}
}

// MaxSessions returns how many sessions the host may have at once; 0: any number.
func (h *Host) MaxSessions() int { return int(h.most.Load()) }

// SetMaxSessions sets what [Host.MaxSessions] returns. The sessions that the host has
// stay; while they are as many or more, it is picked for none. Those that wait in the
// queue of its group have their turn if there is room now.
func (h *Host) SetMaxSessions(n int) {
	if was := h.most.Swap(uint32(n)); was != uint32(n) {
		h.times.Queue.look()
	}
}

// takeIf is take, but only if the host has no more sessions than were seen, and is not full:
// another loop may have taken the last place after this one saw it and before it counted.
func (h *Host) takeIf(seen, n uint64) bool {
	picks, active := h.load()
	most := uint64(h.most.Load())
	if active > seen || most != 0 && active >= most || !h.picks.CompareAndSwap(picks, picks+1) {
		return false
	}
	h.lastUse.Store(n + 1)
	return true
}

// Release gives a Pick back and adds the bytes that the session moved since
// they were last published: in from the client, out to it.
// It must be called exactly once per Pick.
func (h *Host) Release(in, out uint64) {
	h.AddBytes(in, out)
	h.ended.Add(1)
	if h.most.Load() != 0 {
		h.times.Queue.look()
	}
}

// AddBytes publishes bytes of a session that goes on.
func (h *Host) AddBytes(in, out uint64) {
	if in != 0 {
		h.in.Add(in)
	}
	if out != 0 {
		h.out.Add(out)
	}
}

// Fail is FailIn for a connect that began in the present era.
func (h *Host) Fail() (first bool) { return h.FailIn(h.Era()) }

// FailIn counts a failed connect that began in an era, see [Host.Era], and marks
// the host down if its limit is reached; without a limit every failure does. A
// failure that began before the host last came back is counted, but does not mark
// it down. FailIn reports whether this call took the host from up to down.
func (h *Host) FailIn(era uint32) (first bool) {
	h.failures.Add(1)
	if h.Era() != era {
		return false
	}
	if l := h.limit.Load(); l != nil && !l.reached() {
		return false
	}
	return h.health.CompareAndSwap(era<<1, era<<1|isDown)
}

// SetFailLimit says how many failed connects within window take the host down:
// 1, which is how a new host begins, each; 0 none. Failures so far are
// forgotten if that is a change.
func (h *Host) SetFailLimit(fails int, window time.Duration) {
	if fails == 1 {
		h.limit.Store(nil)
		return
	}
	if l := h.limit.Load(); l == nil || len(l.at) != fails || l.window != window {
		h.limit.Store(&failLimit{window: window, began: time.Now(), at: make([]atomic.Int64, fails)})
	}
}

// failLimit remembers the last failed connects of a host, as many as take it
// down. Only failures come here, so a success costs nothing.
type failLimit struct {
	window time.Duration
	began  time.Time
	next   atomic.Uint64
	at     []atomic.Int64 // nanoseconds since began, from 1 on; 0: none
}

// reached records a failure and tells whether the last ones, as many as the limit,
// all lie within the window. Every failure has its own slot: of several at once the
// last sees them all, and none is counted twice.
func (l *failLimit) reached() bool {
	if len(l.at) == 0 {
		return false
	}
	now := int64(time.Since(l.began)) + 1
	l.at[(l.next.Add(1)-1)%uint64(len(l.at))].Store(now)
	for i := range l.at {
		if at := l.at[i].Load(); at == 0 || now-at > int64(l.window) {
			return false
		}
	}
	return true
}

// forget drops the failures so far.
func (l *failLimit) forget() {
	for i := range l.at {
		l.at[i].Store(0)
	}
}

// MarkDown marks the host down without counting a failed connect, as a failed
// probe does. It reports whether the host was up.
func (h *Host) MarkDown() (changed bool) {
	for {
		was := h.health.Load()
		if was&isDown != 0 {
			return false
		}
		if h.health.CompareAndSwap(was, was|isDown) {
			return true
		}
	}
}

// MarkUp marks the host up. It reports whether the host was down; if so, a new era
// begins and earlier failures do not count any more.
func (h *Host) MarkUp() (changed bool) {
	was := h.health.Load()
	if was&isDown == 0 {
		return false
	}
	h.Refresh()
	if l := h.limit.Load(); l != nil {
		l.forget()
	}
	if !h.health.CompareAndSwap(was, was+1) { // only another MarkUp changes a host that is down
		return false
	}
	h.times.Queue.look()
	return true
}

// Restore makes the health of a new host that of its likeness in an earlier process: what
// [Host.Standing] has returned there. Nobody else may use the host yet.
func (h *Host) Restore(era uint32, up bool) {
	health := era << 1
	if !up {
		health |= isDown
	}
	h.health.Store(health)
}

// HostStats is a snapshot of a host's counters. Its fields are read one after the
// other, so they may be of slightly different moments.
type HostStats struct {
	Active      int64  // sessions now, connecting ones included
	Picks       uint64 // sessions ever given to the host, retries included
	Failures    uint64 // failed connects
	EarlyResets uint64 // sessions that the host reset before the first byte of an answer
	In, Out     uint64 // bytes from and to clients
	Up          bool

	Connects    uint64        // that succeeded
	ConnectTime time.Duration // that these took, all together
	Ended       uint64        // sessions that were connected and have ended
	EndedTime   time.Duration // that these lasted, all together
	Turns       uint64        // turnarounds, see Host.Turned
	TurnTime    time.Duration // that these took, all together
}

// Add adds the counters of another host, all but Up.
func (s *HostStats) Add(o HostStats) {
	s.Active += o.Active
	s.Picks += o.Picks
	s.Failures += o.Failures
	s.EarlyResets += o.EarlyResets
	s.In += o.In
	s.Out += o.Out
	s.Connects += o.Connects
	s.ConnectTime += o.ConnectTime
	s.Ended += o.Ended
	s.EndedTime += o.EndedTime
	s.Turns += o.Turns
	s.TurnTime += o.TurnTime
}

// Stats returns the counters as they are now.
func (h *Host) Stats() HostStats {
	picks, active := h.loadExactly()
	s := HostStats{
		Active: int64(active), Picks: picks, Failures: h.failures.Load(),
		EarlyResets: h.resets.total.Load(),
		In:          h.in.Load(), Out: h.out.Load(), Up: h.Up(),
		Connects: h.connected.Load(), ConnectTime: time.Duration(h.connectTime.Load()),
		Ended: h.served.Load(), EndedTime: time.Duration(h.serveTime.Load()),
	}
	if t := h.turns.Load(); t != nil {
		s.Turns, s.TurnTime = t.count.Load(), time.Duration(t.sum.Load())
	}
	return s
}
