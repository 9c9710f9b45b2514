package engine

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/sched"
)

// Record says what is known of a session that has ended. Times are nanoseconds on the
// engine's clock, see [Recorder.Wall]; 0: the session did not come that far.
type Record struct {
	ID      uint64 // as SessionInfo has it
	Service string
	Table   *sched.Table   // of the group that was to take the session; nil: it came to none
	Host    *sched.Host    // the last that was asked; nil: none was
	Client  netip.AddrPort // as a PROXY header says, if there was one; not valid: a UNIX socket, or not known

	Accepted  int64 // the client was accepted
	Picked    int64 // the last host was picked, or the session left the queue without one
	Connected int64 // the last host has answered
	Ended     int64

	In, Out uint64 // bytes from and to the client
	Turns   Turnarounds
	Retries int // connects after the first, each to another host
	Before  int // sessions that waited in the queue of the group when this one came

	Held time.Duration // that it has waited because its group held its clients, all times together

	Sessions   int64      // of the engine at the end, this one included
	OnHost     int64      // sessions of the host at the end, this one not included
	Proxied    bool       // a PROXY header has named the client
	How        string     // the two letters, see [Terminations]
	ServerName ServerName // that the client's TLS asks for, if a route had to know it
	Why        string     // the reason of one that was rejected; "": it was not

	onLoop int64 // sessions of the service on this loop at the end, this one included
	onRest Elsewhere
	lane   int
}

// ServerName is the first 64 bytes of a name. It is kept in place: the loops allocate
// nothing for it.
type ServerName struct {
	text [64]byte
	size uint8
}

// Set makes it the first bytes of name.
func (n *ServerName) Set(name []byte) { n.size = uint8(copy(n.text[:], name)) }

// Bytes returns the name, empty if there is none.
func (n *ServerName) Bytes() []byte { return n.text[:n.size] }

// Elsewhere counts the sessions that a service has on other loops than one.
type Elsewhere interface{ Elsewhere(loop int) int64 }

// CountService says how many sessions the service has: so many on the loop of the
// record, this one included, and the others are asked for when the record is read.
func (r *Record) CountService(onLoop int64, loop int, others Elsewhere) {
	r.onLoop, r.lane, r.onRest = onLoop, loop, others
}

// OnService returns how many sessions the service had, this one included: exactly those
// of the session's loop, and those of other loops as they are now.
func (r *Record) OnService() int64 {
	n := r.onLoop
	if r.onRest != nil {
		n += r.onRest.Elsewhere(r.lane)
	}
	return n
}

// recordsPerLane is how many records of a loop wait at most: 1.1 MiB. At half of them the
// reader is woken, which takes them out every 25 ms anyway.
const recordsPerLane = 4096

// Recorder takes a record of each session that ends, while it is on. The loops never
// wait for it: what is full drops, and counts. Give it to an engine with
// [Options].Recorder. Take is for one goroutine, all else may be called from any.
type Recorder struct {
	on      atomic.Bool
	due     chan struct{}
	mu      sync.Mutex // held by Attach and Switch
	lanes   atomic.Pointer[[]*Lane]
	epoch   atomic.Pointer[time.Time]
	dropped atomic.Uint64 // of lanes, as Take has seen it
}

// NewRecorder returns a recorder that is off.
func NewRecorder() *Recorder { return &Recorder{due: make(chan struct{}, 1)} }

// Attach gives an engine a lane for each loop. epoch is 0 on the engine's clock.
func (r *Recorder) Attach(loops int, epoch time.Time) []*Lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	lanes := make([]*Lane, loops)
	for i := range lanes {
		lanes[i] = &Lane{due: r.due}
		lanes[i].turn(r.on.Load())
	}
	r.epoch.Store(&epoch)
	r.lanes.Store(&lanes)
	return lanes
}

// Switch turns the recorder on or off. Sessions that are there when it is turned on
// have records as well, perhaps without the times of their connects.
func (r *Recorder) Switch(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on.Store(on)
	if lanes := r.lanes.Load(); lanes != nil {
		for _, l := range *lanes {
			l.turn(on)
		}
	}
}

// Due has a token when Take should not wait for its time.
func (r *Recorder) Due() <-chan struct{} { return r.due }

// Take calls yield with the records that wait: those of each loop in their order, one
// loop after the other. A record is valid until yield returns.
func (r *Recorder) Take(yield func(*Record)) (taken int) {
	lanes := r.lanes.Load()
	if lanes == nil {
		return 0
	}
	dropped := uint64(0)
	for _, l := range *lanes {
		taken += l.take(yield)
		dropped += l.dropped.Load()
	}
	r.dropped.Store(dropped)
	return taken
}

// Dropped returns how many records had no room, as Take has found last.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// Wall returns the wall-clock time of a time on the engine's clock. now is the present,
// so that a clock that was set meanwhile is obeyed.
func (r *Recorder) Wall(now time.Time, ns int64) time.Time {
	return now.Add(time.Duration(ns) - now.Sub(*r.epoch.Load()))
}

// Lane is the recorder's part for one loop: a ring with one writer, the loop, and one
// reader.
type Lane struct {
	_       [64]byte
	ring    atomic.Pointer[ring] // nil: off
	put     uint64               // of the writer: records ever written
	dropped atomic.Uint64
	due     chan struct{}
	_       [64]byte

	kept atomic.Pointer[ring] // the ring while it is off, too, for what is in it
}

// ring holds records that were written and not read yet.
type ring struct {
	records []Record
	_       [64]byte
	head    atomic.Uint64 // records ever written
	_       [64]byte
	tail    atomic.Uint64 // records ever read
	_       [64]byte
}

// turn switches the lane. The ring is made when it is needed first, and kept.
func (l *Lane) turn(on bool) {
	if !on {
		l.ring.Store(nil)
		return
	}
	if l.kept.Load() == nil {
		l.kept.Store(&ring{records: make([]Record, recordsPerLane)})
	}
	l.ring.Store(l.kept.Load())
}

// On tells whether sessions are recorded. A nil lane is off.
func (l *Lane) On() bool { return l != nil && l.ring.Load() != nil }

// Put has fill write a record, and hands it over. If there is no room, it counts that.
// Only the lane's loop may call it.
func (l *Lane) Put(fill func(*Record)) {
	r := l.ring.Load()
	if r == nil {
		return
	}
	waiting := l.put - r.tail.Load()
	if waiting == recordsPerLane {
		l.dropped.Add(1)
		return
	}
	fill(&r.records[l.put%recordsPerLane])
	l.put++
	r.head.Store(l.put)
	if waiting == recordsPerLane/2 {
		select {
		case l.due <- struct{}{}:
		default:
		}
	}
}

// take reads what is there.
func (l *Lane) take(yield func(*Record)) int {
	r := l.kept.Load()
	if r == nil {
		return 0
	}
	tail, head := r.tail.Load(), r.head.Load()
	for i := tail; i < head; i++ {
		record := &r.records[i%recordsPerLane]
		yield(record)
		*record = Record{} // keeps no host or table alive
		r.tail.Store(i + 1)
	}
	return int(head - tail)
}
