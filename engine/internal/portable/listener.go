package portable

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/conns"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/connect"
)

// listener is one listening address.
type listener struct {
	net.Listener
	core.BoundZone
	opt   engine.ListenOptions
	mptcp bool            // as opt says; constant
	lent  bool            // its socket is, see engine.Inherited
	given bool            // it was inherited
	more  []*listener     // of the same address: further sockets that were inherited
	file  core.SocketFile // of a UNIX socket
	entry atomic.Pointer[core.Entry]
	stop  chan struct{} // closed before the Listener is
}

// CheckListen is native.CheckListen.
func CheckListen(listen string, o engine.ListenOptions) error {
	at, err := core.FreePort(listen)
	if err != nil {
		return err
	}
	ln, err := openListener(at, o, 1)
	if err == nil {
		ln.shut()
	}
	return err
}

// inherit makes a listener of open sockets.
func inherit(listen string, files []*os.File, lent bool, opt engine.ListenOptions, backlog int) (*listener, error) {
	a, err := core.ParseListen(listen)
	if err != nil {
		return nil, err
	}
	bound, _, err := core.InZone(a.Host, opt.Interface)
	if err != nil {
		return nil, core.ListenError(listen, err)
	}
	var all []*listener
	for _, file := range files {
		ln, err := net.FileListener(file)
		if err == nil {
			one := &listener{Listener: ln, opt: opt, mptcp: opt.MPTCP, BoundZone: bound, lent: lent, given: true, stop: make(chan struct{})}
			if all = append(all, one); a.Path == "" {
				err = one.retune(core.QueueOptionsOf(file), opt, backlog)
			} else if !lent && len(all) == 1 {
				one.file, err = core.OurFile(a.Path)
			}
		}
		if err != nil {
			for _, one := range all {
				one.giveUp()
			}
			return nil, core.ListenError(listen, err)
		}
	}
	all[0].more = all[1:]
	return all[0], nil
}

func openListener(listen string, opt engine.ListenOptions, backlog int) (*listener, error) {
	a, err := core.ParseListen(listen)
	if err != nil {
		return nil, err
	}
	bound, host, err := core.InZone(a.Host, opt.Interface)
	if err != nil {
		return nil, core.ListenError(listen, err)
	}
	network, address := "tcp", net.JoinHostPort(host, a.Port)
	switch {
	case a.Path != "":
		if err := core.ClearStale(a.Path); err != nil {
			return nil, err
		}
		network, address = "unix", a.Path
	case a.Host == "0.0.0.0": // net would take it for every address of both families
		network = "tcp4"
	}
	how := net.ListenConfig{KeepAlive: -1} // a session sets it as its route says
	if opt.FreeBind || opt.Interface != "" {
		how.Control = func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error { return core.BindOptions(fd, opt) })
		}
	}
	how.SetMultipathTCP(opt.MPTCP) // the default is that of Go
	if opt.MPTCP {
		if err := core.CanMultipath(); err != nil {
			return nil, core.ListenError(listen, err)
		}
	}
	ln, err := how.Listen(context.Background(), network, address)
	if err != nil {
		return nil, core.ListenError(listen, err)
	}
	made := &listener{Listener: ln, opt: opt, mptcp: opt.MPTCP, BoundZone: bound, stop: make(chan struct{})}
	if err := made.retune(engine.ListenOptions{}, opt, backlog); err != nil {
		_ = ln.Close()
		return nil, core.ListenError(listen, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // it would remove whatever has the name
		if made.file, err = core.OurFile(a.Path); err != nil {
			_ = ln.Close()
			return nil, core.ListenError(listen, err)
		}
	}
	return made, nil
}

// control calls f with the descriptor of a socket.
func control(c syscall.RawConn, f func(fd int) error) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func (ln *listener) shut() {
	for _, one := range ln.more {
		one.shut()
	}
	close(ln.stop)
	ln.file.Remove()
	_ = ln.Close()
}

// giveUp shuts a listener that never was in use. The file of an inherited one is that of a
// process that serves.
func (ln *listener) giveUp() {
	if ln.given {
		ln.leave()
	}
	ln.shut()
}

// interrupt makes the goroutines that wait for a connection look again.
func (ln *listener) interrupt() { ln.deadline(time.Unix(1, 0)) }

// goOn lets them wait again.
func (ln *listener) goOn() { ln.deadline(time.Time{}) }

func (ln *listener) deadline(t time.Time) {
	for _, one := range append(ln.more, ln) {
		if l, ok := one.Listener.(interface{ SetDeadline(time.Time) error }); ok {
			_ = l.SetDeadline(t)
		}
	}
}

// leave makes shut keep the file of a UNIX socket, which another process serves.
func (ln *listener) leave() {
	for _, one := range append(ln.more, ln) {
		one.file = core.SocketFile{}
	}
}

// acceptFrom is a listener's goroutine. It ends when the listener is shut.
func (e *Engine) acceptFrom(ln *listener) {
	defer e.accepting.Done()
	for {
		if hold := e.held.Load(); hold != nil {
			select {
			case <-ln.stop:
				return
			case <-*hold:
				continue
			}
		}
		if left := e.restTill.Load() - e.clock(); left > 0 {
			select {
			case <-ln.stop:
				return
			case <-time.After(time.Duration(left)):
				continue
			}
		}
		conn, err := ln.Accept()
		if err != nil {
			if errno, ok := errors.AsType[syscall.Errno](err); ok && connect.Shortage(errno) {
				e.rest(e.clock() + core.PauseFor) // they come back
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) { // it is paused, or was
				continue
			}
			select {
			case <-ln.stop:
				return
			case <-time.After(time.Duration(core.PauseFor)): // this listener has a fault
				continue
			}
		}
		var room func(<-chan struct{}) bool
		if e.room != nil {
			select {
			case e.room <- struct{}{}:
			case <-ln.stop:
				room = e.awaitRoom // it is the last, and served when there is room
			}
		}
		entry := ln.entry.Load()
		if tcp, ok := conn.(*net.TCPConn); ok && ln.mptcp {
			if on, _ := tcp.MultipathTCP(); on {
				entry.Svc.Counts[0].Multipath.Add(1)
			}
		}
		e.conns.Serve(conns.Client{Conn: conn, From: conns.PeerOf(conn), Entry: entry, Room: room})
	}
}

// awaitRoom waits until the limit of sessions allows one more, or ended is closed.
func (e *Engine) awaitRoom(ended <-chan struct{}) bool {
	select {
	case e.room <- struct{}{}:
		return true
	case <-ended:
		return false
	}
}

// admitCopy takes room for a connection to a mirror, if enough is left for sessions.
func (e *Engine) admitCopy() bool {
	if !core.MayCopy(int64(len(e.room)), 0, int64(cap(e.room))) {
		return false
	}
	if e.room == nil {
		return true
	}
	select {
	case e.room <- struct{}{}:
		return true
	default:
		return false
	}
}

// left gives the room of a session back.
func (e *Engine) left() {
	if e.room != nil {
		<-e.room
	}
}

// retune gives an open socket the options that may change.
func (ln *listener) retune(was, opt engine.ListenOptions, backlog int) error {
	if tcp, ok := ln.Listener.(*net.TCPListener); ok && (was.DeferAccept != opt.DeferAccept || was.FastOpen != opt.FastOpen) {
		raw, err := tcp.SyscallConn()
		if err == nil {
			err = control(raw, func(fd int) error { return core.QueueOptions(fd, was, opt, backlog) })
		}
		if err != nil {
			return err
		}
	}
	ln.opt = opt
	for _, one := range ln.more {
		if err := one.retune(was, opt, backlog); err != nil {
			return err
		}
	}
	return nil
}

// enter makes sessions begin by an entry.
func (ln *listener) enter(entry *core.Entry) {
	ln.entry.Store(entry)
	for _, one := range ln.more {
		one.entry.Store(entry)
	}
}
