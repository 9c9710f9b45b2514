package conns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/clienthello"
	"github.com/txlb/txlb/internal/gate"
	"github.com/txlb/txlb/splice"
)

// The TLS of an end is that of crypto/tls over the session's socket. The socket stays the
// session's: its deadlines, its options and its end. TLS reads and writes through a wire.

// The kinds of work of handshakes: those that have begun do not wait behind all that begin.
const (
	begins   gate.Kind = iota // the answer to a client's hello
	finishes                  // what comes behind it
	toHost
	kindsOfWork
)

// newTurns makes the gate that handshakes pass: half of the processors at most compute
// them, so that event loops keep the other half whatever strangers ask for.
func newTurns() *gate.Gate { return gate.New(max(1, runtime.GOMAXPROCS(0)/2), int(kindsOfWork)) }

// maxHold is how long a handshake keeps a place of the gate at most. It is for functions of
// a tls.Config that wait.
const maxHold = time.Second

// turn is the way of one handshake through the gate. It has a place while it computes, and
// none while it waits for its peer, so a slow peer keeps nobody out.
type turn struct {
	turns *gate.Gate
	done  <-chan struct{} // closed when the handshake is broken off
	kind  gate.Kind

	mu   sync.Mutex
	held bool        // a place
	late *time.Timer // gives it back
}

// A client's handshake is kept whole until it is done, by package tls: up to 64 KiB of a hello,
// and 256 KiB of a certificate, for anybody who asks. So these bound it.
const (
	// maxHello bounds what a client sends before it has an answer, as it does where a route
	// looks at a hello.
	maxHello = clienthello.MaxStream
	// maxShake bounds what it sends in all. Most of that is its certificate and the chain.
	maxShake = 64 << 10
)

// errTooLong is the end of a client's handshake that exceeds the bounds.
var errTooLong = errors.New("the handshake is too long")

// errNoTurn is the end of a handshake that is broken off while it waits for its turn.
var errNoTurn = errors.New("the handshake was broken off")

// enter waits for a place, unless there is one.
func (t *turn) enter() error {
	if t.has() {
		return nil
	}
	if !t.turns.Enter(t.done, t.kind) {
		return errNoTurn
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = true
	if t.late == nil {
		t.late = time.AfterFunc(maxHold, t.leave)
	} else {
		t.late.Reset(maxHold)
	}
	if t.kind == begins {
		t.kind = finishes
	}
	return nil
}

func (t *turn) has() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held
}

// leave gives the place back, if there is one.
func (t *turn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held {
		t.held = false
		t.late.Stop()
		t.turns.Leave()
	}
}

// wire is the socket of an end, as its TLS sees it. One goroutine reads at a time.
type wire struct {
	net.Conn
	turn *turn          // nil: the handshake is over
	most int            // what the peer may send in the handshake; 0: anything
	got  int            // what it has sent
	src  *splice.Source // of the socket
	next []byte         // that has been read, and not by TLS; of src, or the beginning of the stream
	err  error          // comes behind next
	in   records        // that TLS has read
	try  bool           // a Read does not wait

	to   net.Conn // what the session writes goes to
	mu   sync.Mutex
	held bool   // what is written waits in out
	out  []byte // of pieces
}

// pieces are buffers for the records of one write.
var pieces = sync.Pool{New: func() any { return new([68 << 10]byte) }}

// Read gives TLS bytes.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.try && len(w.next) == 0 && w.err == nil {
		return 0, nothing{}
	}
	if w.turn != nil && w.most > 0 && w.got >= w.most {
		return 0, errTooLong
	}
	if err := w.wait(); err != nil {
		return 0, err
	}
	n = copy(p, w.next)
	if w.turn != nil {
		w.got += n
	}
	w.in.pass(p[:n])
	if w.next = w.next[n:]; len(w.next) == 0 {
		w.src.Release()
		err, w.err = w.err, nil
	}
	return n, err
}

// wait waits until there is something to read.
func (w *wire) wait() (err error) {
	if len(w.next) == 0 && w.err == nil {
		if w.turn != nil {
			w.turn.leave()
		}
		if w.next, err = w.src.Next(); len(w.next) == 0 && isTimeout(err) {
			return err
		}
		w.err = err
	}
	if w.turn != nil {
		return w.turn.enter()
	}
	return nil
}

// Write leaves the gate. What a handshake does behind a write, until it reads, is little.
func (w *wire) Write(p []byte) (int, error) {
	if w.turn != nil {
		w.turn.leave()
		if w.most > 0 {
			w.most = maxShake
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held {
		w.out = append(w.out, p...)
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// Close breaks a handshake off: it is how package tls passes on that its context has ended.
func (w *wire) Close() error { return w.Conn.SetDeadline(time.Unix(1, 0)) }

// Package tls would end a write of its last words after five seconds, and a reader may stall
// for longer. The session bounds all of them.

func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// hold makes writes wait for release.
func (w *wire) hold(buf []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held, w.out = true, buf[:0]
}

// release makes the writes since hold, as one.
func (w *wire) release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.out
	w.held, w.out = false, nil
	if len(out) == 0 {
		return nil
	}
	_, err := w.to.Write(out)
	return err
}

// records follows the records of a stream of TLS: a header of five bytes with the size of
// what comes behind it.
type records struct {
	header int // bytes of the header that have come
	size   int
	left   int // bytes that are missing behind it
}

const recordHeader = 5

// pass takes in bytes of the stream.
func (r *records) pass(b []byte) {
	for len(b) > 0 {
		if r.left > 0 {
			n := min(r.left, len(b))
			if r.left, b = r.left-n, b[n:]; r.left == 0 {
				r.header = 0
			}
			continue
		}
		if r.header++; r.header >= recordHeader-1 {
			r.size = r.size<<8 | int(b[0])
		}
		b = b[1:]
		if r.header == recordHeader {
			if r.left, r.size = r.size, 0; r.left == 0 {
				r.header = 0
			}
		}
	}
}

// partial tells whether a record has begun to come and is not whole.
func (r *records) partial() bool { return r.header > 0 }

// secured is TLS over an end of a session.
type secured struct {
	*tls.Conn
	wire *wire
}

// nothing is splice.ErrNothing as package tls takes it: it can go on after an error of the
// network that is temporary.
type nothing struct{}

func (nothing) Error() string   { return splice.ErrNothing.Error() }
func (nothing) Unwrap() error   { return splice.ErrNothing }
func (nothing) Timeout() bool   { return false }
func (nothing) Temporary() bool { return true }

// TryRead gives out the bytes of a record, if one has come.
func (t *secured) TryRead(p []byte) (int, error) {
	t.wire.try = true
	defer func() { t.wire.try = false }()
	return t.Conn.Read(p)
}

// Wait waits until the socket has something.
func (t *secured) Wait() error { return t.wire.wait() }

// Write makes one write of all the records of p.
func (t *secured) Write(p []byte) (int, error) {
	buf := pieces.Get().(*[68 << 10]byte)
	defer pieces.Put(buf)
	t.wire.hold(buf[:])
	n, err := t.Conn.Write(p)
	if e := t.wire.release(); err == nil && e != nil {
		return 0, e
	}
	return n, err
}

// shake makes the handshake. A panic in a function of the tls.Config is one that fails.
func (t *secured) shake(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a function of the tls.Config panicked: %v", p)
		}
	}()
	return t.HandshakeContext(ctx)
}

// stream returns what is read from an end comes from.
func (s *session) stream(i int) net.Conn {
	if t := s.tls[i]; t != nil {
		return t
	}
	return s.ends[i]
}

// sink returns what is written to an end goes through.
func (s *session) sink(i int) net.Conn {
	if t := s.tls[i]; t != nil {
		return t
	}
	return &s.toward[i]
}

// hasUnread tells whether bytes from an end wait to be read, in the kernel or in its TLS:
// that reads whole records, and gives out what they have before it reads on.
func (s *session) hasUnread(i int) bool {
	t := s.tls[i]
	return hasUnread(s.ends[i]) || t != nil && (len(t.wire.next) > 0 || t.wire.in.partial())
}

// closeWrite ends what goes to an end: its TLS, and then the connection.
func (s *session) closeWrite(i int) {
	s.closeTLS(i)
	closeWrite(s.ends[i])
}

// closeTLS ends what goes through an end's TLS, once.
func (s *session) closeTLS(i int) {
	if t := s.tls[i]; t != nil {
		_ = t.CloseWrite()
	}
}

// farewell ends the TLS of a session that is cut, where nothing is cut off.
func (s *session) farewell() {
	for i, t := range s.tls {
		if t != nil && !s.cutOff[i].Load() && !s.failed[i].Load() {
			_ = s.ends[i].SetWriteDeadline(time.Now().Add(farewellFor))
			s.closeTLS(i)
		}
	}
}

// farewellFor is how long a session that is cut waits for room for the last words of its
// TLS.
const farewellFor = 100 * time.Millisecond

// handshake makes the client's handshake.
func (s *session) handshake(step core.Step) core.Step {
	s.tell(step)
	return s.shake(client, step, (*core.Admission).Shook)
}

// secure makes the handshake with the host, behind its PROXY header if it is to have one.
func (s *session) secure(step core.Step) core.Step {
	if step.First {
		var header []byte
		s.with(func(a *core.Admission, _ int64) core.Step {
			header = a.Header(nil, s.reached)
			return core.Step{}
		})
		if len(header) > 0 {
			_, _ = s.ends[backend].Write(header) // if it cannot be sent, the handshake fails
		}
	}
	next := s.shake(backend, step, func(a *core.Admission, now int64, agreed tls.ConnectionState, err error) core.Step {
		if err != nil {
			s.lost = fmt.Errorf("TLS with %v: %w", a.Host.Addr(), err)
		}
		return a.Secured(now, agreed.DidResume, err)
	})
	if next.Do != core.Relay {
		_ = s.ends[backend].Close()
	}
	return next
}

// shake makes a handshake and reports what came of it.
func (s *session) shake(side int, step core.Step, report func(*core.Admission, int64, tls.ConnectionState, error) core.Step) core.Step {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	w := &wire{Conn: s.ends[side], to: &s.toward[side], src: splice.NewSource(s.ends[side]), turn: &turn{turns: s.of.turns, done: ctx.Done(), kind: begins}}
	t := &secured{wire: w}
	var err error
	if side == client {
		w.next, s.opening = s.opening, nil
		w.most = maxHello
		t.Conn = tls.Server(w, step.TLS)
	} else {
		w.turn.kind = toHost
		t.Conn = tls.Client(w, step.TLS)
		err = w.turn.enter()
	}
	bound := s.bind(step.Until, cancel)
	if err == nil {
		err = t.shake(ctx)
	}
	w.turn.leave()
	w.turn = nil
	next, late := bound.release()
	switch {
	case s.ctx.Err() != nil:
		return core.Step{}
	case late:
		return next
	}
	next = s.with(func(a *core.Admission, now int64) core.Step { return report(a, now, t.ConnectionState(), err) })
	if err == nil {
		s.tls[side] = t
	}
	return next
}

// bound ends a step of the admission at its time, which may change meanwhile.
type bound struct {
	s        *session
	breakOff func()

	mu      sync.Mutex
	timer   *time.Timer
	until   int64
	excused bool // it went off late, and waits for what has come meanwhile
	over    bool
	late    bool
	next    core.Step // late
}

// bind makes breakOff be called when the step's time is up.
func (s *session) bind(until int64, breakOff func()) *bound {
	b := &bound{s: s, breakOff: breakOff, until: until}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = time.AfterFunc(time.Hour, b.goOff)
	b.set(until)
	s.bound.Store(b)
	return b
}

// set sets the timer; mu is held.
func (b *bound) set(until int64) {
	if b.until = until; until == core.Never {
		b.timer.Stop()
		return
	}
	b.timer.Reset(time.Duration(max(until-b.s.of.home.Clock(), 0)))
}

// goOff is called by the timer. If it is late, the process may have stood still, and what
// has come meanwhile is not read yet.
func (b *bound) goOff() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	if late := time.Duration(b.s.of.home.Clock() - b.until); late > tolerated && !b.excused {
		b.excused = true
		b.timer.Reset(min(late, time.Second))
		return
	}
	step := b.s.with((*core.Admission).Deadline)
	if step.Do == core.Handshake || step.Do == core.Wait { // it has more time
		b.excused = false
		b.set(step.Until)
		return
	}
	b.over, b.late, b.next = true, true, step
	b.breakOff()
}

// retime takes in that the timeouts have changed.
func (b *bound) retime() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	if step := b.s.with(func(a *core.Admission, now int64) core.Step { return a.Retimed(now) }); step.Do != core.Nothing {
		b.set(step.Until)
	}
}

// release ends the bound. late tells that the time was up before, and next is then what
// the admission says to that.
func (b *bound) release() (next core.Step, late bool) {
	b.s.bound.Store(nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.timer.Stop()
	return b.next, b.late
}
