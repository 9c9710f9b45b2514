package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// answer is a backend that says its name to who asks.
func answer(name string) func(*enginetest.Peer) {
	return func(p *enginetest.Peer) {
		p.Expect([]byte("?"))
		p.Send([]byte(name))
	}
}

func TestB22RefusedBackendIsPassedOver(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.DeadAddr(t), enginetest.DeadAddr(t), enginetest.BackendServer(t, answer("c")))
		for range 5 {
			if got := r.Ask(); got != "c" {
				t.Fatalf("the answer is %q", got)
			}
		}
		r.Quiet()
		s := r.Stats()
		if s.ConnectFailures["refused"] == 0 || s.Redispatches == 0 || s.Ended["--"] != 5 {
			t.Errorf("counted %+v", s)
		}
		for i, want := range []bool{false, false, true} {
			if r.Hosts[i].Up() != want {
				t.Errorf("host %d: up is %v", i, !want)
			}
		}
		// Both transitions were reported, once each.
		for range 2 {
			f := <-r.E.Failures()
			if !errors.Is(f.Err, syscall.ECONNREFUSED) {
				t.Errorf("reported %v", f.Err)
			}
		}
		select {
		case f := <-r.E.Failures():
			t.Errorf("reported once more: %v", f.Err)
		default:
		}
	})
}

func TestB23EachHostAtMostOnceAndTheCapIsExact(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		for tries := range 4 {
			var dead []sched.Addr
			for range 7 {
				dead = append(dead, enginetest.DeadAddr(t))
			}
			r := newRig(t, opt, engine.Route{Tries: tries}, dead...)
			c := r.Dial()
			c.Send([]byte("?"))
			c.ExpectEOF()
			_ = c.Close()
			r.Quiet()
			want := uint64(tries)
			if tries == 0 {
				want = 7
			}
			var picks uint64
			for _, h := range r.Hosts {
				n := h.Stats().Picks
				picks += n
				if n > 1 {
					t.Errorf("tries=%d: host %s was tried %d times", tries, h.Name(), n)
				}
			}
			if picks != want {
				t.Errorf("tries=%d: %d connects, want %d", tries, picks, want)
			}
		}
	})
}

// A large group of which every host refuses costs its clients a connect to each
// host that is up, and three once all are down. Another service on the same loop
// goes on meanwhile.
func TestB71LargeDeadGroup(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127.0.0.0/8")
	}
	eachMode(t, func(t *testing.T, opt setup) {
		const n = 2000
		opt.Loops = 1
		// While it listens on 127.0.0.1, no other process gets the port on all addresses.
		reserved := enginetest.ListenLoopback(t)
		defer func() { _ = reserved.Close() }()
		_, port, err := net.SplitHostPort(reserved.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var dead []sched.Addr
		for i := range n {
			addr, err := sched.ParseAddr(fmt.Sprintf("127.1.%d.%d:%s", i/250, 1+i%250, port))
			if err != nil {
				t.Fatal(err)
			}
			dead = append(dead, addr)
		}
		r := newRig(t, opt, engine.Route{}, dead...)
		hosts := r.Hosts
		well := &engine.Route{Table: r.Table(sched.Policy{}, enginetest.BackendServer(t, enginetest.Echo)), Timeouts: enginetest.TestTimeouts}
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route}, engine.Service{Name: "well", Listen: []string{"127.0.0.1:0"}, Route: well})
		var ping *enginetest.Peer
		for _, l := range r.E.Listeners() {
			if l.Service == "well" {
				ping = enginetest.Dial(t, l.Addr)
			}
		}
		stop, pings, clock := make(chan struct{}), make(chan time.Duration), testkit.NewClock(t)
		go func() {
			worst := time.Duration(0)
			for {
				began := clock.Now()
				ping.Send([]byte("."))
				ping.Expect([]byte("."))
				worst = max(worst, clock.Since(began))
				select {
				case <-stop:
					pings <- worst
					return
				default:
				}
			}
		}()
		for client, want := range []uint64{n, n + 3} {
			c := r.Dial()
			c.ExpectEOF()
			_ = c.Close()
			r.Quiet()
			picks := uint64(0)
			for _, h := range hosts {
				picks += h.Stats().Picks
			}
			if picks != want {
				t.Errorf("after client %d: %d connects, want %d", client, picks, want)
			}
		}
		close(stop)
		worst := <-pings
		_ = ping.Close()
		t.Logf("another service waited for %v at most", worst)
		if worst > time.Second {
			t.Errorf("a session of another service waited for %v", worst)
		}
	})
}

// B24: with tries="1" a refused connect is the end, and a clean one, although
// the client's bytes were never read. B28: so is a service without hosts.
func TestB24FailOverOffAndB28NoHostCloseCleanly(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		for name, test := range map[string]struct {
			tries  int
			hosts  []sched.Addr
			reason string
		}{
			"fail-over off": {1, []sched.Addr{enginetest.DeadAddr(t), enginetest.BackendServer(t, enginetest.Echo)}, "no_host"},
			"all refuse":    {0, []sched.Addr{enginetest.DeadAddr(t), enginetest.DeadAddr(t)}, "no_host"},
			"no group":      {0, nil, "no_group"},
		} {
			r := newRig(t, opt, engine.Route{Tries: test.tries}, test.hosts...)
			clock := testkit.NewClock(t)
			c := r.Dial()
			c.Send([]byte("a request"))
			c.ExpectEOF()
			if took := clock.Now(); took > time.Second {
				t.Errorf("%s: closed after %v", name, took)
			}
			_ = c.Close()
			r.Quiet()
			s := r.Stats()
			told := map[string]uint64{}
			r.E.Refused(func(service, reason string, clients uint64) { told[service+" "+reason] = clients })
			if s.Refused[test.reason] != 1 || s.Ended["SC"] != 1 || len(told) != 1 || told["web "+test.reason] != 1 {
				t.Errorf("%s: counted %v, %v, and told %v", name, s.Refused, s.Ended, told)
			}
		}
	})
}

func TestB28AllDownIsALastResort(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, answer("a")), enginetest.BackendServer(t, answer("b")))
		for _, h := range r.Hosts {
			h.MarkDown()
		}
		if got := r.Ask(); got != "a" && got != "b" {
			t.Errorf("the answer is %q", got)
		}
		for _, h := range r.Hosts {
			if h.Up() {
				t.Errorf("host %s is shown as up", h.Name())
			}
		}
		refusing := engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Table(sched.Policy{Scheduler: "roundr", Refuse: true}, r.Hosts[0].Addr())}
		r.Hosts[2].MarkDown()
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &refusing})
		c := r.Dial()
		c.ExpectEOF()
	})
}

// silent is an address that answers no SYN.
func silent(t *testing.T) sched.Addr {
	t.Helper()
	addr, err := sched.ParseAddr(testkit.Silent(t))
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func TestB27ConnectTimeout(t *testing.T) {
	hole := silent(t)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.Connect = 300 * time.Millisecond
		r := newRig(t, opt, engine.Route{Timeouts: times}, hole, enginetest.BackendServer(t, answer("b")))
		w := startWatch(t)
		if got := r.Ask(); got != "b" {
			t.Fatalf("the answer is %q", got)
		}
		w.onTime(times.Connect)
		if r.Hosts[0].Up() || r.Stats().ConnectFailures["timeout"] != 1 {
			t.Errorf("counted %+v", r.Stats())
		}
		// The total bounds the connects together.
		times.Connect, times.Total = time.Hour, 300*time.Millisecond
		late := engine.Route{Timeouts: times, Table: r.Table(sched.Policy{Scheduler: "roundr"}, hole)}
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &late})
		w = startWatch(t)
		c := r.Dial()
		c.ExpectEOF()
		w.onTime(times.Total)
		_ = c.Close()
		r.Quiet()
		if s := r.Stats(); s.Refused["timeout"]+s.Refused["no_host"] != 1 {
			t.Errorf("counted %v", s.Refused)
		}
	})
}

// B29: a connect that fails at once, without an event.
func TestB29ImmediateFailure(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		gone := sched.UnixAddr(t.TempDir() + "/nobody.sock")
		r := newRig(t, opt, engine.Route{}, gone, gone, gone, enginetest.BackendServer(t, answer("d")))
		if got := r.Ask(); got != "d" {
			t.Errorf("the answer is %q", got)
		}
	})
}

func TestB31ClientResetCancelsConnect(t *testing.T) {
	hole := silent(t)
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, hole)
		c := r.Dial()
		testkit.Eventually(t, "the connect is under way", func() bool { return r.Hosts[0].Stats().Active == 1 })
		c.Rst()
		r.Quiet()
		if s := r.Stats(); s.Ended["CC"] != 1 || !r.Hosts[0].Up() {
			t.Errorf("endings %v, host up %v", s.Ended, r.Hosts[0].Up())
		}
	})
}

// B31 (a FIN does not cancel), B32 and B33: what the client does before the
// backend has answered arrives after it has.
func TestB32FINAndB33BytesBeforeTheConnect(t *testing.T) {
	hole := silent(t)
	eachMode(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.Connect = 200 * time.Millisecond
		early := enginetest.Payload(100<<10, 33)
		got := make(chan []byte, 1)
		r := newRig(t, opt, engine.Route{Timeouts: times}, hole, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			got <- p.Rest()
			p.Send([]byte("thanks"))
		}))
		c := r.Dial()
		c.Send(early)
		c.Fin()
		if g := <-got; !bytes.Equal(g, early) {
			t.Errorf("%d of %d bytes came, or others", len(g), len(early))
		}
		c.Expect([]byte("thanks"))
		c.ExpectEOF()
	})
}

// B34: once a byte was sent to a host, the client never gets another.
func TestB34NoOtherHostAfterTheFirstByte(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		var second atomic.Int64
		r := newRig(t, opt, engine.Route{},
			enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Expect([]byte("?")); p.Rst() }),
			enginetest.BackendServer(t, func(*enginetest.Peer) { second.Add(1) }))
		c := r.Dial()
		c.Send([]byte("?"))
		c.ExpectReset()
		r.Quiet()
		if second.Load() != 0 {
			t.Error("the second host was contacted")
		}
	})
}

func TestB35SessionsCountFromThePickOn(t *testing.T) {
	hole := silent(t)
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{})
		route := engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Table(sched.Policy{Scheduler: "leastc"}, hole, hole, hole, hole)}
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
		r.Addr = r.E.Listeners()[0].Addr
		for range 40 {
			r.Dial()
		}
		testkit.Eventually(t, "all are on their way", func() bool {
			n := int64(0)
			for _, h := range r.Hosts {
				n += h.Stats().Active
			}
			return n == 40
		})
		for _, h := range r.Hosts {
			if n := h.Stats().Active; n != 10 {
				t.Errorf("host %s has %d sessions, want 10", h.Name(), n)
			}
		}
	})
}

func TestB53ListenersComeAndGo(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		first := r.Addr
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		two := []string{"127.0.0.1:0", "127.0.0.1:0"}
		r.Apply(engine.Service{Name: "web", Listen: two, Route: r.Route})
		var second string
		for _, l := range r.E.Listeners() {
			if l.Addr != first {
				second = l.Addr
			}
		}
		d := enginetest.Dial(t, second)
		d.Send([]byte("y"))
		d.Expect([]byte("y"))
		// The first stays through a change of the route, both go with the plan.
		r.Apply(engine.Service{Name: "web", Listen: two, Route: &engine.Route{Table: r.Route.Table, Timeouts: enginetest.TestTimeouts}})
		enginetest.Dial(t, first)
		r.Apply()
		for _, addr := range []string{first, second} {
			if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s still answers: %v", addr, err)
				if err == nil {
					_ = c.Close()
				}
			}
		}
		// The sessions do not notice.
		for _, p := range []*enginetest.Peer{c, d} {
			p.Send([]byte("z"))
			p.Expect([]byte("z"))
		}
	})
}

// A plan that cannot be served changes nothing and says why.
func TestApplyRefusesWhatCannotBe(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		taken := enginetest.ListenLoopback(t)
		defer func() { _ = taken.Close() }()
		err := r.E.Apply(engine.Plan{Services: []engine.Service{
			{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route},
			{Name: "mail", Listen: []string{taken.Addr().String()}, Route: r.Route},
			{Name: "news", Listen: []string{"127.0.0.1:70000"}, Route: r.Route},
		}})
		if err == nil {
			t.Fatal("a port in use was accepted")
		}
		_, port, _ := net.SplitHostPort(taken.Addr().String())
		for _, want := range []string{"mail", port, "in use", "news", "70000"} {
			if !bytes.Contains([]byte(err.Error()), []byte(want)) {
				t.Errorf("the error does not name %q: %v", want, err)
			}
		}
		// The running plan is untouched.
		if l := r.E.Listeners(); len(l) != 1 || l[0].Addr != r.Addr {
			t.Errorf("listeners are %v", l)
		}
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		// An engine of our own would share the port silently.
		other, err := opt.start(opt.Options)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close() }()
		if err := other.Apply(engine.Plan{Services: []engine.Service{{Name: "web", Listen: []string{r.Addr}, Route: r.Route}}}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second engine on the same port: %v", err)
		}
	})
}

func TestB54Drain(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		t.Run("sessions finish", func(t *testing.T) {
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			drained := make(chan error, 1)
			go func() { drained <- r.E.Drain(enginetest.Within(t)) }()
			testkit.Eventually(t, "the listener refuses", func() bool {
				other, err := net.Dial("tcp", r.Addr)
				if err == nil {
					_ = other.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			c.Send([]byte("y"))
			c.Expect([]byte("y"))
			c.Fin()
			c.ExpectEOF()
			if err := <-drained; err != nil {
				t.Errorf("drain: %v", err)
			}
		})
		t.Run("the deadline closes the rest", func(t *testing.T) {
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := r.E.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("drain: %v", err)
			}
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the session goes on: %v", err)
			}
		})
	})
}

// A session that is closed with bytes on the way ends by a reset: after a clean
// end the reader would take what it has for all there was.
func TestB54LostBytesAreNoCleanEnd(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) { _, _ = p.Write(make([]byte, 32<<20)) }))
		c := r.Dial()
		r.Standstill()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.E.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("drain: %v", err)
		}
		c.ExpectReset()
	})
}

func TestB25HostThatIsDownGetsNoClient(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		var met atomic.Int64
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, answer("a")), enginetest.BackendServer(t, func(*enginetest.Peer) { met.Add(1) }), enginetest.BackendServer(t, answer("c")))
		r.Hosts[1].MarkDown()
		for range 50 {
			if got := r.Ask(); got != "a" && got != "c" {
				t.Fatalf("the answer is %q", got)
			}
		}
		if n := r.Hosts[1].Stats().Picks; n != 0 || met.Load() != 0 {
			t.Errorf("the host was picked %d times and met %d clients", n, met.Load())
		}
	})
}

func TestB57IdleTimeout(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.Idle = 800 * time.Millisecond
		r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.BackendServer(t, enginetest.Echo))
		// Bytes restart it. On a busy machine they may rightly come too late: then it is
		// tried again.
		last, sessions := startWatch(t), uint64(0) // the last byte: no later than the engine has moved it
		keepBusy := func() (c *enginetest.Peer, silent time.Duration, err error) {
			c = r.Dial()
			sessions++
			last.restart()
			tick := time.NewTicker(times.Idle / 4)
			defer tick.Stop()
			for range 6 {
				<-tick.C
				before := last.began
				last.restart()
				_ = c.SetDeadline(time.Now().Add(testkit.Patience))
				if _, err = c.Write([]byte("x")); err == nil {
					_, err = io.ReadFull(c, make([]byte, 1))
				}
				silent = max(silent, time.Since(before))
				if err != nil {
					break
				}
			}
			return c, silent, err
		}
		c, silent, err := keepBusy()
		for end := time.Now().Add(testkit.Patience); err != nil && silent > times.Idle && time.Now().Before(end); {
			c, silent, err = keepBusy()
		}
		if err != nil {
			t.Fatalf("the session ended after %v of silence: %v", silent, err)
		}
		c.ExpectEOF()
		last.onTime(times.Idle)
		r.Quiet()
		if s := r.Stats(); s.Ended["cD"] != sessions {
			t.Errorf("endings %v, want %d", s.Ended, sessions)
		}
	})
}

// At the session limit clients wait in the kernel's queue and are served as
// soon as there is room.
func TestSessionLimit(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.MaxSessions = 4
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		var first []*enginetest.Peer
		for range 4 {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			first = append(first, c)
		}
		waiting := r.Dial()
		waiting.Send([]byte("w"))
		_ = waiting.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the fifth session was served: %v", err)
		}
		if n := r.Stats().Active; n != 4 {
			t.Errorf("%d sessions, want 4", n)
		}
		_ = first[0].Close()
		waiting.Expect([]byte("w"))
	})
}

// Sessions of one service end with their counters right, whatever ends them,
// with many at once.
func TestManyShortSessions(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		reply := enginetest.Payload(18<<10, 5)
		serve := func(p *enginetest.Peer) { p.Expect([]byte("GET")); p.Send(reply) }
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, serve), enginetest.BackendServer(t, serve), enginetest.BackendServer(t, serve))
		const clients, each = 32, 10
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range each {
					c, err := net.Dial("tcp", r.Addr)
					if err != nil {
						t.Error(err)
						return
					}
					_, err = c.Write([]byte("GET"))
					got, err2 := io.ReadAll(c)
					if err != nil || err2 != nil || !bytes.Equal(got, reply) {
						t.Errorf("%d bytes: %v %v", len(got), err, err2)
					}
					_ = c.Close()
				}
			})
		}
		wg.Wait()
		r.Quiet()
		s := r.Stats()
		if s.Sessions != clients*each || s.Ended["--"] != clients*each || s.Out != clients*each*uint64(len(reply)) {
			t.Errorf("counted %+v", s)
		}
	})
}
