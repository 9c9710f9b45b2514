//go:build !portable

package engine

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// options returns what the kernel keeps of every session: keep-alive on, its idle
// seconds, and TCP_USER_TIMEOUT, of both sides.
func (r *rig) options() (all [][2][3]int) {
	r.e.walk(func(l *loop, s *session) bool {
		var both [2][3]int
		for i := range s.ends {
			for j, o := range [][2]int{{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}} {
				both[i][j], _ = unix.GetsockoptInt(int(s.ends[i].fd), o[0], o[1])
			}
		}
		all = append(all, both)
		return true
	})
	return all
}

// The kernel gets keep-alive and unacked: the client's side by the listener,
// the backend's when it is connected and, for keep-alive, when it has lived for a
// while. A change reaches the listener and the sessions that are there.
func TestKeptTimeoutsReachTheSockets(t *testing.T) {
	t.Parallel()
	for name, opt := range modes {
		if name != "auto" {
			continue
		}
		opt.Loops = 1
		times := testTimeouts
		times.Unacked, times.KeepAlive = 3*time.Second, 20*time.Second
		r := newRig(t, opt, Route{Timeouts: times}, backendServer(t, echo))
		begin := func() {
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
		}
		usual := 7200
		begin()
		if got := r.options(); got[0] != [2][3]int{{1, 20, 3000}, {0, usual, 3000}} {
			t.Errorf("a young session: %v", got)
		}
		eventually(t, "the backend's side has keep-alive", func() bool { return r.options()[0][backend] == [3]int{1, 20, 3000} })
		change := func(unacked, alive time.Duration) {
			route := *r.route
			route.Timeouts.Unacked, route.Timeouts.KeepAlive = unacked, alive
			r.apply(Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
		}
		change(5*time.Second, 30*time.Second)
		eventually(t, "the session has the change", func() bool { return r.options()[0] == [2][3]int{{1, 30, 5000}, {1, 30, 5000}} })
		begin()
		if got := r.options()[1]; got != [2][3]int{{1, 30, 5000}, {0, usual, 5000}} {
			t.Errorf("a session after the change: %v", got)
		}
		change(0, 0)
		eventually(t, "both are off", func() bool {
			for _, s := range r.options() {
				if s[client][0] != 0 || s[backend][0] != 0 || s[client][2] != 0 || s[backend][2] != 0 {
					return false
				}
			}
			return true
		})
		begin()
		if got := r.options()[2]; got[client][0] != 0 || got[client][2] != 0 || got[backend] != [3]int{0, usual, 0} {
			t.Errorf("a session with both off: %v", got)
		}
	}
}
