package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	files "github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
)

// sharer is a node that shares checks, on real sockets and in real time.
type sharer struct {
	*Node
	t    *testing.T
	dir  *director.Director
	eng  *stubEngine
	log  *testkit.Log
	link *link
	stop func() // ends it in order
	kill func() // ends it as a crash does

	mu     sync.Mutex
	checks map[string]int // by address
	cut    bool           // from the hosts
}

const fleetKey = "a-secret-of-sixteen-and-more"

// share starts a node. doc has its services.
func share(t *testing.T, store *memoryStore, name, doc string) *sharer {
	t.Helper()
	return shareAt(t, store, name, doc, testkit.Nobody(t), fleetKey, false)
}

// shareAt starts a node. relative is whether its hosts count as hosts of each machine.
func shareAt(t *testing.T, store *memoryStore, name, doc, listen, secret string, relative bool) *sharer {
	t.Helper()
	dir := folder(t, doc)
	s := &sharer{t: t, eng: newStubEngine(), log: new(testkit.Log), link: store.link(), checks: map[string]int{}}
	text, problems := files.Open(filepath.Join(dir, "config.xml"))
	if text == nil {
		t.Fatal(problems)
	}
	var err error
	s.Node, err = New(Options{
		Config:  config.Fleet{Name: "edge", Node: name, Store: []string{"http://127.0.0.1:1"}, Lease: 3 * time.Second, Listen: listen, Secret: secret},
		Connect: s.link.connect, StateDir: dir, Version: "1.2.3", Log: s.log.Logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.sharing != nil {
		s.sharing.relative = func(*director.Target) bool { return relative }
	}
	s.dir, err = director.New(text.Config, s.eng, director.Options{
		Log: s.log.Logger(), Document: text, Commit: s.Commit, Generation: s.Generation(), Notify: s.Notice, Probe: s.probe,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.dir.Run(ctx) })
	running.Go(func() { s.Run(ctx, s.dir) })
	end := sync.OnceFunc(func() { cancel(); running.Wait() })
	s.stop = end
	s.kill = func() {
		s.mu.Lock()
		s.link.set(func() { s.link.cut = errors.New("dead") }) // nothing is given back to the store
		s.mu.Unlock()
		end()
	}
	t.Cleanup(end)
	return s
}

// probe makes and counts a check.
func (s *sharer) probe(ctx context.Context, p health.Probe) health.Result {
	s.mu.Lock()
	s.checks[p.Addr.String()]++
	cut := s.cut
	s.mu.Unlock()
	if cut {
		return health.Result{Code: health.L4Con, Text: "cut off"}
	}
	return health.Run(ctx, p)
}

// checked is how often the node has checked each address by now.
func (s *sharer) checked() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]int{}
	for a, n := range s.checks {
		all[a] = n
	}
	return all
}

// up tells whether the address of a host is up on the node.
func (s *sharer) up(host string) bool { return s.target(host).Status().Up }

func (s *sharer) target(host string) *director.Target {
	for _, h := range s.dir.State().Services[0].Groups[0].Hosts {
		if h.Config.Name == host {
			return h.Targets[0]
		}
	}
	s.t.Fatalf("no host %s", host)
	return nil
}

// shared waits until the node has all that there is from so many others.
func (s *sharer) shared(others int, why string) {
	s.t.Helper()
	testkit.Eventually(s.t, "node "+s.name+" shares checks "+why, func() bool {
		shares := s.Status().Shares
		return shares.Nodes == others+1 && shares.Fallback+shares.Differs == 0
	})
}

// backend is a host on a real socket.
type backend struct {
	t    *testing.T
	addr string
	ln   net.Listener
}

func newBackend(t *testing.T) *backend {
	b := &backend{t: t, addr: testkit.Nobody(t)}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *backend) start() {
	b.t.Helper()
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.ln = ln
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
}

func (b *backend) stop() { _ = b.ln.Close() }

// checkedEvery is the interval of checks in these tests.
const checkedEvery = 500 * time.Millisecond

// services is a document with a service that has these hosts, h0 and so on.
func services(hosts []*backend, check string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<config><service name="web"><listen ip="unix:/run/web"/><group name="g" maxFails="1">%s`, check)
	for i, h := range hosts {
		fmt.Fprintf(&b, `<host name="h%d" ip="%s"/>`, i, h.addr)
	}
	b.WriteString(`</group></service></config>`)
	return b.String()
}

// quickCheck has a timeout that counts for how long a finding is fresh, so that a busy machine may
// be late with the next one. The interval bounds the connect.
const quickCheck = `<check type="tcp" interval="500ms" timeout="5s" rise="1" fall="1"/>`

// three starts three nodes over so many hosts, and waits until they share.
func three(t *testing.T, hosts int) (nodes []*sharer, backends []*backend) {
	t.Helper()
	for range hosts {
		backends = append(backends, newBackend(t))
	}
	store := newMemoryStore()
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, share(t, store, name, services(backends, quickCheck)))
	}
	for _, n := range nodes {
		n.shared(2, "at first")
	}
	return nodes, backends
}

// Each host is checked by two of three nodes, and no more; all know of all.
func TestTwoNodesCheckEachHost(t *testing.T) {
	nodes, hosts := three(t, 12)
	for i, h := range hosts {
		owners := 0
		for _, n := range nodes {
			if n.target(fmt.Sprintf("h%d", i)).Status().CheckedBy == "" {
				owners++
			}
		}
		if owners != 2 {
			t.Errorf("%d nodes check %s", owners, h.addr)
		}
	}
	sum := 0
	for _, n := range nodes {
		s := n.Status().Shares
		sum += s.Mine
		if s.Mine == 0 || s.Mine+s.Learned != len(hosts) {
			t.Errorf("node %s: %v", n.name, s)
		}
	}
	if sum != 2*len(hosts) {
		t.Errorf("%d checks", sum)
	}
	before := make([]map[string]int, len(nodes))
	began := time.Now()
	for i, n := range nodes {
		before[i] = n.checked()
	}
	const intervals = 4
	testkit.Eventually(t, "some intervals pass", func() bool { return time.Since(began) > intervals*checkedEvery })
	total := 0
	for i, n := range nodes {
		after := n.checked()
		for _, h := range hosts {
			total += after[h.addr] - before[i][h.addr]
		}
	}
	// The interval is shortened by up to a fourth, and a busy machine makes it longer.
	took := time.Since(began)
	each := float64(total) / float64(len(hosts)) / (float64(took) / float64(checkedEvery))
	t.Logf("%.2f checks for each host and interval", each)
	if each > 2*1.35 {
		t.Errorf("%.2f checks for each host and interval", each)
	}
}

// A host that goes down or comes up is known everywhere within an interval and a second.
func TestAllNodesLearnOfAHost(t *testing.T) {
	nodes, hosts := three(t, 3)
	for _, n := range nodes { // or one node alone tells that it is down, and the third one checks it
		testkit.Eventually(t, "node "+n.name+" hears two nodes of each host", func() bool {
			s := n.Status().Shares
			told := s.Mine
			for _, p := range s.Peers {
				told += p.Checks
			}
			return told == peers.Copies*len(hosts)
		})
	}
	everywhere := func(up bool) error {
		began := time.Now()
		testkit.Eventually(t, fmt.Sprintf("all know that it is up: %v", up), func() bool {
			for _, n := range nodes {
				if n.up("h1") != up {
					return false
				}
			}
			return true
		})
		took := time.Since(began)
		t.Logf("up %v: known everywhere after %v", up, took)
		if limit := checkedEvery + time.Second; took > limit {
			return fmt.Errorf("up %v: after %v", up, took)
		}
		return nil
	}
	testkit.BestOf(t, 5, func() error {
		hosts[1].stop()
		err := everywhere(false)
		hosts[1].start()
		return errors.Join(err, everywhere(true))
	})
	for _, n := range nodes {
		if status := n.target("h1").Status(); status.CheckedBy != "" && !strings.Contains(n.log.String(), "reason=\"node ") {
			t.Errorf("node %s does not say who has found it:\n%s", n.name, n.log)
		}
	}
}

// learner returns a node that does not check the host h0, and one that does.
func learner(t *testing.T, nodes []*sharer) (learns, checks *sharer) {
	t.Helper()
	for _, n := range nodes {
		if n.target("h0").Status().CheckedBy != "" {
			learns = n
		} else {
			checks = n
		}
	}
	if learns == nil {
		t.Fatal("all check it")
	}
	return learns, checks
}

// What a node's own clients meet counts at once, for that node alone: it then checks the host
// itself, and takes it back when that passes.
func TestOwnFailedConnectsCount(t *testing.T) {
	nodes, hosts := three(t, 1)
	learns, checks := learner(t, nodes)
	before := learns.checked()[hosts[0].addr]
	target := learns.target("h0")
	if !target.Host.Fail() {
		t.Fatal("the failed connect does not take it out")
	}
	learns.eng.failures <- engine.Failure{Host: target.Host, Err: errors.New("connect: connection refused")}
	testkit.Eventually(t, "it is back by a check of its own", func() bool {
		return target.Status().Up && learns.checked()[hosts[0].addr] > before
	})
	if strings.Contains(checks.log.String(), "host down") {
		t.Errorf("another node has taken it out:\n%s", checks.log)
	}
	learns.shared(2, "again")
}

// The hosts of a node that dies, or that hangs, are checked by the others.
func TestNodeGoes(t *testing.T) {
	nodes, hosts := three(t, 8)
	a, b, c := nodes[0], nodes[1], nodes[2]
	c.kill()
	for _, n := range []*sharer{a, b} {
		n.shared(1, "without c")
		if s := n.Status().Shares; s.Mine != len(hosts) {
			t.Errorf("node %s: %v", n.name, s)
		}
	}
	b.kill()
	a.shared(0, "without b and c")
	hosts[3].stop()
	testkit.Eventually(t, "a finds it alone", func() bool { return !a.up("h3") })
}

// Without the store nodes that hear each other go on sharing.
func TestSharingWithoutTheStore(t *testing.T) {
	nodes, hosts := three(t, 4)
	nodes[0].link.set(func() { nodes[0].link.down = errCut })
	for _, n := range nodes {
		testkit.Eventually(t, "node "+n.name+" has left the store", func() bool { return !n.Status().Joined })
	}
	hosts[0].stop()
	for _, n := range nodes {
		testkit.Eventually(t, "node "+n.name+" knows", func() bool { return !n.up("h0") })
		n.shared(2, "without the store")
	}
}

// A node with another secret is not heard: it checks everything itself, as do the others
// without it.
func TestNodeWithAnotherSecret(t *testing.T) {
	hosts := []*backend{newBackend(t), newBackend(t)}
	store := newMemoryStore()
	a := share(t, store, "a", services(hosts, quickCheck))
	b := share(t, store, "b", services(hosts, quickCheck))
	odd := shareAt(t, store, "odd", services(hosts, quickCheck), testkit.Nobody(t), "another-secret-of-a-fleet", false)
	a.shared(1, "with b")
	b.shared(1, "with a")
	testkit.Eventually(t, "both sides say why", func() bool {
		return strings.Contains(odd.Status().String(), "node a is not heard: ") && strings.Contains(odd.Status().String(), "it has another secret, or is of another fleet") &&
			strings.Contains(a.Status().String(), "node odd is not heard: ") && strings.Contains(a.Status().String(), "it has another secret, or is of another fleet")
	})
	odd.shared(0, "with nobody")
	if s := odd.Status().Shares; s.Mine != len(hosts) {
		t.Errorf("the odd one: %v", s)
	}
}

// With start="down" a host gets clients as soon as the nodes that check it have found it up.
func TestLearnerOfAHostThatStartsDown(t *testing.T) {
	hosts := []*backend{newBackend(t)}
	doc := strings.Replace(services(hosts, quickCheck), `maxFails="1"`, `start="down"`, 1)
	store := newMemoryStore()
	for _, name := range []string{"a", "b", "c"} {
		n := share(t, store, name, doc)
		testkit.Eventually(t, "node "+name+" has it up", func() bool { return n.up("h0") })
	}
}
