package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// world stands in for everything around a director: engine, hosts and DNS.
type world struct {
	mu       sync.Mutex
	plans    []engine.Plan
	refuse   error
	applied  func(engine.Plan) // what clients do with a plan at once
	failures chan engine.Failure
	dead     map[string]bool         // addresses that do not answer
	slow     map[string]bool         // addresses that answer too late
	probes   map[string][]time.Time  // by address
	dns      map[string][]netip.Addr // names that resolve
	srv      map[string][]*net.SRV   // names of SRV records
	lame     map[string]bool         // names that the servers fail at
	asked    map[string][]time.Time  // look-ups of addresses, by name
	dnsTakes time.Duration           // that a look-up takes
	refused  map[rejection]uint64    // clients
	sessions []engine.Candidate      // open
	waiting  []engine.SessionInfo    // that are open too
	listens  int                     // calls of Sessions
	ended    []ended                 // sessions, in this order
	listener string                  // of the sessions
	walks    int                     // calls of EndSessions
	log      testkit.Log
	counted  engine.Snapshot
	before   engine.Snapshot // inherited
}

func newWorld() *world {
	return &world{
		failures: make(chan engine.Failure, 1024), dead: map[string]bool{}, slow: map[string]bool{},
		probes: map[string][]time.Time{}, dns: map[string][]netip.Addr{},
		refused: map[rejection]uint64{}, srv: map[string][]*net.SRV{}, lame: map[string]bool{}, asked: map[string][]time.Time{},
	}
}

func (w *world) Apply(p engine.Plan) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return w.refuse
	}
	w.plans = append(w.plans, p)
	if w.applied != nil {
		w.applied(p)
	}
	return nil
}

func (w *world) Listeners() (list []engine.Listener) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.plans[len(w.plans)-1].Services {
		for _, l := range s.Listen {
			list = append(list, engine.Listener{Service: s.Name, Listen: l, Addr: l})
		}
	}
	return list
}

// Sessions returns those of w.sessions, which have come by w.listener, and of w.waiting.
func (w *world) Sessions(_ int, which func(service string, host *sched.Host) bool) (list []engine.SessionInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listens++
	for _, s := range w.waiting {
		if which(s.Service, s.Host) {
			list = append(list, s)
		}
	}
	for _, c := range w.sessions {
		if which(c.Service, c.Host) {
			list = append(list, engine.SessionInfo{ID: c.ID, Service: c.Service, Host: c.Host, Listener: w.listener})
		}
	}
	return list
}

// EndSessions ends those of w.sessions.
func (w *world) EndSessions(why engine.Ending, which func(engine.Candidate) bool) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	had := len(w.sessions)
	w.sessions = slices.DeleteFunc(w.sessions, func(c engine.Candidate) bool {
		gone := which(c)
		if gone {
			w.ended = append(w.ended, ended{why, c.ID})
		}
		return gone
	})
	w.walks++
	return had - len(w.sessions)
}

// ended is a session that was ended.
type ended struct {
	why engine.Ending
	id  uint64
}

func (w *world) Refused(yield func(service, reason string, clients uint64)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r, n := range w.refused {
		yield(r.service, r.reason, n)
	}
}

// rejects counts clients that are rejected.
func (w *world) rejects(service, reason string, n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused[rejection{service, reason}] += n
}

func (w *world) Snapshot() engine.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counted
}

func (w *world) Inherit(before engine.Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = before
}

func (w *world) logger() *slog.Logger { return w.log.Logger() }

func (w *world) Failures() <-chan engine.Failure { return w.failures }

func (w *world) probe(ctx context.Context, p health.Probe) health.Result {
	a := p.Addr
	w.mu.Lock()
	w.probes[a.String()] = append(w.probes[a.String()], time.Now())
	dead, slow := w.dead[a.String()], w.slow[a.String()]
	w.mu.Unlock()
	if slow {
		select {
		case <-ctx.Done():
		case <-time.After(p.Connect):
		}
		return health.Result{Code: health.L4Tout, Text: "no answer", Took: p.Connect}
	}
	if dead {
		return health.Result{Code: health.L4Con, Text: "connection refused"}
	}
	return health.Result{Code: health.L4OK}
}

func (w *world) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if network == "ip4" {
		w.mu.Lock()
		w.asked[host] = append(w.asked[host], time.Now())
		w.mu.Unlock()
		select {
		case <-time.After(w.dnsTakes):
		case <-ctx.Done():
			return nil, &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lame[host] {
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	}
	addrs := slices.DeleteFunc(slices.Clone(w.dns[host]), func(a netip.Addr) bool { return a.Unmap().Is4() != (network == "ip4") })
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func (w *world) LookupSRV(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if records := w.srv[name]; len(records) > 0 {
		return name, slices.Clone(records), nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// resolves changes what a name stands for; none is that it does not resolve.
func (w *world) resolves(host string, addrs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dns[host] = nil
	for _, a := range addrs {
		w.dns[host] = append(w.dns[host], netip.MustParseAddr(a))
	}
}

func (w *world) set(m map[string]bool, addr string, to bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m[addr] = to
}

func (w *world) probed(addr string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.probes[addr])
}

func (w *world) lastPlan() engine.Plan {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plans[len(w.plans)-1]
}

// start runs a director over doc in a bubble of fake time.
func start(t *testing.T, w *world, doc string) *Director {
	t.Helper()
	c, problems := config.Parse("c.xml", []byte(doc))
	if c == nil {
		t.Fatal(problems)
	}
	return startWith(t, w, c, w.probe)
}

// startWith is start with a model and a probe of the test's own.
func startWith(t *testing.T, w *world, c *config.Config, probe func(context.Context, health.Probe) health.Result) *Director {
	t.Helper()
	d, err := New(c, w, Options{
		Log: w.logger(), Resolver: w, Probe: probe,
	})
	if err != nil {
		t.Fatal(err)
	}
	runDirector(t, d)
	return d
}

// runDirector runs a director until the test ends, or stop is called.
func runDirector(t *testing.T, d *Director) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	synctest.Wait()
	return stop
}

// target returns the n-th target of a host of the only service.
func target(t *testing.T, d *Director, group, host string, n int) *Target {
	t.Helper()
	for _, g := range d.State().Services[0].Groups {
		for _, h := range g.Hosts {
			if g.Config.Name == group && h.Config.Name == host {
				return h.Targets[n]
			}
		}
	}
	t.Fatalf("no host %s in group %s", host, group)
	return nil
}

// fail does what the engine does at a failed connect.
func (w *world) fail(t *Target) {
	if t.Host.Fail() {
		w.failures <- engine.Failure{Host: t.Host, Err: errors.New("connect: connection refused")}
	}
	synctest.Wait()
}

// picks returns which hosts the current plan's table gives, and the verdict.
func (w *world) picks() (names string, v sched.Verdict) {
	table := w.lastPlan().Services[0].Route.Table
	var tried sched.Tried
	var list []string
	for {
		h, verdict := table.Pick(sched.Addr{}, &tried)
		if h == nil {
			slices.Sort(list)
			return strings.Join(list, ""), v
		}
		v = verdict
		list = append(list, h.Name())
		h.Release(0, 0)
	}
}

const three = `<config><service name="web"><listen ip="127.0.0.1:8080"/>
	<group name="g" scheduler="roundr"><host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/><host name="c" ip="10.0.0.3:80"/></group>
	</service>%s</config>`

func with(extra string) string { return fmt.Sprintf(three, extra) }
