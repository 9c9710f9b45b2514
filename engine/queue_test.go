package engine_test

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// queueRig starts a service on four loops, or on the portable engine, with as many hosts
// as there are limits.
func queueRig(t *testing.T, opt setup, wait time.Duration, policy sched.Policy, limits ...int) *enginetest.Rig {
	opt.Loops *= 2
	timeouts := enginetest.TestTimeouts
	timeouts.Queue = wait
	backends := backendsFor(t, limits) // they end after the engine
	r := newRig(t, opt, engine.Route{Timeouts: timeouts})
	setTable(r, r.Table(policy, backends...))
	for i, n := range limits {
		r.Hosts[i].SetMaxSessions(n)
	}
	return r
}

func backendsFor(t *testing.T, limits []int) (list []sched.Addr) {
	for range limits {
		list = append(list, greeter(t))
	}
	return list
}

// setTable makes the rig's service use a table.
func setTable(r *enginetest.Rig, table *sched.Table) {
	route := *r.Route
	route.Table = table
	r.Route = &route
	r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route})
}

// queue is the queue of the rig's hosts.
func queue(r *enginetest.Rig) *sched.Queue { return &r.Hosts[0].Times().Queue }

// dialQueued connects a client and waits until the queue has it.
func dialQueued(t *testing.T, r *enginetest.Rig) *enginetest.Peer {
	t.Helper()
	before := queue(r).Len()
	c := r.Dial()
	testkit.Eventually(t, "the client waits in the queue", func() bool { return queue(r).Len() == before+1 })
	return c
}

// watchLimits looks at the hosts all the time until the function that it returns is
// called, which says how many sessions each had at most.
func watchLimits(hosts []*sched.Host) (most func() []int64) {
	stop, done := make(chan struct{}), make(chan struct{})
	seen := make([]int64, len(hosts))
	go func() {
		defer close(done)
		for {
			for i, h := range hosts {
				seen[i] = max(seen[i], h.Sessions())
			}
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
			}
		}
	}()
	return func() []int64 {
		close(stop)
		<-done
		return seen
	}
}

// Clients of a host that is full are served in the order in which they came, each on the
// loop that has it, as soon as one before them has ended.
func TestB41AndB86QueuedClientsAreServedInOrder(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		const places, waiting = 2, 60
		r := queueRig(t, opt, 0, sched.Policy{}, places)
		most := watchLimits(r.Hosts)
		var inside []*enginetest.Peer
		for range places {
			c := r.Dial()
			c.Expect([]byte("a"))
			inside = append(inside, c)
		}
		var clients []*enginetest.Peer
		for range waiting {
			clients = append(clients, dialQueued(t, r))
		}
		served := make(chan int, waiting)
		var readers sync.WaitGroup
		for i, c := range clients {
			readers.Go(func() {
				c.Expect([]byte("a"))
				served <- i
			})
		}
		for i := range clients {
			_ = inside[0].Close()
			if got := <-served; got != i {
				t.Fatalf("client %d is served, and it is the turn of client %d", got, i)
			}
			inside = append(inside[1:], clients[i])
		}
		readers.Wait()
		for _, c := range inside {
			_ = c.Close()
		}
		r.Quiet()
		if n := most(); n[0] != places {
			t.Errorf("the host had %d sessions at once, at most %d", n[0], places)
		}
		if h := r.Hosts[0].Times().Waits(); h.Count() != waiting || queue(r).Longest() != waiting || queue(r).Len() != 0 {
			t.Errorf("%d waits are counted, at most %d at once, %d now; want %d", h.Count(), queue(r).Longest(), queue(r).Len(), waiting)
		}
		if s := r.Stats(); s.Ended["--"] != places+waiting {
			t.Errorf("counted %+v", s)
		}
	})
}

// A client that resets its connection is out of the queue, also if it has said something
// that nobody has read yet.
func TestB41QueuedClientThatHasSpokenLeaves(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := queueRig(t, opt, 0, sched.Policy{}, 1)
		inside := r.Dial()
		inside.Expect([]byte("a"))
		leaves, stays := dialQueued(t, r), dialQueued(t, r)
		leaves.Send([]byte("hello"))
		stays.Send([]byte("hello"))
		leaves.Rst()
		testkit.Eventually(t, "the client is out of the queue", func() bool { return queue(r).Len() == 1 })
		_ = inside.Close()
		stays.Expect([]byte("a"))
	})
}

// Who waits for too long is refused with a reason; who leaves makes room at once; a
// timeout that changes holds for those who wait.
func TestB41QueueTimeout(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := queueRig(t, opt, 300*time.Millisecond, sched.Policy{}, 1)
		first := r.Dial()
		first.Expect([]byte("a"))
		began := time.Now()
		r.Dial().ExpectEOF()
		if d := time.Since(began); d < 300*time.Millisecond {
			t.Errorf("refused after %v, and the timeout is 300ms", d)
		}
		if s := r.Stats(); s.Refused["queue"] != 1 || s.Refused["no_host"] != 0 {
			t.Errorf("counted %+v", s)
		}
		testkit.Eventually(t, "it has ended", func() bool { return r.Stats().Ended["sQ"] == 1 })

		route := *r.Route
		route.Timeouts.Queue = 0
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
		leaves, stays := dialQueued(t, r), dialQueued(t, r)
		_ = leaves.Conn.(*net.TCPConn).SetLinger(0)
		_ = leaves.Close()
		testkit.Eventually(t, "who has left is out of the queue", func() bool { return queue(r).Len() == 1 })
		testkit.Eventually(t, "and has ended", func() bool { return r.Stats().Ended["CQ"] == 1 })
		if n := r.E.EndSessions(engine.ByOperator, func(c engine.Candidate) bool { return c.Host == nil }); n != 1 {
			t.Errorf("%d sessions are killed", n)
		}
		testkit.Eventually(t, "who is killed is out", func() bool { return queue(r).Len() == 0 && r.Stats().Ended["KQ"] == 1 })
		stays.ExpectEOF()

		late := dialQueued(t, r)
		again := route
		again.Timeouts.Queue = 10 * time.Millisecond
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &again})
		late.ExpectEOF()
		_ = first.Close()
		r.Quiet()
	})
}

// At the limit of a host the others are picked. Who waits goes on when a limit is raised,
// a host comes up or joins, the group is another one, or none is left.
func TestB41QueueLooksAgain(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		joins, others := greeter(t), greeter(t)
		r := queueRig(t, opt, 0, sched.Policy{Scheduler: "roundr"}, 1, 2)
		served := func(c *enginetest.Peer) { c.Expect([]byte("a")) }
		for range 3 {
			served(r.Dial())
		}
		if a, b := r.Hosts[0].Sessions(), r.Hosts[1].Sessions(); a != 1 || b != 2 {
			t.Errorf("%d and %d sessions, want 1 and 2", a, b)
		}
		c := dialQueued(t, r)
		r.Hosts[0].SetMaxSessions(2)
		served(c)

		c, d := dialQueued(t, r), dialQueued(t, r)
		setTable(r, r.Route.Table) // nothing new
		// Another host joins: of the same group, so with its times.
		h := sched.NewHostIn(r.Hosts[0].Times(), "new", joins)
		h.SetMaxSessions(1)
		r.Hosts = append(r.Hosts, h)
		members := []sched.Member{{Host: r.Hosts[0], Weight: 1}, {Host: r.Hosts[1], Weight: 1}, {Host: h, Weight: 1}}
		table, err := sched.NewTable(sched.Policy{Refuse: true}, members)
		if err != nil {
			t.Fatal(err)
		}
		setTable(r, table)
		served(c)

		// A host goes down, which helps nobody, and comes back.
		h.MarkDown()
		testkit.Eventually(t, "nothing", func() bool { return queue(r).Len() == 1 })
		h.SetMaxSessions(2)
		if queue(r).Len() != 1 {
			t.Error("a host that is down takes who waits for another")
		}
		h.MarkUp()
		served(d)

		// The group changes under who waits.
		c, d = dialQueued(t, r), dialQueued(t, r)
		other := r.Table(sched.Policy{}, others)
		was := r.Route.Table
		setTable(r, other)
		served(c)
		served(d)

		// All hosts go down, and the group refuses.
		setTable(r, was)
		c = dialQueued(t, r)
		for _, h := range r.Hosts {
			h.MarkDown()
		}
		setTable(r, was)
		c.ExpectEOF()
		if s := r.Stats(); s.Refused["no_host"] != 1 || queue(r).Len() != 0 {
			t.Errorf("counted %+v, %d wait", s, queue(r).Len())
		}
		// No group at all.
		for _, h := range r.Hosts {
			h.MarkUp()
		}
		c = dialQueued(t, r)
		setTable(r, nil)
		c.ExpectEOF()
	})
}

// Under load a limit is never passed, whatever else happens: clients that leave while
// they wait, hosts that go down with a queue, limits and tables that change. Nobody is
// forgotten.
func TestB41LimitsOfHostsUnderLoad(t *testing.T) {
	testkit.Long(t)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := queueRig(t, opt, 0, sched.Policy{Scheduler: "roundr"}, 3, 2, 4)
		most := watchLimits(r.Hosts)
		var served, left atomic.Int64
		stop := make(chan struct{})
		var clients sync.WaitGroup
		for i := range uint64(24) {
			clients.Go(func() {
				rnd := rand.New(rand.NewPCG(41, i))
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := net.Dial("tcp", r.Addr)
					if err != nil {
						t.Error(err)
						return
					}
					if i%6 == 0 && rnd.IntN(2) == 0 {
						left.Add(1)
					} else {
						_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
						if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
							t.Errorf("a client that waits: %v", err)
						}
						served.Add(1)
					}
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
			})
		}
		rnd := rand.New(rand.NewPCG(41, 99))
		for i := range 60 {
			n := served.Load()
			testkit.Eventually(t, "clients are served", func() bool { return served.Load() >= n+10 })
			switch i % 4 {
			case 0:
				r.Hosts[1].MarkDown()
			case 1:
				r.Hosts[1].MarkUp()
			case 2:
				r.Hosts[2].SetMaxSessions(1 + rnd.IntN(4))
			}
			setTable(r, r.Route.Table)
		}
		close(stop)
		clients.Wait()
		r.Quiet()
		if n := most(); n[0] > 3 || n[1] > 2 || n[2] > 4 {
			t.Errorf("at most %v sessions at once, of 3, 2 and 4", n)
		}
		if n := queue(r).Len(); n != 0 || left.Load() == 0 {
			t.Errorf("%d wait after the end; %d clients left", n, left.Load())
		}
	})
}
