package engine_test

import (
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// A session that moves to another process leaves its copy, which is not whole.
func TestB106MirrorOfASessionThatMoves(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			audience := newAudience(t, enginetest.ListenLoopback(t), nil)
			m, share := mirrorTo(audience.addr)
			rigs := make([]*enginetest.Rig, 2)
			rigs[0] = newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			host := rigs[0].Hosts[0]
			table, err := sched.NewTable(sched.Policy{Mirrors: []sched.MirrorShare{share}}, []sched.Member{{Host: host, Weight: 1}})
			if err != nil {
				t.Fatal(err)
			}
			route := *rigs[0].Route
			route.Table = table
			rigs[0].Route = &route
			rigs[0].Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: rigs[0].Route})
			rigs[1] = heir(t, opt, rigs[0], nil)
			c := rigs[0].Dial()
			c.Send([]byte("question"))
			c.Expect([]byte("question"))
			audience.hears(len("question"))
			movedAll(t, rigs[0], rigs[1], 1)
			if got := audience.ended(1)[0]; got.end != "reset" || string(got.got) != "question" {
				t.Errorf("the mirror has got %q and then %s", got.got, got.end)
			}
			if s := quiet(t, m); s.Lost["moved"] != 1 || s.LostAll() != 1 {
				t.Errorf("counted %+v", s)
			}
			c.Send([]byte("more"))
			c.Expect([]byte("more"))
			c.Fin()
			c.ExpectEOF()
		})
	}
}

// Many copies, of streams and of small messages at once, leave no descriptor behind.
func TestB106MirrorsLeakNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		audience := newAudience(t, enginetest.ListenLoopback(t), []byte("nobody hears this"))
		m, share := mirrorTo(audience.addr)
		gone, goneShare := mirrorTo(enginetest.BackendServer(t, (*enginetest.Peer).Rst))
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share, goneShare}, enginetest.BackendServer(t, enginetest.Echo))})
		before := testkit.OpenFDs()
		big := enginetest.Payload(512<<10, 14)
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() {
				for i := range 8 {
					c := r.Dial()
					data := big
					if (n+i)%2 == 0 {
						data = big[:100]
					}
					var both sync.WaitGroup
					both.Go(func() {
						c.Send(data)
						c.Fin()
					})
					c.Expect(data)
					c.ExpectEOF()
					both.Wait()
					_ = c.Close()
				}
			})
		}
		wg.Wait()
		r.Quiet()
		if s := quiet(t, m); s.Sessions != 48 {
			t.Errorf("counted %+v", s)
		}
		quiet(t, gone)
		testkit.Eventually(t, "descriptors are back", func() bool { return testkit.OpenFDs()-r.PipeFDs() <= before })
	})
}

// A mirror that accepts and hangs does not get its copies, though the kernel has taken them.
func TestB106MirrorThatHangs(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, test := range []struct {
			name  string
			goOn  bool // the session
			reset bool // how it ends
		}{
			{"end", false, false}, {"reset", false, true}, {"the session goes on", true, false},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				m, share := mirrorTo(hung(t))
				r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
				c := r.Dial()
				request := enginetest.Payload(32<<10, 7)
				sent := uint64(0)
				ask := func() {
					c.Send(request)
					c.Expect(request)
					sent += uint64(len(request))
				}
				for ask(); test.goOn && m.Stats().Active > 0; time.Sleep(time.Millisecond) {
					if m.Stats().Bytes == sent { // what waits is never too much
						ask()
					}
				}
				switch {
				case test.goOn:
				case test.reset:
					c.Rst()
				default:
					c.Fin()
					c.ExpectEOF()
				}
				if s := quiet(t, m); s.Lost["behind"] != 1 || s.LostAll() != 1 {
					t.Errorf("lost are %v, want one that was behind", s.Lost)
				}
				if test.goOn {
					c.Send([]byte("x"))
					c.Expect([]byte("x"))
					c.Fin()
					c.ExpectEOF()
				}
				r.Quiet()
			})
		}
	})
}

// hung listens, with little room, and never reads.
func hung(t *testing.T) sched.Addr {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
		return err
	}}
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	addr, err := sched.ParseAddr(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
