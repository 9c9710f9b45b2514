package portable

import (
	"net"
	"net/netip"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/sched"
)

// Sessions implements [engine.Engine].
func (e *Engine) Sessions(most int, which func(service string, host *sched.Host) bool) []engine.SessionInfo {
	var list []engine.SessionInfo
	e.live.Range(func(_, value any) bool {
		if s := value.(*session); which(s.svc.Name, s.host()) {
			list = append(list, s.info())
		}
		return most == 0 || len(list) < most
	})
	return core.Sorted(list)
}

// FindByLocal implements [engine.Engine].
func (e *Engine) FindByLocal(local netip.AddrPort) []engine.SessionInfo {
	if local = core.Unmapped(local); !local.IsValid() {
		return nil
	}
	var list []engine.SessionInfo
	e.live.Range(func(_, value any) bool {
		if i := value.(*session).info(); i.Local.IsValid() && i.Local == local {
			list = append(list, i)
		}
		return true
	})
	return core.Sorted(list)
}

// EndSessions implements [engine.Engine].
func (e *Engine) EndSessions(why engine.Ending, which func(engine.Candidate) bool) int {
	ended, how := 0, core.TerminationOf(why)
	e.live.Range(func(_, value any) bool {
		s := value.(*session)
		if which(*s.shown.Load()) && s.end(how) {
			ended++
		}
		return true
	})
	return ended
}

// EndSession implements [engine.Engine].
func (e *Engine) EndSession(id uint64) (ended bool) {
	s, ok := e.live.Load(id)
	return ok && s.(*session).end(core.Killed)
}

// info describes a session.
func (s *session) info() engine.SessionInfo {
	i := engine.SessionInfo{
		ID: s.id, Service: s.svc.Name, Host: s.host(), Client: s.client(), Listener: listenerOf(s.ends[client]),
		Started: s.started, Idle: max(time.Since(s.started)-time.Duration(s.active.Load()), 0),
		In: s.in.Load(), Out: s.out.Load(),
	}
	if local := s.local.Load(); local != nil {
		i.Local = *local
	}
	return i
}

// endpoint returns the address of one end of a connection, not valid for a UNIX
// socket.
func endpoint(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return core.Unmapped(tcp.AddrPort())
	}
	return netip.AddrPort{}
}

// listenerOf returns the address that a client has connected to.
func listenerOf(c net.Conn) string {
	if a := endpoint(c.LocalAddr()); a.IsValid() {
		return a.String()
	}
	if u, ok := c.LocalAddr().(*net.UnixAddr); ok && u.Name != "" {
		return "unix:" + u.Name
	}
	return ""
}
