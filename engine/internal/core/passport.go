package core

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/txlb/txlb/engine"
)

// Passport is all that a session takes along to another process, but for its sockets. Its
// bytes are [engine.Moved].State. Names stand for what only one process has: service, group
// and host. Times are ages in ns at the moment Written, so that clocks need not agree; -1
// is a time that has not come.
type Passport struct {
	Written   int64 // ns of CLOCK_MONOTONIC, which processes of one machine share
	Service   string
	Age, Idle int64 // since the accept; since the last byte, end or change of phase
	In, Out   uint64

	Stage Stage
	Group string // of the host, or that the session has chosen; "": not known, or the default
	Host  PassHost

	Origin *Origin     // what a PROXY header has said; nil: nothing
	Notes  *PassNotes  // for the record; nil: the session is not recorded
	Try    *PassTry    // nil: the session stays with its host
	Ends   [2]PassEnd  // client, backend
	Flows  [2]PassFlow // client to backend, backend to client

	Turns *PassTurns // nil: none, and nothing is unanswered
	Story *PassStory // nil: it comes from a process that keeps none
}

// Parts are what a passport has had since format 2, each with its number: an engine that does
// not know one goes without it. Numbers are never used again.
const (
	partTurns = 1
	partStory = 2
)

// parts are those parts, in the order in which they are written.
var parts = [...]struct {
	number uint64
	write  func(p *Passport, w *passWriter) (some bool)
	read   func(p *Passport, r *passReader)
}{
	{partTurns, (*Passport).writeTurns, (*Passport).readTurns},
	{partStory, (*Passport).writeStory, (*Passport).readStory},
}

func (p *Passport) writeTurns(w *passWriter) bool {
	t := p.Turns
	if t == nil {
		return false
	}
	w.age(t.Asked)
	w.age(t.Total)
	for _, n := range []uint64{t.Spread[0], t.Spread[1], uint64(t.Count), uint64(t.Worst)} {
		w.number(n)
	}
	return true
}

func (p *Passport) readTurns(r *passReader) {
	const word = 1<<32 - 1
	p.Turns = &PassTurns{
		Asked: r.age(), Total: r.age(), Spread: [2]uint64{r.number(1<<64 - 1), r.number(1<<64 - 1)},
		Count: uint32(r.number(word)), Worst: uint32(r.number(word)),
	}
}

// Stage is how far a session has come that moves.
type Stage uint8

const (
	Connected Stage = iota // it has a host
	Unheard                // its PROXY header has not come, or not as a whole
	Untold                 // what its TLS asks for has not come, or not as a whole
	Looking                // it looks for a host, or waits for one
	stages
)

// PassHost names a host.
type PassHost struct{ Name, Addr string }

// PassNotes are [Notes] of a session that is recorded.
type PassNotes struct {
	Client            netip.AddrPort
	Group             string
	Picked, Connected int64
	Retries, Before   int
	Name              []byte
}

// PassTry is an [Attempt].
type PassTry struct {
	From                netip.AddrPort
	Since               int64
	StartTLS, Commands  uint8
	Chosen              bool // Passport.Group is the choice of the route
	Heard, Late, Alien  bool
	Tried               []PassHost
	Resorts             int
	Waits, Waited, Last int64 // ns since it first joined a queue, in queues all together, and the last time
	Before              int
}

// PassEnd is a socket. What the engine notes of it besides has the bits of Pass….
type PassEnd struct{ Flags uint16 }

// Flags of an end.
const (
	PassHungUp uint16 = 1 << iota
	PassUrgent
	PassInline
	PassEnded
	PassReset
	PassBroken
	PassSentOnce
	PassNoDelay
	PassTuned
	PassUnix
	PassAnswered
	PassHeaded
	passEndFlags // none: all are below
)

// PassFlow is a direction.
type PassFlow struct {
	Flags    uint8
	Window   int32
	Streamed uint8
	Ahead    uint8  // bytes of a PROXY header that stand before the others in Held
	Held     []byte // read, and not sent yet
}

// Flags of a flow.
const (
	PassSplicing uint8 = 1 << iota
	PassCorked
	PassDone
	PassHeader // a PROXY header goes ahead of the first byte
	passFlowFlags
)

// PassStory is what a session has noted for [engine.Story]. The times are stamps.
type PassStory struct {
	Connected, FirstIn, FirstOut, Closed uint32
	Marks                                uint8

	Heard, Asked, Queued uint32
	Waited, Held         int64
	Length               int
	Name                 []byte
	Tries                []PassTried
	Untold               int
	Stalled              [2]int64
}

// PassTried is a host that has not taken the session.
type PassTried struct {
	Host  PassHost
	At    uint32
	Took  int64
	Times int
	What  uint8 // see wires
	Why   string
}

// maxName bounds the names in a passport, in bytes.
const maxName = 1 << 16

// Append appends the bytes of the passport to b.
func (p *Passport) Append(b []byte) []byte {
	w := passWriter(b)
	w.number(engine.MoveFormat)
	w.age(p.Written)
	w.text(p.Service)
	w.age(p.Age)
	w.age(p.Idle)
	w.number(p.In)
	w.number(p.Out)
	w.number(uint64(p.Stage))
	w.text(p.Group)
	w.host(p.Host)
	if w.flag(p.Origin != nil) {
		w.address(p.Origin.Client)
		w.address(p.Origin.To)
	}
	if n := p.Notes; w.flag(n != nil) {
		w.address(n.Client)
		w.text(n.Group)
		w.age(n.Picked)
		w.age(n.Connected)
		w.number(uint64(n.Retries))
		w.number(uint64(n.Before))
		w.bytes(n.Name)
	}
	if t := p.Try; w.flag(t != nil) {
		w.address(t.From)
		w.age(t.Since)
		w.number(uint64(t.StartTLS))
		w.number(uint64(t.Commands))
		for _, f := range []bool{t.Chosen, t.Heard, t.Late, t.Alien} {
			w.flag(f)
		}
		w.number(uint64(len(t.Tried)))
		for _, h := range t.Tried {
			w.host(h)
		}
		w.number(uint64(t.Resorts))
		w.age(t.Waits)
		w.age(t.Waited)
		w.age(t.Last)
		w.number(uint64(t.Before))
	}
	for i := range p.Ends {
		w.number(uint64(p.Ends[i].Flags))
	}
	for i := range p.Flows {
		f := &p.Flows[i]
		w.number(uint64(f.Flags))
		w.number(uint64(f.Window))
		w.number(uint64(f.Streamed))
		w.number(uint64(f.Ahead))
		w.bytes(f.Held)
	}
	var tail passWriter
	count := uint64(0)
	for i := range parts {
		var one passWriter
		if parts[i].write(p, &one) {
			tail.number(parts[i].number)
			tail.bytes(one)
			count++
		}
	}
	w.number(count)
	return append(w, tail...)
}

func (p *Passport) writeStory(w *passWriter) bool {
	s := p.Story
	if s == nil {
		return false
	}
	for _, t := range []uint32{s.Connected, s.FirstIn, s.FirstOut, s.Closed, uint32(s.Marks), s.Heard, s.Asked, s.Queued} {
		w.number(uint64(t))
	}
	w.age(s.Waited)
	w.age(s.Held)
	w.number(uint64(s.Length))
	w.bytes(s.Name)
	w.number(uint64(s.Untold))
	w.age(s.Stalled[0])
	w.age(s.Stalled[1])
	w.number(uint64(len(s.Tries)))
	for _, t := range s.Tries {
		w.host(t.Host)
		w.number(uint64(t.At))
		w.age(t.Took)
		w.number(uint64(t.Times))
		w.number(uint64(t.What))
		w.text(t.Why)
	}
	return true
}

func (p *Passport) readStory(r *passReader) {
	s := new(PassStory)
	p.Story = s
	stamp := func() uint32 { return uint32(r.number(1<<32 - 1)) }
	s.Connected, s.FirstIn, s.FirstOut, s.Closed, s.Marks = stamp(), stamp(), stamp(), stamp(), uint8(r.number(1<<8-1))
	s.Heard, s.Asked, s.Queued, s.Waited, s.Held, s.Length = stamp(), stamp(), stamp(), r.age(), r.age(), r.count()
	s.Name, s.Untold, s.Stalled = r.bytes(64), r.count(), [2]int64{r.age(), r.age()}
	for n := r.number(mostTries); n > 0 && r.err == nil; n-- {
		s.Tries = append(s.Tries, PassTried{Host: r.host(), At: stamp(), Took: r.age(), Times: r.count(), What: uint8(min(r.number(1<<64-1), 1<<8-1)), Why: r.text()})
	}
}

// ParsePassport reads what Append has written. The passport shares memory with b.
func ParsePassport(b []byte) (*Passport, error) {
	r := passReader{b: b}
	format := r.number(1 << 62)
	if format < engine.EarliestMoveFormat || format > engine.MoveFormat {
		return nil, fmt.Errorf("engine: a session in format %d, want %d to %d", format, engine.EarliestMoveFormat, engine.MoveFormat)
	}
	p := &Passport{
		Written: r.age(), Service: r.text(), Age: r.age(), Idle: r.age(),
		In: r.number(1<<64 - 1), Out: r.number(1<<64 - 1),
		Stage: Stage(r.number(uint64(stages) - 1)), Group: r.text(), Host: r.host(),
	}
	if r.flag() {
		p.Origin = &Origin{r.address(), r.address()}
	}
	if r.flag() {
		p.Notes = &PassNotes{
			Client: r.address(), Group: r.text(), Picked: r.age(), Connected: r.age(),
			Retries: r.count(), Before: r.count(), Name: r.bytes(64),
		}
	}
	if r.flag() {
		t := &PassTry{
			From: r.address(), Since: r.age(), StartTLS: uint8(r.number(uint64(smtpPromised))), Commands: uint8(r.number(255)),
			Chosen: r.flag(), Heard: r.flag(), Late: r.flag(), Alien: r.flag(),
		}
		for n := r.number(1 << 16); n > 0 && r.err == nil; n-- {
			t.Tried = append(t.Tried, r.host())
		}
		t.Resorts, t.Waits, t.Waited, t.Last, t.Before = r.count(), r.age(), r.age(), r.age(), r.count()
		p.Try = t
	}
	for i := range p.Ends {
		p.Ends[i].Flags = uint16(r.number(uint64(passEndFlags) - 1))
	}
	for i := range p.Flows {
		p.Flows[i] = PassFlow{
			Flags: uint8(r.number(uint64(passFlowFlags) - 1)), Window: int32(r.number(1<<31 - 1)), Streamed: uint8(r.number(255)),
			Ahead: uint8(r.number(255)), Held: r.bytes(len(b)),
		}
	}
	if format > 1 {
		p.readParts(&r)
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = errors.New("bytes follow it")
	}
	if r.err == nil {
		r.err = p.check()
	}
	if r.err != nil {
		return nil, fmt.Errorf("engine: the state of a session is malformed: %w", r.err)
	}
	return p, nil
}

// readParts reads the parts.
func (p *Passport) readParts(r *passReader) {
	before := uint64(0)
	for count := r.number(1 << 16); count > 0 && r.err == nil; count-- {
		number := r.number(1<<64 - 1)
		one := passReader{b: r.bytes(len(r.b))}
		if r.err == nil && number <= before {
			r.err = errors.New("its parts are out of order")
		}
		before = number
		for i := range parts {
			if parts[i].number != number || r.err != nil {
				continue
			}
			if parts[i].read(p, &one); one.err == nil && len(one.b) > 0 {
				one.err = errors.New("bytes follow a part of it")
			}
			if number == partStory && one.err != nil { // nothing that the client needs
				p.Story, one.err = nil, nil
			}
			r.err = one.err
		}
	}
}

// check tells what in the passport contradicts itself.
func (p *Passport) check() error {
	for i := range p.Flows {
		f := &p.Flows[i]
		done := f.Flags&PassDone != 0
		switch {
		case int(f.Ahead) > len(f.Held):
			return errors.New("a header is longer than what it is in")
		case done && len(f.Held) > 0:
			return errors.New("a direction that has ended holds bytes")
		case (p.Stage == Unheard || p.Stage == Untold || p.Stage == Looking && i == 1) && (len(f.Held) > 0 || done):
			return errors.New("bytes or an end of somebody without a host")
		case f.Flags&PassHeader != 0 && (i != 0 || p.Try == nil):
			return errors.New("a PROXY header cannot be made")
		}
	}
	switch {
	case p.Service == "":
		return errors.New("it has no service")
	case p.Age < 0 || p.Idle < 0:
		return errors.New("it has not begun")
	case p.Stage == Connected && p.Host.Name == "":
		return errors.New("it has no host")
	case p.Stage != Connected && p.Try == nil:
		return errors.New("it has no host and looks for none")
	case p.Flows[0].Flags&p.Flows[1].Flags&PassDone != 0:
		return errors.New("it has ended")
	}
	return nil
}

// passWriter writes the parts of a passport.
type passWriter []byte

func (w *passWriter) number(n uint64) { *w = binary.AppendUvarint(*w, n) }

// age writes a time, -1 at the least.
func (w *passWriter) age(n int64) { w.number(uint64(max(n, -1) + 1)) }

func (w *passWriter) flag(f bool) bool {
	if f {
		w.number(1)
	} else {
		w.number(0)
	}
	return f
}

func (w *passWriter) bytes(b []byte) {
	w.number(uint64(len(b)))
	*w = append(*w, b...)
}

func (w *passWriter) text(s string) { w.bytes([]byte(s)) }

func (w *passWriter) host(h PassHost) {
	w.text(h.Name)
	w.text(h.Addr)
}

func (w *passWriter) address(a netip.AddrPort) {
	b, _ := a.MarshalBinary()
	w.bytes(b)
}

// passReader reads them. After an error it reads zeros.
type passReader struct {
	b   []byte
	err error
}

var errCut = errors.New("it is cut off")

func (r *passReader) number(most uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	switch {
	case r.err != nil:
		return 0
	case size <= 0:
		r.err = errCut
		return 0
	case n > most:
		r.err = fmt.Errorf("%d where at most %d can be", n, most)
		return 0
	}
	r.b = r.b[size:]
	return n
}

// age reads a time; more than 2^62 ns, 146 years, is none.
func (r *passReader) age() int64   { return int64(r.number(1<<62)) - 1 }
func (r *passReader) count() int   { return int(r.number(1<<31 - 1)) }
func (r *passReader) flag() bool   { return r.number(1) == 1 }
func (r *passReader) text() string { return string(r.bytes(maxName)) }

func (r *passReader) host() PassHost { return PassHost{r.text(), r.text()} }

func (r *passReader) bytes(most int) []byte {
	n := r.number(uint64(most))
	switch {
	case r.err != nil || n == 0:
		return nil
	case n > uint64(len(r.b)):
		r.err = errCut
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *passReader) address() (a netip.AddrPort) {
	if b := r.bytes(64); r.err == nil && a.UnmarshalBinary(b) != nil {
		r.err = errors.New("an address is none")
	}
	return a
}
