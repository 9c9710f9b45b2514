package engine_test

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// A turnaround lies between two times that a test can take, however busy the machine is: it
// is no shorter than from when the host has the last byte until it answers, and no longer than
// from before that byte was sent until the client has the answer.
type exchange struct{ least, most time.Duration }

// thinking is how long hosts take to answer: the subject of these tests.
const thinking = 15 * time.Millisecond

// talk is a client and a host that take turns.
type talk struct {
	t            *testing.T
	r            *enginetest.Rig // that has the session now
	client, host *enginetest.Peer
	done         []exchange
}

// startTalk begins a session with a host of a service.
func startTalk(t *testing.T, opt setup, dial func(r *enginetest.Rig) *enginetest.Peer) *talk {
	t.Helper()
	hosts, over := make(chan *enginetest.Peer, 1), make(chan struct{})
	r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
		hosts <- p
		<-over
	}))
	c := dial(r)
	k := &talk{t: t, r: r, client: c}
	t.Cleanup(sync.OnceFunc(func() { close(over) }))
	select {
	case k.host = <-hosts:
	case <-time.After(testkit.Patience):
		t.Fatal("the session has no host")
	}
	return k
}

// settle waits until the engine has seen that there is nothing to read. A loop that looks for
// more already may find what comes in a turn that has begun before.
func (k *talk) settle() {
	for range 2 { // the loops answer at the end of a turn
		k.r.E.Sessions(0, everyone)
	}
}

// ask sends bytes, of which the host has the last alone, and has it answer.
func (k *talk) ask(request, answer []byte) {
	k.t.Helper()
	var beside sync.WaitGroup
	first := request[:len(request)-1]
	beside.Go(func() { k.client.Send(first) })
	k.host.Expect(first)
	beside.Wait()
	k.settle()
	asked := time.Now()
	k.client.Send(request[len(first):])
	k.host.Expect(request[len(first):])
	k.answer(asked, time.Now(), answer)
}

// answer has the host answer what was sent at a time and had come at another.
func (k *talk) answer(asked, came time.Time, answer []byte) {
	k.t.Helper()
	time.Sleep(thinking)
	k.settle()
	answered := time.Now()
	var beside sync.WaitGroup
	beside.Go(func() { k.host.Send(answer) })
	k.client.Expect(answer[:1])
	k.done = append(k.done, exchange{answered.Sub(came), time.Since(asked)})
	k.client.Expect(answer[1:])
	beside.Wait()
}

// check compares what the engine has measured.
func (k *talk) check() {
	k.t.Helper()
	list := k.r.E.Sessions(0, everyone)
	if len(list) != 1 {
		k.t.Fatalf("%d sessions", len(list))
	}
	k.compare(list[0].Turns)
}

func (k *talk) compare(got engine.Turnarounds) {
	k.t.Helper()
	var least, most, worstLeast, worstMost time.Duration
	for _, e := range k.done {
		least, most = least+e.least, most+e.most
		worstLeast, worstMost = max(worstLeast, e.least), max(worstMost, e.most)
	}
	const microsecond = time.Microsecond // to which they are rounded
	switch {
	case int(got.Count) != len(k.done):
		k.t.Errorf("%d turnarounds, want %d", got.Count, len(k.done))
	case got.Total < least || got.Total > most:
		k.t.Errorf("%v in all, want %v to %v", got.Total, least, most)
	case got.Worst < worstLeast-microsecond || got.Worst > worstMost+microsecond:
		k.t.Errorf("the worst is %v, want %v to %v", got.Worst, worstLeast, worstMost)
	case got.Median > got.Worst || got.Count > 0 && got.Median <= 0:
		k.t.Errorf("a median of %v, and a worst of %v", got.Median, got.Worst)
	}
}

// finish ends the session and compares what host and group have counted.
func (k *talk) finish() {
	k.t.Helper()
	r := k.r
	_ = k.client.Close()
	_ = k.host.Close()
	r.Quiet()
	var turns sched.Turns
	testkit.Eventually(k.t, "the turnarounds are published", func() bool {
		turns = r.Hosts[0].Turns()
		return turns.Count == uint64(len(k.done))
	})
	group := r.Hosts[0].Times().Turnarounds()
	if group.Count() != turns.Count || group.Sum != turns.Sum {
		k.t.Errorf("the group has counted %d in %v, the host %d in %v", group.Count(), group.Sum, turns.Count, turns.Sum)
	}
	worst := r.Hosts[0].WorstTurn()
	k.compare(engine.Turnarounds{Count: uint32(turns.Count), Total: turns.Sum, Worst: worst, Median: min(turns.Median(), worst)})
}

func ofClient(r *enginetest.Rig) *enginetest.Peer { return r.Dial() }

// Small messages are copied, and large ones spliced where the mode allows it.
func TestB81TurnaroundOfMessages(t *testing.T) {
	for name, size := range map[string]int{"copied": 100, "spliced": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachModeAtOnce(t, func(t *testing.T, opt setup) {
				k := startTalk(t, opt, ofClient)
				for range 3 {
					k.ask(enginetest.Payload(size, 1), enginetest.Payload(size, 2))
					k.check()
				}
				k.finish()
			})
		})
	}
}

// Requests that do not wait for answers are one turnaround, which begins with the last.
func TestB81TurnaroundOfPipelinedRequests(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		k := startTalk(t, opt, ofClient)
		for range 2 {
			k.client.Send([]byte("one"))
			k.host.Expect([]byte("one"))
			time.Sleep(thinking) // which does not count
			k.settle()
			asked := time.Now()
			k.client.Send([]byte("two"))
			k.host.Expect([]byte("two"))
			k.answer(asked, time.Now(), []byte("1"))
			k.host.Send([]byte("2"))
			k.client.Expect([]byte("2"))
			k.check()
		}
		k.finish()
	})
}

// A client that has ended still gets its answer, and so does one whose host ends behind it.
func TestB81TurnaroundOfHalfClosedStreams(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		k := startTalk(t, opt, ofClient)
		k.ask([]byte("a"), []byte("b"))
		k.settle()
		asked := time.Now()
		k.client.Send([]byte("last"))
		k.client.Fin()
		k.host.Expect([]byte("last"))
		came := time.Now()
		k.host.ExpectEOF()
		k.answer(asked, came, []byte("answer"))
		k.check()
		k.host.Send([]byte("and more"))
		k.client.Expect([]byte("and more"))
		k.host.Fin()
		k.client.ExpectEOF()
		k.finish()
	})
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		k := startTalk(t, opt, ofClient)
		k.ask([]byte("a"), []byte("b"))
		k.host.Fin()
		k.client.ExpectEOF()
		k.client.Send([]byte("more")) // nobody will answer
		k.host.Expect([]byte("more"))
		k.check()
		if list := k.r.E.Sessions(0, everyone); list[0].Waiting != 0 {
			t.Errorf("the client waits for a host that has ended, for %v", list[0].Waiting)
		}
		k.finish()
	})
}

// What a server says unasked is no turnaround.
func TestB81NoTurnaroundUnasked(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		k := startTalk(t, opt, ofClient)
		for range 2 {
			time.Sleep(thinking)
			k.host.Send([]byte("220 ready"))
			k.client.Expect([]byte("220 ready"))
			k.check()
			k.ask([]byte("HELO"), []byte("250"))
			k.check()
		}
		k.finish()
	})
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		k := startTalk(t, opt, ofClient)
		k.host.Send(enginetest.Payload(200_000, 1))
		k.client.Expect(enginetest.Payload(200_000, 1))
		k.check()
		k.finish()
	})
}

// How long a client has waited for an answer is known while it does.
func TestB81WaitingForAnAnswer(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		k := startTalk(t, opt, ofClient)
		session := func() engine.SessionInfo {
			list := k.r.E.Sessions(0, everyone)
			if len(list) != 1 {
				t.Fatalf("%d sessions", len(list))
			}
			return list[0]
		}
		if s := session(); s.Waiting != 0 || s.Answered {
			t.Errorf("before a word: %+v", s)
		}
		k.settle()
		asked := time.Now()
		k.client.Send([]byte("?"))
		k.host.Expect([]byte("?"))
		came := time.Now()
		testkit.Eventually(t, "it waits", func() bool { return session().Waiting >= thinking })
		if s := session(); s.Answered || s.Waiting > time.Since(asked) {
			t.Errorf("it waits: %+v", s)
		}
		k.answer(asked, came, []byte("!"))
		if s := session(); s.Waiting != 0 || !s.Answered {
			t.Errorf("after the answer: %+v", s)
		}
		k.finish()
	})
}

// Connections of the program have turnarounds as well, and what the system moves by itself
// makes no wrong ones.
func TestB81TurnaroundOfDialedConnections(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		k := startTalk(t, opt, func(r *enginetest.Rig) *enginetest.Peer { return dialHost(r, nobody) })
		k.host.Send([]byte("hello"))
		k.client.Expect([]byte("hello"))
		for range 3 {
			k.ask(enginetest.Payload(100, 1), enginetest.Payload(100_000, 2))
			k.check()
		}
		// It copies the next answer.
		request := []byte("all of it")
		asked := time.Now()
		k.client.Send(request)
		k.host.Expect(request)
		came := time.Now()
		answer := enginetest.Payload(3<<20, 3)
		first := make(chan time.Time, 1)
		var beside sync.WaitGroup
		time.Sleep(thinking)
		answered := time.Now()
		beside.Go(func() {
			k.host.Send(answer)
			k.host.Fin()
		})
		sink := &sink{first: first}
		_ = k.client.SetReadDeadline(time.Now().Add(testkit.Patience))
		if n, err := io.Copy(sink, k.client.Conn); err != nil || n != int64(len(answer)) || sink.n != len(answer) {
			t.Errorf("%d bytes, %d came: %v", n, sink.n, err)
		}
		beside.Wait()
		k.done = append(k.done, exchange{answered.Sub(came), (<-first).Sub(asked)})
		k.check()
		k.finish()
	})
}

// sink tells when its first bytes have come.
type sink struct {
	n     int
	first chan<- time.Time
}

func (s *sink) Write(p []byte) (int, error) {
	if s.n == 0 && len(p) > 0 {
		s.first <- time.Now()
	}
	s.n += len(p)
	return len(p), nil
}

// A write that waits for the host is passed on when it is through: what it has waited is no
// turnaround.
func TestB81TurnaroundBehindABlockedWrite(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		var conn net.Conn
		k := startTalk(t, opt, func(r *enginetest.Rig) *enginetest.Peer {
			c, err := r.E.Dial(t.Context(), "web", netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			conn = c
			return &enginetest.Peer{T: t, Conn: c}
		})
		var began atomic.Int64 // ns since start: the write under way
		var enough atomic.Bool
		start, wrote := time.Now(), make(chan int, 1)
		go func() {
			all := 0
			for !enough.Load() {
				began.Store(int64(time.Since(start)))
				n, _ := conn.Write(make([]byte, 32<<10))
				all += n
			}
			wrote <- all
		}()
		const blocked = 200 * time.Millisecond
		testkit.Eventually(t, "a write waits", func() bool { return time.Since(start)-time.Duration(began.Load()) > blocked })
		enough.Store(true)
		reads := time.Now()
		go func() { _, _ = io.Copy(io.Discard, k.host) }()
		<-wrote
		k.host.Send([]byte("!"))
		k.client.Expect([]byte("!"))
		most := time.Since(reads)
		if list := k.r.E.Sessions(0, everyone); len(list) != 1 || list[0].Turns.Count != 1 || list[0].Turns.Worst > most+time.Microsecond {
			t.Errorf("want one turnaround of at most %v: %+v", most, list)
		}
	})
}
