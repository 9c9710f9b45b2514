package engine

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

	"github.com/txlb/txlb/sched"
)

// answer is a backend that says its name to who asks.
func answer(name string) func(*peer) {
	return func(p *peer) {
		p.expect([]byte("?"))
		p.send([]byte(name))
	}
}

// ask asks and returns the answer.
func (r *rig) ask() string {
	r.t.Helper()
	c := r.dial()
	defer func() { _ = c.Close() }()
	c.send([]byte("?"))
	return string(c.rest())
}

func TestB22RefusedBackendIsPassedOver(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, deadAddr(t), deadAddr(t), backendServer(t, answer("c")))
		for range 5 {
			if got := r.ask(); got != "c" {
				t.Fatalf("the answer is %q", got)
			}
		}
		r.quiet()
		s := r.stats()
		if s.ConnectFailures["refused"] == 0 || s.Redispatches == 0 || s.Ended["--"] != 5 {
			t.Errorf("counted %+v", s)
		}
		for i, want := range []bool{false, false, true} {
			if r.hosts[i].Up() != want {
				t.Errorf("host %d: up is %v", i, !want)
			}
		}
		// Both transitions were reported, once each.
		for range 2 {
			f := <-r.e.Failures()
			if !errors.Is(f.Err, syscall.ECONNREFUSED) {
				t.Errorf("reported %v", f.Err)
			}
		}
		select {
		case f := <-r.e.Failures():
			t.Errorf("reported once more: %v", f.Err)
		default:
		}
	})
}

func TestB23EachHostAtMostOnceAndTheCapIsExact(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		for tries := range 4 {
			var dead []sched.Addr
			for range 7 {
				dead = append(dead, deadAddr(t))
			}
			r := newRig(t, opt, Route{Tries: tries}, dead...)
			c := r.dial()
			c.send([]byte("?"))
			c.expectEOF()
			_ = c.Close()
			r.quiet()
			want := uint64(tries)
			if tries == 0 {
				want = 7
			}
			var picks uint64
			for _, h := range r.hosts {
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
	eachMode(t, func(t *testing.T, opt Options) {
		const n = 2000
		opt.Loops = 1
		_, port, err := net.SplitHostPort(listenLoopback(t).Addr().String())
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
		r := newRig(t, opt, Route{}, dead...)
		hosts := r.hosts
		well := &Route{Table: r.table(sched.Policy{}, backendServer(t, echo)), Timeouts: testTimeouts}
		r.apply(Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.route}, Service{Name: "well", Listen: []string{"127.0.0.1:0"}, Route: well})
		var ping *peer
		for _, l := range r.e.Listeners() {
			if l.Service == "well" {
				ping = dial(t, l.Addr)
			}
		}
		stop, pings := make(chan struct{}), make(chan time.Duration)
		go func() {
			worst := time.Duration(0)
			for {
				began := time.Now()
				ping.send([]byte("."))
				ping.expect([]byte("."))
				worst = max(worst, time.Since(began))
				select {
				case <-stop:
					pings <- worst
					return
				default:
				}
			}
		}()
		for client, want := range []uint64{n, n + 3} {
			c := r.dial()
			c.expectEOF()
			_ = c.Close()
			r.quiet()
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
	eachMode(t, func(t *testing.T, opt Options) {
		for name, test := range map[string]struct {
			tries  int
			hosts  []sched.Addr
			reason string
		}{
			"fail-over off": {1, []sched.Addr{deadAddr(t), backendServer(t, echo)}, "no_host"},
			"all refuse":    {0, []sched.Addr{deadAddr(t), deadAddr(t)}, "no_host"},
			"no group":      {0, nil, "no_group"},
		} {
			r := newRig(t, opt, Route{Tries: test.tries}, test.hosts...)
			start := time.Now()
			c := r.dial()
			c.send([]byte("a request"))
			c.expectEOF()
			if took := time.Since(start); took > time.Second {
				t.Errorf("%s: closed after %v", name, took)
			}
			_ = c.Close()
			r.quiet()
			s := r.stats()
			told := map[string]uint64{}
			r.e.Refused(func(service, reason string, clients uint64) { told[service+" "+reason] = clients })
			if s.Refused[test.reason] != 1 || s.Ended["SC"] != 1 || len(told) != 1 || told["web "+test.reason] != 1 {
				t.Errorf("%s: counted %v, %v, and told %v", name, s.Refused, s.Ended, told)
			}
		}
	})
}

func TestB28AllDownIsALastResort(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, answer("a")), backendServer(t, answer("b")))
		for _, h := range r.hosts {
			h.MarkDown()
		}
		if got := r.ask(); got != "a" && got != "b" {
			t.Errorf("the answer is %q", got)
		}
		for _, h := range r.hosts {
			if h.Up() {
				t.Errorf("host %s is shown as up", h.Name())
			}
		}
		refusing := Route{Timeouts: testTimeouts, Table: r.table(sched.Policy{Scheduler: "roundr", Refuse: true}, r.hosts[0].Addr())}
		r.hosts[2].MarkDown()
		r.apply(Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &refusing})
		c := r.dial()
		c.expectEOF()
	})
}

// silent is an address that answers no SYN: a listener whose queue is full.
func silent(t *testing.T) sched.Addr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}
	for range 8 { // one is queued, the others wait for an answer
		d := net.Dialer{Timeout: 100 * time.Millisecond}
		c, err := d.Dial("tcp", addr.String())
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return addrOf(t, &addr)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("this system has no full accept queue that stays silent")
	return sched.Addr{}
}

func TestB27ConnectTimeout(t *testing.T) {
	hole := silent(t)
	eachModeAtOnce(t, func(t *testing.T, opt Options) {
		times := testTimeouts
		times.Connect = 300 * time.Millisecond
		r := newRig(t, opt, Route{Timeouts: times}, hole, backendServer(t, answer("b")))
		start := time.Now()
		if got := r.ask(); got != "b" {
			t.Fatalf("the answer is %q", got)
		}
		onTime(t, time.Since(start), times.Connect)
		if r.hosts[0].Up() || r.stats().ConnectFailures["timeout"] != 1 {
			t.Errorf("counted %+v", r.stats())
		}
		// The total bounds the connects together.
		times.Connect, times.Total = time.Hour, 300*time.Millisecond
		late := Route{Timeouts: times, Table: r.table(sched.Policy{Scheduler: "roundr"}, hole)}
		r.apply(Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &late})
		start = time.Now()
		c := r.dial()
		c.expectEOF()
		onTime(t, time.Since(start), times.Total)
		_ = c.Close()
		r.quiet()
		if s := r.stats(); s.Refused["timeout"]+s.Refused["no_host"] != 1 {
			t.Errorf("counted %v", s.Refused)
		}
	})
}

// B29: a connect that fails at once, without an event.
func TestB29ImmediateFailure(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		gone := sched.UnixAddr(t.TempDir() + "/nobody.sock")
		r := newRig(t, opt, Route{}, gone, gone, gone, backendServer(t, answer("d")))
		if got := r.ask(); got != "d" {
			t.Errorf("the answer is %q", got)
		}
	})
}

func TestB31ClientResetCancelsConnect(t *testing.T) {
	hole := silent(t)
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, hole)
		c := r.dial()
		eventually(t, "the connect is under way", func() bool { return r.hosts[0].Stats().Active == 1 })
		c.rst()
		r.quiet()
		if s := r.stats(); s.Ended["CC"] != 1 || !r.hosts[0].Up() {
			t.Errorf("endings %v, host up %v", s.Ended, r.hosts[0].Up())
		}
	})
}

// B31 (a FIN does not cancel), B32 and B33: what the client does before the
// backend has answered arrives after it has.
func TestB32FINAndB33BytesBeforeTheConnect(t *testing.T) {
	hole := silent(t)
	eachMode(t, func(t *testing.T, opt Options) {
		times := testTimeouts
		times.Connect = 200 * time.Millisecond
		early := payload(100<<10, 33)
		got := make(chan []byte, 1)
		r := newRig(t, opt, Route{Timeouts: times}, hole, backendServer(t, func(p *peer) {
			got <- p.rest()
			p.send([]byte("thanks"))
		}))
		c := r.dial()
		c.send(early)
		c.fin()
		if g := <-got; !bytes.Equal(g, early) {
			t.Errorf("%d of %d bytes came, or others", len(g), len(early))
		}
		c.expect([]byte("thanks"))
		c.expectEOF()
	})
}

// B34: once a byte was sent to a host, the client never gets another.
func TestB34NoOtherHostAfterTheFirstByte(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		var second atomic.Int64
		r := newRig(t, opt, Route{},
			backendServer(t, func(p *peer) { p.expect([]byte("?")); p.rst() }),
			backendServer(t, func(*peer) { second.Add(1) }))
		c := r.dial()
		c.send([]byte("?"))
		c.expectReset()
		r.quiet()
		if second.Load() != 0 {
			t.Error("the second host was contacted")
		}
	})
}

func TestB35SessionsCountFromThePickOn(t *testing.T) {
	hole := silent(t)
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{})
		route := Route{Timeouts: testTimeouts, Table: r.table(sched.Policy{Scheduler: "leastc"}, hole, hole, hole, hole)}
		r.apply(Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
		r.addr = r.e.Listeners()[0].Addr
		for range 40 {
			r.dial()
		}
		eventually(t, "all are on their way", func() bool {
			n := int64(0)
			for _, h := range r.hosts {
				n += h.Stats().Active
			}
			return n == 40
		})
		for _, h := range r.hosts {
			if n := h.Stats().Active; n != 10 {
				t.Errorf("host %s has %d sessions, want 10", h.Name(), n)
			}
		}
	})
}

func TestB53ListenersComeAndGo(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		first := r.addr
		c := r.dial()
		c.send([]byte("x"))
		c.expect([]byte("x"))
		two := []string{"127.0.0.1:0", "127.0.0.1:0"}
		r.apply(Service{Name: "web", Listen: two, Route: r.route})
		var second string
		for _, l := range r.e.Listeners() {
			if l.Addr != first {
				second = l.Addr
			}
		}
		d := dial(t, second)
		d.send([]byte("y"))
		d.expect([]byte("y"))
		// The first stays through a change of the route, both go with the plan.
		r.apply(Service{Name: "web", Listen: two, Route: &Route{Table: r.route.Table, Timeouts: testTimeouts}})
		dial(t, first)
		r.apply()
		for _, addr := range []string{first, second} {
			if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s still answers: %v", addr, err)
				if err == nil {
					_ = c.Close()
				}
			}
		}
		// The sessions do not notice.
		for _, p := range []*peer{c, d} {
			p.send([]byte("z"))
			p.expect([]byte("z"))
		}
	})
}

// A plan that cannot be served changes nothing and says why.
func TestApplyRefusesWhatCannotBe(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		taken := listenLoopback(t)
		defer func() { _ = taken.Close() }()
		err := r.e.Apply(Plan{Services: []Service{
			{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.route},
			{Name: "mail", Listen: []string{taken.Addr().String()}, Route: r.route},
			{Name: "news", Listen: []string{"127.0.0.1:70000"}, Route: r.route},
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
		if l := r.e.Listeners(); len(l) != 1 || l[0].Addr != r.addr {
			t.Errorf("listeners are %v", l)
		}
		c := r.dial()
		c.send([]byte("x"))
		c.expect([]byte("x"))
		// An engine of our own would share the port silently.
		other, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = other.Close() }()
		if err := other.Apply(Plan{Services: []Service{{Name: "web", Listen: []string{r.addr}, Route: r.route}}}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second engine on the same port: %v", err)
		}
	})
}

func TestB54Drain(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		t.Run("sessions finish", func(t *testing.T) {
			r := newRig(t, opt, Route{}, backendServer(t, echo))
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
			drained := make(chan error, 1)
			go func() { drained <- r.e.Drain(within(t)) }()
			eventually(t, "the listener refuses", func() bool {
				other, err := net.Dial("tcp", r.addr)
				if err == nil {
					_ = other.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			c.send([]byte("y"))
			c.expect([]byte("y"))
			c.fin()
			c.expectEOF()
			if err := <-drained; err != nil {
				t.Errorf("drain: %v", err)
			}
		})
		t.Run("the deadline closes the rest", func(t *testing.T) {
			r := newRig(t, opt, Route{}, backendServer(t, echo))
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := r.e.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("drain: %v", err)
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the session goes on: %v", err)
			}
		})
	})
}

// A session that is closed with bytes on the way ends by a reset: after a clean
// end the reader would take what it has for all there was.
func TestB54LostBytesAreNoCleanEnd(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt Options) {
		r := newRig(t, opt, Route{}, backendServer(t, func(p *peer) { _, _ = p.Write(make([]byte, 32<<20)) }))
		c := r.dial()
		r.standstill()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.e.Drain(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("drain: %v", err)
		}
		c.expectReset()
	})
}

func TestB25HostThatIsDownGetsNoClient(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		var met atomic.Int64
		r := newRig(t, opt, Route{}, backendServer(t, answer("a")), backendServer(t, func(*peer) { met.Add(1) }), backendServer(t, answer("c")))
		r.hosts[1].MarkDown()
		for range 50 {
			if got := r.ask(); got != "a" && got != "c" {
				t.Fatalf("the answer is %q", got)
			}
		}
		if n := r.hosts[1].Stats().Picks; n != 0 || met.Load() != 0 {
			t.Errorf("the host was picked %d times and met %d clients", n, met.Load())
		}
	})
}

func TestB57IdleTimeout(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt Options) {
		times := testTimeouts
		times.Idle = 800 * time.Millisecond
		r := newRig(t, opt, Route{Timeouts: times}, backendServer(t, echo))
		c := r.dial()
		// Bytes restart it. A busy machine may be late with them.
		tick := time.NewTicker(times.Idle / 4)
		defer tick.Stop()
		var sent time.Time // the last byte: no later than the engine has moved it
		for range 6 {
			<-tick.C
			sent = time.Now()
			c.send([]byte("x"))
			c.expect([]byte("x"))
		}
		c.expectEOF()
		onTime(t, time.Since(sent), times.Idle)
		r.quiet()
		if s := r.stats(); s.Ended["cD"] != 1 {
			t.Errorf("endings %v", s.Ended)
		}
	})
}

// At the session limit clients wait in the kernel's queue and are served as
// soon as there is room.
func TestSessionLimit(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt Options) {
		opt.MaxSessions = 4
		r := newRig(t, opt, Route{}, backendServer(t, echo))
		var first []*peer
		for range 4 {
			c := r.dial()
			c.send([]byte("x"))
			c.expect([]byte("x"))
			first = append(first, c)
		}
		waiting := r.dial()
		waiting.send([]byte("w"))
		_ = waiting.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the fifth session was served: %v", err)
		}
		if n := r.stats().Active; n != 4 {
			t.Errorf("%d sessions, want 4", n)
		}
		_ = first[0].Close()
		waiting.expect([]byte("w"))
	})
}

// Sessions of one service end with their counters right, whatever ends them,
// with many at once.
func TestManyShortSessions(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		reply := payload(18<<10, 5)
		serve := func(p *peer) { p.expect([]byte("GET")); p.send(reply) }
		r := newRig(t, opt, Route{}, backendServer(t, serve), backendServer(t, serve), backendServer(t, serve))
		const clients, each = 32, 40
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for range each {
					c, err := net.Dial("tcp", r.addr)
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
		r.quiet()
		s := r.stats()
		if s.Sessions != clients*each || s.Ended["--"] != clients*each || s.Out != clients*each*uint64(len(reply)) {
			t.Errorf("counted %+v", s)
		}
	})
}
