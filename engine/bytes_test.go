package engine_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestB01RoundTripsOfRandomSizes(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range uint64(300) {
			// Sizes of every order, up to some that no one buffer holds.
			p := enginetest.Payload(1+rng.IntN(1<<(1+rng.IntN(19))), i)
			var wg sync.WaitGroup
			wg.Go(func() { c.Send(p) })
			c.Expect(p)
			wg.Wait()
		}
		c.Fin()
		c.ExpectEOF()
		r.Quiet()
	})
}

func TestB02ServerSpeaksFirst(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		backend := enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Send([]byte("220 ready\r\n"))
			p.Expect([]byte("QUIT\r\n"))
		})
		r := newRig(t, opt, engine.Route{}, backend)
		greeted := func(addr string) time.Duration {
			start := time.Now()
			c := enginetest.Dial(t, addr)
			c.Expect([]byte("220 ready\r\n"))
			took := time.Since(start)
			c.Send([]byte("QUIT\r\n"))
			c.ExpectEOF()
			_ = c.Close()
			return took
		}
		testkit.BestOf(t, 5, func() error {
			var times, direct []time.Duration
			for range 50 { // in turn, so that a busy machine slows both
				times, direct = append(times, greeted(r.Addr)), append(direct, greeted(backend.String()))
			}
			// A greeting that waits for a delayed ACK or a timer takes 40 or 200 ms. There are
			// more who have to wake up than over a direct connection.
			if m, d := median(times), median(direct); m > 3*d+20*time.Millisecond {
				return fmt.Errorf("the first byte took %v in the median, and %v over a direct connection", m, d)
			}
			return nil
		})
	})
}

func median(d []time.Duration) time.Duration {
	s := append([]time.Duration(nil), d...)
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s[len(s)/2]
}

func TestB03ClientFINReachesBackendAndReplyFlows(t *testing.T) { play(t, clientEndsFirst...) }

var clientEndsFirst = []scene{{client: "send 7 | fin | expect 3M | eof", backend: "expect 7 | eof | send 3M"}}

func TestB04BackendFINReachesClientAndUploadFlows(t *testing.T) { play(t, backendEndsFirst...) }

var backendEndsFirst = []scene{{backend: "send 5 | fin | expect 3M | eof", client: "expect 5 | eof | send 3M"}}

func TestB05BackendSendsAndCloses(t *testing.T) { play(t, backendCloses()...) }

func backendCloses() (all []scene) {
	for _, size := range []string{"1", "18K", "64K", "5M"} {
		all = append(all, scene{name: size, backend: "send " + size, client: "expect " + size + " | eof"})
	}
	return all
}

func TestB06ClientSendsAndFINs(t *testing.T) { play(t, clientCloses()...) }

func clientCloses() (all []scene) {
	for _, size := range []string{"1", "18K", "64K", "5M"} {
		all = append(all,
			scene{name: size + " fin", client: "send " + size + " | fin | eof", backend: "expect " + size + " | eof"},
			scene{name: size + " close", client: "send " + size, backend: "expect " + size + " | eof"})
	}
	return all
}

// The reader stalls until the sender can send no more, then reads all.
func TestB07StalledClientGetsAllAndB08StalledBackend(t *testing.T) { play(t, stalledReaders...) }

var stalledReaders = []scene{
	{name: "client", backend: "send 50M | fin | eof", client: "stall | expect 50M | eof | fin"},
	{name: "backend", client: "send 50M | fin | eof", backend: "stall | expect 50M | eof | fin"},
	{name: "client, and the backend closes", backend: "send 50M", client: "stall | expect 50M | eof | fin"},
}

func TestB09StalledReaderHoldsUpNothingElse(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.Loops = 1 // both sessions on one loop
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			if one := make([]byte, 1); one[0] == 0 {
				_, _ = io.ReadFull(p, one)
				if one[0] == 'S' { // pour into a client that never reads
					_, _ = p.Write(make([]byte, 32<<20))
					return
				}
			}
			enginetest.Echo(p)
		}))
		stalled := r.Dial()
		stalled.Send([]byte("S"))
		testkit.Eventually(t, "the stalled stream has begun", func() bool { return r.Hosts[0].Stats().Out > 0 })
		c := r.Dial()
		c.Send([]byte("E"))
		for i := range uint64(200) {
			p := enginetest.Payload(1000, i)
			c.Send(p)
			c.Expect(p)
		}
	})
}

func TestB11LargePayloadsBothWaysAtOnce(t *testing.T) {
	const size = 24 << 20
	up, down := enginetest.Payload(size, 11), enginetest.Payload(size, 12)
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			var wg sync.WaitGroup
			wg.Go(func() { p.Send(down); p.Fin() })
			p.Expect(up)
			p.ExpectEOF()
			wg.Wait()
		}))
		c := r.Dial()
		var wg sync.WaitGroup
		wg.Go(func() { c.Send(up); c.Fin() })
		c.Expect(down)
		c.ExpectEOF()
		wg.Wait()
		r.Quiet()
		if s := r.Stats(); s.In != size || s.Out != size || s.Ended["--"] != 1 {
			t.Errorf("counted %d bytes in, %d out, endings %v", s.In, s.Out, s.Ended)
		}
		if h := r.Hosts[0].Stats(); h.In != size || h.Out != size || h.Picks != 1 {
			t.Errorf("the host has %+v", h)
		}
	})
}

func TestB13HalfClosedTimeout(t *testing.T) {
	const half = 300 * time.Millisecond
	times := enginetest.TestTimeouts
	times.HalfClosed = half
	hold := func(p *enginetest.Peer) { _, _ = io.Copy(io.Discard, p.Conn); <-p.T.Context().Done() }
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		t.Run("the backend stays silent", func(t *testing.T) {
			t.Parallel()
			// That the FIN does not wait for the timeout is B03, where there is none to wait for.
			r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				p.ExpectEOF()
				hold(p)
			}))
			c := r.Dial()
			w := startWatch(t)
			c.Fin()
			c.ExpectReset() // an end would look like an empty answer
			w.onTime(half)
			r.Quiet()
			if s := r.Stats(); s.Ended["sD"] != 1 {
				t.Errorf("endings %v", s.Ended)
			}
		})
		t.Run("each byte restarts it", func(t *testing.T) {
			t.Parallel()
			const bytes = 6
			longest := make(chan time.Duration, 1) // for which the backend was silent
			r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				var silent time.Duration
				p.ExpectEOF()
				sent := time.Now()
				tick := time.NewTicker(half / 3)
				defer tick.Stop()
				for range bytes {
					<-tick.C
					_, _ = p.Write([]byte("x"))
					silent, sent = max(silent, time.Since(sent)), time.Now()
				}
				longest <- silent
			}))
			// On a busy machine the bytes may rightly come too late: then it is tried again.
			for end := time.Now().Add(testkit.Patience); ; {
				c := r.Dial()
				began := time.Now()
				c.Fin()
				_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
				got, err := io.ReadAll(c)
				took, silent := time.Since(began), <-longest
				_ = c.Close()
				if len(got) == bytes && err == nil {
					return
				}
				if silent < half/2 && took < 3*half || time.Now().After(end) {
					t.Errorf("%d of %d bytes came, then %v; the backend was silent for %v", len(got), bytes, err, silent)
					return
				}
			}
		})
		t.Run("an operator ends it", func(t *testing.T) {
			t.Parallel()
			ended := make(chan struct{})
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				p.Send([]byte("half an ans"))
				p.ExpectEOF()
				close(ended)
				<-p.T.Context().Done()
			}))
			c := r.Dial()
			c.Fin()
			c.Expect([]byte("half an ans"))
			<-ended
			if n := r.E.EndSessions(engine.ByOperator, all); n != 1 {
				t.Errorf("%d sessions ended, want 1", n)
			}
			c.ExpectReset()
		})
		t.Run("the client stays silent", func(t *testing.T) {
			t.Parallel()
			gone := make(chan struct{})
			r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				w := startWatch(t)
				p.Fin()
				p.ExpectReset()
				w.onTime(half)
				close(gone)
			}))
			c := r.Dial()
			c.ExpectEOF()
			<-gone
			r.Quiet()
			if s := r.Stats(); s.Ended["cD"] != 1 {
				t.Errorf("endings %v", s.Ended)
			}
		})
	})
}

// watch measures a time-out.
type watch struct {
	t     *testing.T
	began time.Time
	clock *testkit.Clock
	ran   time.Duration // by the clock when it began
}

func startWatch(t *testing.T) *watch {
	clock := testkit.NewClock(t)
	return &watch{t, time.Now(), clock, clock.Now()}
}

// restart begins again.
func (w *watch) restart() { w.began, w.ran = time.Now(), w.clock.Now() }

// onTime checks a time-out: never early, and late by at most 10 % and 100 ms
// (behaviour 57), with room for a busy machine.
func (w *watch) onTime(want time.Duration) {
	w.t.Helper()
	took, ran := time.Since(w.began), w.clock.Since(w.ran)
	if took < want {
		w.t.Errorf("the time-out of %v came early, after %v", want, took)
	}
	// When a loop has stood still, its timers wait until what has come meanwhile is taken
	// in (behaviour 66).
	if took-ran > 500*time.Millisecond {
		ran -= time.Second
	}
	if late := ran - want; late > want/10+100*time.Millisecond+250*time.Millisecond {
		w.t.Errorf("the time-out of %v came after %v, in which the process ran for %v", want, took, ran)
	}
}

func TestB15OneByteWritesArriveAtOnce(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		backend := enginetest.BackendServer(t, enginetest.Echo)
		r := newRig(t, opt, engine.Route{}, backend)
		through, direct := r.Dial(), enginetest.Dial(t, backend.String())
		once := func(c *enginetest.Peer) time.Duration {
			start := time.Now()
			c.Send([]byte("a"))
			c.Expect([]byte("a"))
			return time.Since(start)
		}
		// Write, write, read: Nagle and delayed ACKs would meet here.
		twice := func(c *enginetest.Peer) time.Duration {
			start := time.Now()
			c.Send([]byte("a"))
			c.Send([]byte("b"))
			c.Expect([]byte("ab"))
			return time.Since(start)
		}
		testkit.BestOf(t, 5, func() error {
			for what, take := range map[string]func(*enginetest.Peer) time.Duration{"a round trip": once, "write, write, read": twice} {
				var times, beside []time.Duration
				for range 50 { // in turn, so that a busy machine slows both
					times, beside = append(times, take(through)), append(beside, take(direct))
				}
				// There are more who have to wake up than over a direct connection.
				if m, d := median(times), median(beside); m > 3*d+10*time.Millisecond {
					return fmt.Errorf("%s took %v in the median, and %v over a direct connection", what, m, d)
				}
			}
			return nil
		})
	})
}

// An urgent byte arrives in its place in the stream, and stops nothing, also
// where the stream is spliced by then, or ends right there.
func TestB16UrgentByte(t *testing.T) { play(t, urgentBytes...) }

var urgentBytes = []scene{
	{name: "small", client: "send 3 | urgent | send 4 | fin | expect 8 | eof", backend: "expect 8 | eof | send 3 | urgent | send 4"},
	{name: "sustained", client: "[send 2M, urgent, send 2M, fin] | expect 3M | expect 1 | eof",
		backend: "[send 1M, urgent, send 2M, fin] | expect 4M | expect 1 | eof"},
	{name: "alone", client: "urgent | expect 3 | fin | eof", backend: "expect 1 | send 2 | urgent | eof"},
	{name: "first", backend: "urgent | expect 1 | fin | eof", client: "expect 1 | urgent | eof"},
	{name: "in turns", client: "urgent | expect 1 | urgent | expect 1 | urgent | expect 1 | fin | eof",
		backend: "expect 1 | urgent | expect 1 | urgent | expect 1 | urgent | eof"},
	{name: "last", client: "send 300K | urgent | fin | eof", backend: "expect 300K | expect 1 | eof"},
	{name: "last of the backend", backend: "send 300K | urgent | fin | eof", client: "expect 300K | expect 1 | eof"},
	{name: "stalled", client: "send 1M | urgent | send 20M | fin | eof", backend: "stall | expect 21M | expect 1 | eof"},
	{name: "stalled client", backend: "send 1M | urgent | send 20M | fin | eof", client: "stall | expect 21M | expect 1 | eof"},
}

func TestB17DataBeforeResetIsDelivered(t *testing.T) { play(t, dataBeforeResets()...) }

func dataBeforeResets() (all []scene) {
	for _, size := range []string{"1", "1000", "40K"} {
		all = append(all,
			scene{name: "backend " + size, client: "send 1 | expect " + size + " | reset", backend: "expect 1 | send " + size + " | rst", ended: "SD"},
			scene{name: "client " + size, backend: "send 1 | expect " + size + " | gone", client: "expect 1 | send " + size + " | rst", ended: "CD"})
	}
	return all
}

func TestB18BackendResetReachesClient(t *testing.T) { play(t, backendResets...) }

var backendResets = []scene{
	{name: "at once", client: "send 1 | reset", backend: "expect 1 | rst", ended: "SD"},
	{name: "behind what a stalled client has not read", client: "send 1 | stall | expect 60K | reset",
		backend: "expect 1 | send 60K | rst", ended: "SD"},
	{name: "after a FIN of the client", client: "send 1 | fin | reset", backend: "expect 1 | eof | rst", ended: "SD"},
}

func TestB19ClientResetClosesBackend(t *testing.T) { play(t, clientResets...) }

var clientResets = []scene{
	{name: "idle", client: "send 1 | wait ready | rst", backend: "expect 1 | tell ready | gone", ended: "CD"},
	{name: "while the backend pours", client: "expect 1M | rst | tell done", backend: "try 1M | wait done | gone", ended: "CD"},
}

func TestB14AllIsBackWhereItWas(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		big := enginetest.Payload(512<<10, 14) // more than one read, so that it goes through a pipe
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Send(big)
			enginetest.Echo(p)
		}))
		before := testkit.OpenFDs()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 10 {
					c := r.Dial()
					c.Expect(big)
					c.Send([]byte("x"))
					c.Fin()
					c.Expect([]byte("x"))
					c.ExpectEOF()
					_ = c.Close()
				}
			})
		}
		wg.Wait()
		r.Quiet()
		for _, l := range r.E.Snapshot().Loops {
			if l.Active != 0 {
				t.Errorf("a loop has %d sessions", l.Active)
			}
		}
		testkit.Eventually(t, "descriptors are back", func() bool {
			return testkit.OpenFDs()-r.PipeFDs() <= before
		})
		if got := r.Stats().Sessions; got != 80 {
			t.Errorf("%d sessions counted, want 80", got)
		}
	})
}

func TestB61AddressFamilies(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		dir := t.TempDir()
		backends := map[string]sched.Addr{
			"v4":   enginetest.BackendServer(t, enginetest.Echo),
			"v6":   enginetest.ServeOn(t, enginetest.ListenOn(t, "tcp6", "[::1]:0"), enginetest.Echo),
			"unix": enginetest.ServeOn(t, enginetest.ListenOn(t, "unix", dir+"/backend.sock"), enginetest.Echo),
		}
		listens := map[string]string{
			"v4": "127.0.0.1:0", "v6": "[::1]:0", "any": "*:0", "any4": "0.0.0.0:0", "unix": "unix:" + dir + "/front.sock",
		}
		for from, listen := range listens {
			for to, addr := range backends {
				t.Run(from+" to "+to, func(t *testing.T) {
					r := newRig(t, opt, engine.Route{}, addr)
					r.Apply(engine.Service{Name: "web", Listen: []string{listen}, Route: r.Route})
					bound := r.E.Listeners()[0].Addr
					for _, target := range enginetest.Reachable(from, bound) {
						c := enginetest.Dial(t, target)
						p := enginetest.Payload(200<<10, 61)
						var wg sync.WaitGroup
						wg.Go(func() { c.Send(p); c.Fin() })
						c.Expect(p)
						c.ExpectEOF()
						wg.Wait()
						_ = c.Close()
					}
					r.Quiet()
				})
			}
		}
	})
}
