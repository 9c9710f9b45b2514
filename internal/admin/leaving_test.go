package admin

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// clientsOf dials until there are so many clients of hosts a and b each.
func (r *rig) clientsOf(each int) map[string][]*client {
	r.t.Helper()
	clients := map[string][]*client{}
	for range 2 * each {
		one, host := r.dial()
		clients[host] = append(clients[host], one)
	}
	if len(clients["a"]) != each || len(clients["b"]) != each {
		r.t.Fatalf("%d clients of a, %d of b", len(clients["a"]), len(clients["b"]))
	}
	return clients
}

// alive counts the clients whose sessions go on.
func alive(list []*client) (n int) {
	for _, c := range list {
		if _, err := c.ask(); err == nil {
			n++
		}
	}
	return n
}

// moveSessions closes exactly as many sessions as it says, rounded up, of that host alone.
func TestMoveSessions(t *testing.T) {
	testkit.Long(t)
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	for _, test := range []struct{ sessions, percent, want int }{{20, 25, 5}, {7, 10, 1}, {7, 50, 4}, {3, 100, 3}, {1, 1, 1}} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			r := newRig(t, doc(a.addr, b.addr, c.addr))
			clients := r.clientsOf(test.sessions)
			line := fmt.Sprintf("moveSessions web main a percent=%d", test.percent)
			want := fmt.Sprintf(`%d of %s of host "a"`, test.want, count(test.sessions, "session"))
			if text := r.do(line + " --dry-run"); text != "would close "+want || alive(clients["a"]) != test.sessions {
				t.Errorf("dry run: %q", text)
			}
			if text := r.do(line); text != want+" closed" {
				t.Errorf("said %q, want %q", text, want)
			}
			if n := alive(clients["a"]); n != test.sessions-test.want {
				t.Errorf("%d sessions of a go on, want %d", n, test.sessions-test.want)
			}
			if n := alive(clients["b"]); n != test.sessions {
				t.Errorf("%d sessions of b go on, want %d", n, test.sessions)
			}
			eventually(t, "they are counted", func() bool { return r.eng.Snapshot().Services["web"].Ended["KD"] == uint64(test.want) })
			events := r.dir.Events()
			if last := events[len(events)-1]; last.Verb != line || last.Text != want+" closed" || last.By != "boss" {
				t.Errorf("the last event: %+v", last)
			}
		})
	}
}

// Clients that would find no other host are not sent away.
func TestMoveSessionsNeedsAnotherHost(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	clients := r.clientsOf(1)
	r.refused("moveSessions web main a", "PERCENT is missing")
	r.refused("moveSessions web main a percent=0", "between 1 and 100")
	r.refused("moveSessions web main z percent=10", "unknown host")
	r.do("setHost web main b weight=0")
	r.refused("moveSessions web main a percent=100", "no other host that takes these clients", "--force")
	r.do("setHost web main b weight=1 state=maint")
	r.refused("moveSessions web main a percent=100", "no other host that takes these clients", "--force")
	r.do("setHost web main b state=ready")
	r.target("web", "main", "b").MarkDown()
	r.refused("moveSessions web main a percent=100", "no other host that takes these clients", "--force")
	if alive(clients["a"]) != 1 {
		t.Error("the session has ended")
	}
	r.do("moveSessions web main a percent=100 --force")
	clients["a"][0].expectGone(t)
	// The clients of a standby group come back to the active one.
	r.do("enableGroup web spare; moveSessions web main b percent=100")
	clients["b"][0].expectGone(t)
	if text := r.do("moveSessions web main b percent=50"); !strings.HasPrefix(text, "0 of 0 sessions") {
		t.Errorf("said %q", text)
	}
}

// B52: every verb that takes something away has a deadline for the sessions on it, and
// status tells of them meanwhile.
func TestB52EveryRemovalHasADeadline(t *testing.T) {
	testkit.Long(t)
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	for _, test := range []struct {
		before, verb string
		gone         string // whose sessions end
		status       string
	}{
		{"", "delHost web main a", "a", "Removed from web / main: a; 2 sessions are still open, closed at "},
		{"", "setHost web main a state=drain", "a", "Draining in web / main: a; 2 sessions are still open, closed at "},
		{"setHost web main a state=drain", "setHost web main a state=drain", "a", "Draining in web / main: a; "},
		{"setHost web main a state=drain", "setHost web main a weight=5", "a", "Draining in web / main: a; "},
		{"", "hostAdminDown web main a", "a", "Draining in web / main: a; 2 sessions are still open, closed at "},
		{"", "enableGroup web spare", "ab", "Draining in web / main: a, b; 4 sessions are still open, closed at "},
		{"enableGroup web spare", "delGroup web main", "ab", "Removed from web / main: a, b; 4 sessions are still open, closed at "},
		{"enableGroup web spare", "delAllHosts web main", "ab", "Removed from web / main: a, b; 4 sessions are still open, closed at "},
		{"", "delService web", "ab", "Removed from web / main: a, b; 4 sessions are still open, closed at "},
		{"addListen web 127.0.0.3:0", "delListen web 127.0.0.1:0", "ab", "sessions that came by it are closed at "},
		{"", "switchPort web 127.0.0.2:0", "ab", "sessions that came by it are closed at "},
	} {
		if runtime.GOOS != "linux" && strings.Contains(test.before+test.verb, "127.0.0.") {
			continue // it has no such address
		}
		start := func(t *testing.T) (*rig, map[string][]*client) {
			r := newRig(t, doc(a.addr, b.addr, c.addr))
			clients := r.clientsOf(2)
			if test.before != "" {
				r.do(test.before)
			}
			return r, clients
		}
		t.Run(test.verb, func(t *testing.T) {
			r, clients := start(t)
			if text := r.do(test.verb + " drain=1h"); !strings.Contains(text, "may finish for 1h") {
				t.Errorf("said %q", text)
			}
			if text := r.do("status"); !strings.Contains(text, test.status) {
				t.Errorf("status:\n%s\nwant %q", text, test.status)
			}
			if n := alive(clients["a"]) + alive(clients["b"]); n != 4 {
				t.Errorf("%d sessions go on before the deadline", n)
			}
		})
		t.Run(test.verb+" now", func(t *testing.T) {
			r, clients := start(t)
			if text := r.do(test.verb + " drain=0"); !strings.Contains(text, "end now") {
				t.Errorf("said %q", text)
			}
			for host, list := range clients {
				for _, one := range list {
					if strings.Contains(test.gone, host) {
						one.expectGone(t)
					}
				}
			}
			if n := alive(clients["b"]); test.gone == "a" && n != 2 {
				t.Errorf("%d sessions of b go on", n)
			}
			eventually(t, "the log tells of it", func() bool { return strings.Contains(r.log.String(), `msg="drain timeout reached" closed=`) })
			eventually(t, "status tells no more of it", func() bool { return !strings.Contains(r.do("status"), "still open") })
		})
	}
}

// Only a host that takes no new clients can have a deadline.
func TestDrainNeedsAState(t *testing.T) {
	r := newRig(t, plainDoc())
	r.refused("setHost web main a drain=1m", "nothing to set")
	r.refused("setHost web main a weight=3 drain=1m", "add state=drain or state=maint")
	r.refused("setHost web main a state=ready drain=1m", "add state=drain or state=maint")
}
