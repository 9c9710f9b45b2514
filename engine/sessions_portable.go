//go:build !linux || portable

package engine

import (
	"net"
	"net/netip"
	"time"

	"github.com/txlb/txlb/sched"
)

// Sessions returns the sessions that which picks out, the oldest first, but no
// more than most; 0 is no limit. Which of them are left out is not defined. host
// is nil for a client that has none. which must be quick and call nothing of
// the engine. Sessions does not wait for a change or a drain. It is no picture
// of one moment: a session that begins or ends meanwhile may be in it or not. A
// closed engine has no sessions.
func (e *Engine) Sessions(most int, which func(service string, host *sched.Host) bool) []SessionInfo {
	var list []SessionInfo
	e.live.Range(func(_, value any) bool {
		if s := value.(*session); which(s.svc.name, s.host.Load()) {
			list = append(list, s.info())
		}
		return most == 0 || len(list) < most
	})
	return sorted(list)
}

// FindByLocal returns the sessions whose connection to the backend has this
// address on our side, which is what the backend sees as its peer. There may be
// several: the kernel uses a port again for connections to other addresses.
func (e *Engine) FindByLocal(local netip.AddrPort) []SessionInfo {
	if local = unmapped(local); !local.IsValid() {
		return nil
	}
	var list []SessionInfo
	e.live.Range(func(_, value any) bool {
		if i := value.(*session).info(); i.Local.IsValid() && i.Local == local {
			list = append(list, i)
		}
		return true
	})
	return sorted(list)
}

// EndSessions ends the sessions that which picks out, as an operator's kill,
// and returns how many those were. host is nil for a client that has none.
// which must be quick and call nothing of the engine. Where bytes are on the
// way to a side, that side gets a reset. The sessions have been told to end
// when EndSessions returns, and end soon.
func (e *Engine) EndSessions(which func(service string, host *sched.Host) bool) int {
	ended := 0
	e.live.Range(func(_, value any) bool {
		s := value.(*session)
		if which(s.svc.name, s.host.Load()) && s.end(killed) {
			ended++
		}
		return true
	})
	return ended
}

// EndSession ends one session as EndSessions does. It returns false if there is
// none with that ID any more.
func (e *Engine) EndSession(id uint64) (ended bool) {
	s, ok := e.live.Load(id)
	return ok && s.(*session).end(killed)
}

// info describes a session.
func (s *session) info() SessionInfo {
	i := SessionInfo{
		ID: s.id, Service: s.svc.name, Host: s.host.Load(), Client: endpoint(s.ends[client].RemoteAddr()),
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
		return unmapped(tcp.AddrPort())
	}
	return netip.AddrPort{}
}
