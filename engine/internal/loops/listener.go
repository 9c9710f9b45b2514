//go:build linux

package loops

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2/pkg/socket"
	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/zone"
	"github.com/txlb/txlb/sched"
)

// listener is one listening address: a socket for each loop. The kernel
// spreads connections over them (SO_REUSEPORT, socket(7)); a UNIX socket has
// one queue that the loops share.
type listener struct {
	key    core.ListenKey
	how    listening
	zone   core.BoundZone
	bound  string                       // the address with its port
	svc    atomic.Pointer[core.Service] // whose sessions it accepts
	fds    []int32                      // one for each loop
	shards []*shard                     // once the loops have them
	file   core.SocketFile              // of a UNIX socket
	open   atomic.Int32                 // shards that loops have, those that leave included
}

// listening is how a listener listens: as the plan says, and with what it hands
// down to the sockets it accepts.
type listening struct {
	engine.ListenOptions
	core.Kept
}

// shard is one loop's part of a listener.
type shard struct {
	*listener
	fd    int32
	index int32 // in the loop's shards
	out   bool  // not in the poller

	// While it leaves: what waits in the queue is served, and then it is closed.
	leaving bool
	left    int    // accepts that it still makes
	held    bool   // it waits for room, or for descriptors
	told    func() // called once, when it is closed or held
}

// acceptBurst is how many connections one event accepts at most, so that a
// full queue does not keep the sessions waiting.
const acceptBurst = 32

// hasIPv6 tells whether the kernel opens IPv6 sockets at all.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// openListener opens the sockets of an address. With alone, a port that
// somebody else listens on is refused: SO_REUSEPORT would share it silently.
func openListener(key core.ListenKey, how listening, loops, backlog int, alone bool) (*listener, error) {
	a, err := core.ParseListen(key.Listen)
	if err != nil {
		return nil, err
	}
	ln := &listener{key: key, how: how}
	if a.Path != "" {
		err = ln.openUnix(a.Path, loops, backlog)
	} else {
		network := "tcp"
		if a.Host == "" && !hasIPv6() {
			network = "tcp4"
		}
		address := net.JoinHostPort(zone.Named(a.Host), a.Port)
		if ln.zone, _, err = core.InZone(a.Host); err != nil {
			err = core.ListenError(address, err)
		}
		if err == nil && alone && a.Port != "0" {
			err = ln.probe(network, address)
		}
		if err == nil {
			err = ln.openTCP(network, address, loops, backlog)
		}
	}
	if err != nil {
		ln.close()
		return nil, err
	}
	return ln, nil
}

// probe binds the address once without SO_REUSEPORT.
func (ln *listener) probe(network, address string) error {
	fd, _, err := socket.TCPSocket(network, address, true, ln.tcpOptions(network, address, false), nil)
	if err != nil {
		return core.ListenError(address, err)
	}
	return unix.Close(fd)
}

// tcpOptions are set before bind. An address without a host serves IPv4 too,
// whatever the sysctl bindv6only says.
func (ln *listener) tcpOptions(network, address string, reusePort bool) []socket.Option[int] {
	opts := []socket.Option[int]{{SetSockOpt: socket.SetReuseAddr, Opt: 1}}
	if reusePort {
		opts = append(opts, socket.Option[int]{SetSockOpt: socket.SetReuseport, Opt: 1})
	}
	if ln.how.FreeBind {
		opts = append(opts, socket.Option[int]{SetSockOpt: core.SetFreeBind, Opt: 1})
	}
	if network == "tcp" && strings.HasPrefix(address, ":") {
		opts = append(opts, socket.Option[int]{SetSockOpt: socket.SetIPv6Only, Opt: 0})
	}
	return opts
}

func (ln *listener) openTCP(network, address string, loops, backlog int) error {
	for range loops {
		fd, bound, err := socket.TCPSocket(network, address, true, ln.tcpOptions(network, address, true), nil)
		if err != nil {
			return core.ListenError(address, err)
		}
		ln.fds = append(ln.fds, int32(fd))
		for _, o := range ln.options() { // handed down to what it accepts
			if errno := o.set(int32(fd)); errno != 0 {
				return fmt.Errorf("listen on %s: setsockopt %d/%d: %w", address, o.level, o.name, errno)
			}
		}
		if onLoopback(fd) && pacing() != "" {
			unpace(int32(fd)) // handed down as well
		}
		if err := unix.Listen(fd, backlog); err != nil {
			return core.ListenError(address, err)
		}
		if ln.bound == "" {
			ln.bound, err = boundAddress(fd, bound)
			if err != nil {
				return core.ListenError(address, err)
			}
			// The kernel chose a port for the first; the others take the same.
			host, _, _ := net.SplitHostPort(address)
			_, port, _ := net.SplitHostPort(ln.bound)
			address = net.JoinHostPort(host, port)
		}
	}
	return nil
}

// options are those that a listener hands down.
func (ln *listener) options() []socketOption {
	k := keepAliveOptions(ln.how.Kept)
	opts := append(socketOptions[:len(socketOptions):len(socketOptions)], k[:]...)
	return append(opts, unackedOption(ln.how.Kept), socketOption{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1})
}

// keep makes the listener hand down other time-outs. Its sockets are open.
func (ln *listener) keep(k core.Kept) {
	if ln.how.Kept == k || strings.HasPrefix(ln.key.Listen, "unix:") {
		return
	}
	ln.how.Kept = k
	for _, fd := range ln.fds {
		for _, o := range keepAliveOptions(k) {
			_ = o.set(fd)
		}
		_ = unackedOption(k).set(fd)
	}
}

// onLoopback tells whether only this machine can connect to fd.
func onLoopback(fd int) bool {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(sa.Addr).IsLoopback()
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(sa.Addr).Unmap().IsLoopback()
	}
	return false
}

// boundAddress returns where fd listens.
func boundAddress(fd int, asked net.Addr) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	a := *asked.(*net.TCPAddr)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		a.Port, a.IP = sa.Port, net.IP(sa.Addr[:])
	case *unix.SockaddrInet6:
		a.Port, a.IP = sa.Port, net.IP(sa.Addr[:])
	}
	return a.String(), nil
}

// openUnix opens the one socket and gives each loop a descriptor of it.
func (ln *listener) openUnix(path string, loops, backlog int) error {
	if err := core.ClearStale(path); err != nil {
		return err
	}
	fd, _, err := socket.UnixSocket("unix", path, true, nil, nil)
	if err != nil {
		return core.ListenError("unix:"+path, err)
	}
	ln.bound = "unix:" + path
	ln.fds = append(ln.fds, int32(fd))
	if ln.file, err = core.OurFile(path); err != nil {
		return core.ListenError(ln.bound, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return core.ListenError(ln.bound, err)
	}
	for range loops - 1 {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return core.ListenError(ln.bound, err)
		}
		ln.fds = append(ln.fds, int32(dup))
	}
	return nil
}

// port returns the port that the listener has, "" for a UNIX socket.
func (ln *listener) port() string {
	_, port, _ := net.SplitHostPort(ln.bound)
	return port
}

// close closes the sockets of a listener that no loop has.
func (ln *listener) close() {
	ln.file.Remove()
	for _, fd := range ln.fds {
		closeFD(fd)
	}
	ln.fds = nil
}

// listen makes the loop accept from a shard.
func (l *loop) listen(sh *shard) error {
	sh.index = -1
	for i, other := range l.shards {
		if other == nil {
			sh.index = int32(i)
			break
		}
	}
	if sh.index < 0 {
		sh.index = int32(len(l.shards))
		l.shards = append(l.shards, nil)
	}
	sh.out = true
	if !l.paused {
		if err := l.watch(sh); err != nil {
			return err
		}
	}
	l.shards[sh.index] = sh
	return nil
}

// watch puts a shard into the poller: level-triggered, so that what one burst
// leaves is reported again, and exclusive, so that one connection on a shared
// socket wakes one loop.
func (l *loop) watch(sh *shard) error {
	if errno := l.poll.add(sh.fd, keyListener-sh.index, 0, unix.EPOLLIN|unix.EPOLLEXCLUSIVE); errno != 0 {
		return fmt.Errorf("listen on %s: epoll_ctl: %w", sh.bound, errno)
	}
	sh.out = false
	return nil
}

// unwatch takes a shard out of the poller.
func (l *loop) unwatch(sh *shard) {
	if !sh.out {
		sh.out = true
		l.poll.remove(sh.fd)
	}
}

// unlisten serves what waits in the shard's queue and closes it. It calls told
// when that is done, or when it has to wait for sessions to end first.
// Connections that the kernel completes between the last accept and the close are
// lost to a reset: nothing short of a packet filter can hold them back.
func (l *loop) unlisten(sh *shard, told func()) {
	sh.told = told
	if l.shards[sh.index] != sh { // it never listened
		l.closeShard(sh)
		return
	}
	l.unwatch(sh)
	sh.leaving = true
	// The queue has room for so many. Whoever comes to it meanwhile is served as
	// long as that lasts, so that a crowd cannot keep the listener from closing.
	sh.left = l.eng.opt.Backlog + 1
	l.eng.leavers.Add(1)
	l.serveQueue(sh)
}

// serveQueue is one step of a shard that leaves. The next is a task, so that the
// sessions of the loop have their turn between the steps.
func (l *loop) serveQueue(sh *shard) {
	if l.shards[sh.index] != sh {
		return
	}
	n, why := l.acceptFrom(sh, min(acceptBurst, sh.left))
	sh.left -= n
	if why == faulty {
		sh.left -= maxFaults
	}
	switch {
	case why == noRoom:
		// Whoever comes now could not be served for a while: better not let him in.
		// For who is in the queue this changes nothing.
		_ = unix.Listen(int(sh.fd), 0)
		sh.held = true
		sh.tell()
	case why == queueEmpty || sh.left <= 0:
		l.closeShard(sh)
	default:
		l.submit(func() { l.serveQueue(sh) })
	}
}

// tell calls told, once.
func (sh *shard) tell() {
	if sh.told != nil {
		sh.told()
		sh.told = nil
	}
}

// closeShard closes a shard and forgets it.
func (l *loop) closeShard(sh *shard) {
	closeFD(sh.fd)
	if l.shards[sh.index] == sh {
		l.shards[sh.index] = nil
	}
	sh.open.Add(-1)
	if sh.leaving {
		sh.leaving = false
		l.eng.left()
	}
	sh.tell()
}

// closeShards closes all shards, whatever waits in their queues.
func (l *loop) closeShards() {
	for _, sh := range l.shards {
		if sh != nil {
			l.closeShard(sh)
		}
	}
}

// stop is why acceptFrom has stopped.
type stop uint8

const (
	enough     stop = iota // it has made all the accepts that it should
	queueEmpty             // no connection waits
	noRoom                 // no session, descriptor or memory is to be had: the listeners rest
	faulty                 // one accept after the other fails: this listener rests
)

// maxFaults is how many accepts in a row may fail until the listener rests.
const maxFaults = 4

// acceptFrom accepts up to most connections. It returns how many, and why it
// stopped.
func (l *loop) acceptFrom(sh *shard, most int) (n int, why stop) {
	faults := 0
	for n < most {
		if !l.eng.admit() {
			l.pause(0)
			return n, noRoom
		}
		var from unix.RawSockaddrAny
		fd, errno := accept(sh.fd, &from)
		if errno != 0 {
			l.eng.leave(1)
		}
		switch {
		case errno == 0:
			n++
			faults = 0
			l.count.accepts.Add(1)
			l.place(fd, decodeAddr(&from), sh)
		case errno == unix.EAGAIN:
			return n, queueEmpty
		case connect.Shortage(errno):
			// The connection stays in the queue, and so readable, until something
			// is given back.
			l.pause(core.PauseFor)
			return n, noRoom
		default:
			// This connection has failed already, and the next may be well. If
			// none is, it is this listener that has a fault, and only that rests.
			if faults++; faults == maxFaults {
				l.rest(sh)
				return n, faulty
			}
		}
	}
	return n, enough
}

// pause takes all listeners of the loop out of the poller for at least d.
func (l *loop) pause(d int64) {
	if l.paused {
		return
	}
	l.paused = true
	l.pausedTill = l.now + d
	for _, sh := range l.shards {
		if sh != nil {
			l.unwatch(sh)
		}
	}
	l.beatBy(l.now + core.PauseFor)
}

// rest takes one listener out of the poller until the next beat.
func (l *loop) rest(sh *shard) {
	l.unwatch(sh)
	l.resting = true
	l.beatBy(l.now + core.PauseFor)
}

// resume puts the listeners back; one that the poller does not take now is
// tried again. Those that leave go on.
func (l *loop) resume() {
	if l.now < l.pausedTill || !l.eng.hasRoom() {
		l.beatBy(l.now + core.PauseFor)
		return
	}
	l.paused, l.resting = false, false
	for _, sh := range l.shards {
		switch {
		case sh == nil:
		case sh.leaving:
			if sh.held {
				sh.held = false
				l.submit(func() { l.serveQueue(sh) })
			}
		case sh.out && l.watch(sh) != nil:
			l.pause(core.PauseFor)
			return
		}
	}
}

// place opens the session of a connection that was accepted: on this loop, or on
// another that has fewer. A UNIX socket has one queue, and the kernel wakes the
// same loop for it each time.
func (l *loop) place(fd int32, from sched.Addr, sh *shard) {
	svc := sh.svc.Load()
	if sh.file.Path != "" {
		if to := l.lighter(); to != nil {
			to.count.active.Add(1) // it counts from now on, so that a burst is spread
			to.take(arrival{fd, from, svc})
			return
		}
	}
	l.open(fd, from, svc)
}

// lighter returns another loop that has fewer sessions than this one, or nil. It
// looks at one other, each in turn: that evens the loops out, however many.
func (l *loop) lighter() *loop {
	loops := l.eng.loops
	if len(loops) == 1 {
		return nil
	}
	l.looked = (l.looked + 1) % (len(loops) - 1)
	other := loops[(l.index+1+l.looked)%len(loops)]
	if other.count.active.Load() < l.count.active.Load() {
		return other
	}
	return nil
}

// arrival is a connection that another loop has accepted, and counted.
type arrival struct {
	fd   int32
	from sched.Addr
	svc  *core.Service
}

// take makes the loop open a session. Any loop may call it.
func (l *loop) take(a arrival) {
	l.submit(func() {
		l.count.active.Add(-1) // open counts it
		l.open(a.fd, a.from, a.svc)
	})
}
