package engine_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
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

// The other process of these tests is this program again. It learns from its environment
// where the hosts are, and after which batch it should die without a word.
const (
	childHosts = "TXLB_TEST_MOVED_HOSTS"
	childDies  = "TXLB_TEST_MOVED_DIES"
)

// TestMovedChild is the other process.
func TestMovedChild(t *testing.T) {
	if os.Getenv(childHosts) == "" {
		t.Skip("is started by other tests")
	}
	conn, err := net.FileConn(os.NewFile(3, "bridge"))
	if err != nil {
		t.Fatal(err)
	}
	var hosts []sched.Addr
	for _, text := range strings.Fields(os.Getenv(childHosts)) {
		a, err := sched.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, a)
	}
	r := newRig(t, onLoops(engine.Options{Loops: 2}), engine.Route{}, hosts...)
	dies, _ := strconv.Atoi(os.Getenv(childDies))
	b := &bridge{to: conn.(*net.UnixConn)}
	for n := 1; ; n++ {
		batch, err := b.receive()
		if err != nil {
			return
		}
		problems := r.E.Adopt(batch)
		if n == dies {
			os.Exit(1)
		}
		if b.acknowledge(problems) != nil {
			return
		}
	}
}

// child is the other process as the test has it.
type child struct {
	*bridge
	cmd *exec.Cmd
}

func startChild(t *testing.T, dies int, old *enginetest.Rig) *child {
	t.Helper()
	b := newBridge(t)
	theirs, err := b.to.File()
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, h := range old.Hosts {
		hosts = append(hosts, h.Addr().String())
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestMovedChild$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), childHosts+"="+strings.Join(hosts, " "), childDies+"="+strconv.Itoa(dies))
	cmd.ExtraFiles = []*os.File{theirs}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = theirs.Close(), b.to.Close()
	c := &child{b, cmd}
	t.Cleanup(func() {
		c.kill()
		_ = b.from.Close()
		if t.Failed() {
			t.Logf("the other process:\n%s", out.String())
		}
	})
	return c
}

// kill kills the process, and returns when the kernel has closed what it had.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// Sessions move to another process, which carries them, and are this one's again when that is
// killed: what has passed meanwhile, bytes and ends, is neither lost nor done twice.
func TestB83AnotherProcessIsKilled(t *testing.T) {
	opt := onLoops(engine.Options{Loops: 2})
	ends, answer := make(chan error, 1), make(chan struct{})
	old := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		var word [5]byte
		for {
			_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
			if _, err := io.ReadFull(p, word[:]); err != nil {
				return
			}
			if string(word[:]) == "late!" { // answers behind the client's end
				_, err := p.Read(word[:1])
				ends <- err
				<-answer
				p.Send([]byte("answer"))
				return
			}
			p.Send(word[:])
		}
	}))
	other := startChild(t, 0, old)
	var clients []*enginetest.Peer
	for range 40 {
		c := old.Dial()
		echoed(c)
		clients = append(clients, c)
	}
	half, over := old.Dial(), old.Dial()
	echoed(half)
	half.Send([]byte("late!"))
	echoed(over)
	m, err := old.E.MoveSessions(t.Context(), other.give)
	if err != nil || m.Moved != 42 || m.Stay != 0 {
		t.Fatalf("%d moved, %d stayed: %v", m.Moved, m.Stay, err)
	}
	for range 3 {
		for _, c := range clients {
			echoed(c) // by the other process
		}
	}
	half.Fin()
	if err := <-ends; err != io.EOF {
		t.Errorf("the backend got %v for the end of its client", err)
	}
	over.Fin()
	over.ExpectEOF()
	other.kill()
	if back, lost := m.TakeBack(); back != 41 || lost != 0 {
		t.Errorf("%d came back and %d were lost, want 41 and 0", back, lost)
	}
	for range 3 {
		for _, c := range clients {
			echoed(c)
		}
	}
	close(answer)
	half.Expect([]byte("answer"))
	half.ExpectEOF()
	testkit.Eventually(t, "the bytes of both processes are counted", func() bool {
		var in uint64
		for _, s := range old.E.Sessions(0, everything) {
			in += s.In
		}
		return in == 40*7*5
	})
	for _, c := range clients {
		c.Fin()
		c.ExpectEOF()
	}
	old.Quiet()
}

// If the other process dies with a batch that it has adopted and not acknowledged, that comes
// back too.
func TestB83AnotherProcessDiesWithinABatch(t *testing.T) {
	for dies := 1; dies <= 2; dies++ {
		old := newRig(t, onLoops(engine.Options{Loops: 1}), engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		other := startChild(t, dies, old)
		var clients []*enginetest.Peer
		for range 60 {
			c := old.Dial()
			echoed(c)
			clients = append(clients, c)
		}
		m, err := old.E.MoveSessions(t.Context(), func(batch []engine.Moved) error {
			err := other.give(batch)
			if err != nil {
				other.kill()
			}
			return err
		})
		if err == nil || m.Moved+m.Stay != len(clients) || dies == 1 && m.Moved != 0 || dies == 2 && m.Moved == 0 {
			t.Errorf("it dies after batch %d: %d moved, %d stayed: %v", dies, m.Moved, m.Stay, err)
		}
		if back, lost := m.TakeBack(); back != m.Moved || lost != 0 {
			t.Errorf("%d of %d came back, %d were lost", back, m.Moved, lost)
		}
		for _, c := range clients {
			echoed(c)
			_ = c.Close()
		}
		old.Quiet()
	}
}

// A session whose bytes were in the hands of a process that was killed ends by a reset on
// both sides. What comes of a stream is a beginning of it and a reset, or all of it and its end.
func TestB83BytesOfAKilledProcessAreNoEnd(t *testing.T) {
	stream := enginetest.Payload(64<<20, 85)
	var sent atomic.Int64
	old := newRig(t, onLoops(engine.Options{Loops: 2}), engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		for at := 0; at < len(stream); {
			_ = p.SetWriteDeadline(time.Now().Add(4 * testkit.Patience))
			n, err := p.Write(stream[at:min(at+64<<10, len(stream))])
			sent.Add(int64(n))
			if at += n; err != nil {
				return
			}
		}
	}))
	other := startChild(t, 0, old)
	var clients []*enginetest.Peer
	for range 6 {
		clients = append(clients, old.Dial())
	}
	for _, c := range clients {
		c.Expect(stream[:1<<10])
	}
	m, err := old.E.MoveSessions(t.Context(), other.give)
	if err != nil || m.Moved != len(clients) {
		t.Fatalf("%d moved: %v", m.Moved, err)
	}
	for _, c := range clients { // the other process moves some, and stands before stalled clients
		c.Expect(stream[1<<10 : 1<<20])
	}
	last, since := int64(-1), time.Now()
	testkit.Eventually(t, "the streams stand still", func() bool {
		if n := sent.Load(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	other.kill()
	back, lost := m.TakeBack()
	if back+lost != len(clients) {
		t.Errorf("%d came back and %d were lost of %d", back, lost, len(clients))
	}
	var whole, cut atomic.Int64
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() {
			buf := make([]byte, 256<<10)
			at := 1 << 20
			for {
				_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
				n, err := c.Read(buf)
				if at+n > len(stream) || !bytes.Equal(buf[:n], stream[at:at+n]) {
					t.Errorf("other bytes come behind %d", at)
					return
				}
				at += n
				switch {
				case err == nil:
					continue
				case err == io.EOF && at == len(stream):
					whole.Add(1)
				case errors.Is(err, syscall.ECONNRESET):
					cut.Add(1)
				default:
					t.Errorf("the stream ends after %d bytes: %v", at, err)
				}
				return
			}
		})
	}
	all.Wait()
	if whole.Load() != int64(back) || cut.Load() != int64(lost) {
		t.Errorf("%d came back and %d were lost, but %d streams were whole and %d were cut off", back, lost, whole.Load(), cut.Load())
	}
	old.Quiet()
	if n := old.Stats().Ended["KD"]; n != uint64(lost) {
		t.Errorf("ended with %v, want %d of KD", old.Stats().Ended, lost)
	}
}

// The other process carries sessions on when this one has gone.
func TestB83AnotherProcessGoesOn(t *testing.T) {
	old := newRig(t, onLoops(engine.Options{Loops: 2}), engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
	other := startChild(t, 0, old)
	c, d := old.Dial(), old.Dial()
	echoed(c)
	echoed(d)
	m, err := old.E.MoveSessions(t.Context(), other.give)
	if err != nil || m.Moved != 2 {
		t.Fatalf("%d moved: %v", m.Moved, err)
	}
	m.Commit()
	m.Commit() // does nothing
	if err := old.E.Close(); err != nil {
		t.Fatal(err)
	}
	echoed(c)
	c.Fin()
	c.ExpectEOF()
	echoed(d)
	d.Fin()
	d.ExpectEOF()
}
