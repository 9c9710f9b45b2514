package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// audience is a mirror that notes what it gets.
type audience struct {
	t    *testing.T
	addr sched.Addr
	say  []byte // its answer to the first bytes of each connection

	mu    sync.Mutex
	heard []*hearing
}

// hearing is one connection to an audience.
type hearing struct {
	got []byte
	end string // "eof", "reset"; "": it goes on
}

func newAudience(t *testing.T, ln net.Listener, say []byte) *audience {
	a := &audience{t: t, say: say}
	a.addr = enginetest.ServeOn(t, ln, a.listen)
	return a
}

func (a *audience) listen(p *enginetest.Peer) {
	h := new(hearing)
	a.mu.Lock()
	a.heard = append(a.heard, h)
	a.mu.Unlock()
	var answer sync.WaitGroup
	defer answer.Wait()
	buf := make([]byte, 64<<10)
	for {
		n, err := p.Read(buf)
		a.mu.Lock()
		if len(h.got) == 0 && n > 0 && len(a.say) > 0 {
			answer.Go(func() { _, _ = p.Write(a.say) })
		}
		h.got = append(h.got, buf[:n]...)
		switch {
		case err == io.EOF:
			h.end = "eof"
		case err != nil:
			h.end = "reset"
		}
		a.mu.Unlock()
		if err != nil {
			_ = p.SetDeadline(time.Unix(1, 0)) // the answer need not come to its end
			return
		}
	}
}

// connections returns what all connections have got so far.
func (a *audience) connections() (list []hearing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.heard {
		list = append(list, hearing{h.got[:len(h.got):len(h.got)], h.end})
	}
	return list
}

// hears waits until the only connection has got so many bytes.
func (a *audience) hears(n int) {
	a.t.Helper()
	testkit.Eventually(a.t, fmt.Sprintf("the mirror has %d bytes", n), func() bool {
		list := a.connections()
		return len(list) == 1 && len(list[0].got) >= n
	})
}

// ended waits until so many connections are over, and returns them.
func (a *audience) ended(count int) (list []hearing) {
	a.t.Helper()
	testkit.Eventually(a.t, fmt.Sprintf("%d copies are over", count), func() bool {
		list = a.connections()
		over := 0
		for _, h := range list {
			if h.end != "" {
				over++
			}
		}
		return len(list) == count && over == count
	})
	return list
}

// mirrorTo makes a share of all sessions.
func mirrorTo(a sched.Addr) (*sched.Mirror, sched.MirrorShare) {
	m := sched.NewMirror(a.String())
	m.SetAddr(a)
	return m, sched.MirrorShare{Mirror: m, Percent: 100}
}

// mirrored makes a table with mirrors.
func mirrored(t *testing.T, mirrors []sched.MirrorShare, backends ...sched.Addr) *sched.Table {
	t.Helper()
	var members []sched.Member
	group := new(sched.Times)
	for i, a := range backends {
		members = append(members, sched.Member{Host: sched.NewHostIn(group, fmt.Sprint("h", i), a), Weight: 1})
	}
	table, err := sched.NewTable(sched.Policy{Scheduler: "roundr", Mirrors: mirrors}, members)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// quiet waits until no copy is under way, and returns what was counted.
func quiet(t *testing.T, m *sched.Mirror) sched.MirrorStats {
	t.Helper()
	testkit.Eventually(t, "the copies are over", func() bool { return m.Stats().Active == 0 })
	return m.Stats()
}

// whole checks that all copies were.
func whole(t *testing.T, s sched.MirrorStats, sessions, size int) {
	t.Helper()
	if s.Sessions != uint64(sessions) || s.Bytes != uint64(size) || s.LostAll() != 0 {
		t.Errorf("the mirror has counted %+v, want %d sessions with %d bytes, none lost", s, sessions, size)
	}
}

// piece is what a client sends at once that waits for its mirror: never more than a mirror may
// be behind, however long it stands still.
const piece = 128 << 10

// The mirror gets what the client sends, byte for byte, and its end; the client gets what its
// host answers, and nothing of the mirror's answer.
func TestB106MirrorGetsTheClientsBytes(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, size := range []int{1, 1000, piece, 16 * piece} {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				audience := newAudience(t, enginetest.ListenLoopback(t), []byte("nobody hears this"))
				m, share := mirrorTo(audience.addr)
				r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
				c := r.Dial()
				data := enginetest.Payload(size, uint64(size))
				for sent := 0; sent < size; sent += piece {
					part := data[sent:min(size, sent+piece)]
					var both sync.WaitGroup
					both.Go(func() { c.Send(part) })
					c.Expect(part)
					both.Wait()
					audience.hears(sent + len(part))
				}
				c.Fin()
				c.ExpectEOF()
				got := audience.ended(1)[0]
				if !bytes.Equal(got.got, data) || got.end != "eof" {
					t.Errorf("the mirror has %d bytes, or others, and then %s", len(got.got), got.end)
				}
				r.Quiet()
				whole(t, quiet(t, m), 1, size)
			})
		}
	})
}

// Streams at full speed: the client loses no byte and the mirror has the beginning, all of it
// unless it was too slow.
func TestB106MirrorOfAStream(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		audience := newAudience(t, enginetest.ListenLoopback(t), nil)
		m, share := mirrorTo(audience.addr)
		const size = 12 << 20
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		c := r.Dial()
		data := enginetest.Payload(size, 7)
		var both sync.WaitGroup
		both.Go(func() {
			c.Send(data)
			c.Fin()
		})
		c.Expect(data)
		c.ExpectEOF()
		both.Wait()
		r.Quiet()
		got, s := audience.ended(1)[0], quiet(t, m)
		if !bytes.HasPrefix(data, got.got) {
			t.Errorf("the mirror has %d bytes that are not the beginning", len(got.got))
		}
		all := len(got.got) == size && got.end == "eof" && s.LostAll() == 0
		behind := s.Lost["behind"]+s.Lost["resource"] == 1 && s.LostAll() == 1 && got.end == "reset"
		if !all && !behind {
			t.Errorf("the mirror has %d of %d bytes and then %s, counted %+v", len(got.got), size, got.end, s)
		}
	})
}

// What the client does to its stream, its mirror learns.
func TestB106MirrorLearnsHowTheStreamEnds(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		t.Run("half-closed", func(t *testing.T) {
			audience := newAudience(t, enginetest.ListenLoopback(t), nil)
			m, share := mirrorTo(audience.addr)
			proceed := make(chan struct{})
			r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				p.Expect([]byte("question"))
				p.ExpectEOF()
				<-proceed
				p.Send([]byte("answer"))
			}))})
			c := r.Dial()
			c.Send([]byte("question"))
			c.Fin()
			got := audience.ended(1)[0] // while the host still thinks
			close(proceed)
			c.Expect([]byte("answer"))
			c.ExpectEOF()
			if string(got.got) != "question" || got.end != "eof" {
				t.Errorf("the mirror has got %q and then %s", got.got, got.end)
			}
			r.Quiet()
			whole(t, quiet(t, m), 1, len("question"))
		})
		t.Run("reset", func(t *testing.T) {
			audience := newAudience(t, enginetest.ListenLoopback(t), nil)
			m, share := mirrorTo(audience.addr)
			r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
			c := r.Dial()
			c.Send([]byte("question"))
			c.Expect([]byte("question"))
			audience.hears(len("question"))
			c.Rst()
			if got := audience.ended(1)[0]; string(got.got) != "question" || got.end != "reset" {
				t.Errorf("the mirror has got %q and then %s", got.got, got.end)
			}
			r.Quiet()
			whole(t, quiet(t, m), 1, len("question"))
		})
		t.Run("server first", func(t *testing.T) {
			audience := newAudience(t, enginetest.ListenLoopback(t), nil)
			m, share := mirrorTo(audience.addr)
			r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Send([]byte("bye")) }))})
			c := r.Dial()
			c.Expect([]byte("bye"))
			c.ExpectEOF()
			c.Fin()
			if got := audience.ended(1)[0]; len(got.got) != 0 || got.end != "eof" {
				t.Errorf("the mirror has got %q and then %s", got.got, got.end)
			}
			r.Quiet()
			whole(t, quiet(t, m), 1, 0)
		})
	})
}

// A mirror in trouble costs its copies, and no session anything.
func TestB106MirrorInTrouble(t *testing.T) {
	stream := enginetest.Payload(12<<20, 106) // more than all sockets and pieces on the way have room for
	ask := func(t *testing.T, opt setup, timeouts engine.Timeouts, share sched.MirrorShare, size int) {
		request := stream[:size]
		r := newRig(t, opt, engine.Route{Timeouts: timeouts, Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		c := r.Dial()
		var both sync.WaitGroup
		both.Go(func() {
			c.Send(request)
			c.Fin()
		})
		c.Expect(request)
		c.ExpectEOF()
		both.Wait()
		r.Quiet()
	}
	lostOne := func(t *testing.T, m *sched.Mirror, why ...string) {
		t.Helper()
		s := quiet(t, m)
		n := uint64(0)
		for _, reason := range why {
			n += s.Lost[reason]
		}
		if n != 1 || s.LostAll() != 1 {
			t.Errorf("lost are %v, want one, because of one of %v", s.Lost, why)
		}
	}
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		t.Run("stalled", func(t *testing.T) {
			release := make(chan struct{})
			addr := enginetest.BackendServer(t, func(p *enginetest.Peer) {
				_ = p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
				<-release
				p.ExpectReset()
			})
			m, share := mirrorTo(addr)
			ask(t, opt, engine.Timeouts{}, share, len(stream))
			lostOne(t, m, "behind")
			close(release)
		})
		t.Run("refused", func(t *testing.T) {
			m, share := mirrorTo(enginetest.DeadAddr(t))
			ask(t, opt, engine.Timeouts{}, share, 1<<20)
			lostOne(t, m, "connect", "behind") // the stream may be faster than the answer
			if tr := m.Trouble(); tr == nil || tr.Reason == "" || tr.Since.IsZero() {
				t.Errorf("its trouble is %+v", tr)
			}
		})
		t.Run("resetting", func(t *testing.T) {
			m, share := mirrorTo(enginetest.BackendServer(t, (*enginetest.Peer).Rst))
			ask(t, opt, engine.Timeouts{}, share, len(stream))
			lostOne(t, m, "reset", "connect", "behind")
		})
		t.Run("silent", func(t *testing.T) {
			addr, err := sched.ParseAddr(testkit.Silent(t))
			if err != nil {
				t.Fatal(err)
			}
			m, share := mirrorTo(addr)
			timeouts := enginetest.TestTimeouts
			timeouts.Connect = 300 * time.Millisecond
			if runtime.GOOS == "linux" { // elsewhere it may refuse
				ask(t, opt, timeouts, share, 1<<20)
				lostOne(t, m, "behind", "connect")
			}
		})
		t.Run("pouring", func(t *testing.T) {
			audience := newAudience(t, enginetest.ListenLoopback(t), enginetest.Payload(6<<20, 1))
			m, share := mirrorTo(audience.addr)
			r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
			c := r.Dial()
			for range 50 {
				c.Send([]byte("question"))
				c.Expect([]byte("question"))
			}
			audience.hears(50 * len("question"))
			c.Fin()
			c.ExpectEOF()
			r.Quiet()
			whole(t, quiet(t, m), 1, 50*len("question"))
		})
	})
}

// A mirror that refuses is not asked for each session, and is found again when it is back.
func TestB106MirrorThatIsDownIsLeftAlone(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		dead := enginetest.DeadAddr(t)
		m, share := mirrorTo(dead)
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		ask := func() {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			c.Fin()
			c.ExpectEOF()
		}
		ask()
		testkit.Eventually(t, "the connect has failed", func() bool { return m.Trouble() != nil })
		for range 20 {
			ask()
		}
		r.Quiet()
		s := quiet(t, m)
		// Twenty-one sessions take far less than the back-off grows to; on a machine that
		// stands still, a few more may have tried.
		if s.Sessions != 21 || s.LostAll() != 21 || s.Lost["backoff"] < 10 || s.Lost["connect"] == 0 {
			t.Errorf("counted %+v", s)
		}
		audience := newAudience(t, enginetest.ListenLoopback(t), nil)
		m.SetAddr(audience.addr)
		testkit.Eventually(t, "it is found again", func() bool {
			ask()
			return m.Trouble() == nil
		})
	})
}

// A session that goes on to another host before the first byte has moved is copied once.
func TestB106MirrorOfASessionThatFailsOver(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		audience := newAudience(t, enginetest.ListenLoopback(t), nil)
		m, share := mirrorTo(audience.addr)
		resetter := enginetest.BackendServer(t, (*enginetest.Peer).Rst)
		good := enginetest.BackendServer(t, enginetest.Echo)
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.DeadAddr(t), resetter, good)})
		const sessions = 20
		whole := 0
		for range sessions {
			c, err := net.Dial("tcp", r.Addr)
			if err != nil { // reset already
				r.Quiet()
				continue
			}
			_, _ = c.Write([]byte("question"))
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			got, err := io.ReadAll(c) // a host that resets later costs the session
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
			if string(got) == "question" {
				whole++
			}
			_ = c.Close()
			r.Quiet()
		}
		s := quiet(t, m)
		n := 0
		for _, h := range audience.connections() {
			switch {
			case string(h.got) == "question" && h.end == "eof":
				n++
			case !bytes.HasPrefix([]byte("question"), h.got):
				t.Errorf("the mirror has got %q", h.got)
			}
		}
		if s.Sessions != sessions || n < whole {
			t.Errorf("%d sessions were whole, and %d copies: %+v", whole, n, s)
		}
	})
}

func TestB106MirrorsAndPercent(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		audience, other := newAudience(t, enginetest.ListenLoopback(t), nil), newAudience(t, enginetest.ListenLoopback(t), nil)
		m, share := mirrorTo(audience.addr)
		half, halfShare := mirrorTo(other.addr)
		halfShare.Percent = 50
		none, noneShare := mirrorTo(other.addr)
		noneShare.Percent = 0
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share, halfShare, noneShare}, enginetest.BackendServer(t, enginetest.Echo))})
		const sessions = 200
		for range sessions {
			c := r.Dial()
			c.Send([]byte("question"))
			c.Expect([]byte("question"))
			c.Fin()
			c.ExpectEOF()
			_ = c.Close()
		}
		r.Quiet()
		whole(t, quiet(t, m), sessions, sessions*len("question"))
		s := quiet(t, half)
		if s.Sessions < sessions/4 || s.Sessions > sessions*3/4 {
			t.Errorf("%d of %d sessions were copied, want about half", s.Sessions, sessions)
		}
		whole(t, s, int(s.Sessions), int(s.Sessions)*len("question"))
		if s := none.Stats(); s.Sessions != 0 {
			t.Errorf("percent 0: %+v", s)
		}
		for _, h := range audience.ended(sessions) {
			if string(h.got) != "question" || h.end != "eof" {
				t.Errorf("the mirror has got %q and then %q", h.got, h.end)
			}
		}
	})
}

func TestB106MirrorGetsThePROXYHeader(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		audience := newAudience(t, enginetest.ListenLoopback(t), nil)
		m, share := mirrorTo(audience.addr)
		share.ProxyProtocol = 2
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		c := r.Dial()
		c.Send([]byte("question"))
		c.Expect([]byte("question"))
		c.Fin()
		c.ExpectEOF()
		got := audience.ended(1)[0].got
		h, n, state := proxyproto.Parse(got)
		if state != proxyproto.Whole || h.Version != 2 || h.Source.String() != c.LocalAddr().String() || string(got[n:]) != "question" {
			t.Errorf("the mirror has got %q: %+v", got, h)
		}
		r.Quiet()
		whole(t, quiet(t, m), 1, len(got))
	})
}

func TestB106MirrorOnAUnixSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no UNIX sockets")
	}
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		audience := newAudience(t, enginetest.ListenOn(t, "unix", filepath.Join(t.TempDir(), "m")), []byte("nobody hears this"))
		m, share := mirrorTo(audience.addr)
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		c := r.Dial()
		data := enginetest.Payload(piece, 1)
		for n := range 4 {
			var both sync.WaitGroup
			both.Go(func() { c.Send(data) })
			c.Expect(data)
			both.Wait()
			audience.hears((n + 1) * piece)
		}
		c.Fin()
		c.ExpectEOF()
		if got := audience.ended(1)[0]; !bytes.Equal(got.got, bytes.Repeat(data, 4)) || got.end != "eof" {
			t.Errorf("the mirror has %d bytes and then %s", len(got.got), got.end)
		}
		r.Quiet()
		whole(t, quiet(t, m), 1, 4*piece)
	})
}

// Copies take room of sessions, and leave a quarter of it to sessions alone.
func TestB106MirrorsLeaveRoomForSessions(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		opt.MaxSessions = 8
		audience := newAudience(t, enginetest.ListenLoopback(t), nil)
		m, share := mirrorTo(audience.addr)
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		var clients []*enginetest.Peer
		for range 5 {
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			clients = append(clients, c)
		}
		if s := m.Stats(); s.Active != 3 || s.Lost["resource"] != 2 {
			t.Errorf("with room for 8, five sessions have %+v", s)
		}
		for _, c := range clients {
			c.Fin()
			c.ExpectEOF()
		}
		r.Quiet()
		quiet(t, m)
		for range 8 { // all the room is back
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			c.Fin()
			c.ExpectEOF()
		}
	})
}

// An engine that closes ends its copies too, and tells the mirrors that they are not whole.
func TestB106MirrorsEndWithTheEngine(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		audience := newAudience(t, enginetest.ListenLoopback(t), nil)
		m, share := mirrorTo(audience.addr)
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		audience.hears(1)
		if err := r.E.Close(); err != nil {
			t.Error(err)
		}
		if got := audience.ended(1)[0]; got.end == "" || string(got.got) != "x" {
			t.Errorf("the mirror has got %q and then %s", got.got, got.end)
		}
		if n := m.Stats().Active; n != 0 {
			t.Errorf("%d copies are counted after the end", n)
		}
	})
}
