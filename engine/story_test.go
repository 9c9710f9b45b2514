package engine_test

import (
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/explain"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// said is a story in words.
func said(s *engine.Story) string { return strings.Join(explain.Of(s, "1", "main").Lines(), "\n") }

// tells fails the test unless a story says all of that.
func tells(t *testing.T, s *engine.Story, wanted ...string) {
	t.Helper()
	text := said(s)
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not told:\n%s", want, text)
		}
	}
}

// ended waits for the only session of a rig to end and returns its story.
func ended(r *enginetest.Rig) engine.Story {
	r.T.Helper()
	var list []engine.Story
	testkit.Eventually(r.T, "a session has ended", func() bool {
		list = r.E.Ended(10)
		return len(list) > 0
	})
	if len(list) != 1 {
		r.T.Fatalf("%d sessions have ended: %+v", len(list), list)
	}
	return list[0]
}

// the returns the only open session of a rig, once there is one with that stage.
func the(r *enginetest.Rig, stage engine.Stage) (s engine.Story) {
	r.T.Helper()
	testkit.Eventually(r.T, "the session is "+string(stage), func() bool {
		for _, i := range r.E.Sessions(0, func(string, *sched.Host) bool { return true }) {
			if story, ok := r.E.Explain(i.ID); ok && story.Stage == stage {
				s = story
				return true
			}
		}
		return false
	})
	return s
}

// carries returns the story of the only open session of a rig, once so many bytes each way are
// counted: goroutines count what they have sent when the peer may have it already.
func carries(r *enginetest.Rig, bytes uint64) (s engine.Story) {
	r.T.Helper()
	testkit.Eventually(r.T, "the bytes are counted", func() bool {
		s = the(r, engine.StageConnected)
		return s.In == bytes && s.Out == bytes
	})
	return s
}

// The story of a session that runs says how far it is; then it says how it has ended.
func TestStoryOfALife(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		settles(r, c)
		s := carries(r, 1)
		if s.Service != "web" || s.Client.String() != c.LocalAddr().String() || s.Listener != c.RemoteAddr().String() || s.Host != r.Hosts[0] ||
			s.Termination != "" || s.First != engine.Nobody || s.Moved || !s.Local.IsValid() {
			t.Errorf("story %+v", s)
		}
		if !(0 <= s.Asked && s.Asked <= s.Connected && s.Connected <= s.FirstIn && s.FirstIn <= s.FirstOut && s.FirstOut <= s.Age) {
			t.Errorf("the times are not in order: %+v", s)
		}
		if runtime.GOOS == "linux" && (!s.TCP[0].Known || !s.TCP[1].Known || s.TCP[0].RTT == 0) {
			t.Errorf("the kernel says %+v", s.TCP)
		}
		tells(t, &s, "came to service web on ", "answered, ", "Now: it is connected")
		c.Fin()
		c.ExpectEOF()
		e := ended(r)
		if e.ID != s.ID || e.Client != s.Client || e.Host != s.Host || e.Accepted.Sub(s.Accepted).Abs() > time.Second ||
			e.Connected != s.Connected || e.FirstIn != s.FirstIn || e.FirstOut != s.FirstOut || e.Age < s.Age {
			t.Errorf("ended: %+v\nit was: %+v", e, s)
		}
		if e.Termination != "--" || e.First != engine.OfClient || e.Reset || e.Closed < e.FirstOut || e.Closed > e.Age {
			t.Errorf("ended: %+v", e)
		}
		if again, ok := r.E.Explain(s.ID); !ok || again.Termination != "--" {
			t.Errorf("Explain: %v, %+v", ok, again)
		}
		if _, ok := r.E.Explain(s.ID + 1<<40); ok {
			t.Error("there is a story of nobody")
		}
	})
}

// The kernel is not asked about a session that ends as it should within a second: what it
// would say is not known. It is asked about any other.
func TestStoriesCostNoCall(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		for range 10 {
			c := r.Dial()
			settles(r, c)
			c.Fin()
			c.ExpectEOF()
		}
		c := r.Dial()
		settles(r, c)
		c.Rst()
		var list []engine.Story
		testkit.Eventually(t, "all have ended", func() bool {
			list = r.E.Ended(100)
			return len(list) == 11
		})
		for i := range list {
			s := &list[i]
			asked := s.Termination != "--"
			if !asked && s.Age > time.Second { // the machine was busy: it was asked, or just not
				continue
			}
			for _, tcp := range s.TCP {
				if tcp.Known != (asked && runtime.GOOS == "linux") {
					t.Errorf("ended %s after %v, and the kernel says %+v", s.Termination, s.Age, s.TCP)
				}
			}
		}
	})
}

// Each host that was asked is in the story, with its result.
func TestStoryHasEachTry(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.DeadAddr(t), enginetest.DeadAddr(t), enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		settles(r, c)
		c.Fin()
		c.ExpectEOF()
		s := ended(r)
		if len(s.Tries) != 2 || s.Tries[0].Host != r.Hosts[0] || s.Tries[1].Host != r.Hosts[1] || s.Host != r.Hosts[2] ||
			s.Tries[0].Result != engine.TryRefused || s.Tries[0].At > s.Tries[1].At || s.Tries[1].At > s.Asked || s.Asked > s.Connected {
			t.Errorf("story %+v", s)
		}
		tells(t, &s, "Host h0 ("+r.Hosts[0].Addr().String()+") refused the connection, after ", "Host h1 (", "Host h2 (", "--: the session ended normally")
	})
}

// A host that accepts a connection and resets it before the first byte is named. Sessions on
// loops go to another host then.
func TestStoryOfADroppedConnection(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		drops := enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Rst() })
		r := newRig(t, opt, engine.Route{}, drops, enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		var s engine.Story
		testkit.Eventually(t, "the host has dropped the session", func() bool {
			if list := r.E.Ended(1); len(list) > 0 {
				s = list[0]
				return true
			}
			for _, i := range r.E.Sessions(0, func(string, *sched.Host) bool { return true }) {
				s, _ = r.E.Explain(i.ID)
			}
			return s.Stage == engine.StageConnected && len(s.Tries) == 1
		})
		if s.Stage == engine.StageEnded {
			tells(t, &s, "The host reset the connection first.", "SD: the session ended because the host reset the connection")
			return
		}
		if s.Tries[0].Host != r.Hosts[0] || s.Tries[0].Result != engine.TryDropped && s.Tries[0].Result != engine.TryRefused || s.Host != r.Hosts[1] || s.First != engine.Nobody {
			t.Errorf("story %+v", s)
		}
		settles(r, c)
		c.Fin()
		c.ExpectEOF()
		s = ended(r)
		tells(t, &s, "Host h0 (", "Host h1 (", "--: the session ended normally")
	})
}

// Clients that are rejected are told of with the reason, and with what helps.
func TestStoryOfARejection(t *testing.T) {
	echo := enginetest.BackendServer(t, enginetest.Echo)
	for name, test := range map[string]struct {
		route engine.Route
		wants []string
	}{
		"access":         {engine.Route{Denied: func(netip.Addr) bool { return true }}, []string{"PR: the session was rejected", "The reason of the rejection is access", "<access> keeps them out"}},
		"limit_rate":     {engine.Route{Limits: &engine.Limits{Rate: 1}}, []string{"PR: the session was rejected", "What helps: setService rate=N."}},
		"limit_sessions": {engine.Route{Limits: &engine.Limits{Sessions: 1}}, []string{"PR: the session was rejected", "What helps: setService sessions=N"}},
		"limit_client":   {engine.Route{Limits: &engine.Limits{PerClient: 1}}, []string{"PR: the session was rejected", "perClient=N"}},
	} {
		t.Run(name, func(t *testing.T) {
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				r := newRig(t, opt, test.route, echo)
				if name != "access" {
					first := r.Dial()
					settles(r, first)
				}
				testkit.Eventually(t, "a client is rejected", func() bool {
					c := r.Dial()
					_ = c.Conn.(*net.TCPConn).CloseWrite() // of a rate, a place may be free again
					c.ExpectEnd()
					_ = c.Close()
					return len(r.E.Ended(1)) > 0 && r.E.Ended(1)[0].Rejected == name
				})
				s := r.E.Ended(1)[0]
				if s.Host != nil || s.TCP[0].Known || !s.Client.IsValid() {
					t.Errorf("story %+v", s)
				}
				tells(t, &s, append(test.wants, "The reason of the rejection is "+name)...)
			})
		})
	}
}

// What is awaited of a client, or for it, is the stage of its session.
func TestStoriesOfClientsThatWait(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		hole := silent(t)
		t.Run("header", func(t *testing.T) {
			r := proxied(t, opt, required, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			c := r.Dial()
			s := the(r, engine.StageHeader)
			tells(t, &s, "Now: its PROXY header is awaited.")
			c.Send(append(proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal), "x"...))
			c.Expect([]byte("x"))
			s = the(r, engine.StageConnected)
			if s.Client != aClient || s.To != itsGoal || !s.Proxied || s.Heard < 0 || s.Heard > s.Connected {
				t.Errorf("story %+v", s)
			}
			tells(t, &s, "Client "+aClient.String()+", as its PROXY header says, came", "Its PROXY header was whole.")
		})
		t.Run("connecting", func(t *testing.T) {
			r := newRig(t, opt, engine.Route{}, hole)
			r.Dial()
			s := the(r, engine.StageConnecting)
			tells(t, &s, "Host h0 ("+r.Hosts[0].Addr().String()+") of group main was asked, and has not answered yet.")
		})
		t.Run("queued", func(t *testing.T) {
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			c := dialFull(r)
			s := the(r, engine.StageQueued)
			if s.Queued < 0 || s.Before != 0 || s.Waited > s.Age {
				t.Errorf("story %+v", s)
			}
			tells(t, &s, "It came into the queue", "Now: it waits until a host has room.")
			r.Hosts[0].SetMaxSessions(2)
			settles(r, c)
			id := s.ID
			s, ok := r.E.Explain(id)
			if !ok || s.Stage != engine.StageConnected || s.Queued < 0 || s.Asked < s.Queued {
				t.Errorf("story %+v", s)
			}
			tells(t, &s, "It waited in the queue", "Now: it is connected")
		})
	})
}

// A story says which side does not take what comes, and keeps the other waiting.
func TestStoryOfAStall(t *testing.T) {
	const much = 16 << 20
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for side, who := range []string{"The client kept the host waiting", "The host kept the client waiting"} {
			goOn := make(chan struct{})
			pours := func(p *enginetest.Peer) { _, _ = p.Write(make([]byte, much)) }
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				if side == 0 {
					pours(p)
					p.Fin()
					p.ExpectEnd()
					return
				}
				<-goOn
				p.ExpectEnd()
			}))
			c := r.Dial()
			poured := make(chan struct{})
			go func() {
				defer close(poured)
				if side == 1 {
					pours(c)
				}
			}()
			s := the(r, engine.StageConnected)
			testkit.Eventually(t, "a side waits", func() bool {
				s, _ = r.E.Explain(s.ID)
				return s.Stalled[side] > 50*time.Millisecond
			})
			tells(t, &s, who)
			close(goOn)
			if side == 0 {
				c.ExpectEnd()
			}
			<-poured
			c.Fin()
			c.ExpectEnd()
			e := ended(r)
			if e.Stalled[side] < s.Stalled[side] {
				t.Errorf("stalled for %v, before %v", e.Stalled[side], s.Stalled[side])
			}
			tells(t, &e, who)
		}
	})
}

// A story says that the host has not answered what the client has sent.
func TestStoryOfASilentHost(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, stays(t))
		c := r.Dial()
		c.Send([]byte("x"))
		var s engine.Story
		testkit.Eventually(t, "the byte has moved", func() bool {
			s = the(r, engine.StageConnected)
			return s.In == 1
		})
		tells(t, &s, "The host has not answered what the client sent.")
	})
}

// A connection that the program dials has a story, too.
func TestStoryOfADialedConnection(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.DeadAddr(t), enginetest.BackendServer(t, enginetest.Echo))
		c, err := r.E.Dial(t.Context(), "web", netip.MustParseAddr("192.0.2.7"))
		if err != nil {
			t.Fatal(err)
		}
		p := &enginetest.Peer{T: t, Conn: c}
		p.Send([]byte("x"))
		p.Expect([]byte("x"))
		s := the(r, engine.StageConnected)
		if !s.Dialed || len(s.Tries) != 1 || s.FirstIn < 0 || s.FirstOut < s.FirstIn {
			t.Errorf("story %+v", s)
		}
		tells(t, &s, "The program itself asked service web for a connection", ", for client 192.0.2.7", "Host h0 (", "refused the connection")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		e := ended(r)
		if e.ID != s.ID || e.Termination != "--" || e.In != 1 || e.Out != 1 {
			t.Errorf("story %+v", e)
		}
	})
}

// The last thousand that had a host are kept, and those that were rejected push out none of them.
func TestStoriesAreKept(t *testing.T) {
	testkit.Long(t)
	const kept = 1000
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Loops = 1
		denied := false
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) { p.ExpectEnd() }))
		visit := func() {
			c := r.Dial()
			if !denied {
				c.Fin()
			}
			c.ExpectEnd()
			_ = c.Close()
		}
		for range kept + 10 {
			visit()
		}
		count := func() (served, rejected int) {
			for _, s := range r.E.Ended(10 * kept) {
				if s.Rejected == "" {
					served++
				} else {
					rejected++
				}
			}
			return served, rejected
		}
		testkit.Eventually(t, "as many are kept as there may be", func() bool { served, _ := count(); return served == kept })
		denied = true
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{
			Table: r.Route.Table, Timeouts: enginetest.TestTimeouts, Denied: func(netip.Addr) bool { return true },
		}})
		for range kept + 10 {
			visit()
		}
		testkit.Eventually(t, "those that were rejected are kept beside them", func() bool {
			served, rejected := count()
			return served == kept && rejected == kept
		})
		if list := r.E.Ended(5); len(list) != 5 || list[0].Rejected != "access" {
			t.Errorf("the last ones: %+v", list)
		}
	})
}
