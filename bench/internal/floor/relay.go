//go:build linux

package floor

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/uring"
)

// Way is how bytes are moved.
type Way string

const (
	Copy   Way = "copy"   // recv, then send
	Ring   Way = "ring"   // the same, but all sends, registrations and closes of a turn are one call of io_uring, where there is one
	Splice Way = "splice" // splice through a pipe
)

// Route is an address to listen on and one to pass on to: IPv4, each with a port.
type Route struct{ Listen, Target string }

// Run relays with a number of threads until the process ends. It returns an error if it
// cannot begin. The process should do nothing else: the threads never give up their
// processors, and no garbage is collected. With GODEBUG=asyncpreemptoff=1 the runtime does
// not interrupt them.
func Run(way Way, threads int, routes []Route) error {
	var all []*relay
	for range threads {
		r, err := newRelay(way, routes)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(threads + 1)
	for _, r := range all[1:] {
		go r.run()
	}
	all[0].run()
	return nil
}

const (
	batchSize = 256
	roomSize  = 64 << 10 // of one recv
	arenaSize = 4 * roomSize
	pipeSize  = 1 << 20
	burst     = 32 // accepts of an event at most
	ringFrom  = 4  // sends from which on the ring is used, as in txlb
	// watched is what a socket is registered for, once.
	watched = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET
)

// relay is one thread.
type relay struct {
	way     Way
	ep      int
	ring    *uring.Ring // of the way Ring alone
	sides   []side      // by descriptor
	events  [batchSize]unix.EpollEvent
	arena   []byte
	used    int
	sends   []send
	watches []watch
	closes  []int32
	again   []int32 // sources that may have more; taken are those of this turn
	taken   []int32
}

// side is a descriptor.
type side struct {
	kind   kind
	fin    bool                  // the peer has ended: a short read is the last
	ended  bool                  // the end was read
	queued bool                  // it is in again
	full   bool                  // it takes no more for now
	other  int32                 // of the pair
	held   []byte                // what it did not take
	room   []byte                // where that lies: kept, because nothing is collected
	pipe   [2]int32              // bytes for it, spliced
	piped  int                   // how many
	target unix.RawSockaddrInet4 // of a listener
}

type kind uint8

const (
	none kind = iota
	listener
	socket
)

// send is one of a turn.
type send struct {
	to, from int32
	p        []byte
	last     bool
}

type watch struct {
	fd    int32
	event unix.EpollEvent
}

func newRelay(way Way, routes []Route) (*relay, error) {
	r := &relay{way: way, arena: make([]byte, arenaSize)}
	var err error
	switch way {
	case Copy, Splice:
	case Ring:
		if r.ring, err = uring.New(false); err != nil { // as txlb does
			fmt.Fprintln(os.Stderr, "floor: plain calls:", err)
		}
	default:
		return nil, fmt.Errorf("there is no way %q: want %s, %s or %s", way, Copy, Ring, Splice)
	}
	if r.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	for _, route := range routes {
		if err := r.listen(route); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *relay) listen(route Route) error {
	at, err := netip.ParseAddrPort(route.Listen)
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(route.Target)
	if err != nil {
		return err
	}
	if !at.Addr().Is4() || !to.Addr().Is4() {
		return fmt.Errorf("%s to %s: want IPv4", at, to)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	for _, o := range [][2]int{{unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_SOCKET, unix.SO_REUSEPORT}, {unix.IPPROTO_TCP, unix.TCP_NODELAY}} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], 1); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		return fmt.Errorf("listen on %s: %w", at, err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fmt.Errorf("listen on %s: %w", at, err)
	}
	s := r.side(int32(fd))
	s.kind = listener
	s.target = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	*(*[2]byte)(unsafe.Pointer(&s.target.Port)) = [2]byte{byte(to.Port() >> 8), byte(to.Port())}
	return unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// side returns that of a descriptor. It is good until the next call.
func (r *relay) side(fd int32) *side {
	for int(fd) >= len(r.sides) {
		r.sides = append(r.sides, make([]side, 1024)...)
	}
	return &r.sides[fd]
}

// run relays for ever.
func (r *relay) run() {
	for {
		for _, ev := range r.wait() {
			r.event(ev.Fd, ev.Events)
		}
		r.taken, r.again = r.again, r.taken[:0]
		for _, fd := range r.taken {
			if s := &r.sides[fd]; s.queued {
				s.queued = false
				r.pump(fd)
			}
		}
		r.flush()
		r.tidy()
	}
}

// wait returns the next events. The call is a raw one: nobody else needs this
// processor.
func (r *relay) wait() []unix.EpollEvent {
	forever := ^uintptr(0)
	if len(r.again) > 0 {
		forever = 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.ep), uintptr(unsafe.Pointer(&r.events[0])), batchSize, forever, 0, 0)
	if errno != 0 {
		return nil
	}
	return r.events[:n]
}

func (r *relay) event(fd int32, events uint32) {
	s := &r.sides[fd]
	switch s.kind {
	case listener:
		for range burst { // what is left is reported again
			if !r.accept(fd) {
				break
			}
		}
	case socket:
		if events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
			s.fin = true
		}
		if events&^unix.EPOLLOUT != 0 {
			r.more(fd)
		}
		if events&unix.EPOLLOUT != 0 && s.full {
			s.full = false
			r.drain(fd)
		}
	}
}

// accept takes one connection, if there is one.
func (r *relay) accept(from int32) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(from), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return false
	}
	client := int32(n)
	if n, _, errno = unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); errno != 0 {
		r.closes = append(r.closes, client)
		return true
	}
	backend := int32(n)
	// The request carries the acknowledgement of the handshake.
	var zero int32
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, n, unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&zero)), 4, 0)
	r.side(max(client, backend)) // from here on they do not move
	to := &r.sides[from].target
	if _, _, errno = unix.RawSyscall(unix.SYS_CONNECT, n, uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4); errno != 0 && errno != unix.EINPROGRESS {
		r.closes = append(r.closes, client, backend)
		return true
	}
	r.pair(client, backend)
	r.pair(backend, client)
	return true
}

func (r *relay) pair(fd, other int32) {
	s := &r.sides[fd]
	*s = side{kind: socket, other: other, pipe: s.pipe, room: s.room}
	r.watches = append(r.watches, watch{fd, unix.EpollEvent{Events: watched, Fd: fd}})
}

// pump reads once from a source, and queues or makes the send. It is called once a turn,
// so that a batch has one send to a socket at most.
func (r *relay) pump(fd int32) {
	s := &r.sides[fd]
	to := &r.sides[s.other]
	switch {
	case s.kind != socket || s.ended || to.full:
		return // drain comes back to it
	case r.way == Splice:
		r.splice(fd)
		return
	case len(r.arena)-r.used < roomSize:
		r.flush()
		if s.kind != socket || to.full {
			return
		}
	}
	room := r.arena[r.used : r.used+roomSize]
	n, errno := recv(fd, room)
	if !r.got(fd, n, errno) {
		return
	}
	last := n < roomSize && s.fin
	if n == roomSize {
		r.more(fd)
	}
	r.used += n
	r.sends = append(r.sends, send{s.other, fd, room[:n], last})
	if r.way == Copy {
		r.flush()
	}
}

// more has a source pumped in the next turn.
func (r *relay) more(fd int32) {
	if s := &r.sides[fd]; !s.queued {
		s.queued = true
		r.again = append(r.again, fd)
	}
}

// flush makes the sends of the turn.
func (r *relay) flush() {
	made := 0
	if r.ring != nil && len(r.sends) >= ringFrom && !r.ring.Late() {
		made = min(len(r.sends), uring.Size)
		for i, o := range r.sends[:made] {
			r.ring.Put(i, uring.Send(o.to, o.p, flagsOf(o.last)))
		}
		made = r.ring.Submit(made)
		for i, o := range r.sends[:made] {
			n, errno := r.ring.Result(i)
			r.sent(o, n, errno)
		}
	}
	for _, o := range r.sends[made:] {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(o.to), uintptr(unsafe.Pointer(unsafe.SliceData(o.p))), uintptr(len(o.p)), uintptr(flagsOf(o.last)), 0, 0)
		if errno != 0 {
			n = 0
		}
		r.sent(o, int(n), errno)
	}
	r.sends, r.used = r.sends[:0], 0
}

// sent takes in the answer of a send.
func (r *relay) sent(o send, n int, errno unix.Errno) {
	to := &r.sides[o.to]
	if to.kind != socket {
		return
	}
	if errno != 0 && errno != unix.EAGAIN {
		r.cut(o.to)
		return
	}
	if n < len(o.p) {
		to.held = append(to.room[:0], o.p[n:]...)
		to.room = to.held
		to.full = true
	}
	if o.last {
		r.end(o.from)
	}
}

// drain sends what a socket did not take before, and goes on with its source.
func (r *relay) drain(fd int32) {
	s := &r.sides[fd]
	switch {
	case len(s.held) > 0:
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&s.held[0])), uintptr(len(s.held)), uintptr(flagsOf(false)), 0, 0)
		switch {
		case errno == unix.EAGAIN:
			s.full = true
			return
		case errno != 0:
			r.cut(fd)
			return
		}
		if s.held = s.held[n:]; len(s.held) > 0 {
			s.full = true
			return
		}
	case s.piped > 0 && !r.empty(fd):
		return
	}
	if from := &r.sides[s.other]; from.ended {
		from.ended = false
		r.end(s.other)
		return
	}
	r.more(s.other)
}

// got tells whether a source has given bytes. If it has ended or failed, that is passed on.
func (r *relay) got(fd int32, n int, errno unix.Errno) bool {
	switch {
	case errno == unix.EAGAIN:
		return false
	case errno != 0:
		r.cut(fd)
		return false
	case n == 0:
		r.end(fd)
		return false
	}
	return true
}

// splice fills the pipe of a source's destination and empties it.
func (r *relay) splice(fd int32) {
	s := &r.sides[fd]
	to := &r.sides[s.other]
	if to.pipe[1] == 0 {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			r.cut(fd)
			return
		}
		_, _ = unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, pipeSize) // else it stays small
		to.pipe = [2]int32{int32(p[0]), int32(p[1])}
	}
	n, errno := move(fd, to.pipe[1], pipeSize)
	if !r.got(fd, n, errno) {
		return
	}
	to.piped += n
	if r.empty(s.other) {
		r.more(fd)
	}
}

// empty moves what a socket's pipe has, and reports whether that is all.
func (r *relay) empty(fd int32) bool {
	s := &r.sides[fd]
	for s.piped > 0 {
		n, errno := move(s.pipe[0], fd, s.piped)
		switch {
		case errno == unix.EAGAIN:
			s.full = true
			return false
		case errno != 0:
			r.cut(fd)
			return false
		}
		s.piped -= n
	}
	return true
}

// end passes an end on, once all bytes before it are out.
func (r *relay) end(fd int32) {
	s := &r.sides[fd]
	s.ended = true
	to := &r.sides[s.other]
	switch {
	case len(to.held) > 0 || to.piped > 0: // drain comes back to it
	case to.ended && len(s.held) == 0 && s.piped == 0:
		r.cut(fd)
	default:
		_, _, _ = unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(s.other), unix.SHUT_WR, 0)
	}
}

// cut closes a pair.
func (r *relay) cut(fd int32) {
	for _, fd := range []int32{fd, r.sides[fd].other} {
		s := &r.sides[fd]
		if s.kind != socket {
			continue
		}
		r.closes = append(r.closes, fd)
		if s.piped > 0 { // what is in it is of no use to the next
			r.closes = append(r.closes, s.pipe[0], s.pipe[1])
			s.pipe = [2]int32{}
		}
		*s = side{pipe: s.pipe, room: s.room}
	}
}

// tidy registers what is new and closes what has ended: last, so that no event of a
// batch is of another socket.
func (r *relay) tidy() {
	all := len(r.watches) + len(r.closes)
	if r.ring != nil && all >= ringFrom && all <= uring.Size && !r.ring.Late() {
		for i := range r.watches {
			r.ring.Put(i, uring.Add(r.ep, r.watches[i].fd, &r.watches[i].event))
		}
		for i, fd := range r.closes {
			r.ring.Put(len(r.watches)+i, uring.CloseFD(fd))
		}
		if r.ring.Submit(all) == all {
			r.watches, r.closes = r.watches[:0], r.closes[:0]
			return
		}
	}
	for i := range r.watches {
		_, _, _ = unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(r.ep), unix.EPOLL_CTL_ADD, uintptr(r.watches[i].fd), uintptr(unsafe.Pointer(&r.watches[i].event)), 0, 0)
	}
	for _, fd := range r.closes {
		_, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	}
	r.watches, r.closes = r.watches[:0], r.closes[:0]
}

func flagsOf(last bool) uint32 {
	if last { // the shutdown that follows goes out with it
		return unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL | unix.MSG_MORE
	}
	return unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
}

func recv(fd int32, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// move is splice(2).
func move(from, to int32, most int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
