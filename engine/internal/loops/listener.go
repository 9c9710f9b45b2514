//go:build linux

package loops

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2/pkg/socket"
	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/zone"
)

// listener is one listening address: a socket for each loop. The kernel
// spreads connections over them (SO_REUSEPORT, socket(7)); a UNIX socket has
// one queue that the loops share.
type listener struct {
	core.BoundZone
	key    core.ListenKey
	how    listening
	bound  string                     // the address with its port
	entry  atomic.Pointer[core.Entry] // for the sessions that it accepts
	fds    []int32                    // one for each loop
	shards []*shard                   // once the loops have them
	file   core.SocketFile            // of a UNIX socket
	open   atomic.Int32               // shards that loops have, those that leave included

	multipath bool  // it is for MPTCP; constant, so loops may read it
	unsteered error // why the kernel does not steer its clients as it should; nil: it does, or should not
}

// listening is how a listener listens: as the plan says, and with what it hands
// down to the sockets it accepts.
type listening struct {
	engine.ListenOptions
	core.Kept
	steer bool
}

// shard is one loop's part of a listener.
type shard struct {
	*listener
	fd    int32
	index int32 // in the loop's shards
	out   bool  // not in the poller

	burst  int    // connections that the last event found
	leftAt uint32 // the last turn in which an event did not empty the queue, for all that is known

	// While it leaves: what waits in the queue is served, and then it is closed.
	leaving bool
	left    int    // accepts that it still makes
	held    bool   // it waits for room, or for descriptors
	told    func() // called once, when it is closed or held
}

// hasIPv6 tells whether the kernel opens IPv6 sockets at all.
func hasIPv6() bool {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// openListener opens the sockets of an address. With alone, a port on which another
// program listens is refused: SO_REUSEPORT would share it silently.
func openListener(key core.ListenKey, how listening, loops, backlog int, alone bool) (*listener, error) {
	a, err := core.ParseListen(key.Listen)
	if err != nil {
		return nil, err
	}
	ln := &listener{key: key, how: how, multipath: how.MPTCP}
	if a.Path != "" {
		err = ln.openUnix(a.Path, loops, backlog)
	} else {
		network := "tcp"
		if a.Host == "" && !hasIPv6() {
			network = "tcp4"
		}
		address := net.JoinHostPort(zone.Named(a.Host), a.Port)
		if ln.BoundZone, _, err = core.InZone(a.Host, how.Interface); err != nil {
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

// CheckListen is native.CheckListen.
func CheckListen(listen string, o engine.ListenOptions) error {
	at, err := core.FreePort(listen)
	if err != nil {
		return err
	}
	ln, err := openListener(core.ListenKey{Listen: at}, listening{ListenOptions: o}, 1, 1, false)
	if err == nil {
		ln.close()
	}
	return err
}

// probe binds the address once without SO_REUSEPORT.
func (ln *listener) probe(network, address string) error {
	fd, _, err := ln.bind(network, address, false)
	if err != nil {
		return core.ListenError(address, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Listen(fd, 1); err != nil {
		return core.ListenError(address, err)
	}
	return nil
}

// bind opens a socket and binds it.
func (ln *listener) bind(network, address string, reusePort bool) (fd int, asked *net.TCPAddr, err error) {
	to, family, asked, only6, err := socket.GetTCPSockAddr(network, address)
	if err != nil {
		return -1, nil, err
	}
	protocol := unix.IPPROTO_TCP
	if ln.how.MPTCP {
		protocol = unix.IPPROTO_MPTCP
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		err = os.NewSyscallError("socket", err)
		if ln.how.MPTCP {
			err = core.NoMultipath(err)
		}
		return -1, nil, err
	}
	for _, o := range ln.tcpOptions(network, address, reusePort, only6 && family == unix.AF_INET6) {
		if err == nil {
			err = o.SetSockOpt(fd, o.Opt)
		}
	}
	if err == nil {
		err = core.BindOptions(fd, ln.how.ListenOptions)
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, to))
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, nil, err
	}
	return fd, asked, nil
}

// tcpOptions are set before bind. An address without a host serves IPv4 too,
// whatever the sysctl bindv6only says.
func (ln *listener) tcpOptions(network, address string, reusePort, only6 bool) []socket.Option[int] {
	opts := []socket.Option[int]{{SetSockOpt: socket.SetReuseAddr, Opt: 1}}
	if reusePort {
		opts = append(opts, socket.Option[int]{SetSockOpt: socket.SetReuseport, Opt: 1})
	}
	switch {
	case network == "tcp" && strings.HasPrefix(address, ":"):
		opts = append(opts, socket.Option[int]{SetSockOpt: socket.SetIPv6Only, Opt: 0})
	case only6:
		opts = append(opts, socket.Option[int]{SetSockOpt: socket.SetIPv6Only, Opt: 1})
	}
	return opts
}

func (ln *listener) openTCP(network, address string, loops, backlog int) error {
	for range loops {
		fd, bound, err := ln.bind(network, address, true)
		if err != nil {
			return core.ListenError(address, err)
		}
		ln.fds = append(ln.fds, int32(fd))
		if err := core.QueueOptions(fd, engine.ListenOptions{}, ln.how.ListenOptions, backlog); err != nil {
			return core.ListenError(address, err)
		}
		for _, o := range ln.options() { // handed down to what it accepts
			if errno := o.set(int32(fd)); errno != 0 {
				return fmt.Errorf("listen on %s: setsockopt %d/%d: %w", address, o.level, o.name, errno)
			}
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
	if ln.how.steer {
		// All of them listen by now, and the program is for all.
		if err := steer(int(ln.fds[0]), loops); err != nil {
			ln.unsteered = fmt.Errorf("%s: %w", ln.bound, err)
		}
	}
	return nil
}

// steer makes the kernel give a client to socket number CPU modulo sockets of fd's group
// (SO_REUSEPORT), by the CPU that receives its handshake. The sockets are numbered as they
// began to listen; when one closes, the last gets its number. If there is no socket of the
// number, the kernel's hash decides, so that no client is lost.
func steer(fd, sockets int) error {
	const receivingCPU = 0xfffff024 // SKF_AD_OFF + SKF_AD_CPU, linux/filter.h
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: receivingCPU},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(sockets)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog); err != nil {
		return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF", err)
	}
	return nil
}

// options are those that a listener hands down.
func (ln *listener) options() []socketOption {
	k := keepAliveOptions(ln.how.Kept)
	opts := append(socketOptions[:len(socketOptions):len(socketOptions)], k[:]...)
	if ln.how.MPTCP { // takes no others
		return opts
	}
	return append(opts, unackedOption(ln.how.Kept), inlineOption)
}

// inlineOption makes urgent bytes stay in the stream.
var inlineOption = socketOption{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1}

// completeClient sets what a listener for MPTCP does not hand down to clients that use
// plain TCP. It tells whether a client uses MPTCP: then it has no urgent bytes and no
// time-out for what is not acknowledged, and the rest was handed down.
func completeClient(fd int32, e *core.Entry) (multipath bool) {
	if inlineOption.set(fd) != 0 {
		return true
	}
	_ = notSentOption.set(fd)
	if k := core.KeptBy(e.Svc.Route.Load()); k.Unacked > 0 {
		_ = unackedOption(k).set(fd)
	}
	return false
}

// retune gives open sockets the options that may change. On error nothing has changed.
func (ln *listener) retune(o engine.ListenOptions, backlog int) error {
	was := ln.how.ListenOptions
	for _, fd := range ln.fds {
		if err := core.QueueOptions(int(fd), was, o, backlog); err != nil {
			for _, fd := range ln.fds {
				_ = core.QueueOptions(int(fd), o, was, backlog)
			}
			return core.ListenError(ln.bound, err)
		}
	}
	ln.how.ListenOptions = o
	return nil
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
		_ = unackedOption(k).set(fd) // MPTCP has none
	}
}

// boundAddress returns where fd listens.
func boundAddress(fd int, asked *net.TCPAddr) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	a := *asked
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
