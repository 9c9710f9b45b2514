//go:build linux

package loops

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/sched"
	"github.com/txlb/txlb/splice"
)

// kernel is all that a loop asks of the system for its sessions. Nothing
// behind it waits. It is an interface because there is a second one: the
// simulated kernel of the tests, which orders events at random and injects
// faults.
type kernel interface {
	// alarm sets the loop's clock to go off after d nanoseconds.
	alarm(d int64)

	// connectTo opens a socket and starts to connect it, see there.
	connectTo(to sched.Addr, source connect.Source) (fd int32, errno syscall.Errno)
	// connectAgain connects a socket of connectTo that found no room in the queue of a
	// UNIX socket.
	connectAgain(fd int32, to sched.Addr) syscall.Errno
	recv(fd int32, p []byte) (int, syscall.Errno)
	// peek is recv, but takes nothing.
	peek(fd int32, p []byte) (int, syscall.Errno)
	// say sends a few bytes to a socket to which nothing was sent before. It returns false
	// if they cannot all be sent.
	say(fd int32, p []byte) bool
	// send makes every send of a batch and puts the answers into it.
	send(batch []sendOp)
	shutdownWrite(fd int32)
	// socketError takes the pending error of a socket, which clears it.
	socketError(fd int32) syscall.Errno
	// unsent returns how many bytes the peer has not acknowledged, 0 if that
	// cannot be told.
	unsent(fd int32) int
	setInt(fd int32, level, name int, value int32) syscall.Errno
	// localAddr and peerAddr return the addresses of a socket's two ends; not
	// valid for a UNIX socket and for one that is not connected any more.
	localAddr(fd int32) netip.AddrPort
	peerAddr(fd int32) netip.AddrPort
	localPath(fd int32) string // of a UNIX socket; "" without one
	tcpInfo(fd int32) engine.TCPInfo
	// lingerOn makes the close of the last descriptor do what resetOnClose says, or not.
	lingerOn(fd int32, on bool)
	// disconnect resets a TCP connection at once, also where other processes have its socket.
	disconnect(fd int32)
	// shutdownBoth ends a connection, also where other processes have its socket.
	shutdownBoth(fd int32)
	// watch registers a socket at once, as tidy does.
	watch(fd int32, event *unix.EpollEvent) syscall.Errno
	// discard is recv, but the bytes need not come into p.
	discard(fd int32, p []byte) (int, syscall.Errno)
	// tee makes a copy of what from holds behind what to holds, as far as there is room, and
	// returns how many bytes those are.
	tee(from, to pipe) (int, syscall.Errno)
	// remove takes a socket out of the poller. Closing it does the same if nobody else has it.
	remove(fd int32)
	// resetOnClose makes close send an RST and drop what is unsent.
	resetOnClose(fd int32)
	// tidy registers sockets once and for good, puts the answers into watches, and
	// closes descriptors.
	tidy(watches []watchOp, fds []int32)

	// lend lends an empty pipe; takeBack takes it back, whatever it holds.
	lend() (pipe, error)
	takeBack(pipe)
	pipes() int // that are open
	// widen lets as much wait unsent in a socket as a pipe holds, and counts it as one. It
	// returns false if most of what pipes may hold is in use. narrow takes that back.
	widen(fd int32) bool
	narrow(fd int32)

	// shut gives back what the loop itself had.
	shut()
}

// pipe is a [splice.Pipe].
type pipe interface {
	Fill(fd, limit int) (int, splice.Status, error)
	Drain(fd int) (int, splice.Status, error)
	Read(p []byte) (int, error)
	Held() int
}

// sendOp is one send of a batch, with its answer.
type sendOp struct {
	s     *session
	p     []byte
	fd    int32
	dir   int8 // which flow of s
	last  bool // the end of the stream follows at once (MSG_MORE)
	n     int  // bytes that were taken
	errno syscall.Errno
}

// watchOp is a socket of a session to be registered, with the answer.
type watchOp struct {
	s     *session
	fd    int32
	event unix.EpollEvent // carries slot, side and generation of the session
	errno syscall.Errno
}

// linux is the real kernel, as one loop sees it.
type linux struct {
	*poller
	pool     *splice.Pool
	ring     ring // without a Ring: none
	ringFrom int  // for batches from this size on
}

func (k linux) shut() {
	k.pool.Close()
	if k.ring.Ring != nil {
		k.ring.Close()
	}
	k.poller.close()
}

func (linux) recv(fd int32, p []byte) (int, syscall.Errno) { return recv(fd, p) }

func (linux) discard(fd int32, p []byte) (int, syscall.Errno) {
	return recvAs(fd, p, unix.MSG_DONTWAIT|unix.MSG_TRUNC) // tcp(7); UNIX sockets ignore it
}

func (k linux) watch(fd int32, event *unix.EpollEvent) syscall.Errno { return k.register(fd, event) }

func (linux) tee(from, to pipe) (int, syscall.Errno) {
	n, err := from.(*splice.Pipe).Tee(to.(*splice.Pipe))
	errno, _ := err.(syscall.Errno)
	return n, errno
}

func (linux) say(fd int32, p []byte) bool                  { return say(fd, p) }
func (linux) peek(fd int32, p []byte) (int, syscall.Errno) { return peek(fd, p) }

func (k linux) send(batch []sendOp) {
	if k.ring.Ring != nil && len(batch) >= k.ringFrom {
		batch = batch[k.ring.send(batch):]
	}
	for i := range batch {
		op := &batch[i]
		op.n, op.errno = send(op.fd, op.p, op.last)
	}
}

func (linux) connectTo(to sched.Addr, source connect.Source) (int32, syscall.Errno) {
	return connectTo(to, source)
}

func (k linux) tidy(watches []watchOp, fds []int32) {
	made := 0
	if k.ring.Ring != nil && len(watches)+len(fds) >= k.ringFrom {
		made = k.ring.tidy(k.ep, watches, fds)
		fds = fds[max(made-len(watches), 0):]
	}
	for i := range watches {
		// A kernel may refuse to the ring what a plain call does.
		if w := &watches[i]; i >= made || w.errno != 0 {
			w.errno = k.register(w.fd, &w.event)
		}
	}
	for _, fd := range fds {
		closeFD(fd)
	}
}

func (linux) connectAgain(fd int32, to sched.Addr) syscall.Errno {
	var raw unix.RawSockaddrAny
	return connectSocket(fd, &raw, encodeAddr(&raw, to))
}

func (linux) shutdownWrite(fd int32)             { shutdownWrite(fd) }
func (linux) socketError(fd int32) syscall.Errno { return socketError(fd) }
func (linux) unsent(fd int32) int                { return unsent(fd) }
func (linux) localAddr(fd int32) netip.AddrPort  { return nameOf(unix.SYS_GETSOCKNAME, fd) }
func (linux) tcpInfo(fd int32) engine.TCPInfo    { return core.TCPInfo(int(fd)) }
func (linux) peerAddr(fd int32) netip.AddrPort   { return nameOf(unix.SYS_GETPEERNAME, fd) }
func (linux) localPath(fd int32) string {
	if a, err := unix.Getsockname(int(fd)); err == nil {
		if u, ok := a.(*unix.SockaddrUnix); ok {
			return u.Name
		}
	}
	return ""
}
func (linux) resetOnClose(fd int32)      { resetOnClose(fd) }
func (linux) lingerOn(fd int32, on bool) { lingerOn(fd, on) }
func (linux) disconnect(fd int32)        { disconnect(fd) }
func (linux) shutdownBoth(fd int32)      { shutdownBoth(fd) }

func (linux) setInt(fd int32, level, name int, value int32) syscall.Errno {
	return setInt(fd, level, name, value)
}

func (k linux) lend() (pipe, error) {
	p, err := k.pool.Get()
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (k linux) takeBack(p pipe) { k.pool.Put(p.(*splice.Pipe)) }
func (k linux) pipes() int      { return k.pool.Open() }

func (k linux) widen(fd int32) bool {
	if !k.pool.Reserve() {
		return false
	}
	o := notSentOption
	o.value = max(o.value, int32(k.pool.Size()))
	_ = o.set(fd)
	return true
}

func (k linux) narrow(fd int32) {
	k.pool.Unreserve()
	_ = notSentOption.set(fd)
}
