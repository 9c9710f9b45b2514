// Package guard bounds how much strangers can slow down the balancing through the
// admin interfaces: page, SSH, metrics and the two UNIX sockets share one [Guard].
//
// [Guard.Listen] puts a [Listener] around the listener of an interface. It
// judges a connection before the first byte of TLS or SSH, in this order:
//
//   - the address has to be allowed;
//   - its source may open so many connections a second, and all sources
//     together so many. What is more is reset;
//   - a source has at most so many connections open, and an interface too. One
//     more evicts the one idle longest: that of a stranger first, one that has
//     logged in last.
//
// A login must end within a time and a number of bytes. Work that strangers can
// cause (key exchanges, password hashes, the text of the metrics) passes one
// [Gate], which admits one at a time on machines of up to seven processors. HTTP
// requests of strangers wait for their turn, [Limits.Requests] a second.
//
// The connections of all interfaces have descriptors of their own, [Files],
// which sessions cannot use; nor can one interface use those of another.
//
// Limits: a source is an IPv4 address or an IPv6 network of 64 bits; an IPv4-mapped
// address is the IPv4 address. An attacker with many networks meets the limits for
// all sources together. UNIX sockets have no sources and no rates: their mode says
// who may connect.
package guard

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// Kind is one of the interfaces.
type Kind uint8

// The interfaces.
const (
	Page Kind = iota
	SSH
	Metrics
	Socket
	Control
	kinds
)

// String is the name of the interface in log, metrics and status.
func (k Kind) String() string { return [...]string{"page", "ssh", "metrics", "socket", "control"}[k] }

// Limits bound an interface. Zero is no limit, but for Conns.
type Limits struct {
	Conns     int // at once
	PerSource int // of them from one source; 0: half of Conns
	// Rate and SourceRate are connections a second, of all and of one source.
	// Twice as many may come at once.
	Rate, SourceRate float64
	// AtWork is for how long after its last use a user's connection is not evicted,
	// as a command may be about to come.
	AtWork time.Duration
	// Login is how long a connection may take to its login, and LoginBytes what it
	// may send until then. For TLS it is the handshake.
	Login      time.Duration
	LoginBytes int64
	// Requests and SourceRequests are HTTP requests a second by connections that
	// have not logged in, of all and of one source. Twice as many may come at once;
	// what is more waits.
	Requests, SourceRequests float64
}

// LimitsFor returns the usual limits of an interface in a process with so many open
// files, 0: not known.
func LimitsFor(k Kind, files uint64) Limits {
	share := func(part, most uint64) int {
		if files == 0 {
			return int(most)
		}
		return int(max(min(files/part, most), 4))
	}
	switch k {
	case Page:
		conns := share(32, 96)
		return Limits{
			Conns: conns, PerSource: min(48, (conns+1)/2), Rate: 200, SourceRate: 50, Login: 10 * time.Second,
			Requests: 400, SourceRequests: 100,
		}
	case SSH:
		return Limits{Conns: share(64, 48), Rate: 60, SourceRate: 20, Login: 20 * time.Second, LoginBytes: 64 << 10}
	case Metrics:
		return Limits{Conns: share(64, 32), Rate: 100, SourceRate: 50, Requests: 50, SourceRequests: 20}
	case Socket:
		return Limits{Conns: share(64, 128), AtWork: time.Second}
	default:
		return Limits{Conns: share(64, 80)}
	}
}

// Files is how many descriptors the connections of all interfaces take at most
// in a process with so many open files.
func Files(files uint64) int {
	n := 0
	for k := range kinds {
		n += LimitsFor(k, files).Conns
	}
	return n
}

// Options are what a Guard works with.
type Options struct {
	Files uint64       // limit of open files; 0: not known
	Log   *slog.Logger // nil: slog.Default
	// Change edits the limits that an interface has otherwise; nil: none is.
	Change func(Kind, *Limits)
}

// Guard guards the interfaces of a process. All methods may be called from any
// goroutine.
type Guard struct {
	gate *Gate
	all  [kinds]*door
}

// New makes a guard. It has nothing to close.
func New(opt Options) *Guard {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	g := &Guard{gate: NewGate()}
	for k := range kinds {
		l := LimitsFor(k, opt.Files)
		if opt.Change != nil {
			opt.Change(k, &l)
		}
		g.all[k] = newDoor(k, l, g.gate, opt.Log)
	}
	return g
}

// Gate is what costly work for strangers passes.
func (g *Guard) Gate() *Gate { return g.gate }

// Reason is why a connection was rejected or ended.
type Reason uint8

// The reasons.
const (
	NotAllowed   Reason = iota // the address is none that may connect
	Rate                       // too many connections a second
	Full                       // all places are taken by connections that are at work
	Evicted                    // it was idle longest when another came
	LoginTimeout               // no login in time
	LoginTooLong               // it sent too much before its login
	reasons

	letIn = reasons // none: it was not
)

// String is the reason's label in the metrics.
func (r Reason) String() string {
	return [...]string{"not_allowed", "rate", "full", "evicted", "login_timeout", "login_bytes"}[r]
}

// Reasons returns those that an interface may have.
func (k Kind) Reasons() []Reason {
	switch k {
	case Page:
		return []Reason{NotAllowed, Rate, Evicted, LoginTimeout}
	case SSH:
		return []Reason{NotAllowed, Rate, Evicted, LoginTimeout, LoginTooLong}
	case Metrics:
		return []Reason{NotAllowed, Rate, Evicted}
	default:
		return []Reason{Full, Evicted}
	}
}

// Stats is what an interface has seen.
type Stats struct {
	Kind     Kind
	Open     int             // connections now
	Limit    int             // of them
	Accepted uint64          // that were let in
	Rejected [reasons]uint64 // by Reason, those let in and ended included
	Delayed  uint64          // HTTP requests that had to wait for their turn
	Recent   uint64          // rejected in the last minute or half of it
}

// Stats returns what each interface has seen, in a fixed order.
func (g *Guard) Stats() []Stats {
	if g == nil {
		return nil
	}
	all := make([]Stats, kinds)
	for k, d := range g.all {
		all[k] = d.stats()
	}
	return all
}

// Busy tells whether so many connections are rejected that people may notice,
// and the interface defends itself.
func (s Stats) Busy() bool { return s.Recent >= busyAt }

// busyAt is how many rejections within a minute are pressure. Single ones are
// mistakes and scanners.
const busyAt = 20

// door is one interface.
type door struct {
	kind   Kind
	limits Limits
	gate   *Gate
	log    *slog.Logger

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	sources  map[netip.Prefix]*source
	swept    time.Time // when sources was swept
	rate     bucket
	requests bucket
	accepted uint64
	rejected [reasons]uint64
	delayed  uint64
	recent   [2]uint64 // rejected in this half minute and the one before
	half     time.Time // when this half minute began
	told     time.Time // when the log was
	untold   [reasons]uint64
}

// source is where connections come from.
type source struct {
	open     int
	rate     bucket
	requests bucket
}

func newDoor(k Kind, l Limits, gate *Gate, log *slog.Logger) *door {
	l.Conns = max(l.Conns, 1)
	if l.PerSource == 0 {
		l.PerSource = (l.Conns + 1) / 2
	}
	return &door{kind: k, limits: l, gate: gate, log: log, conns: map[*Conn]struct{}{}, sources: map[netip.Prefix]*source{}}
}

// tellEvery bounds how often the log tells of rejected connections.
const tellEvery = time.Minute

// sweepEvery is how often sources that have nothing open are forgotten.
const sweepEvery = 10 * time.Second

// source returns the record of a source; d.mu is held.
func (d *door) source(of netip.Prefix, now time.Time) *source {
	if now.Sub(d.swept) >= sweepEvery {
		d.swept = now
		for p, s := range d.sources {
			// A bucket that is full again says as little as none.
			if s.open == 0 && s.rate.full(d.limits.SourceRate, now) && s.requests.full(d.limits.SourceRequests, now) {
				delete(d.sources, p)
			}
		}
	}
	s := d.sources[of]
	if s == nil {
		s = &source{}
		d.sources[of] = s
	}
	return s
}

// enter lets a connection in, or counts why not. victim is the connection that
// has to go for it, nil for none: the caller closes it.
func (d *door) enter(c *Conn, now time.Time) (victim *Conn, why Reason) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.source.IsValid() {
		s := d.source(c.source, now)
		if !s.rate.take(d.limits.SourceRate, now) || !d.rate.take(d.limits.Rate, now) {
			d.reject(Rate, c.source, now)
			return nil, Rate
		}
		if s.open >= d.limits.PerSource {
			victim = d.idlest(now, func(o *Conn) bool { return o.source == c.source })
			if victim == nil {
				d.reject(Full, c.source, now)
				return nil, Full
			}
		}
	}
	if victim == nil && len(d.conns) >= d.limits.Conns {
		victim = d.idlest(now, func(*Conn) bool { return true })
		if victim == nil {
			d.reject(Full, c.source, now)
			return nil, Full
		}
	}
	if victim != nil {
		d.leave(victim)
		d.reject(Evicted, victim.source, now)
	}
	d.conns[c] = struct{}{}
	if c.source.IsValid() {
		d.sources[c.source].open++
	}
	d.accepted++
	return victim, letIn
}

// idlest returns the connection that goes first of those that match: a
// stranger's before one that has logged in, and the one idle longest of these.
// One that is at work stays. d.mu is held.
func (d *door) idlest(now time.Time, match func(*Conn) bool) *Conn {
	var first *Conn
	for c := range d.conns {
		if c.working.Load() > 0 || !match(c) || c.loggedIn.Load() && now.UnixNano()-c.used.Load() < int64(d.limits.AtWork) {
			continue
		}
		if first == nil || c.before(first) {
			first = c
		}
	}
	return first
}

// leave gives the place of a connection back, if it has one. d.mu is held.
func (d *door) leave(c *Conn) {
	if _, in := d.conns[c]; !in {
		return
	}
	delete(d.conns, c)
	if c.source.IsValid() {
		d.sources[c.source].open-- // it is there: it has something open
	}
}

func (d *door) left(c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leave(c)
}

// rejects is reject without d.mu.
func (d *door) rejects(why Reason, from netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reject(why, from, time.Now())
}

// reject counts a rejection and tells of it now and then. d.mu is held.
func (d *door) reject(why Reason, from netip.Prefix, now time.Time) {
	d.rejected[why]++
	d.untold[why]++
	d.recount(now)
	d.recent[0]++
	if now.Sub(d.told) < tellEvery {
		return
	}
	attrs := []any{"part", d.kind.String(), "last_reason", why.String(), "last_from", from.String(), "open", len(d.conns), "limit", d.limits.Conns}
	for r, n := range d.untold {
		if n > 0 {
			attrs = append(attrs, Reason(r).String(), n)
		}
	}
	d.told, d.untold = now, [reasons]uint64{}
	d.log.Warn("admin connections rejected", attrs...)
}

// recount moves on to the half minute of now.
func (d *door) recount(now time.Time) {
	const half = tellEvery / 2
	switch passed := now.Sub(d.half); {
	case passed >= 2*half:
		d.recent, d.half = [2]uint64{}, now
	case passed >= half:
		d.recent, d.half = [2]uint64{0, d.recent[0]}, now
	}
}

func (d *door) stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recount(time.Now())
	return Stats{
		Kind: d.kind, Open: len(d.conns), Limit: d.limits.Conns, Accepted: d.accepted, Rejected: d.rejected, Delayed: d.delayed,
		Recent: d.recent[0] + d.recent[1],
	}
}

// bucket is a token bucket of two seconds. The zero value is full.
type bucket struct {
	spent float64 // tokens that are missing from full
	at    time.Time
}

// drip brings the bucket up to now.
func (b *bucket) drip(rate float64, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.spent = max(0, b.spent-rate*passed.Seconds())
		b.at = now
	}
}

// take takes a token, if there is one. Rate 0 is no limit.
func (b *bucket) take(rate float64, now time.Time) bool {
	if rate == 0 {
		return true
	}
	b.drip(rate, now)
	if b.spent+1 > 2*rate {
		return false
	}
	b.spent++
	return true
}

// owe takes a token that may not be there yet, and returns when it will be.
func (b *bucket) owe(rate float64, now time.Time) time.Duration {
	if rate == 0 {
		return 0
	}
	b.drip(rate, now)
	b.spent++
	return time.Duration(max(0, (b.spent-2*rate)/rate) * float64(time.Second))
}

// repay gives back a token that was owed.
func (b *bucket) repay() { b.spent = max(0, b.spent-1) }

// full tells whether nothing is missing.
func (b *bucket) full(rate float64, now time.Time) bool {
	b.drip(rate, now)
	return rate == 0 || b.spent == 0
}

// SourceOf returns what counts as one where clients are bounded by where they
// come from: an IPv4 address, or an IPv6 network of 64 bits, as one machine may
// have all of it. It is invalid for what is no IP address, with a port or without.
func SourceOf(from string) netip.Prefix { return sourceOf(AddrOf(from)) }

func sourceOf(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	source, _ := ip.Prefix(bits) // fails for the invalid one only
	return source
}

// AddrOf reads an address with a port or without, IPv4-mapped ones as IPv4; it
// is invalid if that is none.
func AddrOf(from string) netip.Addr {
	ip, _ := netip.ParseAddr(from)
	if both, err := netip.ParseAddrPort(from); err == nil {
		ip = both.Addr()
	}
	return ip.Unmap().WithZone("")
}
