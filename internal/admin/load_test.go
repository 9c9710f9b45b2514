package admin

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// B51: hosts come, go, drain and change weight, and the groups are switched,
// under load; no client notices.
func TestB51VerbsUnderLoad(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	stop := r.load(4)
	for i := range 20 {
		d := serve(t, "d")
		var leaving *sched.Host
		for _, line := range []string{
			"addHost web main d " + d.addr,
			"setHost web main d weight=7",
			"changeScheduler web main weightrr",
			"setHost web main a weight=0",
			"setHost web main a weight=3 state=drain",
			"hostAdminDown web main b",
			"hostAdminUp web main a; hostAdminUp web main b",
			"enableGroup web spare",
			"changeScheduler web main leastc",
			fmt.Sprintf("addGroup web new%d p2c", i),
			fmt.Sprintf("addHost web new%d e %s", i, a.addr),
			fmt.Sprintf("enableGroup web new%d drain=1m", i),
			"enableGroup web main",
			fmt.Sprintf("delGroup web new%d", i),
			"addListen web 127.0.0.1:0; delListen web 127.0.0.1:0",
			"delHost web main " + d.addr,
		} {
			r.do(line)
			if leaving == nil {
				leaving = r.target("web", "main", "d")
			}
		}
		// A server may go when its sessions have: one that waits in the queue of
		// its listener would be reset with bytes of the client in it.
		eventually(t, "the sessions of the deleted host end", func() bool { return leaving.Stats().Active == 0 })
		d.close()
	}
	if n := stop(); n < 20 {
		t.Errorf("only %d clients were served: that is no load", n)
	}
}

// B52: a host that is removed keeps its sessions.
func TestB52DeletedHostDrains(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	clients := map[string]*client{}
	for len(clients) < 2 {
		one, host := r.dial()
		clients[host] = one
	}
	if text := r.do("delHost web main a"); !strings.Contains(text, "1 session") {
		t.Errorf("said %q", text)
	}
	for range 10 {
		if _, host := r.dial(); host != "b" {
			t.Errorf("a new client came to %s", host)
		}
	}
	if host, err := clients["a"].ask(); host != "a" || err != nil {
		t.Errorf("the session on the deleted host: %q, %v", host, err)
	}
}

// B52: a deadline closes what is left, not before, and nothing else.
func TestB52DeadlineClosesWhatIsLeft(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	for _, verb := range []string{"delHost web main a", "enableGroup web spare"} {
		for _, deadline := range []time.Duration{0, 200 * time.Millisecond} {
			t.Run(fmt.Sprint(verb, deadline), func(t *testing.T) {
				r := newRig(t, doc(a.addr, b.addr, c.addr))
				clients := map[string]*client{}
				for len(clients) < 2 {
					one, host := r.dial()
					clients[host] = one
				}
				begun := time.Now()
				r.do(fmt.Sprintf("%s drain=%v", verb, deadline))
				if deadline > 0 {
					if host, err := clients["a"].ask(); (host != "a" || err != nil) && time.Since(begun) < deadline {
						t.Errorf("before the deadline: %q, %v", host, err)
					}
				}
				clients["a"].expectGone(t)
				if took := time.Since(begun); took < deadline {
					t.Errorf("closed after %v", took)
				}
				if strings.HasPrefix(verb, "enableGroup") {
					clients["b"].expectGone(t)
				} else if host, err := clients["b"].ask(); host != "b" || err != nil {
					t.Errorf("the neighbour: %q, %v", host, err)
				}
				if _, host := r.dial(); host == "a" {
					t.Errorf("a new client came to %s", host)
				}
			})
		}
	}
}

// A group that is enabled again before the deadline keeps its sessions.
func TestDeadlineSparesWhatServesAgain(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	const deadline = 200 * time.Millisecond
	one, host := r.dial()
	for {
		began := time.Now()
		r.do(fmt.Sprintf("enableGroup web spare drain=%v", deadline))
		r.do("enableGroup web main")
		if time.Since(began) < deadline {
			break
		}
		one, host = r.dial() // on a busy machine the deadline may have come before
	}
	<-time.After(2 * deadline) // what should not happen cannot be waited for
	if again, err := one.ask(); again != host || err != nil {
		t.Errorf("the session: %q, %v", again, err)
	}
}

// B64: a thousand random changes by verbs, under load, leak neither
// descriptors nor goroutines, and no client notices.
func TestB64ThousandVerbs(t *testing.T) {
	backends := []string{}
	for i := range 4 {
		backends = append(backends, serve(t, fmt.Sprint(i)).addr)
	}
	files, goroutines := testkit.OpenFDs(), runtime.NumGoroutine()
	r := newRig(t, doc(backends[0], backends[1], backends[2]))
	stop := r.load(2)
	random := rand.New(rand.NewPCG(64, 1))
	for i := range 1000 {
		r.do(randomVerb(random, r.dir.State().Config, backends, i))
	}
	if n := stop(); n < 20 {
		t.Errorf("only %d clients were served: that is no load", n)
	}
	r.stop()
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "all descriptors are closed", func() bool { return testkit.OpenFDs() <= files })
}

// randomVerb returns a command that is right for the configuration and leaves
// service web with a host for its clients.
func randomVerb(random *rand.Rand, c *config.Config, backends []string, n int) string {
	s := c.Services[0]
	address := backends[random.IntN(len(backends))]
	g := s.Groups[random.IntN(len(s.Groups))]
	takes := func(h *config.Host) bool { return h.State == "ready" && h.Weight > 0 }
	var taking []*config.Host
	for _, h := range g.Hosts {
		if takes(h) {
			taking = append(taking, h)
		}
	}
	// A host may go if another is left that takes clients.
	spare := func() *config.Host {
		if len(g.Hosts) == 0 {
			return nil
		}
		h := g.Hosts[random.IntN(len(g.Hosts))]
		if slices.ContainsFunc(taking, func(o *config.Host) bool { return o != h }) {
			return h
		}
		return nil
	}
	at := "web " + g.Name + " "
	for {
		switch random.IntN(14) {
		case 0, 1, 2:
			if len(g.Hosts) < 6 {
				return fmt.Sprintf("addHost %sh%d %s weight=%d", at, n, address, 1+random.IntN(9))
			}
		case 3, 4:
			if h := spare(); h != nil {
				return fmt.Sprintf("delHost %s%s", at, h.Name)
			}
		case 5:
			if h := spare(); h != nil {
				return fmt.Sprintf("setHost %s%s weight=%d state=drain", at, h.Name, random.IntN(100))
			}
		case 6:
			if h := spare(); h != nil {
				return fmt.Sprintf("hostAdminDown %s%s", at, h.Name)
			}
		case 7:
			if len(g.Hosts) > 0 {
				return fmt.Sprintf("setHost %s%s state=ready weight=%d", at, g.Hosts[0].Name, 1+random.IntN(100))
			}
		case 8:
			names := sched.Choices()
			return "changeScheduler " + at + names[random.IntN(len(names))]
		case 9:
			if len(taking) > 0 {
				return "enableGroup " + at
			}
		case 10:
			if len(s.Groups) < 5 {
				return fmt.Sprintf("addGroup web g%d", n)
			}
		case 11:
			if !g.Enabled {
				return "delGroup " + at
			}
		case 12:
			if len(s.Listen) > 1 {
				return "delListen web " + s.Listen[1].Address
			}
			return "addListen web 127.0.0.1:0"
		case 13:
			return []string{
				"retryHost mail only m", "show hosts", "status", "shutdownSessions mail",
				"addUser u" + fmt.Sprint(n) + " $6$x$y full; delUser u" + fmt.Sprint(n),
				fmt.Sprintf("addService s%d 127.0.0.1:0; delService s%d", n, n),
			}[random.IntN(6)]
		}
	}
}

// Two changes at the same moment are both whole.
func TestChangesAtTheSameMomentAreWhole(t *testing.T) {
	a := serve(t, "a")
	r := newRig(t, doc(a.addr, a.addr, a.addr))
	const each = 50
	var running sync.WaitGroup
	for who := range 4 {
		running.Go(func() {
			for i := range each {
				name := fmt.Sprintf("h%d-%d", who, i)
				for _, line := range []string{
					fmt.Sprintf("addHost web spare %s %s weight=%d", name, a.addr, who+1),
					fmt.Sprintf("setHost web spare %s state=drain", name),
				} {
					if _, err := r.a.Run(t.Context(), boss, line); err != nil {
						t.Errorf("%s: %v", line, err)
					}
				}
			}
		})
	}
	running.Wait()
	hosts := r.dir.State().Config.Services[0].Groups[1].Hosts
	if len(hosts) != 1+4*each || r.dir.State().Generation != 1+8*each {
		t.Errorf("%d hosts, generation %d", len(hosts), r.dir.State().Generation)
	}
	for _, h := range hosts[1:] {
		if h.State != "drain" || h.Weight != int(h.Name[1]-'0')+1 {
			t.Errorf("host %+v", h)
		}
	}
}

// Of two changes meant for the same generation one is made.
func TestOneOfTwoChangesOfAGeneration(t *testing.T) {
	a := serve(t, "a")
	r := newRig(t, doc(a.addr, a.addr, a.addr))
	for round := range 20 {
		generation := r.dir.State().Generation
		results := make(chan error, 2)
		for who := range 2 {
			go func() {
				_, err := r.a.Run(t.Context(), boss, fmt.Sprintf("addGroup web g%d-%d generation=%d", round, who, generation))
				results <- err
			}()
		}
		first, second := <-results, <-results
		if (first == nil) == (second == nil) || r.dir.State().Generation != generation+1 {
			t.Fatalf("%v and %v, generation %d after %d", first, second, r.dir.State().Generation, generation)
		}
	}
}
