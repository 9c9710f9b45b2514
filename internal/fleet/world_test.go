package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	files "github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// stubEngine is an engine that opens nothing. It refuses listeners that are taken.
type stubEngine struct {
	mu       sync.Mutex
	plan     engine.Plan
	taken    map[string]bool
	failures chan engine.Failure
}

func newStubEngine() *stubEngine {
	return &stubEngine{taken: map[string]bool{}, failures: make(chan engine.Failure)}
}

func (e *stubEngine) take(address string, taken bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taken[address] = taken
}

// queue lets clients wait for the first service.
func (e *stubEngine) queue(clients int) {
	e.mu.Lock()
	t := e.plan.Services[0].Route.Table
	e.mu.Unlock()
	t.Queue().Use(t)
	for range clients {
		t.Queue().Join(t, sched.Addr{}, new(sched.Tried), time.Now().UnixNano(), 0, func() {})
	}
}

func (e *stubEngine) Apply(p engine.Plan) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var problems []error
	for _, s := range p.Services {
		for _, l := range s.Listen {
			if e.taken[l] {
				err := fmt.Errorf("listen on %s: the address is in use by another process: %w", l, syscall.EADDRINUSE)
				problems = append(problems, &engine.ListenError{Service: s.Name, Listen: l, Err: err})
			}
		}
	}
	if problems == nil {
		e.plan = p
	}
	return errors.Join(problems...)
}

// listens returns where the engine would listen, in order.
func (e *stubEngine) listens() (list []string) {
	for _, l := range e.Listeners() {
		list = append(list, l.Listen)
	}
	slices.Sort(list)
	return list
}

func (e *stubEngine) Listeners() (list []engine.Listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.plan.Services {
		for _, l := range s.Listen {
			list = append(list, engine.Listener{Service: s.Name, Listen: l, Addr: l})
		}
	}
	return list
}

func (e *stubEngine) Failures() <-chan engine.Failure                            { return e.failures }
func (e *stubEngine) Refused(func(string, string, uint64))                       {}
func (e *stubEngine) Snapshot() engine.Snapshot                                  { return engine.Snapshot{} }
func (e *stubEngine) Inherit(engine.Snapshot)                                    {}
func (e *stubEngine) EndSessions(engine.Ending, func(engine.Candidate) bool) int { return 0 }
func (e *stubEngine) Sessions(int, func(string, *sched.Host) bool) []engine.SessionInfo {
	return nil
}

// lease is that of the nodes of tests.
const lease = 9 * time.Second

// member is a node with all that it needs, in a synctest bubble.
type member struct {
	*Node
	t    *testing.T
	link *link
	dir  *director.Director
	eng  *stubEngine
	log  *testkit.Log
	file string
	stop func() // ends it in order, once

	mu      sync.Mutex
	unready error
	told    []string                          // what it was told to do
	does    func(verb string) (string, error) // what it then does; nil: nothing, and it answers
	kill    func()                            // ends it as a crash does: its place stays
}

const oneService = `<config><service name="web"><listen ip="unix:/run/web"/><group name="g"><host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/></group></service></config>`

// folder makes the folder of a node with its file.
func folder(t *testing.T, doc string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.xml"), []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// join starts a node, and returns when nothing moves any more.
func join(t *testing.T, store *memoryStore, name, dir string) *member {
	t.Helper()
	m := begin(t, store.link(), name, dir)
	synctest.Wait()
	return m
}

func (m *member) vitals() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.link.count(), m.unready
}

// set changes what a member has for Vitals and Obey.
func (m *member) set(f func()) {
	m.mu.Lock()
	f()
	m.mu.Unlock()
	m.poke(m.publish)
}

func (m *member) obey(ctx context.Context, verb, by, from string) (string, error) {
	m.mu.Lock()
	m.told = append(m.told, verb+" by "+by+" from "+from)
	does := m.does
	m.mu.Unlock()
	if does == nil {
		return "process 7 has taken over", nil
	}
	answer, err := does(verb)
	if errors.Is(err, context.Canceled) { // the process dies meanwhile
		<-ctx.Done()
	}
	return answer, err
}

// begin starts a node.
func begin(t *testing.T, l *link, name, dir string, set ...func(*Node)) *member {
	t.Helper()
	m := &member{t: t, link: l, eng: newStubEngine(), log: new(testkit.Log), file: filepath.Join(dir, "config.xml")}
	doc, problems := files.Open(m.file)
	if doc == nil {
		t.Fatal(problems)
	}
	version := "1.2.3"
	if text, err := os.ReadFile(filepath.Join(dir, "version")); err == nil {
		version = string(text)
	}
	var err error
	m.Node, err = New(Options{
		Config:  config.Fleet{Name: "edge", Node: name, Store: []string{"http://127.0.0.1:1"}, Lease: lease},
		Connect: l.connect, StateDir: dir, Version: version, Log: m.log.Logger(),
		Vitals: m.vitals, Obey: m.obey,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set {
		f(m.Node)
	}
	m.dir, err = director.New(doc.Config, m.eng, director.Options{
		Log: m.log.Logger(), Document: doc, Commit: m.Commit, Fleet: m, Generation: m.Generation(),
		Probe: func(context.Context, health.Probe) health.Result { return health.Result{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = m.dir.Run(ctx) })
	running.Go(func() { m.Run(ctx, m.dir) })
	end := sync.OnceFunc(func() { cancel(); running.Wait() })
	m.stop = end
	m.kill = func() { m.HandOver(); end() }
	t.Cleanup(end)
	return m
}

// weigh changes the weight of a host.
func (m *member) weigh(host string, weight int) (uint64, error) {
	return m.dir.Do(context.Background(), director.Change{
		By: "ops of " + m.name, From: "here", Verb: fmt.Sprintf("setHost web g %s weight=%d", host, weight),
		Apply: func(c *config.Config) error { return setWeight(c, host, weight) },
	})
}

func setWeight(c *config.Config, host string, weight int) error {
	for _, h := range c.Services[0].Groups[0].Hosts {
		if h.Name == host {
			h.Weight = weight
			return nil
		}
	}
	return fmt.Errorf("no host %s", host)
}

// weights are those of all hosts that run.
func (m *member) weights() string {
	var b strings.Builder
	for _, h := range m.dir.State().Config.Services[0].Groups[0].Hosts {
		fmt.Fprintf(&b, "%s%d ", h.Name, h.Weight)
	}
	return strings.TrimSpace(b.String())
}

// runs fails unless the node runs these weights as that generation.
func (m *member) runs(generation uint64, weights string) {
	m.t.Helper()
	if g, w := m.dir.State().Generation, m.weights(); g != generation || w != weights {
		m.t.Errorf("node %s runs generation %d, %s; want %d, %s\n%s", m.name, g, w, generation, weights, m.log)
	}
}

// must fails if a change failed.
func must(t *testing.T) func(generation uint64, err error) uint64 {
	return func(generation uint64, err error) uint64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return generation
	}
}

// refused fails unless an error says this.
func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v; want %q", err, w)
		}
	}
}

// fileSays returns what the file of the node says.
func (m *member) fileSays() string {
	data, err := os.ReadFile(m.file)
	if err != nil {
		m.t.Error(err)
	}
	return string(data)
}

// says tells whether a line of a log has a text.
func says(l *testkit.Log, text string) bool { return len(l.Lines(text)) > 0 }
