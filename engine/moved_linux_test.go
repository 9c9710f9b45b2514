package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/engine/internal/loops"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// heir starts an engine with the service of another, but with hosts of its own, as another
// process has them.
func heir(t *testing.T, opt setup, old *enginetest.Rig, change func(*engine.Route)) *enginetest.Rig {
	t.Helper()
	e, err := opt.start(opt.Options)
	if err != nil {
		t.Fatal(err)
	}
	route := *old.Route
	var backends []sched.Addr
	for _, h := range old.Hosts {
		backends = append(backends, h.Addr())
	}
	route.Table = nil
	r := enginetest.Start(t, e, route, backends...)
	if change != nil {
		changed := *r.Route
		change(&changed)
		r.Route = &changed
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route})
	}
	return r
}

// movedAll moves all sessions and commits.
func movedAll(t *testing.T, from, to *enginetest.Rig, want int) {
	t.Helper()
	m := moveAll(t, from.E, to.E)
	if m.Moved != want || m.Stay != 0 {
		t.Errorf("%d sessions moved and %d stayed, want %d and 0", m.Moved, m.Stay, want)
	}
	m.Commit()
}

// Streams flow both ways, byte for byte, while their session moves ten times. Nobody waits
// long: see TestB83NobodyWaitsLong.
func TestB83StreamsMoveTenTimes(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 8 << 20
			up, down := enginetest.Payload(size, 83), enginetest.Payload(size, 84)
			rigs := make([]*enginetest.Rig, 2)
			rigs[0] = newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				var both sync.WaitGroup
				both.Go(func() {
					p.Send(down)
					p.Fin()
				})
				p.Expect(up)
				p.ExpectEOF()
				both.Wait()
			}))
			rigs[1] = heir(t, opt, rigs[0], nil)
			c := rigs[0].Dial()
			// The client reads a part of the stream between two moves.
			parts, read := make(chan struct{}, 11), make(chan struct{}, 11)
			var both sync.WaitGroup
			through := make(chan struct{}) // the moves are
			both.Go(func() {
				c.Send(up[:size-1])
				<-through
				c.Send(up[size-1:])
				c.Fin()
			})
			both.Go(func() {
				all := make([]byte, 0, size)
				for i := range 11 {
					<-parts
					part := make([]byte, (i+1)*size/11-len(all))
					for n := 0; n < len(part); {
						_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
						k, err := c.Read(part[n:])
						if n += k; err != nil {
							t.Errorf("after %d bytes: %v", len(all)+n, err)
							part = part[:n]
						}
					}
					all = append(all, part...)
					read <- struct{}{}
				}
				if !bytes.Equal(all, down) {
					t.Error("other bytes came")
				}
				c.ExpectEOF()
			})
			for i := range 10 {
				parts <- struct{}{}
				<-read
				from, to := rigs[i%2], rigs[(i+1)%2]
				if list := from.E.Sessions(0, everything); len(list) != 1 {
					t.Fatalf("before move %d the engine has %d sessions", i, len(list))
				}
				movedAll(t, from, to, 1)
			}
			parts <- struct{}{}
			close(through)
			both.Wait()
			rigs[0].Quiet()
			s := rigs[0].Stats()
			if s.In != 0 && s.In+rigs[1].Stats().In != size {
				t.Errorf("%d and %d bytes are counted, want %d", s.In, rigs[1].Stats().In, size)
			}
			if s.Ended["--"] != 1 {
				t.Errorf("it ended with %v", s.Ended)
			}
		})
	}
}

func everything(string, *sched.Host) bool { return true }

// 5,000 idle sessions move in less than 2 s, and a client that talks meanwhile waits less than
// 100 ms. Here are as many as there are descriptors for.
func TestB83NobodyWaitsLong(t *testing.T) {
	testkit.Long(t)
	const idle, talking, most, pause = 500, 4, 2 * time.Second, 100 * time.Millisecond
	opt := onLoops(engine.Options{Loops: 2})
	old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	next := heir(t, opt, old, nil)
	var clients []*enginetest.Peer
	for range idle + talking {
		c := old.Dial()
		echoed(c)
		clients = append(clients, c)
	}
	from, to := old, next
	testkit.BestOf(t, 10, func() error {
		var longest atomic.Int64
		stop := make(chan struct{})
		var talk sync.WaitGroup
		for _, c := range clients[idle:] {
			talk.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					began := time.Now()
					echoed(c)
					for d, was := int64(time.Since(began)), longest.Load(); d > was && !longest.CompareAndSwap(was, d); was = longest.Load() {
					}
				}
			})
		}
		began := time.Now()
		movedAll(t, from, to, idle+talking)
		took := time.Since(began)
		close(stop)
		talk.Wait()
		from, to = to, from
		if longest := time.Duration(longest.Load()); took > most || longest > pause {
			return fmt.Errorf("the move took %v, and a client waited %v", took, longest)
		}
		t.Logf("the move took %v, and a client waited %v at most", took, time.Duration(longest.Load()))
		return nil
	})
	for _, c := range clients {
		_ = c.Close()
	}
}

// What a session is moves along: its host, whose count it is in, its client, its age and
// bytes. The old engine has nothing left of it, and the new one has one session, which it has
// not accepted.
func TestB83SessionsKeepWhatTheyAre(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo), enginetest.BackendServer(t, enginetest.Echo))
			next := heir(t, opt, old, nil)
			var clients []*enginetest.Peer
			for range 5 {
				c := old.Dial()
				echoed(c)
				clients = append(clients, c)
			}
			before := old.E.Sessions(0, everything)
			movedAll(t, old, next, 5)
			if s := old.Stats(); s.Active != 0 || s.Sessions != 5 {
				t.Errorf("the old engine: %+v", s)
			}
			if s := next.Stats(); s.Active != 5 || s.Sessions != 0 {
				t.Errorf("the new engine: %+v", s)
			}
			for i := range old.Hosts {
				if a, b := old.Hosts[i].Stats().Active, next.Hosts[i].Stats().Active; a != 0 || b < 2 {
					t.Errorf("host %d has %d sessions in the old engine and %d in the new one", i, a, b)
				}
			}
			after := next.E.Sessions(0, everything)
			for i := range before {
				b := before[i]
				at := slices.IndexFunc(after, func(a engine.SessionInfo) bool { return a.Client == b.Client })
				if at < 0 {
					t.Fatalf("the session of %v is missing", b.Client)
				}
				a := after[at]
				if a.Host.Name() != b.Host.Name() || a.Local != b.Local || a.In != b.In || a.Out != b.Out || a.Listener != b.Listener || a.Started.Sub(b.Started).Abs() > 500*time.Millisecond {
					t.Errorf("%+v became %+v", b, a)
				}
			}
			for _, c := range clients {
				echoed(c)
				c.Fin()
				c.ExpectEOF()
			}
			next.Quiet()
			if s := next.Stats(); s.Ended["--"] != 5 {
				t.Errorf("they ended with %v", s.Ended)
			}
			for i, h := range next.Hosts {
				if n := h.Stats().Active; n != 0 {
					t.Errorf("host %d: %d sessions are left", i, n)
				}
			}
		})
	}
}

// While the old process still has the sockets, ends are ends and resets are resets.
func TestB83EndsBeforeTheCommit(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			told := make(chan string, 8)
			old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				var word [4]byte
				_, _ = io.ReadFull(p, word[:])
				p.Send(word[:])
				if string(word[:]) == "hang" {
					_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
					_, err := p.Read(word[:])
					told <- map[bool]string{true: "end", false: "reset"}[err == io.EOF]
					return
				}
				p.Expect([]byte("go"))
				if string(word[:]) == "rst!" {
					p.Rst()
				}
			}))
			next := heir(t, opt, old, nil)
			dial := func(word string) *enginetest.Peer {
				c := old.Dial()
				c.Send([]byte(word))
				c.Expect([]byte(word))
				return c
			}
			fin, rst, end, kill := dial("fin!"), dial("rst!"), dial("hang"), dial("hang")
			m := moveAll(t, old.E, next.E)
			if m.Moved != 4 {
				t.Fatalf("%d moved", m.Moved)
			}
			fin.Send([]byte("go"))
			fin.ExpectEOF()
			_ = fin.Close()
			rst.Send([]byte("go"))
			rst.ExpectReset()
			end.Fin()
			end.ExpectEOF()
			if got := <-told; got != "end" {
				t.Errorf("the backend got a %s for an end", got)
			}
			kill.Rst()
			if got := <-told; got != "reset" {
				t.Errorf("the backend got an %s for a reset", got)
			}
			next.Quiet()
			m.Commit()
		})
	}
}

// An operator's kill and the idle timeout reset sessions that have moved, as they do others. The
// time that a session was silent before the move counts.
func TestB83TimeoutsGoOn(t *testing.T) {
	timeouts := enginetest.TestTimeouts
	timeouts.Idle = 2 * time.Second
	opt := onLoops(engine.Options{Loops: 2})
	old := newRig(t, opt, engine.Route{Timeouts: timeouts}, enginetest.BackendServer(t, enginetest.Echo))
	next := heir(t, opt, old, nil)
	c := old.Dial()
	echoed(c)
	silent := time.Now()
	for i := 0; time.Since(silent) < 1200*time.Millisecond; i++ {
		from, to := old, next
		if i%2 == 1 {
			from, to = to, from
		}
		moveAll(t, from.E, to.E).Commit()
		is := time.Since(silent)
		for _, s := range to.E.Sessions(0, everything) { // none, if the machine has stood still
			if s.Idle < is-10*time.Millisecond {
				t.Errorf("after %v of silence and %d moves the session is idle for %v", is, i+1, s.Idle)
			}
		}
		time.Sleep(100 * time.Millisecond) // the silence is what the test is about
	}
	c.ExpectGone()
	if took := time.Since(silent); took < 2*time.Second {
		t.Errorf("the session ended %v after its last byte, want at least 2 s", took)
	}
	testkit.Eventually(t, "the session has timed out", func() bool { return old.Stats().Ended["cD"]+next.Stats().Ended["cD"] == 1 })
}

// The sessions that have moved count for the limits of the new process.
func TestB83LimitsHold(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	for name, limits := range map[string]*engine.Limits{"service": {Sessions: 3}, "client": {PerClient: 3}} {
		t.Run(name, func(t *testing.T) {
			old := newRig(t, opt, engine.Route{Limits: limits}, enginetest.BackendServer(t, enginetest.Echo))
			next := heir(t, opt, old, nil)
			var clients []*enginetest.Peer
			for range 3 {
				c := old.Dial()
				echoed(c)
				clients = append(clients, c)
			}
			movedAll(t, old, next, 3)
			if conn, err := net.Dial("tcp4", next.Addr); err == nil { // else the reset has come already
				refused := &enginetest.Peer{T: t, Conn: conn}
				refused.ExpectEnd()
				_ = conn.Close()
			}
			one := old.Dial() // the old engine has room again
			echoed(one)
			movedAll(t, old, next, 1) // and what comes is let in above the limit
			echoed(one)
			_ = clients[0].Close()
			_ = clients[1].Close()
			testkit.Eventually(t, "two have ended", func() bool { return next.Stats().Active == 2 })
			echoed(next.Dial())
			_ = one.Close()
		})
	}
}

// Clients that wait for room move with their time and their place: those that came before
// others have their turn before them.
func TestB83QueuedClientsMove(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	timeouts := enginetest.TestTimeouts
	timeouts.Queue = time.Hour
	old := newRig(t, opt, engine.Route{Timeouts: timeouts}, greeter(t))
	next := heir(t, opt, old, nil)
	old.Hosts[0].SetMaxSessions(1)
	next.Hosts[0].SetMaxSessions(1)
	served := old.Dial()
	served.Expect([]byte("a"))
	early := dialQueued(t, old)
	movedAll(t, old, next, 2)
	if n := queue(next).Len(); n != 1 {
		t.Fatalf("%d clients wait in the new engine, want 1", n)
	}
	late := dialQueued(t, next)
	if n := next.Hosts[0].Stats().Active; n != 1 {
		t.Errorf("the host has %d sessions, want 1", n)
	}
	_ = served.Close()
	early.Expect([]byte("a"))
	_ = early.Close()
	late.Expect([]byte("a"))
	_ = late.Close()
	next.Quiet()
}

// A client whose connect is under way, and one whose PROXY header has come in part, move as
// clients. The host is asked by the new engine.
func TestB83ClientsWithoutAHostMove(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	t.Run("connecting", func(t *testing.T) {
		silent, err := sched.ParseAddr(testkit.Silent(t))
		if err != nil {
			t.Fatal(err)
		}
		backend := enginetest.BackendServer(t, enginetest.Echo)
		old := newRig(t, opt, engine.Route{}, silent)
		next := heir(t, opt, old, func(r *engine.Route) {})
		setTable(next, next.Table(sched.Policy{}, backend))
		c := old.Dial()
		c.Send([]byte("early bytes"))
		testkit.Eventually(t, "the client waits for its host", func() bool { return old.Hosts[0].Stats().Active == 1 })
		movedAll(t, old, next, 1)
		c.Expect([]byte("early bytes"))
		if n := old.Hosts[0].Stats(); n.Active != 0 || n.Failures != 0 {
			t.Errorf("the old host: %+v", n)
		}
		_ = c.Close()
		next.Quiet()
	})
	t.Run("PROXY header", func(t *testing.T) {
		old := proxied(t, opt, required, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		next := heir(t, opt, old, nil)
		header := "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n"
		c := old.Dial()
		c.Send([]byte(header[:20]))
		testkit.Eventually(t, "the client is there", func() bool { return old.Stats().Active == 1 })
		movedAll(t, old, next, 1)
		c.Send([]byte(header[20:] + "hello"))
		c.Expect([]byte("hello"))
		if got := clientOf(next); got != aClient {
			t.Errorf("the client is %v, want %v", got, aClient)
		}
		movedAll(t, next, old, 1)
		if got := clientOf(old); got != aClient {
			t.Errorf("after another move the client is %v, want %v", got, aClient)
		}
		echoed(c)
		_ = c.Close()
		old.Quiet()
	})
}

// UNIX sockets move like others, on either side.
func TestB83UnixSocketsMove(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ln, err := net.Listen("unix", dir+"/b")
			if err != nil {
				t.Fatal(err)
			}
			old := newRig(t, opt, engine.Route{}, enginetest.ServeOn(t, ln, enginetest.Echo))
			next := heir(t, opt, old, nil)
			old.Apply(engine.Service{Name: "web", Listen: []string{"unix:" + dir + "/l"}, Route: old.Route})
			c := enginetest.Dial(t, "unix:"+dir+"/l")
			payload := enginetest.Payload(4<<20, 61)
			var both sync.WaitGroup
			both.Go(func() {
				c.Send(payload)
				c.Fin()
			})
			both.Go(func() {
				c.Expect(payload)
				c.ExpectEOF()
			})
			for i := range 10 {
				from, to := old, next
				if i%2 == 1 {
					from, to = to, from
				}
				moveAll(t, from.E, to.E).Commit()
			}
			both.Wait()
			old.Quiet()
			next.Quiet()
		})
	}
}

// A client comes back to the host of its sessions, also after they have moved.
func TestB83StickyClientsMove(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo), enginetest.BackendServer(t, enginetest.Echo), enginetest.BackendServer(t, enginetest.Echo))
	next := heir(t, opt, old, nil)
	sticky := sched.NewSticky(100, time.Hour)
	var members []sched.Member
	for _, h := range next.Hosts {
		members = append(members, sched.Member{Host: h, Weight: 1})
	}
	table, err := sched.NewTable(sched.Policy{Scheduler: "roundr,sticky", Sticky: sticky}, members)
	if err != nil {
		t.Fatal(err)
	}
	setTable(next, table)
	echoed(old.Dial()) // takes the first turn
	c := old.Dial()
	echoed(c)
	home := next.Hosts[1]
	old.E.EndSessions(engine.ByOperator, func(s engine.Candidate) bool { return s.Host == old.Hosts[0] })
	movedAll(t, old, next, 1)
	if got := table.Home(sched.TCPAddr(netip.MustParseAddrPort("127.0.0.1:1"))); got != home {
		t.Errorf("the client's host is %v, want %s", got, home.Name())
	}
	for range 3 {
		echoed(next.Dial())
	}
	if n := home.Stats().Active; n != 4 {
		t.Errorf("the host has %d sessions, want 4", n)
	}
}

// The record of a session that has moved says when it was accepted, and what it was before.
func TestB83RecordsMove(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	opt.Recorder = engine.NewRecorder()
	opt.Recorder.Switch(true)
	began := time.Now()
	old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	c := old.Dial()
	echoed(c)
	dialed := time.Now()
	opt.Recorder = engine.NewRecorder()
	opt.Recorder.Switch(true)
	next := heir(t, opt, old, nil)
	movedAll(t, old, next, 1)
	echoed(c)
	client := c.LocalAddr().String()
	c.Fin()
	c.ExpectEOF()
	got := take(t, opt.Recorder)
	if got.Service != "web" || got.Host != next.Hosts[0] || got.Client.String() != client || got.In != 10 || got.Out != 10 || got.How != "--" {
		t.Errorf("%+v", got)
	}
	at := opt.Recorder.Wall(time.Now(), got.Accepted)
	if at.Before(began.Add(-500*time.Millisecond)) || at.After(dialed.Add(500*time.Millisecond)) {
		t.Errorf("accepted at %v, not between %v and %v", at, began, dialed)
	}
	if got.Picked < got.Accepted || got.Connected < got.Picked || got.Ended < got.Connected {
		t.Errorf("times %d, %d, %d, %d are not in order", got.Accepted, got.Picked, got.Connected, got.Ended)
	}
}

// Sessions that cannot move stay, and drain: one with TLS, one of the program, and a client
// that is being rejected.
func TestB84OthersStayAndDrain(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	backend := enginetest.BackendServer(t, enginetest.Echo)
	old := newRig(t, opt, engine.Route{}, backend)
	next := heir(t, opt, old, nil)
	by := *old.Route
	by.Goroutines = true
	old.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: old.Route},
		engine.Service{Name: "goroutines", Listen: []string{"127.0.0.1:0"}, Route: &by},
		engine.Service{Name: "none", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Timeouts: enginetest.TestTimeouts}})
	addr := func(service string) string {
		for _, ln := range old.E.Listeners() {
			if ln.Service == service {
				return ln.Addr
			}
		}
		return ""
	}
	moves, stays := enginetest.Dial(t, addr("web")), enginetest.Dial(t, addr("goroutines"))
	echoed(moves)
	echoed(stays)
	own, err := old.E.Dial(t.Context(), "web", netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	program := &enginetest.Peer{T: t, Conn: own}
	echoed(program)
	rejected := enginetest.Dial(t, addr("none"))
	rejected.ExpectEOF()
	m := moveAll(t, old.E, next.E)
	if m.Moved != 1 || m.Stay < 2 || m.Stay > 3 { // who is rejected is let go after a second
		t.Errorf("%d moved, %d stayed", m.Moved, m.Stay)
	}
	m.Commit()
	left := make(chan error, 1)
	go func() { left <- old.E.Leave(enginetest.Within(t)) }()
	echoed(moves)
	echoed(stays)
	echoed(program)
	_ = own.Close()
	_ = rejected.Close()
	select {
	case err := <-left:
		t.Errorf("the old engine did not wait for its last session: %v", err)
	default:
	}
	_ = stays.Close()
	if err := <-left; err != nil {
		t.Error(err)
	}
	echoed(moves)
}

var errDead = errors.New("the other process is gone")

// If the other process dies before or within a batch, the sessions go on as if nothing
// were.
func TestB83TakerDiesBeforeABatch(t *testing.T) {
	for name, opt := range loopModesToTest {
		t.Run(name, func(t *testing.T) {
			old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			var clients []*enginetest.Peer
			for range 70 { // some batches
				c := old.Dial()
				echoed(c)
				clients = append(clients, c)
			}
			for _, survives := range []int{0, 1} {
				var kept []*os.File // of the other process, while it lives
				m, err := old.E.MoveSessions(t.Context(), func(batch []engine.Moved) error {
					if survives == 0 {
						return errDead
					}
					survives--
					for _, m := range batch {
						for _, f := range m.Files {
							kept = append(kept, again(t, f))
						}
					}
					return nil
				})
				if !errors.Is(err, errDead) {
					t.Errorf("the move ended with %v", err)
				}
				if m.Moved+m.Stay != len(clients) {
					t.Errorf("%d moved, %d stayed of %d", m.Moved, m.Stay, len(clients))
				}
				for _, f := range kept {
					_ = f.Close()
				}
				if back, lost := m.TakeBack(); back != m.Moved || lost != 0 {
					t.Errorf("of %d that had moved %d came back and %d were lost", m.Moved, back, lost)
				}
				for _, c := range clients {
					echoed(c)
				}
			}
			if s := old.Stats(); s.Active != int64(len(clients)) || s.Sessions != uint64(len(clients)) || len(nonZero(s.Ended)) != 0 {
				t.Errorf("after all: %+v", s)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if m, err := old.E.MoveSessions(ctx, func([]engine.Moved) error { return nil }); !errors.Is(err, context.Canceled) || m.Moved != 0 {
				t.Errorf("with a context that has ended %d moved: %v", m.Moved, err)
			}
		})
	}
}

func nonZero(m map[string]uint64) map[string]uint64 {
	some := map[string]uint64{}
	for k, n := range m {
		if n > 0 {
			some[k] = n
		}
	}
	return some
}

// again is another file of a socket.
func again(t *testing.T, f *os.File) *os.File {
	t.Helper()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	other, err := conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// What cannot be adopted is reset on both sides, and the others of its batch are adopted.
func TestB83BadSessionsAreReset(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	for name, test := range map[string]struct {
		spoil func(*engine.Moved)
		want  string
	}{
		"no such service": {func(m *engine.Moved) { m.State = bytes.Replace(m.State, []byte("\x03web"), []byte("\x03app"), 1) }, "no such service"},
		"cut off":         {func(m *engine.Moved) { m.State = m.State[:len(m.State)-1] }, "cut off"},
		"another format":  {func(m *engine.Moved) { m.State[0] = 99 }, "format 99"},
		"no backend":      {func(m *engine.Moved) { _ = m.Files[1].Close(); m.Files[1] = nil }, "other sockets"},
		"no socket": {func(m *engine.Moved) {
			_ = m.Files[1].Close()
			m.Files[1], _ = os.Open("/dev/null")
		}, "not a stream socket"},
	} {
		t.Run(name, func(t *testing.T) {
			old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				_, _ = io.Copy(struct{ io.Writer }{p}, struct{ io.Reader }{p})
			}))
			next := heir(t, opt, old, nil)
			bad, good := old.Dial(), old.Dial()
			echoed(bad)
			echoed(good)
			m, err := old.E.MoveSessions(t.Context(), func(batch []engine.Moved) error {
				var copies []engine.Moved
				for _, one := range batch {
					copies = append(copies, engine.Moved{State: one.State, Files: [2]*os.File{again(t, one.Files[0]), again(t, one.Files[1])}})
				}
				spoiled := 0
				for i := range copies {
					if peerOf(t, copies[i].Files[0]) == bad.LocalAddr().String() {
						test.spoil(&copies[i])
						spoiled = i + 1
					}
				}
				for i, err := range next.E.Adopt(copies) {
					if (err != nil) != (i+1 == spoiled) || err != nil && !strings.Contains(err.Error(), test.want) {
						t.Errorf("session %d of %d: %v", i, len(copies), err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			bad.ExpectReset()
			echoed(good)
			m.Commit()
			echoed(good)
			if n := next.Stats().Active; n != 1 {
				t.Errorf("the new engine has %d sessions, want 1", n)
			}
		})
	}
}

// peerOf returns who is at the other end of a socket.
func peerOf(t *testing.T, f *os.File) string {
	t.Helper()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.RemoteAddr().String()
}

// A closed engine takes on nothing, and one that drains does not either.
func TestB83ClosedEnginesAdoptNothing(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	next := heir(t, opt, old, nil)
	c := old.Dial()
	echoed(c)
	if err := next.E.Drain(enginetest.Within(t)); err != nil {
		t.Fatal(err)
	}
	m, err := old.E.MoveSessions(t.Context(), func(batch []engine.Moved) error {
		copies := []engine.Moved{{State: batch[0].State, Files: [2]*os.File{again(t, batch[0].Files[0]), again(t, batch[0].Files[1])}}}
		if err := next.E.Adopt(copies)[0]; !errors.Is(err, engine.ErrClosed) {
			t.Errorf("an engine that has drained: %v", err)
		}
		return nil
	})
	if err != nil || m.Moved != 1 {
		t.Errorf("%d moved, %v", m.Moved, err)
	}
	c.ExpectReset()
	m.Commit()
	if err := old.E.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err := old.E.MoveSessions(t.Context(), nil); !errors.Is(err, engine.ErrClosed) || m == nil {
		t.Errorf("a closed engine: %v", err)
	}
}

// Whatever state comes with sockets, the engine takes it on as a session, or refuses it and
// closes the sockets.
func FuzzAdopt(f *testing.F) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	host, err := net.Listen("tcp4", "127.0.0.1:0") // who comes waits in its queue
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	addr, err := sched.ParseAddr(host.Addr().String())
	if err != nil {
		f.Fatal(err)
	}
	client := netip.MustParseAddrPort("192.0.2.1:1000")
	for _, p := range []core.Passport{
		{Service: "web", Stage: core.Connected, Host: core.PassHost{Name: "a", Addr: addr.String()}},
		{Service: "web", Stage: core.Connected, Host: core.PassHost{Name: "gone", Addr: "192.0.2.9:80"}, Ends: [2]core.PassEnd{{Flags: core.PassUnix}, {Flags: core.PassUnix}},
			Flows: [2]core.PassFlow{{Held: []byte("held")}, {Flags: core.PassDone}}},
		{Service: "web", Stage: core.Connected, Host: core.PassHost{Name: "a", Addr: addr.String()}, Try: &core.PassTry{From: client},
			Ends: [2]core.PassEnd{{Flags: core.PassReset}, {Flags: core.PassUrgent}}, Flows: [2]core.PassFlow{{Flags: core.PassHeader | core.PassSplicing, Window: 1}, {}}},
		{Service: "web", Stage: core.Looking, Try: &core.PassTry{From: client, Chosen: true}, Group: "main", Notes: &core.PassNotes{Client: client, Group: "x"}},
		{Service: "web", Stage: core.Unheard, Try: &core.PassTry{From: client}, Origin: &core.Origin{Client: client}},
		{Service: "web", Stage: core.Untold, Try: &core.PassTry{From: client, StartTLS: 5}},
	} {
		for kind := range uint8(4) {
			f.Add(p.Append(nil), kind)
		}
	}
	e, err := loops.New(engine.Options{Loops: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = e.Close() })
	table, err := sched.NewTable(sched.Policy{Group: "main"}, []sched.Member{{Host: sched.NewHost("a", addr), Weight: 1}})
	if err != nil {
		f.Fatal(err)
	}
	if err := e.Apply(engine.Plan{Services: []engine.Service{{Name: "web", Route: &engine.Route{Table: table, Timeouts: enginetest.TestTimeouts}}}}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, state []byte, kind uint8) {
		var m engine.Moved
		m.State = state
		for i := range m.Files {
			if i == 1 && kind&1 == 0 { // no backend
				break
			}
			near, far := pair(t, ln, kind&2 != 0)
			m.Files[i] = near
			defer func() { _ = far.Close() }()
		}
		_ = e.Adopt([]engine.Moved{m})
		e.EndSessions(engine.ByOperator, func(engine.Candidate) bool { return true })
		if n := e.Snapshot().Services["web"].Active; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

// pair returns two sockets that are connected.
func pair(t *testing.T, ln net.Listener, tcp bool) (near *os.File, far io.Closer) {
	t.Helper()
	if tcp {
		a, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		near, err := b.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		return near, a
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
}
