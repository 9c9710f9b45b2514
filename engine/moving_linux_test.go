package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/loops"
	"github.com/txlb/txlb/sched"
)

// bridge carries batches from one process to another, as an upgrade does: descriptors by
// SCM_RIGHTS, and each batch is acknowledged.
type bridge struct{ from, to *net.UnixConn }

func newBridge(t testing.TB) *bridge {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "bridge")
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		ends[i] = conn.(*net.UnixConn)
	}
	return &bridge{ends[0], ends[1]}
}

func (b *bridge) close() {
	_ = b.from.Close()
	_ = b.to.Close()
}

// give sends a batch and waits until it is adopted.
func (b *bridge) give(batch []engine.Moved) error {
	var body []byte
	var fds []int
	for _, m := range batch {
		files := byte(0)
		for i, f := range m.Files {
			if f != nil {
				files |= 1 << i
				raw, err := f.SyscallConn()
				if err == nil {
					err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
				}
				if err != nil {
					return err
				}
			}
		}
		body = append(body, files)
		body = binary.BigEndian.AppendUint32(body, uint32(len(m.State)))
		body = append(body, m.State...)
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(batch)))
	if _, _, err := b.from.WriteMsgUnix(head, unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	if _, err := b.from.Write(body); err != nil {
		return err
	}
	var bad [4]byte
	if _, err := io.ReadFull(b.from, bad[:]); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint32(bad[:]); n > 0 {
		return fmt.Errorf("%d sessions were not adopted", n)
	}
	return nil
}

// receive returns the next batch.
func (b *bridge) receive() ([]engine.Moved, error) {
	var head [8]byte
	control := make([]byte, unix.CmsgSpace(4*253))
	n, size, _, _, err := b.to.ReadMsgUnix(head[:], control)
	if err != nil || n == 0 {
		return nil, errors.Join(err, io.EOF)
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range messages {
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		fds = append(fds, some...)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(b.to, body); err != nil {
		return nil, err
	}
	batch := make([]engine.Moved, binary.BigEndian.Uint32(head[4:]))
	for i := range batch {
		files, size := body[0], binary.BigEndian.Uint32(body[1:])
		batch[i].State, body = body[5:5+size], body[5+size:]
		for side := range batch[i].Files {
			if files&(1<<side) != 0 {
				batch[i].Files[side] = os.NewFile(uintptr(fds[0]), "moved")
				fds = fds[1:]
			}
		}
	}
	return batch, nil
}

// acknowledge says how many sessions of a batch were not adopted.
func (b *bridge) acknowledge(problems []error) error {
	bad := uint32(0)
	for _, err := range problems {
		if err != nil {
			bad++
		}
	}
	_, err := b.to.Write(binary.BigEndian.AppendUint32(nil, bad))
	return err
}

// adopt takes on batches until the bridge is closed.
func (b *bridge) adopt(e engine.Engine, t testing.TB) {
	for {
		batch, err := b.receive()
		if err != nil {
			return
		}
		problems := e.Adopt(batch)
		for _, err := range problems {
			if err != nil {
				t.Errorf("adopt: %v", err)
			}
		}
		if b.acknowledge(problems) != nil {
			return
		}
	}
}

// moveAll moves all sessions of an engine to another, over a bridge of their own.
func moveAll(t testing.TB, from, to engine.Engine) *engine.Move {
	t.Helper()
	b := newBridge(t)
	var adopter sync.WaitGroup
	adopter.Go(func() { b.adopt(to, t) })
	m, err := from.MoveSessions(context.Background(), b.give)
	b.close()
	adopter.Wait()
	if err != nil {
		t.Errorf("move: %v", err)
	}
	return m
}

// wanderer is two engines between which all sessions move again and again. The first has
// the listeners.
type wanderer struct {
	engine.Engine
	other engine.Engine
	t     testing.TB
	stop  context.CancelFunc
	done  chan struct{}
	moved *atomic.Int64 // sessions, all together

	mu     sync.Mutex // held while sessions move
	away   bool       // the other engine has them
	closed bool
}

// toWanderers starts them. Sessions move every few milliseconds.
func toWanderers(t testing.TB, moved *atomic.Int64) func(engine.Options) (engine.Engine, error) {
	return func(opt engine.Options) (engine.Engine, error) {
		a, err := loops.NewTuned(opt, loops.Tuning{RingFrom: 1})
		if err != nil {
			return nil, err
		}
		b, err := loops.NewTuned(opt, loops.Tuning{RingFrom: 1})
		if err != nil {
			_ = a.Close()
			return nil, err
		}
		ctx, stop := context.WithCancel(context.Background())
		w := &wanderer{Engine: a, other: b, t: t, moved: moved, stop: stop, done: make(chan struct{})}
		go w.wander(ctx)
		return w, nil
	}
}

func (w *wanderer) wander(ctx context.Context) {
	defer close(w.done)
	for ctx.Err() == nil {
		w.move()
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Millisecond): // how often they move is a matter of taste
		}
	}
}

// move moves all sessions to where they are not.
func (w *wanderer) move() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	from, to := w.Engine, w.other
	if w.away {
		from, to = to, from
	}
	// A connect that is given up is one that the backend may see. That is for another test.
	w.Engine.Pause()
	defer w.Engine.Resume()
	var connecting atomic.Bool
	for _, e := range []engine.Engine{from, to} {
		e.EndSessions(engine.ByOperator, func(c engine.Candidate) bool {
			if !c.Connected {
				connecting.Store(true)
			}
			return false
		})
	}
	if connecting.Load() {
		return
	}
	w.away = !w.away
	m := moveAll(w.t, from, to)
	w.moved.Add(int64(m.Moved))
	m.Commit()
}

func (w *wanderer) Apply(p engine.Plan) error {
	bare := engine.Plan{}
	for _, s := range p.Services {
		s.Listen, s.ListenOptions = nil, nil
		bare.Services = append(bare.Services, s)
	}
	if err := w.other.Apply(bare); err != nil {
		return err
	}
	return w.Engine.Apply(p)
}

func (w *wanderer) Snapshot() engine.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, b := w.Engine.Snapshot(), w.other.Snapshot()
	for name, s := range a.Services {
		o := b.Services[name]
		s.Active += o.Active
		s.Sessions += o.Sessions
		s.In += o.In
		s.Out += o.Out
		s.Redispatches += o.Redispatches
		s.Ended, s.Refused, s.ConnectFailures = sum(s.Ended, o.Ended), sum(s.Refused, o.Refused), sum(s.ConnectFailures, o.ConnectFailures)
		a.Services[name] = s
	}
	return a
}

func sum(a, b map[string]uint64) map[string]uint64 {
	s := maps.Clone(a)
	for k, n := range b {
		if s == nil {
			s = map[string]uint64{}
		}
		s[k] += n
	}
	return s
}

func (w *wanderer) Close() error {
	w.stop()
	<-w.done
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return errors.Join(w.Engine.Close(), w.other.Close())
}

// What the scenes of the other behaviours say holds while their sessions move from engine to
// engine all the time, whatever state they are in.
func TestB83ScenesOnTheMove(t *testing.T) {
	scenes := [][]scene{
		clientEndsFirst, backendEndsFirst, backendCloses(), clientCloses(), stalledReaders, dataBeforeResets(),
		backendResets, clientResets, urgentBytes,
	}
	for name, opt := range loopModesToTest {
		if name == "plain" || name == "old" { // how sends reach the kernel makes no difference to a move
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var moved atomic.Int64
			for _, list := range scenes {
				for _, sc := range list {
					t.Run(sc.name, func(t *testing.T) {
						opt := opt
						opt.start = toWanderers(t, &moved)
						sc.play(t, opt)
					})
				}
			}
			if moved.Load() == 0 {
				t.Error("nothing has moved")
			}
		})
	}
}

// BenchmarkMove moves idle sessions there and back again.
func BenchmarkMove(b *testing.B) {
	const sessions = 1000
	opt := engine.Options{Loops: 2}
	var engines [2]engine.Engine
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	addr, err := sched.ParseAddr(ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	for i := range engines {
		table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("a", addr), Weight: 1}})
		if err != nil {
			b.Fatal(err)
		}
		if engines[i], err = loops.New(opt); err != nil {
			b.Fatal(err)
		}
		defer func() { _ = engines[i].Close() }()
		if err := engines[i].Apply(engine.Plan{Services: []engine.Service{{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Table: table}}}}); err != nil {
			b.Fatal(err)
		}
	}
	for range sessions {
		for _, dial := range []func() (net.Conn, error){
			func() (net.Conn, error) { return net.Dial("tcp4", engines[0].Listeners()[0].Addr) }, ln.Accept,
		} {
			c, err := dial()
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = c.Close() }()
		}
	}
	var size atomic.Int64
	for i := 0; b.Loop(); i++ {
		from, to := engines[i%2], engines[1-i%2]
		br := newBridge(b)
		var adopter sync.WaitGroup
		adopter.Go(func() { br.adopt(to, b) })
		m, err := from.MoveSessions(context.Background(), func(batch []engine.Moved) error {
			for _, one := range batch {
				size.Add(int64(len(one.State)))
			}
			return br.give(batch)
		})
		br.close()
		adopter.Wait()
		if err != nil || m.Moved != sessions {
			b.Fatalf("%d moved: %v", m.Moved, err)
		}
		m.Commit()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/sessions, "µs/session")
	b.ReportMetric(float64(size.Load())/float64(b.N)/sessions, "B/state")
}
