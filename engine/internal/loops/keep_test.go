//go:build linux

package loops

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// options returns what the kernel keeps of every session: keep-alive on, its idle
// seconds, and TCP_USER_TIMEOUT, of both sides.
func (e *Engine) options() (all [][2][3]int) {
	e.walk(func(l *loop, s *session) bool {
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
	testkit.Long(t)
	t.Parallel()
	times := enginetest.TestTimeouts
	times.Unacked, times.KeepAlive = 3*time.Second, 20*time.Second
	e, err := New(engine.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := enginetest.Start(t, e, engine.Route{Timeouts: times}, enginetest.BackendServer(t, enginetest.Echo))
	// begin begins a session and returns what tells that it is not old enough for
	// options: a busy machine may have let it grow old meanwhile.
	begin := func() (young func() bool) {
		before := time.Now()
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		return func() bool { return time.Since(before) < time.Duration(core.TuneAfter) }
	}
	usual := 7200
	young := begin()
	if got := e.options(); young() && got[0] != [2][3]int{{1, 20, 3000}, {0, usual, 3000}} {
		t.Errorf("a young session: %v", got)
	}
	testkit.Eventually(t, "the backend's side has keep-alive", func() bool { return e.options()[0][backend] == [3]int{1, 20, 3000} })
	change := func(unacked, alive time.Duration) {
		route := *r.Route
		route.Timeouts.Unacked, route.Timeouts.KeepAlive = unacked, alive
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
	}
	change(5*time.Second, 30*time.Second)
	testkit.Eventually(t, "the session has the change", func() bool { return e.options()[0] == [2][3]int{{1, 30, 5000}, {1, 30, 5000}} })
	young = begin()
	if got := e.options()[1]; young() && got != [2][3]int{{1, 30, 5000}, {0, usual, 5000}} {
		t.Errorf("a session after the change: %v", got)
	}
	change(0, 0)
	testkit.Eventually(t, "both are off", func() bool {
		for _, s := range e.options() {
			if s[client][0] != 0 || s[backend][0] != 0 || s[client][2] != 0 || s[backend][2] != 0 {
				return false
			}
		}
		return true
	})
	young = begin()
	if got := e.options()[2]; young() && (got[client][0] != 0 || got[client][2] != 0 || got[backend] != [3]int{0, usual, 0}) {
		t.Errorf("a session with both off: %v", got)
	}
}
