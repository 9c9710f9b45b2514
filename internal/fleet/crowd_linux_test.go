package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
)

// crowd is a fleet with many hosts in a synctest bubble: the store, the network and the hosts
// are in memory and count what is asked of them, all else is the program's own.
type crowd struct {
	t     *testing.T
	store *memoryStore
	wires *wires
	nodes []*sheep
	hosts int

	silent atomic.Pointer[map[string]bool]     // addresses of hosts that do not answer
	vigil  atomic.Pointer[map[string]*watched] // addresses whose checks are noted
}

// watched is an address whose checks are noted.
type watched struct {
	mu sync.Mutex
	by map[string]bool // the nodes that have checked it
	at time.Time       // when the last one that it needs has
}

// sheep is a node of a crowd.
type sheep struct {
	*Node
	dir    *director.Director
	link   *link
	addr   string
	checks atomic.Int64
	stop   func()
	gone   bool
}

// flock is a configuration with so many services that have so many hosts each.
func flock(t *testing.T, s size) *config.Config {
	t.Helper()
	of, problems := config.Parse("c", fmt.Appendf(nil, `<config><service name="s"><listen ip="unix:/run/s"/><group name="g">
		<check type="tcp" interval="%v"/><host name="h" ip="10.0.0.1:80"/></group></service></config>`, s.every))
	if of == nil {
		t.Fatal(problems)
	}
	c := of.Clone()
	c.Services = nil
	for i := range s.services {
		service := of.Clone().Services[0]
		service.Name, service.Listen[0].Address = fmt.Sprint("service", i), fmt.Sprint("unix:/run/s", i)
		group := service.Groups[0]
		first := *group.Hosts[0]
		group.Hosts = nil
		for n := range s.hosts {
			h, number := first, i*s.hosts+n
			h.Name, h.Address = fmt.Sprint("host", number), fmt.Sprintf("10.%d.%d.%d:80", number>>16, number>>8&255, number&255)
			group.Hosts = append(group.Hosts, &h)
		}
		c.Services = append(c.Services, service)
	}
	return c
}

// gather starts all nodes of a fleet at once.
func gather(t *testing.T, s size) *crowd {
	t.Helper()
	c := flock(t, s)
	t.Cleanup(func() { time.Sleep(10 * time.Second) }) // connections to nodes that are gone are given up
	all := &crowd{t: t, store: newMemoryStore(), wires: newWires(), hosts: s.all()}
	for i := range s.nodes {
		n := &sheep{link: all.store.link(), addr: fmt.Sprintf("192.0.2.%d:7946", 1+i)}
		settings := config.Fleet{Name: "edge", Node: fmt.Sprintf("n%02d", i), Store: []string{"http://127.0.0.1:1"}, Lease: lease, Listen: n.addr, Secret: fleetKey}
		log := slog.New(slog.DiscardHandler)
		var err error
		n.Node, err = New(Options{
			Config: settings, Connect: n.link.connect, StateDir: t.TempDir(), Version: "1.2.3", Log: log, Network: all.wires.at(n.addr),
			Vitals: func() (int64, error) { return 7, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		// A look takes a microsecond for each host, and may take a tenth of the time.
		n.sharing.least = min(max(leastPause, time.Duration(all.hosts)*10*time.Microsecond), beat)
		n.dir, err = director.New(c, newStubEngine(), director.Options{
			Log: log, MaxProbes: 1024, Commit: n.Commit, Fleet: n, Generation: n.Generation(), Notify: n.Notice,
			Probe: func(_ context.Context, p health.Probe) health.Result { return all.probe(n, p) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = n.dir.Run(ctx) })
		running.Go(func() { n.Run(ctx, n.dir) })
		n.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
		t.Cleanup(n.stop)
		all.nodes = append(all.nodes, n)
	}
	return all
}

// probe is a check of a host by a node.
func (c *crowd) probe(n *sheep, p health.Probe) health.Result {
	n.checks.Add(1)
	if vigil := c.vigil.Load(); vigil != nil {
		if w := (*vigil)[p.Addr.String()]; w != nil {
			w.mu.Lock()
			if len(w.by) < peers.Copies {
				w.by[n.name], w.at = true, time.Now()
			}
			w.mu.Unlock()
		}
	}
	if silent := c.silent.Load(); silent != nil && (*silent)[p.Addr.String()] {
		return health.Result{Code: health.L4Con, Text: "connection refused"}
	}
	return health.Result{Code: health.L4OK}
}

// targets are the addresses of hosts of a node.
func (n *sheep) targets(yield func(*director.Target) bool) {
	for _, s := range n.dir.State().Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if !yield(h.Targets[0]) {
					return
				}
			}
		}
	}
}

// some returns every so many hosts: their addresses, and the targets that all nodes have of them.
func (c *crowd) some(every int) (addresses map[string]bool, targets []*director.Target) {
	addresses = map[string]bool{}
	for _, n := range c.nodes {
		i := 0
		for t := range n.targets {
			if i++; i%every == 0 {
				addresses[t.Host.Addr().String()] = true
				targets = append(targets, t)
			}
		}
	}
	return addresses, targets
}

// shares tells whether all nodes that live have all that there is from one another.
func (c *crowd) shares() bool {
	live := 0
	for _, n := range c.nodes {
		if !n.gone {
			live++
		}
	}
	for _, n := range c.nodes {
		n.mu.Lock()
		is, joined := n.Node.checks, n.store != nil
		n.mu.Unlock()
		if !n.gone && (!joined || is.Nodes != live || is.Mine+is.Learned != c.hosts) {
			return false
		}
	}
	return true
}

// until lets time pass until something is so, and returns how long that took.
func (c *crowd) until(what string, is func() bool) time.Duration {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		took := time.Since(began)
		if is() {
			return took
		}
		if took > 5*time.Minute {
			c.t.Fatalf("not within %v: %s: %v", took, what, c.nodes[0].Status().Shares)
		}
	}
}

// kill ends a node: its process, or with its machine, which says no word more.
func (c *crowd) kill(n *sheep, machine bool) {
	if n.gone = true; machine {
		c.wires.silence(n.addr)
	}
	c.store.set(func() { n.link.cut = errCut })
	n.stop()
}

// toll is what a part of a simulation has cost.
type toll struct {
	name   string
	took   time.Duration
	nodes  int
	checks int64
	phase
	words, bytes int64 // between nodes
	cpu          time.Duration
	allocated    uint64 // bytes
}

// measure notes what happens meanwhile.
func (c *crowd) measure(name string, f func()) *toll {
	c.store.set(func() { c.store.calls = []call{} })
	count := func() (t toll) {
		for _, n := range c.nodes {
			t.checks += n.checks.Load()
		}
		t.words, t.bytes, t.cpu = c.wires.writes.Load(), c.wires.bytes.Load(), cpuTime(c.t)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.allocated = m.TotalAlloc
		return t
	}
	live := 0
	for _, n := range c.nodes {
		if !n.gone {
			live++
		}
	}
	was, began := count(), time.Now()
	f()
	is := count()
	took := time.Since(began)
	c.store.set(func() { is.calls, c.store.calls = c.store.calls, nil })
	return &toll{
		name: name, took: took, nodes: live, checks: is.checks - was.checks, phase: phase{calls: is.calls}, words: is.words - was.words, bytes: is.bytes - was.bytes,
		cpu: is.cpu - was.cpu, allocated: is.allocated - was.allocated,
	}
}

// cpuTime is what this process has taken of processors, by the clock of the machine.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// per is something for each second.
func (t *toll) per(n int64) float64 { return float64(n) / t.took.Seconds() }

// heap is how many bytes are in use.
func heap() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// size is how large a simulation is.
type size struct {
	nodes, services, hosts int           // hosts of each service
	every                  time.Duration // the interval of checks
}

func (s size) all() int { return s.services * s.hosts }

// A fleet with many hosts: how many checks its nodes make, what they say to each other and to
// the store, and how soon the hosts of a node that is gone are checked by another.
func TestCrowd(t *testing.T) {
	testkit.Long(t)
	const usual = 2 * time.Second // the default
	sizes := []size{{6, 5, 20, usual}}
	if *whole {
		// All nodes together have one machine here, so it has either many nodes or very many hosts.
		sizes = []size{{50, 100, 100, usual}, {6, 999, 100, 5 * time.Second}}
	}
	for _, s := range sizes {
		t.Run(fmt.Sprintf("%d nodes, %d hosts", s.nodes, s.all()), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) { simulate(t, s) })
		})
	}
}

func simulate(t *testing.T, s size) {
	before := heap()
	var c *crowd
	var tolls []*toll
	var facts strings.Builder
	fact := func(what string, value any) { fmt.Fprintf(&facts, "%s: %v\n", what, value) }
	measure := func(name string, f func()) *toll {
		p := c.measure(name, f)
		tolls = append(tolls, p)
		return p
	}
	c = gather(t, s)
	measure("start", func() {
		fact("all share after the start", c.until("all nodes share", c.shares))
	})
	time.Sleep(s.every) // checks under way
	fact("memory of a node", fmt.Sprintf("%.1f MB", float64(heap()-before)/float64(s.nodes)/1e6))
	rest := measure("at rest", func() { time.Sleep(3 * s.every) })

	for _, every := range []int{c.hosts, 100} { // one host, and every hundredth
		addresses, targets := c.some(every)
		for _, up := range []bool{false, true} {
			what := map[bool]string{false: "fail", true: "come back"}[up]
			name := fmt.Sprintf("%d hosts %s", len(addresses), what)
			measure(name, func() {
				if c.silent.Store(&addresses); up {
					c.silent.Store(nil)
				}
				fact(name+": all know after", c.until("all know that hosts "+what, func() bool {
					return !slices.ContainsFunc(targets, func(t *director.Target) bool { return t.Host.Up() != up })
				}))
			})
		}
	}

	// The hosts of a node that is gone.
	for i, machine := range []bool{false, true} {
		n := c.nodes[len(c.nodes)-1-i]
		vigil := map[string]*watched{}
		for target := range n.targets {
			if target.Status().CheckedBy == "" {
				vigil[target.Host.Addr().String()] = &watched{by: map[string]bool{}}
			}
		}
		what := map[bool]string{false: "process", true: "machine"}[machine]
		measure("a "+what+" dies", func() {
			began := time.Now()
			c.kill(n, machine)
			c.vigil.Store(&vigil)
			fact("a "+what+" dies: all share after", c.until("all nodes share without it", c.shares))
			time.Sleep(2 * s.every)
			c.vigil.Store(nil)
			var after []time.Duration
			for addr, w := range vigil {
				if len(w.by) < peers.Copies {
					t.Errorf("%s is checked by %v", addr, slices.Collect(maps.Keys(w.by)))
				}
				after = append(after, w.at.Sub(began))
			}
			slices.Sort(after)
			if len(after) > 0 {
				fact(fmt.Sprintf("a %s dies: its %d hosts are checked by two nodes after", what, len(after)), fmt.Sprintf("half %v, all %v", after[len(after)/2], after[len(after)-1]))
			}
		})
	}
	t.Logf("\n%s%s", &facts, tallies(tolls))

	// What is told grows with what changes, not with the number of hosts; checks do not grow
	// with the number of nodes.
	checks := rest.per(rest.checks)
	if most := 1.4 * peers.Copies * float64(c.hosts) / s.every.Seconds(); checks > most {
		t.Errorf("%.0f checks in a second; want %.0f at most", checks, most)
	}
	if least := 0.9 * peers.Copies * float64(c.hosts) / s.every.Seconds(); checks < least {
		t.Errorf("%.0f checks in a second; want %.0f at least", checks, least)
	}
	streams := float64(s.nodes * (s.nodes - 1))
	if words := rest.per(rest.words); words > 3*streams {
		t.Errorf("%.0f messages in a second on %.0f streams", words, streams)
	}
}

// tallies shows tolls as a table of Markdown.
func tallies(list []*toll) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	row := func(cells ...any) {
		for _, c := range cells {
			_, _ = fmt.Fprintf(w, "| %v\t", c)
		}
		_, _ = fmt.Fprintln(w, "|")
	}
	row("", "for", "checks/s", "of a node", "messages/s", "KB/s between nodes", "KB/s of a node", "store requests/s", "writes/s", "events/s", "processor of a node", "MB/s allocated by a node")
	row("---", "---", "---", "---", "---", "---", "---", "---", "---", "---", "---", "---")
	for _, p := range list {
		nodes := float64(p.nodes)
		round := func(f float64) string { return fmt.Sprintf("%.1f", f) }
		row(p.name, p.took, round(p.per(p.checks)), round(p.per(p.checks)/nodes), round(p.per(p.words)), round(p.per(p.bytes)/1e3), round(p.per(p.bytes)/1e3/nodes),
			round(p.per(int64(p.sum(requests...)))), round(p.per(int64(p.sum("write")))), round(p.per(int64(p.sum("event")))),
			fmt.Sprintf("%.2f %%", 100*p.cpu.Seconds()/p.took.Seconds()/nodes), fmt.Sprintf("%.2f", p.per(int64(p.allocated))/1e6/nodes))
	}
	_ = w.Flush()
	return b.String()
}
