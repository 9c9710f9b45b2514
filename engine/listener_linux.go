//go:build !portable

package engine

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2/pkg/socket"
	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/zone"
)

// listener is one listening address: a socket for each loop. The kernel
// spreads connections over them (SO_REUSEPORT, socket(7)); a UNIX socket has
// one queue that the loops share.
type listener struct {
	key    listenKey
	zone   boundZone
	bound  string                  // the address with its port
	svc    atomic.Pointer[service] // whose sessions it accepts
	fds    []int32                 // one for each loop
	shards []*shard                // once the loops have them
}

// shard is one loop's part of a listener.
type shard struct {
	*listener
	fd    int32
	index int32 // in the loop's shards
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
func openListener(key listenKey, loops, backlog int, alone bool) (*listener, error) {
	a, err := parseListen(key.listen)
	if err != nil {
		return nil, err
	}
	ln := &listener{key: key}
	if a.path != "" {
		err = ln.openUnix(a.path, loops, backlog)
	} else {
		network := "tcp"
		if a.host == "" && !hasIPv6() {
			network = "tcp4"
		}
		address := net.JoinHostPort(zone.Named(a.host), a.port)
		if ln.zone, _, err = inZone(a.host); err != nil {
			err = listenError(address, err)
		}
		if err == nil && alone && a.port != "0" {
			err = probe(network, address)
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
func probe(network, address string) error {
	fd, _, err := socket.TCPSocket(network, address, true, tcpOptions(network, address, false), nil)
	if err != nil {
		return listenError(address, err)
	}
	return unix.Close(fd)
}

// tcpOptions are set before bind. An address without a host serves IPv4 too,
// whatever the sysctl bindv6only says.
func tcpOptions(network, address string, reusePort bool) []socket.Option[int] {
	opts := []socket.Option[int]{{SetSockOpt: socket.SetReuseAddr, Opt: 1}}
	if reusePort {
		opts = append(opts, socket.Option[int]{SetSockOpt: socket.SetReuseport, Opt: 1})
	}
	if network == "tcp" && strings.HasPrefix(address, ":") {
		opts = append(opts, socket.Option[int]{SetSockOpt: socket.SetIPv6Only, Opt: 0})
	}
	return opts
}

func (ln *listener) openTCP(network, address string, loops, backlog int) error {
	for range loops {
		fd, bound, err := socket.TCPSocket(network, address, true, tcpOptions(network, address, true), nil)
		if err != nil {
			return listenError(address, err)
		}
		ln.fds = append(ln.fds, int32(fd))
		if err := unix.Listen(fd, backlog); err != nil {
			return listenError(address, err)
		}
		for _, o := range socketOptions { // handed down to what it accepts
			if errno := setInt(int32(fd), o.level, o.name, o.value); errno != 0 {
				return fmt.Errorf("listen on %s: setsockopt %d/%d: %w", address, o.level, o.name, errno)
			}
		}
		if errno := setInt(int32(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1); errno != 0 { // likewise
			return fmt.Errorf("listen on %s: SO_OOBINLINE: %w", address, errno)
		}
		if onLoopback(fd) && pacing() != "" {
			unpace(int32(fd)) // handed down as well
		}
		if ln.bound == "" {
			ln.bound, err = boundAddress(fd, bound)
			if err != nil {
				return listenError(address, err)
			}
			// The kernel chose a port for the first; the others take the same.
			host, _, _ := net.SplitHostPort(address)
			_, port, _ := net.SplitHostPort(ln.bound)
			address = net.JoinHostPort(host, port)
		}
	}
	return nil
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
	if err := clearStale(path); err != nil {
		return err
	}
	fd, _, err := socket.UnixSocket("unix", path, true, nil, nil)
	if err != nil {
		return listenError("unix:"+path, err)
	}
	ln.bound = "unix:" + path
	ln.fds = append(ln.fds, int32(fd))
	if err := unix.Listen(fd, backlog); err != nil {
		return listenError(ln.bound, err)
	}
	for range loops - 1 {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return listenError(ln.bound, err)
		}
		ln.fds = append(ln.fds, int32(dup))
	}
	return nil
}

// close closes the sockets of a listener that no loop has.
func (ln *listener) close() {
	for _, fd := range ln.fds {
		closeFD(fd)
	}
	ln.fds = nil
	ln.unlink()
}

// unlink removes the file of a UNIX socket.
func (ln *listener) unlink() {
	if path, ok := strings.CutPrefix(ln.bound, "unix:"); ok {
		_ = os.Remove(path)
	}
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
	return nil
}

// unlisten serves what waits in the shard's queue and closes it. Connections
// that the kernel completes between the last accept and the close are lost to
// a reset: nothing short of a packet filter can hold them back.
func (l *loop) unlisten(sh *shard) {
	if l.shards[sh.index] == sh {
		l.acceptFrom(sh, math.MaxInt)
		l.shards[sh.index] = nil
		if !l.paused {
			l.poll.remove(sh.fd)
		}
	}
	closeFD(sh.fd)
}

// acceptFrom accepts up to most connections.
func (l *loop) acceptFrom(sh *shard, most int) {
	for range most {
		if !l.eng.admit() {
			l.pause(0)
			return
		}
		var from unix.RawSockaddrAny
		fd, errno := accept(sh.fd, &from)
		if errno != 0 {
			l.eng.leave(1)
		}
		switch errno {
		case 0:
			l.count.accepts.Add(1)
			l.open(fd, decodeAddr(&from), sh.svc.Load())
		case unix.ECONNABORTED, unix.EPROTO, unix.EPERM:
			// This one is gone already; the next may be there.
		case unix.EAGAIN:
			return
		default:
			// EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays in the
			// queue, and so readable, until something is given back.
			l.pause(pauseFor)
			return
		}
	}
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
			l.poll.remove(sh.fd)
		}
	}
	l.beatBy(l.now + pauseFor)
}

// resume puts the listeners back; one that the poller does not take now is
// tried again.
func (l *loop) resume() {
	if l.now < l.pausedTill || !l.eng.hasRoom() {
		l.beatBy(l.now + pauseFor)
		return
	}
	l.paused = false
	for _, sh := range l.shards {
		if sh != nil && l.watch(sh) != nil {
			l.pause(pauseFor)
			return
		}
	}
}
