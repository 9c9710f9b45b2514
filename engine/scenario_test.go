package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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
)

// The two sides of a session.
const (
	clientSide  = 0
	backendSide = 1
)

// A scene is what a client and a backend do to each other through the engine:
// a script for each, verbs separated by |.
//
//	send N     send the next N bytes of one's own stream; K and M are KiB and MiB
//	try N      the same, but the other may break it off
//	expect N   read N bytes, which must be the next of the other's stream
//	eof        the stream must end here, cleanly
//	reset      the stream must end by a reset; what comes before it is checked
//	gone       the stream must end, in whichever way; the same
//	fin        end the sending direction
//	rst        reset the connection
//	close      close it
//	urgent     send the next byte of one's own stream as an urgent one
//	stall      read nothing until what the other sends has come to a standstill
//	pause D    be silent for a time that the test is about
//	tell X     let the other go on behind its "wait X"
//	wait X     wait for it
//
// The scripts run at the same time; a part in brackets runs beside the rest of
// its script. At the end of both the connection is closed.
type scene struct {
	name            string
	client, backend string
	route           engine.Route
	ended           string // HAProxy's two letters; "" for --
	check           func(t *testing.T, r *enginetest.Rig)
	tls             placement
}

// play plays scenes in every mode of the engine.
func play(t *testing.T, scenes ...scene) {
	t.Helper()
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, sc := range scenes {
			t.Run(sc.name, func(t *testing.T) { sc.play(t, opt) })
		}
	})
}

func (sc scene) play(t *testing.T, opt setup) {
	st := &stage{told: map[string]chan struct{}{}}
	var wg sync.WaitGroup
	r, dial := sc.tls.rig(t, opt, sc.route, func(p *enginetest.Peer) {
		(&actor{Peer: p, stage: st, side: backendSide}).play(sc.backend)
	})
	if m, ok := r.E.(interface{ move() }); ok {
		st.mu.Lock()
		st.between = m.move
		st.mu.Unlock()
	}
	wg.Go(func() { (&actor{Peer: dial(), stage: st, side: clientSide}).play(sc.client) })
	wg.Wait()
	testkit.Eventually(t, "the session ends", func() bool { s := r.Stats(); return s.Sessions == 1 && s.Active == 0 })
	want := sc.ended
	if want == "" {
		want = "--"
	}
	if s := r.Stats(); s.Ended[want] != 1 {
		t.Errorf("the session ended with %v, want %s", s.Ended, want)
	}
	if sc.check != nil {
		sc.check(t, r)
	}
}

// stage is what the two actors of a scene share.
type stage struct {
	mu      sync.Mutex
	told    map[string]chan struct{}
	between func()          // is called before each verb; nil: nothing is
	sent    [2]atomic.Int64 // bytes that each has handed to its socket
}

// sign returns the channel that is closed once X is told.
func (st *stage) sign(x string) chan struct{} {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.told[x] == nil {
		st.told[x] = make(chan struct{})
	}
	return st.told[x]
}

// actor plays one side.
type actor struct {
	*enginetest.Peer
	*stage
	side     int
	put, got int64 // places in its own stream and in the other's
}

func (a *actor) play(script string) {
	var beside sync.WaitGroup
	defer func() {
		beside.Wait()
		_ = a.Close()
	}()
	for _, part := range strings.Split(script, "|") {
		part = strings.TrimSpace(part)
		if inner, ok := strings.CutPrefix(part, "["); ok {
			beside.Go(func() {
				for _, verb := range strings.Split(strings.TrimSuffix(inner, "]"), ",") {
					a.do(strings.TrimSpace(verb))
				}
			})
			continue
		}
		a.do(part)
	}
}

func (a *actor) do(verb string) {
	a.mu.Lock()
	between := a.between
	a.mu.Unlock()
	if between != nil {
		between()
	}
	word, arg, _ := strings.Cut(verb, " ")
	switch word {
	case "":
	case "send":
		a.sendStream(bytesOf(arg))
	case "try":
		_ = a.try(bytesOf(arg))
	case "expect":
		a.expectStream(bytesOf(arg))
	case "eof":
		a.ExpectEOF()
	case "reset":
		if err := a.readAll(); !errors.Is(err, syscall.ECONNRESET) {
			a.T.Errorf("expect a reset: %v", err)
		}
	case "gone":
		if err := a.readAll(); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			a.T.Errorf("expect the end: %v", err)
		}
	case "fin":
		a.Fin()
	case "rst":
		a.Rst()
	case "close":
		_ = a.Close()
	case "urgent":
		a.urgent()
	case "stall":
		a.stall()
	case "pause":
		d, err := time.ParseDuration(arg)
		if err != nil {
			panic(err)
		}
		time.Sleep(d) // the silence is the subject of the scene
	case "tell":
		close(a.sign(arg))
	case "wait":
		select {
		case <-a.sign(arg):
		case <-time.After(2 * testkit.Patience):
			a.T.Errorf("nobody told %q", arg)
		}
	default:
		panic("no such verb: " + verb)
	}
}

func bytesOf(arg string) int64 {
	unit := int64(1)
	for suffix, u := range map[string]int64{"K": 1 << 10, "M": 1 << 20} {
		if number, ok := strings.CutSuffix(arg, suffix); ok {
			arg, unit = number, u
		}
	}
	n, err := strconv.ParseInt(arg, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%q is no number of bytes", arg))
	}
	return n * unit
}

// streamPeriod is odd and no multiple of any buffer's size, so that pieces that
// have changed places show.
const streamPeriod = 1<<20 + 7

var streamBytes = sync.OnceValue(func() []byte {
	p := make([]byte, streamPeriod+64<<10)
	r := rand.New(rand.NewPCG(7, 7))
	for i := range p[:streamPeriod] {
		p[i] = byte(r.Uint32())
	}
	copy(p[streamPeriod:], p)
	return p
})

// streamAt returns n bytes, at most 64 KiB, of a side's stream.
func streamAt(side int, at int64, n int) []byte {
	from := (at + int64(side)*77777) % streamPeriod
	return streamBytes()[from : from+int64(n)]
}

func (a *actor) sendStream(n int64) {
	if err := a.try(n); err != nil {
		a.T.Errorf("send: after %d bytes: %v", a.put, err)
	}
}

// try sends the next n bytes of the stream, as far as it can.
func (a *actor) try(n int64) error {
	for end := a.put + n; a.put < end; {
		_ = a.SetWriteDeadline(time.Now().Add(testkit.Patience))
		k, err := a.Write(streamAt(a.side, a.put, int(min(end-a.put, 64<<10))))
		a.put += int64(k)
		a.sent[a.side].Add(int64(k))
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *actor) expectStream(n int64) {
	buf := make([]byte, 64<<10)
	for n > 0 {
		k, err := a.readSome(buf[:min(n, int64(len(buf)))])
		n -= int64(k)
		if err != nil && n > 0 {
			a.T.Errorf("expect: %d bytes are missing after %d: %v", n, a.got, err)
			return
		}
	}
}

// readAll reads to the end of the stream and returns how it ended.
func (a *actor) readAll() error {
	buf := make([]byte, 64<<10)
	for {
		if _, err := a.readSome(buf); err != nil {
			return err
		}
	}
}

// readSome reads once. What comes must be the next of the other's stream.
func (a *actor) readSome(buf []byte) (int, error) {
	_ = a.SetReadDeadline(time.Now().Add(testkit.Patience))
	n, err := a.Read(buf)
	if !bytes.Equal(buf[:n], streamAt(1-a.side, a.got, n)) {
		a.T.Errorf("other bytes came than the %d behind %d", n, a.got)
	}
	a.got += int64(n)
	return n, err
}

// stall waits until the other side has sent something and for a while no more.
func (a *actor) stall() {
	clock := testkit.NewClock(a.T)
	defer clock.Stop()
	last, since := int64(-1), clock.Now()
	testkit.Eventually(a.T, "the sender stands still", func() bool {
		if n := a.sent[1-a.side].Load(); n != last {
			last, since = n, clock.Now()
		}
		return last > 0 && clock.Since(since) > 400*time.Millisecond
	})
}

// urgent sends the next byte of the stream as an urgent one (MSG_OOB).
func (a *actor) urgent() {
	raw, err := a.Conn.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = errors.Join(raw.Write(func(fd uintptr) bool {
			err = sendUrgent(fd, streamAt(a.side, a.put, 1)[0])
			return !errors.Is(err, syscall.EAGAIN)
		}), err)
	}
	if err != nil {
		a.T.Errorf("urgent: %v", err)
	}
	a.put++
	a.sent[a.side].Add(1)
}
