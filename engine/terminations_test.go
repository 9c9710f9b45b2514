package engine_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/accesslog"
	"github.com/txlb/txlb/internal/explain"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// provoked is a session that is made to end in one way.
type provoked struct {
	listen engine.ListenOptions
	route  func(*engine.Route)
	hosts  []sched.Addr                            // an echo server if left out
	dial   func(*enginetest.Rig) *enginetest.Peer  // the client, if it is another than usual
	does   func(*enginetest.Rig, *enginetest.Peer) // what the client does, or what is done to its session
	check  func(*testing.T, *accesslog.Entry)
	tells  []string // what its story says, besides what the code means
}

// settles waits until a session is connected to its host.
func settles(r *enginetest.Rig, c *enginetest.Peer) {
	c.Send([]byte("x"))
	c.Expect([]byte("x"))
}

// connects waits until a session has a host that is asked.
func connects(r *enginetest.Rig) {
	testkit.Eventually(r.T, "a host is asked", func() bool { return r.Hosts[0].Stats().Active == 1 })
}

// waits waits until the engine has the session.
func waits(r *enginetest.Rig) {
	testkit.Eventually(r.T, "the session is there", func() bool { return r.Stats().Active == 1 })
}

// stays is a server that says nothing and closes nothing before the test ends.
func stays(t *testing.T) sched.Addr {
	over := make(chan struct{})
	addr := enginetest.BackendServer(t, func(*enginetest.Peer) { <-over })
	t.Cleanup(func() { close(over) }) // before the server is waited for
	return addr
}

// dialFull connects a client that waits in the queue: another has the only place.
func dialFull(r *enginetest.Rig) *enginetest.Peer {
	r.Hosts[0].SetMaxSessions(1)
	settles(r, r.Dial())
	c := r.Dial()
	testkit.Eventually(r.T, "the client waits in the queue, or has waited", func() bool { return r.Hosts[0].Times().Queue.Longest() == 1 })
	return c
}

func noHost(c engine.Candidate) bool { return c.Host == nil }

// waited checks the line of a session that has left the queue without a host.
func waited(t *testing.T, e *accesslog.Entry) {
	if e.Host != "" || e.Wait < 0 || e.Wait > e.Total || e.Connect != -1 || e.GroupQueue != 0 {
		t.Errorf("entry %+v", e)
	}
}

// provocations has, for each termination code but RC, a session that ends with it.
func provocations(t *testing.T) map[string]provoked {
	hole := silent(t)
	short := 100 * time.Millisecond
	refused := func(r *enginetest.Rig, c *enginetest.Peer) { c.ExpectEOF() }
	return map[string]provoked{
		"--": {tells: []string{"answered, ", "The first byte from the client was sent to the host.", "The first byte from the host was sent to the client", "The client closed its side first.", "1 byte from the client and 1 byte to it"}, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			settles(r, c)
			c.Fin()
			c.ExpectEOF()
		}},
		"CD": {tells: []string{"The client reset the connection first."}, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			settles(r, c)
			c.Rst()
		}},
		"LR": {
			tells: []string{"was given to the program"},
			hosts: []sched.Addr{},
			route: func(r *engine.Route) { r.Fallback = func(c net.Conn) { _ = c.Close() } },
			does:  refused,
			check: func(t *testing.T, e *accesslog.Entry) {
				if e.Host != "" || e.Connect != -1 {
					t.Errorf("entry %+v", e)
				}
			},
		},
		"SD": {
			tells: []string{"The host reset the connection first."},
			hosts: []sched.Addr{enginetest.BackendServer(t, func(p *enginetest.Peer) {
				p.Expect([]byte("x"))
				p.Send([]byte("x"))
				p.Expect([]byte("y"))
				p.Rst()
			})},
			does: func(r *enginetest.Rig, c *enginetest.Peer) {
				settles(r, c)
				c.Send([]byte("y"))
				c.ExpectGone()
			},
		},
		"cD": {
			tells: []string{"txlb ended it"},
			route: func(r *engine.Route) { r.Timeouts.Idle = short },
			does:  func(_ *enginetest.Rig, c *enginetest.Peer) { c.ExpectGone() },
		},
		"sD": {
			tells: []string{"The client closed its side first.", "The host has not answered what the client sent."},
			route: func(r *engine.Route) { r.Timeouts.HalfClosed = short },
			hosts: []sched.Addr{stays(t)},
			does: func(_ *enginetest.Rig, c *enginetest.Peer) {
				c.Send([]byte("x"))
				c.Fin()
				c.ExpectGone()
			},
		},
		"CC": {tells: []string{"was asked, and had not answered when the client left"}, hosts: []sched.Addr{hole}, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			connects(r)
			c.Rst()
		}},
		"SC": {tells: []string{"refused the connection, after", "The reason of the rejection is no_host"}, hosts: []sched.Addr{enginetest.DeadAddr(t), enginetest.DeadAddr(t)}, does: refused, check: func(t *testing.T, e *accesslog.Entry) {
			if e.Host == "" || e.Connect != -1 || e.Retries != 1 || !e.Redispatched {
				t.Errorf("entry %+v", e)
			}
		}},
		"sC": {
			tells: []string{"did not answer within", "The reason of the rejection is no_host"},
			route: func(r *engine.Route) { r.Timeouts.Connect = short },
			hosts: []sched.Addr{hole}, does: refused,
		},
		"KD": {tells: []string{"txlb ended it"}, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			settles(r, c)
			r.E.EndSessions(engine.ByOperator, all)
			c.ExpectGone()
		}},
		"KC": {tells: []string{"was asked, and had not answered when the session was closed"}, hosts: []sched.Addr{hole}, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			connects(r)
			r.E.EndSessions(engine.ByOperator, all)
			c.ExpectGone()
		}},
		"KR": {tells: []string{"txlb ended it"}, listen: required, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			waits(r)
			r.E.EndSessions(engine.ByOperator, all)
			c.ExpectGone()
		}},
		"sQ": {
			tells: []string{"It waited in the queue", "The reason of the rejection is queue"},
			route: func(r *engine.Route) { r.Timeouts.Queue = short },
			dial:  dialFull, does: refused, check: waited,
		},
		"CQ": {tells: []string{"It waited in the queue"}, dial: dialFull, does: func(_ *enginetest.Rig, c *enginetest.Peer) { c.Rst() }, check: waited},
		"KQ": {tells: []string{"It waited in the queue", "txlb ended it"}, dial: dialFull, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			r.E.EndSessions(engine.ByOperator, noHost)
			c.ExpectGone()
		}, check: waited},
		"DD": {tells: []string{"marked down"}, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			settles(r, c)
			r.E.EndSessions(engine.HostDown, all)
			c.ExpectGone()
		}},
		"UD": {tells: []string{"backup host"}, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			settles(r, c)
			r.E.EndSessions(engine.BackupUnused, all)
			c.ExpectGone()
		}},
		"PD": {
			tells: []string{"maxAge"},
			route: func(r *engine.Route) { r.Timeouts.MaxAge = short },
			does:  func(_ *enginetest.Rig, c *enginetest.Peer) { c.ExpectGone() },
		},
		"PR": {
			tells:  []string{"The reason of the rejection is proxy_signature"},
			listen: required,
			does: func(_ *enginetest.Rig, c *enginetest.Peer) {
				c.Send([]byte("GET / HTTP/1.1\r\n\r\n"))
				c.ExpectGone()
			},
			check: func(t *testing.T, e *accesslog.Entry) {
				if e.Host != "" || e.Wait != -1 || e.Rejected != "proxy_signature" && e.Rejected != "" {
					t.Errorf("entry %+v", e)
				}
			},
		},
		"CR": {tells: []string{"The reason of the rejection is proxy_end"}, listen: required, does: func(r *enginetest.Rig, c *enginetest.Peer) {
			c.Send([]byte("PROXY TCP4 192"))
			c.Fin()
			c.ExpectGone()
		}},
		"cR": {
			tells:  []string{"The reason of the rejection is proxy_timeout"},
			listen: required,
			route:  func(r *engine.Route) { r.Timeouts.Hello = short },
			does:   func(_ *enginetest.Rig, c *enginetest.Peer) { c.ExpectGone() },
		},
	}
}

// Every termination code is provoked over real sockets and read from the access log, in
// both formats. A code without a row here fails.
func TestB93EveryTerminationIsLogged(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		all := provocations(t)
		for _, end := range engine.Terminations() {
			if _, has := all[end.Code]; !has && end.Code != "RC" {
				t.Errorf("no session is made to end with %s: %s", end.Code, end.Meaning)
			}
		}
		for code, p := range all {
			for _, format := range []string{"tcplog", "json"} {
				t.Run(code+" "+format, func(t *testing.T) {
					t.Parallel()
					p.provoke(t, opt, code, format)
				})
			}
		}
	})
}

// provoke makes the session end and looks at its line.
func (p provoked) provoke(t *testing.T, opt setup, code, format string) {
	opt.Recorder = engine.NewRecorder()
	file := filepath.Join(t.TempDir(), "access.log")
	log, err := accesslog.Open(opt.Recorder, file, format)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	hosts := p.hosts
	if hosts == nil {
		hosts = []sched.Addr{enginetest.BackendServer(t, enginetest.Echo)}
	}
	route := engine.Route{Timeouts: enginetest.TestTimeouts}
	if p.route != nil {
		p.route(&route)
	}
	r := proxied(t, opt, p.listen, route, hosts...)
	dial := (*enginetest.Rig).Dial
	if p.dial != nil {
		dial = p.dial
	}
	c := dial(r)
	client := c.LocalAddr().String()
	p.does(r, c)
	_ = c.Close()
	var lines []string
	testkit.Eventually(t, "the session is logged", func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines = strings.Split(strings.TrimSpace(string(text)), "\n")
		return strings.HasSuffix(string(text), "\n")
	})
	e, err := accesslog.ParseLine(lines[0])
	if err != nil || len(lines) != 1 {
		t.Fatalf("%v: %q", err, lines)
	}
	if e.Termination != code || e.Client != client || e.Service != "web" || e.Total < 0 {
		t.Errorf("want %s for %s: %s", code, client, lines[0])
	}
	if p.check != nil {
		p.check(t, e)
	}
	if format == "json" {
		p.told(t, r, e)
	}
	testkit.Eventually(t, "the session is counted as "+code, func() bool { return r.Stats().Ended[code] == 1 })
}

// told checks the story of a session that has ended. The access log knows it.
func (p provoked) told(t *testing.T, r *enginetest.Rig, e *accesslog.Entry) {
	id, err := strconv.ParseUint(e.ID, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	story, ok := r.E.Explain(id)
	if !ok || story.ID != id || story.Stage != engine.StageEnded || story.Termination != e.Termination || story.Client.String() != e.Client ||
		story.In != uint64(e.In) || story.Out != uint64(e.Out) || story.Rejected != e.Rejected {
		t.Errorf("the story of %s is known: %v, %+v", e.ID, ok, story)
	}
	said := strings.Join(explain.Of(&story, e.ID, "").Lines(), "\n")
	how, _ := engine.TerminationOf(e.Termination)
	for _, want := range append(p.tells, e.Termination+": the session "+how.Meaning) {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not told:\n%s", want, said)
		}
	}
	if len(p.tells) == 0 {
		t.Errorf("nothing is asked of the story of %s:\n%s", e.Termination, said)
	}
}
