package engine_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// heldRig starts a service whose group has a policy.
func heldRig(t *testing.T, opt setup, wait time.Duration, p sched.Policy, backends ...sched.Addr) *enginetest.Rig {
	t.Helper()
	opt.Loops *= 2
	timeouts := enginetest.TestTimeouts
	timeouts.Queue = wait
	r := newRig(t, opt, engine.Route{Timeouts: timeouts})
	setTable(r, r.Table(p, backends...))
	return r
}

// retable makes another table of the rig's hosts.
func retable(r *enginetest.Rig, p sched.Policy) {
	r.T.Helper()
	var members []sched.Member
	for _, h := range r.Hosts {
		members = append(members, sched.Member{Host: h, Weight: 1})
	}
	table, err := sched.NewTable(p, members)
	if err != nil {
		r.T.Fatal(err)
	}
	setTable(r, table)
}

// Held clients wait without a byte lost, whatever they send meanwhile, for longer than the
// time of the queue, and are let out in the order in which they came.
func TestB79HeldClientsKeepOrderAndBytes(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		const queueTime = 100 * time.Millisecond
		gate := sched.NewGate()
		served := make(chan byte, 100)
		r := heldRig(t, opt, queueTime, sched.Policy{Gate: gate}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			id := make([]byte, 1)
			if _, err := p.Read(id); err != nil {
				t.Errorf("the first byte: %v", err)
				return
			}
			served <- id[0]
			_, _ = p.Write(id)
			enginetest.Echo(p)
		}))
		const n = 12
		began := time.Now()
		var clients []*enginetest.Peer
		var sending sync.WaitGroup
		data := make([][]byte, n)
		for i := range n {
			c := dialQueued(t, r)
			clients = append(clients, c)
			data[i] = enginetest.Payload([]int{1, 100, 3 << 20}[i%3], uint64(i))
			data[i][0] = byte(i)
			sending.Go(func() { // the long ones cannot be sent before somebody reads
				c.Send(data[i])
				c.Fin()
			})
		}
		for time.Since(began) < 3*queueTime { // it is the clock that must move on
			time.Sleep(queueTime / 10)
		}
		if s := r.Stats(); s.Active != n || queue(r).Len() != n || r.Hosts[0].Stats().Picks != 0 {
			t.Fatalf("%d wait, counted %+v", queue(r).Len(), s)
		}
		for _, i := range r.E.Sessions(0, everyone) {
			if i.Held <= 0 || i.Held > time.Since(began) {
				t.Errorf("a session was held for %v of %v", i.Held, time.Since(began))
			}
			if s, ok := r.E.Explain(i.ID); !ok || s.Held < i.Held || s.Held != s.Waited {
				t.Errorf("its story: held for %v, waited for %v, before %v", s.Held, s.Waited, i.Held)
			}
		}
		for i := range n {
			gate.Keep(int64(n - 1 - i))
			queue(r).Look()
			if got := <-served; got != byte(i) {
				t.Fatalf("client %d is served, and it is the turn of client %d", got, i)
			}
		}
		for i, c := range clients {
			c.Expect(data[i])
			c.ExpectEOF()
		}
		sending.Wait()
		var ended []engine.Story
		testkit.Eventually(t, "all have ended", func() bool { ended = r.E.Ended(n); return len(ended) == n })
		for _, s := range ended {
			if s.Held < 2*queueTime || s.Held != s.Waited {
				t.Errorf("its story: held for %v, waited for %v", s.Held, s.Waited)
			}
		}
		gate.Keep(1)
		late := dialQueued(t, r)
		retable(r, sched.Policy{})
		late.Send([]byte{99})
		late.Expect([]byte{99})
		if got := <-served; got != 99 {
			t.Errorf("%d is served", got)
		}
		r.Dial().Send([]byte{7}) // nobody waits any more
		if got := <-served; got != 7 {
			t.Errorf("%d is served", got)
		}
	})
}

// When a gate opens and all hosts are full, the time of the queue begins then: nobody is
// rejected for the time behind the gate. Before that no timeout ends who waits.
func TestB79TimeOfTheQueueBeginsBehindTheGate(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		const queueTime = 300 * time.Millisecond
		r := heldRig(t, opt, queueTime, sched.Policy{}, greeter(t))
		r.Hosts[0].SetMaxSessions(1)
		inside := r.Dial()
		inside.Expect([]byte("a"))
		waits := dialQueued(t, r) // for room, and then behind the gate
		retable(r, sched.Policy{Gate: sched.NewGate()})
		held := dialQueued(t, r)
		began := time.Now()
		for time.Since(began) < 2*queueTime {
			time.Sleep(queueTime / 10)
		}
		if queue(r).Len() != 2 {
			t.Fatalf("%d wait", queue(r).Len())
		}
		opened := time.Now()
		retable(r, sched.Policy{})
		for _, c := range []*enginetest.Peer{waits, held} {
			c.ExpectEOF()
			if d := time.Since(opened); d < queueTime {
				t.Errorf("rejected %v after the gate was opened", d)
			}
		}
		if s := r.Stats(); s.Refused["queue"] != 2 {
			t.Errorf("counted %+v", s)
		}
		_ = inside.Close()
	})
}

// As many clients as may are held at once, and not one more.
func TestB79HeldClientsAreBounded(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		const most, more = 5, 20
		r := heldRig(t, opt, 0, sched.Policy{Gate: sched.NewGate(), MostHeld: most}, greeter(t))
		var clients []*enginetest.Peer
		for range most + more {
			clients = append(clients, r.Dial())
		}
		testkit.Eventually(t, "the others are rejected", func() bool { return r.Stats().Refused["hold_full"] == more })
		if n := queue(r).Longest(); n != most {
			t.Errorf("%d waited at once, of %d", n, most)
		}
		retable(r, sched.Policy{})
		greeted := 0
		for _, c := range clients {
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			if n, _ := c.Read(make([]byte, 1)); n == 1 {
				greeted++
			}
			_ = c.Close()
		}
		if greeted != most {
			t.Errorf("%d of %d were served", greeted, most)
		}
		r.Quiet()
		if s := r.Stats(); s.Ended["sQ"] != more {
			t.Errorf("counted %+v", s.Ended)
		}
	})
}

// Clients that a gate lets out to hosts that refuse them are rejected as others are: they do
// not go back behind the gate to be let out again at once.
func TestB79LetOutToHostsThatRefuse(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, tries := range []int{0, 1} {
			gate := sched.NewGate()
			r := heldRig(t, opt, 0, sched.Policy{Gate: gate}, enginetest.DeadAddr(t), enginetest.DeadAddr(t))
			route := *r.Route
			route.Tries = tries
			r.Route = &route
			retable(r, sched.Policy{Gate: gate})
			const n, out = 5, 3
			var clients []*enginetest.Peer
			for range n {
				clients = append(clients, dialQueued(t, r))
			}
			gate.Keep(n - out)
			queue(r).Look()
			for _, c := range clients[:out] {
				c.ExpectEOF()
			}
			picks := r.Hosts[0].Stats().Picks + r.Hosts[1].Stats().Picks
			each := uint64(2)
			if tries > 0 {
				each = uint64(tries)
			}
			if picks != out*each {
				t.Errorf("tries %d: %d picks for %d clients", tries, picks, out)
			}
			if s := r.Stats(); s.Refused["no_host"] != out || queue(r).Len() != n-out {
				t.Errorf("tries %d: %d wait, counted %+v", tries, queue(r).Len(), s.Refused)
			}
			for _, c := range clients[out:] {
				_ = c.Close()
			}
		}
	})
}

// A client that has used up its tries waits as well while no host is up.
func TestB79TriesDoNotEndTheWaitForAHost(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		works := greeter(t)
		r := heldRig(t, opt, 0, sched.Policy{Await: true}, enginetest.DeadAddr(t))
		route := *r.Route
		route.Tries = 1
		r.Route = &route
		retable(r, sched.Policy{Await: true})
		c := dialQueued(t, r) // the host refuses it, and is down then
		h := sched.NewHostIn(r.Hosts[0].Times(), "new", works)
		r.Hosts = append(r.Hosts, h)
		retable(r, sched.Policy{Await: true})
		c.Expect([]byte("a"))
	})
}

// A client that has waited before keeps its place: it is not rejected because as many as may
// be held wait already.
func TestB79WhoHasWaitedIsHeldAgain(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		gate := sched.NewGate()
		r := heldRig(t, opt, 0, sched.Policy{Gate: gate, MostHeld: 1}, enginetest.DeadAddr(t))
		first := dialQueued(t, r)
		retable(r, sched.Policy{Await: true, MostHeld: 1}) // its connect takes the last host down
		if err := r.Reported(r.Hosts[0]); err == nil {
			t.Error("no error is reported")
		}
		testkit.Eventually(t, "it waits again", func() bool { return queue(r).Len() == 1 })
		retable(r, sched.Policy{Gate: gate, MostHeld: 1})
		r.Dial().ExpectEOF()
		if s := r.Stats(); s.Refused["hold_full"] != 1 || queue(r).Len() != 1 {
			t.Errorf("%d wait, counted %+v", queue(r).Len(), s.Refused)
		}
		_ = first.Close()
	})
}

// With Await, clients wait while no host is up, also those whose connect has taken the last
// one down; they are rejected when the time of the queue is over, and served by a host that
// they have tried before.
func TestB79ClientsWaitForAHostThatIsUp(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		works := greeter(t)
		r := heldRig(t, opt, 0, sched.Policy{Await: true}, enginetest.DeadAddr(t))
		first := dialQueued(t, r) // it is refused by the host, which is down then
		if err := r.Reported(r.Hosts[0]); err == nil {
			t.Error("no error is reported")
		}
		second := dialQueued(t, r)
		h := sched.NewHostIn(r.Hosts[0].Times(), "new", works)
		h.MarkDown()
		r.Hosts = append(r.Hosts, h)
		retable(r, sched.Policy{Await: true})
		if queue(r).Len() != 2 {
			t.Errorf("%d wait", queue(r).Len())
		}
		h.MarkUp()
		first.Expect([]byte("a"))
		second.Expect([]byte("a"))

		h.MarkDown()
		route := *r.Route
		route.Timeouts.Queue = 200 * time.Millisecond
		r.Route = &route
		retable(r, sched.Policy{Await: true})
		began := time.Now()
		r.Dial().ExpectEOF()
		if d := time.Since(began); d < route.Timeouts.Queue {
			t.Errorf("rejected after %v", d)
		}
		if s := r.Stats(); s.Refused["hold_timeout"] != 1 || s.Refused["queue"] != 0 || s.Refused["no_host"] != 0 {
			t.Errorf("counted %+v", s.Refused)
		}
	})
}

// A host that comes and goes does not make a client wait for ever.
func TestB79WaitForAHostEnds(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := heldRig(t, opt, 300*time.Millisecond, sched.Policy{Await: true}, enginetest.DeadAddr(t))
		began := time.Now()
		c := r.Dial()
		over := make(chan struct{})
		var health sync.WaitGroup
		health.Go(func() {
			for {
				select {
				case <-over:
					return
				case <-r.E.Failures():
				case <-time.After(20 * time.Millisecond):
					r.Hosts[0].MarkUp() // and the next connect takes it down
				}
			}
		})
		c.ExpectEOF()
		if d := time.Since(began); d < 300*time.Millisecond {
			t.Errorf("rejected after %v", d)
		}
		close(over)
		health.Wait()
		if n := r.Hosts[0].Stats().Failures; n < 2 {
			t.Errorf("the host was tried %d times", n)
		}
	})
}

// A connection that the program asks for waits as a client does, as long as its context
// allows.
func TestB79DialsWait(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := heldRig(t, opt, 0, sched.Policy{Gate: sched.NewGate()}, greeter(t))
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := r.E.Dial(ctx, "web", nobody)
			left <- err
		}()
		testkit.Eventually(t, "it waits", func() bool { return queue(r).Len() == 1 })
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("it was given up: %v", err)
		}
		testkit.Eventually(t, "it is out", func() bool { return queue(r).Len() == 0 })
		got := make(chan *enginetest.Peer, 1)
		go func() { got <- dialHost(r, nobody) }()
		testkit.Eventually(t, "it waits", func() bool { return queue(r).Len() == 1 })
		retable(r, sched.Policy{})
		(<-got).Expect([]byte("a"))
	})
}

// The client of a held group leaves the queue when it goes, when an operator ends it, when
// its group goes and when the engine closes. Another group takes who was in the queue.
func TestB79HeldClientsLeave(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		other := greeter(t)
		r := heldRig(t, opt, 0, sched.Policy{Gate: sched.NewGate()}, greeter(t))
		held := r.Route.Table
		gone, stays := dialQueued(t, r), dialQueued(t, r)
		gone.Rst()
		testkit.Eventually(t, "it is out", func() bool { return queue(r).Len() == 1 && r.Stats().Ended["CQ"] == 1 })
		setTable(r, r.Table(sched.Policy{}, other))
		stays.Expect([]byte("a"))
		setTable(r, held)
		dialQueued(t, r)
		if n := r.E.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return c.Host == nil }); n != 1 {
			t.Errorf("%d sessions are ended", n)
		}
		testkit.Eventually(t, "it has ended", func() bool { return r.Stats().Ended["KQ"] == 1 })
		for range 3 {
			dialQueued(t, r)
		}
		// The end of the test closes the engine.
	})
}

// A host that resets a client before the first byte, as one does that restarts, costs a
// client of a held group nothing: it waits with the others.
func TestB79ResetBeforeTheFirstByteWaits(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		accepted, reset := make(chan struct{}, 1), make(chan struct{})
		var once sync.Once
		r := heldRig(t, opt, 0, sched.Policy{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			first := false
			once.Do(func() { first = true })
			if first {
				accepted <- struct{}{}
				<-reset
				p.Rst()
				return
			}
			enginetest.Echo(p)
		}))
		c := r.Dial()
		<-accepted
		retable(r, sched.Policy{Gate: sched.NewGate()})
		close(reset)
		testkit.Eventually(t, "it waits", func() bool { return queue(r).Len() == 1 })
		c.Send([]byte("hello"))
		retable(r, sched.Policy{})
		c.Expect([]byte("hello"))
	})
}
