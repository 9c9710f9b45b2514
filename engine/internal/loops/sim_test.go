//go:build linux

package loops

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

// sim is a kernel in memory. It does what tcp(7), epoll(7) and splice(2) do to
// the sockets of a loop, as far as a loop can see it: edges, short writes, a
// reset that is reported once, data that can still be read behind it, an
// urgent mark or a passed descriptor that stops a read. What the far ends do, which events are
// delivered together and which calls fail is up to the test. Whatever must
// never happen is noted in wrong.
type sim struct {
	loop     *loop
	sockets  []*simSocket // by descriptor, less fdBase
	sessions map[[2]int32]*simSession
	lent     int
	fault    fault // of the next calls that can have it
	strikes  int   // how many of them
	backends int   // how the next connect ends: see connectTo
	deaf     bool  // every connect is refused at once
	blame    int   // failed connects that the loop has learnt of and that are a host's fault
	roomy    bool  // the queues of UNIX sockets have room
	wrong    []string

	wants map[sched.Addr]int // which hosts get a PROXY header, and of which version

	mirrors map[sched.Addr]bool // where copies go
}

// fault is what goes wrong with one call.
type fault int

const (
	noFault   fault = iota
	noBuffers       // send: ENOBUFS
	noPipe          // no pipe is lent
	badFill         // Fill: ENOMEM
	badDrain        // Drain: ENOMEM
	noWatch         // epoll_ctl: ENOMEM
	noSocket        // socket: EMFILE
	spurious        // Fill at an urgent mark: EOF with bytes unread
	lateReset       // the far end resets before the next send of a batch
	faults
)

const fdBase = 100

// simSession is what the sim knows of a session.
type simSession struct {
	client   *simSocket
	backends []*simSocket

	unwatched bool // a client without a host that could not be watched behind a move

	turns         int   // turnarounds
	turned, asked int64 // ns: of them together; when the last bytes were sent to the backend, 0: they have an answer
}

// simSocket is a socket of the loop with the far end of its connection.
// Streams are told by their origin: every byte has one place in one of them.
type simSocket struct {
	id       int
	session  *simSession
	side     int
	key, gen int32
	watched  bool
	edge     bool // an event is due
	closed   bool

	mirror bool       // it is to a mirror
	of     *simSocket // whose bytes the mirror gets

	connecting bool
	failed     bool // the connect failed

	arrived int           // bytes that have arrived, ever
	taken   int           // of these, read by the loop
	fin     bool          // the far end's FIN is behind them
	reads   int           // by the loop
	finTold bool          // and an event without an error has told of it
	finRead bool          // and was read as a clean end
	mark    int           // the place of an urgent byte, -1 for none
	inline  bool          // urgent bytes are not skipped
	unix    bool          // a UNIX socket
	wide    bool          // it has a longer queue
	passed  int           // the place behind a descriptor that was passed, -1 for none
	dead    bool          // reset
	err     syscall.Errno // pending

	intro  []byte // what a client says ahead of its stream, which the loop takes off alone
	whole  bool   // it is a header, and no more
	said   int    // how much of it has arrived
	heard  int    // how much of that the loop has taken
	wants  int    // the version of the header that a backend gets first
	header []byte // what has come of it

	hurt       bool // a send failed that a real kernel would rarely fail
	put        int  // bytes that the loop has sent, ever
	got        int  // of these, read by the far end
	room       int  // what further sends may take
	noSpace    bool
	shut       bool // by the loop
	corked     bool // the last bytes wait for an end
	resetLater bool // SO_LINGER 0
	ended      bool // the far end gets a clean end behind the bytes
	gotReset   bool // the far end gets a reset
	shared     bool // its session has moved: another process has it
	over       bool // the loop has ended the connection
}

// pattern is where all streams are taken from, twice in a row so that every
// piece of patternSize bytes lies in it whole.
var pattern = func() []byte {
	p := make([]byte, patternSize)
	for i, r := 0, rand.New(rand.NewPCG(65, 65)); i < len(p); i++ {
		p[i] = byte(r.Uint32())
	}
	return append(p, p...)
}()

const patternSize = 1 << 18

// stream returns n bytes of the stream that comes from socket id.
func stream(id, at, n int) []byte {
	at = (at + id*31337) % patternSize
	return pattern[at : at+n]
}

func (k *sim) fail(format string, args ...any) {
	if len(k.wrong) < 10 {
		k.wrong = append(k.wrong, fmt.Sprintf(format, args...))
	}
}

// strike tells whether this call has the fault f.
func (k *sim) strike(f fault) bool {
	if k.fault != f || k.strikes == 0 {
		return false
	}
	k.strikes--
	return true
}

func (k *sim) newSocket() *simSocket {
	s := &simSocket{id: len(k.sockets), mark: -1, passed: -1, room: 100 << 10}
	k.sockets = append(k.sockets, s)
	return s
}

// open returns the socket of a descriptor, which must be open.
func (k *sim) open(fd int32, call string) *simSocket {
	i := int(fd) - fdBase
	if i < 0 || i >= len(k.sockets) {
		k.fail("%s on descriptor %d, which never was", call, fd)
		return &simSocket{mark: -1, passed: -1, closed: true}
	}
	s := k.sockets[i]
	if s.closed {
		k.fail("%s on socket %d, which is closed", call, s.id)
	}
	return s
}

// wakeUp makes an event due, as a change of the socket does.
func (s *simSocket) wakeUp() { s.edge = s.watched && !s.closed }

// events is what epoll reports of the socket now.
func (s *simSocket) events() uint32 {
	var mask uint32
	switch {
	case s.connecting:
		return 0
	case s.arrived > s.taken || s.said > s.heard || s.fin || s.dead:
		mask |= unix.EPOLLIN
	}
	if s.fin || s.dead {
		mask |= unix.EPOLLRDHUP
	}
	if s.dead || s.fin && s.shut {
		mask |= unix.EPOLLHUP
	}
	if s.err != 0 {
		mask |= unix.EPOLLERR
	}
	if s.room > 0 || s.shut || s.dead {
		mask |= unix.EPOLLOUT
	}
	if s.mark >= 0 {
		mask |= unix.EPOLLPRI
	}
	return mask
}

// due takes out the event of a socket, nil if there is none.
func (s *simSocket) due() *unix.EpollEvent {
	if !s.edge || s.closed {
		return nil
	}
	s.edge = false
	mask := s.events()
	if mask == 0 {
		return nil
	}
	s.finTold = s.finTold || s.fin && !s.dead
	return &unix.EpollEvent{Events: mask, Fd: s.key, Pad: s.gen}
}

// What the far ends do.

func (s *simSocket) farSend(n int) {
	if s.fin || s.dead || s.gotReset || s.closed || s.connecting {
		return
	}
	say := min(n, len(s.intro)-s.said)
	s.said += say
	s.arrived += min(n-say, 300<<10-(s.arrived-s.taken)) // a receive window
	s.wakeUp()
}

func (s *simSocket) farUrgent() {
	if s.fin || s.dead || s.closed || s.connecting || s.mark >= 0 || s.said < len(s.intro) {
		return
	}
	s.mark = s.arrived
	s.arrived++
	s.wakeUp()
}

// farPass sends n bytes and a descriptor with the last of them.
func (s *simSocket) farPass(n int) {
	if s.farSend(n); s.unix && s.arrived > s.taken {
		s.passed = s.arrived
	}
}

func (s *simSocket) farFin() {
	if s.fin || s.dead || s.closed || s.connecting {
		return
	}
	s.fin = true
	s.wakeUp()
}

func (s *simSocket) farReset() {
	if s.dead || s.closed || s.connecting {
		return
	}
	s.dead, s.err = true, unix.ECONNRESET
	s.wakeUp()
}

func (s *simSocket) farRead(n int) {
	n = min(n, s.put-s.got)
	if s.connecting || s.dead || n <= 0 {
		return
	}
	s.got += n
	s.room += n
	if s.noSpace {
		s.noSpace = false
		s.wakeUp()
	}
}

// answer ends a connect.
func (s *simSocket) answer(errno syscall.Errno) {
	if !s.connecting || s.closed {
		return
	}
	s.connecting = false
	if errno != 0 {
		s.failed, s.dead, s.err = true, true, errno
	}
	s.wakeUp()
}

// What the loop asks: the kernel interface.

func (k *sim) tidy(watches []watchOp, fds []int32) {
	for i := range watches {
		w := &watches[i]
		s := k.open(w.fd, "epoll_ctl")
		if w.errno = 0; k.strike(noWatch) {
			w.errno = unix.ENOMEM
			if s.session != nil && s.side == client { // it has moved, and is refused if it has no host
				s.session.unwatched = w.s.phase == connecting
			}
			continue
		}
		key, generation := w.event.Fd, w.event.Pad
		k.join(s, key>>1, generation, int(key&1))
		s.key, s.gen, s.watched = key, generation, true
		s.edge = s.events() != 0
		s.noSpace = s.noSpace || s.room == 0 // as tcp_poll does
	}
	for _, fd := range fds {
		k.close(fd)
	}
}

func (k *sim) alarm(d int64) {}

// join notes which session a socket belongs to.
func (k *sim) join(s *simSocket, slot, generation int32, side int) {
	if s.session != nil {
		return
	}
	id := [2]int32{slot, generation}
	if k.sessions[id] == nil {
		k.sessions[id] = &simSession{}
	}
	s.session, s.side = k.sessions[id], side
	if side == client {
		s.session.client = s
	} else {
		s.session.backends = append(s.session.backends, s)
	}
}

func (k *sim) connectTo(to sched.Addr, _ connect.Source) (int32, syscall.Errno) {
	if k.strike(noSocket) {
		return -1, unix.EMFILE
	}
	fd := int32(k.newSocket().id + fdBase)
	return fd, k.connectAgain(fd, to)
}

func (k *sim) connectAgain(fd int32, to sched.Addr) syscall.Errno {
	s := k.open(fd, "connect")
	s.unix = to.Path() != ""
	s.wants = k.wants[to]
	if s.mirror = k.mirrors[to]; s.mirror {
		switch s.id % 5 {
		case 0:
			s.failed, s.dead = true, true
			return syscall.ECONNREFUSED
		case 1:
			return 0
		}
		s.connecting = true
		return unix.EINPROGRESS
	}
	how := k.backends
	k.backends = (how*7 + 1) % 31
	switch {
	case how%8 == 0 || k.deaf:
		s.failed, s.dead = true, true
		k.blame++
		return syscall.ECONNREFUSED
	case s.unix && how%8 > 4 && !k.roomy:
		return syscall.EAGAIN
	case s.unix || how%8 < 3:
		return 0
	}
	s.connecting = true
	return unix.EINPROGRESS
}

func (k *sim) recv(fd int32, p []byte) (int, syscall.Errno) {
	s := k.open(fd, "recv")
	if s.connecting {
		k.fail("recv on socket %d, which is not connected", s.id)
		return 0, unix.ENOTCONN
	}
	if s.mark == s.taken { // a read at the mark goes over it
		s.mark = -1
		if !s.inline && !k.refused(s) {
			k.fail("a read of socket %d skips the urgent byte at %d", s.id, s.taken)
		}
	}
	if s.heard < len(s.intro) {
		if s.said < len(s.intro) || !s.whole {
			k.fail("the loop takes %d bytes of socket %d before its header is there", len(p), s.id)
		}
		n := copy(p, s.intro[s.heard:s.said])
		s.heard += n
		return n, 0
	}
	s.reads++
	n, errno := s.arriving(len(p))
	copy(p[:n], stream(s.id, s.taken, n))
	s.taken += n
	k.turn(s, n)
	if n > 0 && n < len(p) && s.taken == s.arrived && s.finTold && s.mark < 0 && !s.unix {
		s.finRead = true // see tcp_recvmsg: a read goes on to the FIN
	}
	return n, errno
}

// turn notes that the loop has read n bytes.
func (k *sim) turn(s *simSocket, n int) {
	if k.source(s); n == 0 || s.session == nil || s.side != backend {
		return
	}
	if t := s.session; t.asked != 0 {
		t.turns++
		t.turned += k.loop.now - t.asked
		t.asked = 0
	}
}

// say is not needed: no client of the theatre asks for TLS in the words of a protocol.
func (k *sim) say(fd int32, p []byte) bool {
	k.fail("socket %d is told %q", fd, p)
	return false
}

func (k *sim) peek(fd int32, p []byte) (int, syscall.Errno) {
	s := k.open(fd, "peek")
	said := copy(p, s.intro[s.heard:s.said])
	n, errno := s.arriving(len(p) - said)
	copy(p[said:], stream(s.id, s.taken, n))
	if said > 0 {
		errno = 0
	}
	return said + n, errno
}

// arriving returns how many of at most limit bytes can be taken.
func (s *simSocket) arriving(limit int) (int, syscall.Errno) {
	n := min(limit, s.arrived-s.taken)
	if s.mark >= s.taken {
		n = min(n, s.mark-s.taken)
	}
	if s.passed > s.taken {
		n = min(n, s.passed-s.taken)
	}
	switch {
	case n > 0:
		return n, 0
	case s.err != 0:
		errno := s.err
		s.err = 0
		return 0, errno
	case s.dead:
		return 0, 0
	case s.fin:
		s.finRead = true
		return 0, 0
	}
	return 0, unix.EAGAIN
}

func (k *sim) send(batch []sendOp) {
	for i := range batch {
		op := &batch[i]
		s := k.open(op.fd, "send")
		if !s.dead && k.strike(noBuffers) {
			s.hurt = true
			op.n, op.errno = 0, unix.ENOBUFS
			continue
		}
		if k.strike(lateReset) {
			s.farReset()
		}
		if s.connecting {
			k.fail("send on socket %d, which is not connected", s.id)
		}
		n, errno := s.takes(len(op.p))
		if n > 0 {
			k.arrive(s, op.p[:n])
			s.corked = op.last && !s.unix && n == len(op.p) // what did not fit comes behind it, and pushes
		}
		op.n, op.errno = n, errno
	}
}

// takes returns how many of n bytes a send is good for.
func (s *simSocket) takes(n int) (int, syscall.Errno) {
	switch {
	case s.err != 0:
		errno := s.err
		s.err = 0
		return 0, errno
	case s.dead || s.shut:
		return 0, unix.EPIPE
	case s.room == 0:
		s.noSpace = true
		return 0, unix.EAGAIN
	case n > s.room:
		n = s.room
		s.noSpace = true
	}
	s.room -= n
	return n, 0
}

// source returns the socket whose bytes go to s.
func (k *sim) source(s *simSocket) *simSocket {
	if s.mirror {
		return s.of
	}
	for _, w := range k.loop.leftovers.watches {
		// A session can move bytes before its sockets are watched.
		if fds := w.s.ends; w.wanted() && (int(fds[0].fd) == s.id+fdBase || int(fds[1].fd) == s.id+fdBase) {
			k.join(k.sockets[w.fd-fdBase], w.event.Fd>>1, w.event.Pad, int(w.event.Fd&1))
		}
	}
	if s.session == nil {
		return nil
	}
	if s.side == backend {
		return s.session.client
	}
	if n := len(s.session.backends); n > 0 {
		return s.session.backends[n-1]
	}
	return nil
}

// arrive checks bytes that the loop has sent to s.
func (k *sim) arrive(s *simSocket, p []byte) {
	src := k.source(s)
	if src == nil {
		k.fail("%d bytes sent to socket %d, which has no other side", len(p), s.id)
		return
	}
	if p = k.greeted(s, p); len(p) == 0 {
		return
	}
	if s.put+len(p) > src.taken || !bytes.Equal(p, stream(src.id, s.put, len(p))) {
		k.fail("bytes %d to %d sent to socket %d are not those of socket %d", s.put, s.put+len(p), s.id, src.id)
	}
	s.put += len(p)
	if s.side == backend {
		s.session.asked = k.loop.now
	}
}

// greeted checks the PROXY header that a backend gets first, and returns what of p comes
// behind it.
func (k *sim) greeted(s *simSocket, p []byte) []byte {
	if s.side != backend || s.wants == 0 {
		return p
	}
	had := len(s.header)
	s.header = append(s.header, p...)
	h, size, state := proxyproto.Parse(s.header)
	if state == proxyproto.Short {
		return nil
	}
	var from, to netip.AddrPort
	switch c := s.session.client; {
	case c.whole:
		is, _, _ := proxyproto.Parse(c.intro)
		from, to = is.Source, is.Destination
	}
	if from.IsValid() || state != proxyproto.Whole {
		if state != proxyproto.Whole || h.Source != from || h.Destination != to {
			k.fail("socket %d gets the header %q: %v, want one from %v to %v", s.id, s.header, state, from, to)
		}
	} else if c := s.session.client; h.Local != c.unix || !c.unix && (h.Source != simPort(c.id).IP() || h.Destination != simPort(c.id).IP()) {
		k.fail("socket %d gets the header %q, the client is socket %d", s.id, s.header, c.id)
	}
	if int(h.Version) != s.wants {
		k.fail("socket %d gets the header %q, it wants version %d", s.id, s.header, s.wants)
	}
	s.wants = 0
	return p[size-had:]
}

// refused tells whether a socket's session has been refused: what the client
// sends is thrown away.
func (k *sim) refused(s *simSocket) bool {
	if s.mirror {
		return false
	}
	for _, w := range k.loop.leftovers.watches {
		if int(w.fd) == s.id+fdBase && w.wanted() { // it is not watched yet
			return w.s.phase == refusing
		}
	}
	session := k.loop.table.at(s.key>>1, s.gen)
	return session != nil && session.phase == refusing
}

func (k *sim) shutdownWrite(fd int32) {
	s := k.open(fd, "shutdown")
	src := k.source(s)
	switch {
	case k.refused(s):
	case s.side == backend && s.wants != 0:
		k.fail("shutdown of socket %d, which has had no header", s.id)
	case src == nil || s.put != src.taken:
		k.fail("shutdown of socket %d over bytes on the way", s.id)
	case s.mirror && k.copyOf(s).s == nil: // its session has ended, as the host has seen
	case !src.finRead:
		k.fail("shutdown of socket %d, but socket %d has not ended", s.id, src.id)
	}
	if s.shut {
		k.fail("socket %d was shut down twice", s.id)
	}
	s.shut, s.ended, s.corked = true, true, false
	s.wakeUp()
}

func (k *sim) socketError(fd int32) syscall.Errno {
	s := k.open(fd, "getsockopt")
	errno := s.err
	s.err = 0
	if errno == unix.ECONNREFUSED && !s.mirror {
		k.blame++
	}
	return errno
}

func (k *sim) unsent(fd int32) int {
	s := k.open(fd, "ioctl")
	if s.dead {
		return 0
	}
	return s.put - s.got
}

func (k *sim) setInt(fd int32, level, name int, value int32) syscall.Errno {
	s := k.open(fd, "setsockopt")
	switch {
	case level == unix.SOL_SOCKET && name == unix.SO_OOBINLINE:
		s.inline = value != 0
	case level == unix.IPPROTO_TCP && s.unix:
		k.fail("option %d of TCP set on socket %d, a UNIX socket", name, s.id)
	case level == unix.IPPROTO_TCP && name == unix.TCP_NODELAY:
		s.corked = false
	}
	return 0
}

func (k *sim) localPath(int32) string { return "" }

func (k *sim) tcpInfo(fd int32) engine.TCPInfo {
	k.open(fd, "getsockopt TCP_INFO")
	return engine.TCPInfo{Known: true}
}

func (k *sim) localAddr(fd int32) netip.AddrPort {
	return simPort(k.open(fd, "getsockname").id).IP()
}

func (k *sim) peerAddr(fd int32) netip.AddrPort {
	return simPort(k.open(fd, "getpeername").id).IP()
}

func (k *sim) resetOnClose(fd int32) { k.open(fd, "setsockopt").resetLater = true }

func (k *sim) lingerOn(fd int32, on bool) { k.open(fd, "setsockopt").resetLater = on }

// watch is of a mirror.
func (k *sim) watch(fd int32, event *unix.EpollEvent) syscall.Errno {
	s := k.open(fd, "epoll_ctl")
	if k.strike(noWatch) {
		return unix.ENOMEM
	}
	s.key, s.gen, s.watched = event.Fd, event.Pad, true
	s.edge = s.events() != 0
	s.of = k.sockets[k.copyOf(s).s.ends[client].fd-fdBase]
	return 0
}

// copyOf returns the copy that goes to a mirror's socket.
func (k *sim) copyOf(s *simSocket) *replica { return k.loop.copies.slots[keyMirror-s.key] }

func (k *sim) discard(fd int32, p []byte) (int, syscall.Errno) {
	k.open(fd, "recv").inline = true // nobody misses an urgent byte
	return k.recv(fd, p)
}

// tee copies into a pipe that has room for what from holds.
func (k *sim) tee(from, to pipe) (int, syscall.Errno) {
	f, t := from.(*simPipe), to.(*simPipe)
	n := min(f.held, simPipeSize-t.held)
	if t.held > 0 && (t.from != f.from || t.at+t.held != f.at) {
		k.fail("bytes %d to %d of socket %d are copied behind others", f.at, f.at+n, f.from.id)
	}
	if t.held == 0 {
		t.from, t.at = f.from, f.at
	}
	t.held += n
	return n, 0
}

// remove is of a socket that moves: from then on, close sends nothing.
func (k *sim) remove(fd int32) {
	s := k.open(fd, "epoll_ctl")
	s.watched, s.edge = false, false
}

func (k *sim) disconnect(fd int32) {
	s := k.open(fd, "connect")
	if !s.shared {
		k.fail("socket %d is disconnected, and nobody else has it", s.id)
	}
	if !s.dead {
		s.gotReset, s.dead = true, true
		s.put = s.got
	}
}

func (k *sim) shutdownBoth(fd int32) {
	s := k.open(fd, "shutdown")
	if !s.shared {
		k.fail("socket %d is shut down, and nobody else has it", s.id)
	}
	if !s.dead {
		s.ended, s.shut, s.corked = true, true, false
	}
	s.over = true
}

func (k *sim) close(fd int32) {
	s := k.open(fd, "close")
	if s.wide {
		k.fail("socket %d keeps its longer queue", s.id)
	}
	s.closed = true
	if s.shared && !s.over {
		k.fail("socket %d is closed, and its connection goes on", s.id)
	}
	if s.dead || s.connecting || s.shared {
		return
	}
	// Closing over unread bytes resets the connection too.
	if s.resetLater || s.arrived > s.taken || s.said > s.heard {
		s.gotReset = true
		s.put = s.got // what is queued is dropped
	} else {
		s.ended = true
	}
}

// simPipe is a pipe in memory: it holds bytes of one stream.
type simPipe struct {
	k    *sim
	from *simSocket
	at   int // place of the first byte in its stream
	held int
}

const simPipeSize = 128 << 10

func (k *sim) lend() (pipe, error) {
	if k.strike(noPipe) {
		return nil, splice.ErrExhausted
	}
	k.lent++
	return &simPipe{k: k}, nil
}

func (k *sim) takeBack(p pipe) {
	if p.(*simPipe).k == nil {
		k.fail("a pipe was given back twice")
	}
	p.(*simPipe).k = nil
	k.lent--
}

func (k *sim) pipes() int { return k.lent }

func (k *sim) widen(fd int32) bool {
	s := k.open(fd, "setsockopt")
	if s.wide || s.unix {
		k.fail("socket %d gets a longer queue", s.id)
	}
	s.wide = !k.strike(noPipe)
	return s.wide
}

func (k *sim) narrow(fd int32) {
	s := k.open(fd, "setsockopt")
	if !s.wide {
		k.fail("socket %d has no longer queue", s.id)
	}
	s.wide = false
}

func (k *sim) shut() {}

func (p *simPipe) Held() int { return p.held }

func (p *simPipe) Read(b []byte) (int, error) {
	n := copy(b, stream(p.from.id, p.at, min(p.held, len(b))))
	p.at += n
	p.held -= n
	return n, nil
}

func (p *simPipe) Fill(fd, limit int) (int, splice.Status, error) {
	s := p.k.open(int32(fd), "splice")
	if s.heard < len(s.intro) {
		p.k.fail("the loop splices the header of socket %d", s.id)
	}
	if p.k.strike(badFill) {
		return 0, splice.OK, unix.ENOMEM
	}
	if s.mark == s.taken { // splice never gets over the mark
		switch {
		case p.k.strike(spurious):
			return 0, splice.EOF, nil
		case p.held > 0:
			return 0, splice.PipeFull, nil
		}
		return 0, splice.Again, nil
	}
	n := 0
	if free := min(limit, simPipeSize-p.held); free > 0 {
		var errno syscall.Errno
		n, errno = s.arriving(free)
		switch {
		case errno == unix.EAGAIN && p.held > 0:
			return 0, splice.PipeFull, nil
		case errno == unix.EAGAIN:
			return 0, splice.Again, nil
		case errno != 0:
			return 0, splice.OK, errno
		case n == 0:
			return 0, splice.EOF, nil
		}
	} else {
		return 0, splice.PipeFull, nil
	}
	if p.held == 0 {
		p.from, p.at = s, s.taken
	}
	if p.from != s {
		p.k.fail("bytes of sockets %d and %d in one pipe", p.from.id, s.id)
	}
	p.held += n
	s.taken += n
	p.k.turn(s, n)
	return n, splice.OK, nil
}

func (p *simPipe) Drain(fd int) (int, splice.Status, error) {
	s := p.k.open(int32(fd), "splice")
	if p.held > 0 && !s.dead && p.k.strike(badDrain) {
		s.hurt = true
		return 0, splice.OK, unix.ENOMEM
	}
	moved := 0
	for p.held > 0 {
		n, errno := s.takes(p.held)
		switch {
		case errno == unix.EAGAIN:
			return moved, splice.Again, nil
		case errno != 0:
			return moved, splice.OK, errno
		}
		p.k.arrive(s, stream(p.from.id, p.at, n))
		s.corked = false
		p.at += n
		p.held -= n
		moved += n
	}
	return moved, splice.OK, nil
}

// simAddr is the address of host i. The last is a UNIX socket.
func simAddr(i int) sched.Addr {
	if i == 2 {
		return sched.UnixAddr("/sim")
	}
	return simPort(i)
}

// simPort is the address of a socket.
func simPort(i int) sched.Addr {
	return sched.TCPAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(1000+i)))
}
