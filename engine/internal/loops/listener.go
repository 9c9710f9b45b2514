//go:build linux

package loops

import (
	"fmt"
	"net"
	"os"
	"strconv"
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
	fds    []int32                    // of the shards: one for each loop, more only if more were inherited
	uses   []*atomic.Int32            // of each of fds: how many shards have the same socket, which is not counted if nil
	shards []*shard                   // once the loops have them
	lent   bool                       // its sockets are, see engine.Inherited
	file   core.SocketFile            // of a UNIX socket
	open   atomic.Int32               // shards that loops have, those that leave included

	multipath bool  // it is for MPTCP; constant, so loops may read it
	oneQueue  bool  // loops share a socket; constant, too
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
	uses  *atomic.Int32 // of its socket; nil: it is the only one
	index int32         // in the loop's shards
	out   bool          // not in the poller

	burst  int    // connections that the last event found
	leftAt uint32 // the last turn in which an event did not empty the queue, for all that is known

	// While it leaves: what waits in the queue is served, and then it is closed.
	leaving bool
	gone    bool   // nobody takes its place: the socket ends, wherever else it is open
	left    int    // accepts that it still makes
	held    bool   // it waits for room, or for descriptors
	told    func() // called once, when it is closed or held
}

// opening is how a listener is opened.
type opening struct {
	loops, backlog int
	alone          bool // a port on which another program listens is refused: SO_REUSEPORT would share it silently

	heirs   *core.Heirs // whose sockets are used if they fit; nil: none
	service string      // for them
}

// openListener opens the sockets of an address.
func openListener(key core.ListenKey, how listening, o opening) (*listener, error) {
	a, err := core.ParseListen(key.Listen)
	if err != nil {
		return nil, err
	}
	ln := &listener{key: key, how: how, multipath: how.MPTCP}
	address := net.JoinHostPort(zone.Named(a.Host), a.Port)
	if a.Path == "" {
		if ln.BoundZone, _, err = core.InZone(a.Host, how.Interface); err != nil {
			return nil, core.ListenError(address, err)
		}
	}
	files, lent, misfit := o.heirs.For(o.service, key, how.ListenOptions)
	switch {
	case len(files) > 0:
		err = ln.inherit(files, lent, a.Path, o)
	case a.Path != "":
		err = ln.openUnix(a.Path, o.loops, o.backlog)
	default:
		network := "tcp"
		if a.Host == "" && !core.HasIPv6() {
			network = "tcp4"
		}
		if o.alone && a.Port != "0" {
			err = ln.probe(network, address)
		}
		if err == nil {
			err = ln.openTCP(network, address, o.loops, o.backlog)
		}
	}
	if err != nil {
		ln.close()
		return nil, core.Misfit(err, misfit)
	}
	return ln, nil
}

// inherit makes shards of open sockets. If there are fewer of them than loops, loops share
// them; if there are more, loops have several.
func (ln *listener) inherit(files []*os.File, lent bool, path string, o opening) error {
	ln.lent, ln.oneQueue = lent, len(files) < o.loops
	uses := make([]*atomic.Int32, len(files))
	for i := range max(len(files), o.loops) {
		file := files[i%len(files)]
		fd, err := core.Duplicate(file)
		if err != nil {
			return fmt.Errorf("listen on %s: use the socket that was passed to the process: %w", ln.key.Listen, err)
		}
		if i < len(files) {
			uses[i] = new(atomic.Int32)
		}
		uses[i%len(files)].Add(1)
		ln.fds, ln.uses = append(ln.fds, int32(fd)), append(ln.uses, uses[i%len(files)])
		if i >= len(files) {
			continue
		}
		sa, err := unix.Getsockname(fd)
		if err == nil && path == "" {
			at := addrOf(sa)
			ln.bound = net.JoinHostPort(zone.Named(at.AddrPort().Addr().String()), strconv.Itoa(at.Port))
			if err = core.QueueOptions(fd, core.QueueOptionsOf(file), ln.how.ListenOptions, o.backlog); err != nil {
				return core.ListenError(ln.bound, err)
			}
			for _, option := range ln.options() {
				if errno := option.set(int32(fd)); errno != 0 {
					return fmt.Errorf("listen on %s: setsockopt %d/%d: %w", ln.bound, option.level, option.name, errno)
				}
			}
		}
		if err == nil {
			err = unix.Listen(fd, o.backlog)
		}
		if err != nil {
			return core.ListenError(ln.key.Listen, err)
		}
	}
	switch {
	case path != "":
		ln.bound = "unix:" + path
		if !lent {
			var err error
			if ln.file, err = core.OurFile(path); err != nil {
				return core.ListenError(ln.bound, err)
			}
		}
	case ln.how.steer && len(files) < o.loops:
		ln.unsteered = fmt.Errorf("%s: its socket was passed to the process, and the loops share it", ln.bound)
	case ln.how.steer:
		if err := steer(int(ln.fds[0]), len(files)); err != nil {
			ln.unsteered = fmt.Errorf("%s: %w", ln.bound, err)
		}
	}
	return nil
}

// addrOf returns the address of a TCP socket; its zone is a number.
func addrOf(sa unix.Sockaddr) *net.TCPAddr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
	case *unix.SockaddrInet6:
		a := &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
		if sa.ZoneId != 0 {
			a.Zone = strconv.Itoa(int(sa.ZoneId))
		}
		return a
	}
	return &net.TCPAddr{}
}

// CheckListen is native.CheckListen.
func CheckListen(listen string, o engine.ListenOptions) error {
	at, err := core.FreePort(listen)
	if err != nil {
		return err
	}
	ln, err := openListener(core.ListenKey{Listen: at}, listening{ListenOptions: o}, opening{loops: 1, backlog: 1})
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
	a := addrOf(sa)
	a.Zone = asked.Zone
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
	ln.bound, ln.oneQueue = "unix:"+path, true
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

// distinct returns one descriptor of each socket.
func (ln *listener) distinct() []int32 {
	switch {
	case ln.uses == nil && ln.oneQueue:
		return ln.fds[:1]
	case ln.uses == nil:
		return ln.fds
	}
	seen, list := map[*atomic.Int32]bool{}, []int32(nil)
	for i, uses := range ln.uses {
		if !seen[uses] {
			list = append(list, ln.fds[i])
		}
		seen[uses] = true
	}
	return list
}

// port returns the port that the listener has, "" for a UNIX socket.
func (ln *listener) port() string {
	_, port, _ := net.SplitHostPort(ln.bound)
	return port
}

// close closes the sockets of a listener that no loop has. The file of an inherited one is
// that of a process that serves.
func (ln *listener) close() {
	if ln.uses == nil {
		ln.file.Remove()
	}
	for _, fd := range ln.fds {
		closeFD(fd)
	}
	ln.fds = nil
}
