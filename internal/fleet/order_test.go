package fleet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// upgrading are nodes whose processes can be replaced, each in its folder.
type upgrading struct {
	t     *testing.T
	store *memoryStore
	mu    sync.Mutex
	now   map[string]*member // the process that is the node
	dirs  map[string]string
}

// newUpgrading starts nodes, each of which obeys: the installed version takes over.
func newUpgrading(t *testing.T, names ...string) *upgrading {
	t.Helper()
	u := &upgrading{t: t, store: newMemoryStore(), now: map[string]*member{}, dirs: map[string]string{}}
	for _, name := range names {
		u.dirs[name] = folder(t, oneService)
		u.start(name)
		synctest.Wait()
	}
	return u
}

// start starts a process as a node.
func (u *upgrading) start(name string) *member {
	m := begin(u.t, u.store.link(), name, u.dirs[name])
	m.set(func() { m.does = func(string) (string, error) { return u.replace(name) } })
	u.mu.Lock()
	defer u.mu.Unlock()
	u.now[name] = m
	return m
}

// replace makes a new process the node, as an upgrade does.
func (u *upgrading) replace(name string) (string, error) {
	was := u.node(name)
	was.HandOver()
	u.start(name)
	go was.stop()
	return "process 7 has taken over", nil
}

func (u *upgrading) node(name string) *member {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.now[name]
}

// install puts a version where the next process of a node finds it.
func (u *upgrading) install(version string, names ...string) {
	u.t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(u.dirs[name], "version"), []byte(version), 0o600); err != nil {
			u.t.Fatal(err)
		}
	}
}

// does makes a node do something else when it is told.
func (u *upgrading) does(name string, f func(string) (string, error)) {
	m := u.node(name)
	m.set(func() { m.does = f })
}

// wasTold is what the process of a node were told so far.
func (m *member) wasTold() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

// versions are those of all nodes, as one of them sees them.
func (u *upgrading) versions(by string) string {
	var b strings.Builder
	for _, n := range u.node(by).Status().Nodes {
		b.WriteString(n.Name + "=" + n.Version + " ")
	}
	return strings.TrimSpace(b.String())
}

// One node after the other gets the new version; the one that was asked is the last, and
// answers when it has handed over. The others see that it is done.
func TestOrderUpgradesOneAfterTheOther(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b", "c")
		u.install("1.3.0", "a", "b", "c")
		var order []string
		var mu sync.Mutex
		for _, name := range []string{"a", "b", "c"} {
			u.does(name, func(string) (string, error) {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				return u.replace(name)
			})
		}
		asked := u.node("a")
		o, err := asked.Order(t.Context(), Upgrade, nil, "boss", "here")
		if err != nil || o.Answer != "process 7 has taken over" || !strings.Contains(o.String(), "2 of 3 nodes done, then a: process 7 has taken over; show fleet says") {
			t.Fatalf("%v, %v", o, err)
		}
		synctest.Wait()
		if got := strings.Join(order, " "); got != "b c a" {
			t.Errorf("upgraded in the order %s", got)
		}
		if told := asked.wasTold(); len(told) != 1 || told[0] != "upgrade by boss on node a from here" {
			t.Errorf("told %q", told)
		}
		if got := u.versions("b"); got != "a=1.3.0 b=1.3.0 c=1.3.0" {
			t.Error(got)
		}
		for _, name := range []string{"a", "b", "c"} {
			s := u.node(name).Status()
			if s.Order == nil || !s.Order.over() || s.Order.Err() != nil || !strings.Contains(s.String(), "upgrade by boss on a, ended 0s ago: done on 3 nodes") {
				t.Errorf("node %s sees\n%s", name, s)
			}
		}
		time.Sleep(2 * shownFor)
		if s := u.node("b").Status(); s.Order != nil {
			t.Errorf("shown for ever:\n%s", s)
		}
		u.install("1.4.0", "a", "b", "c") // and another one, by another node
		if o, err := u.node("b").Order(t.Context(), Upgrade, nil, "boss", "here"); err != nil {
			t.Fatalf("%v, %v", o, err)
		}
		synctest.Wait()
		if got := u.versions("c"); got != "a=1.4.0 b=1.4.0 c=1.4.0" {
			t.Error(got)
		}
	})
}

// It stops where a node fails, is not ready, does not begin, does not change, or gets another
// version, and says which and why. Those behind it are left alone.
func TestOrderStops(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(u *upgrading)
		want []string
		runs string
	}{
		{"the program does not start", func(u *upgrading) {
			u.does("b", func(string) (string, error) { return "", errors.New("cannot start /usr/bin/txlb: exec format error") })
		}, []string{"stopped after 1 of 3 nodes: node b: cannot start /usr/bin/txlb: exec format error; done: a; not done: b, c"}, "a=1.3.0 b=1.2.3 c=1.2.3"},
		{"not ready", func(u *upgrading) {
			u.does("b", func(string) (string, error) {
				answer, err := u.replace("b")
				m := u.node("b")
				m.set(func() { m.unready = errors.New("2 of 2 services without a usable host") })
				return answer, err
			})
		}, []string{"node b has been upgraded to txlb 1.3.0, and 24s after that is not ready: 2 of 2 services without a usable host: see its log", "done: a; not done: b, c"}, "a=1.3.0 b=1.3.0 c=1.2.3"},
		{"an earlier one is not ready any more", func(u *upgrading) {
			u.does("b", func(string) (string, error) {
				m := u.node("a")
				m.set(func() { m.unready = errors.New("draining") })
				return u.replace("b")
			})
		}, []string{"stopped after 2 of 3 nodes: node a is not ready: draining"}, "a=1.3.0 b=1.3.0 c=1.2.3"},
		{"another version", func(u *upgrading) { u.install("1.2.9", "b") },
			[]string{"node b runs txlb 1.2.9 after its upgrade, and a runs 1.3.0: install the same version on all nodes"}, "a=1.3.0 b=1.2.9 c=1.2.3"},
		{"it hangs", func(u *upgrading) {
			u.does("b", func(string) (string, error) { time.Sleep(time.Hour); return "", errors.New("too late") })
		}, []string{"node b has begun, and is not done after 1m18s"}, "a=1.3.0 b=1.2.3 c=1.2.3"},
		{"it dies", func(u *upgrading) {
			u.does("b", func(string) (string, error) {
				m := u.node("b")
				go m.kill()
				return "", context.Canceled
			})
		}, []string{"node b has begun, and is not done after 1m18s"}, "a=1.3.0 c=1.2.3"},
		{"it obeys nobody", func(u *upgrading) { u.node("b").opt.Obey = nil },
			[]string{"node b has not begun within 30s"}, "a=1.3.0 b=1.2.3 c=1.2.3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				u := newUpgrading(t, "a", "b", "c")
				u.install("1.3.0", "a", "b", "c")
				test.make(u)
				_, err := u.node("c").Order(t.Context(), Upgrade, nil, "boss", "here")
				refused(t, err, test.want...)
				synctest.Wait()
				if got := u.versions("c"); got != test.runs {
					t.Errorf("%s; want %s", got, test.runs)
				}
				if told := u.node("c").wasTold(); len(told) > 0 {
					t.Errorf("node c was told %q", told)
				}
				if s := u.node("a").Status(); s.Order == nil || s.Order.Problem == "" {
					t.Errorf("node a sees\n%s", s)
				}
			})
		})
	}
}

// A node that is killed while it is upgraded, and comes back by itself, has been upgraded too.
// Its judge may end meanwhile.
func TestOrderOutlivesProcesses(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b", "c")
		u.install("1.3.0", "a", "b", "c")
		u.does("b", func(string) (string, error) {
			b, a := u.node("b"), u.node("a")
			go func() {
				a.kill() // the judge of b
				b.kill()
				time.Sleep(5 * time.Second)
				u.start("b")
				time.Sleep(20 * time.Second)
				u.start("a")
			}()
			return "", context.Canceled
		})
		if o, err := u.node("c").Order(t.Context(), Upgrade, nil, "boss", "here"); err != nil {
			t.Fatalf("%v, %v", o, err)
		}
		synctest.Wait()
		if got := u.versions("c"); got != "a=1.3.0 b=1.3.0 c=1.3.0" {
			t.Error(got)
		}
	})
}

// While one is under way another is refused, on every node. Without the store, and with a node
// that is not ready, none begins.
func TestOrderRefused(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		u.does("b", func(string) (string, error) { time.Sleep(10 * time.Second); return u.replace("b") })
		within, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		o, err := u.node("a").Order(within, Upgrade, nil, "boss", "here")
		if err != nil || o.over() || o.Summary() != "0 of 2 nodes done, b is begun" {
			t.Fatalf("%v, %v", o, err)
		}
		for _, name := range []string{"a", "b"} {
			_, err := u.node(name).Order(t.Context(), Upgrade, nil, "late", "there")
			refused(t, err, "the fleet has an order already", "upgrade by boss on a, 0 of 2 nodes done, b is begun", "cancel it: upgrade --cancel")
		}
		time.Sleep(time.Minute) // a is upgraded though nobody waits
		if s := u.node("b").Status().Order; s == nil || !s.over() || s.Err() != nil {
			t.Errorf("%v", s)
		}
		_, err = u.node("a").Order(t.Context(), Upgrade, []string{"a", "x"}, "boss", "here")
		refused(t, err, `the fleet has no node "x" now; it has a, b`)
		b := u.node("b")
		b.set(func() { b.unready = errors.New("draining") })
		synctest.Wait()
		_, err = u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here")
		refused(t, err, "nothing was begun: node b is not ready: draining")
		b.set(func() { b.unready = nil })
		u.store.set(func() { u.store.down = errors.New("no quorum") })
		time.Sleep(2 * lease)
		_, err = u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here")
		refused(t, err, "fleet edge takes no changes from this node now", "no quorum")
	})
}

// Two that come at the same moment: one is carried out.
func TestOrdersAtOnce(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b", "c")
		u.does("c", func(string) (string, error) { return "draining", nil })
		var won sync.WaitGroup
		var mu sync.Mutex
		accepted := 0
		for _, name := range []string{"a", "b", "c"} {
			m := u.node(name)
			won.Go(func() {
				within, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				defer cancel()
				if _, err := m.Order(within, Shutdown, []string{"c"}, "boss", name); err == nil {
					mu.Lock()
					accepted++
					mu.Unlock()
				} else {
					refused(t, err, "the fleet has an order already")
				}
			})
		}
		won.Wait()
		if accepted != 1 {
			t.Errorf("%d accepted", accepted)
		}
	})
}

// A node is shut down from another one: it is done when it has left, which is after its grace.
func TestOrderShutsDown(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		const grace = 5 * time.Minute
		b := u.node("b")
		b.opt.Grace = grace
		b.set(func() { b.unready = errors.New("all services without a usable host") })
		u.does("b", func(verb string) (string, error) {
			go func() { time.Sleep(grace); b.stop() }()
			return "draining, then shutting down: " + verb, nil
		})
		synctest.Wait()
		began := time.Now()
		if o, err := u.node("a").Order(t.Context(), Shutdown, []string{"b"}, "boss", "here"); err != nil || o.Summary() != "done on 1 node" || time.Since(began) != grace {
			t.Fatalf("%v, %v after %v", o, err, time.Since(began))
		}
		if told := b.wasTold(); len(told) != 1 || told[0] != "shutdown by boss on node a from here" {
			t.Errorf("told %q", told)
		}
	})
}

// Garbage in the place of an order is refused and named, and nobody obeys it. If somebody
// deletes an order, who waits is told.
func TestOrderGarbage(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		for _, text := range []string{"?", "{}", `{"id":"1","verb":"upgrade"}`, `{"id":"1","verb":"format","steps":[{"node":"b","state":"asked"}]}`} {
			u.store.set(func() { u.store.put("/txlb/edge/order", []byte(text), 0) })
			synctest.Wait()
			_, err := u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here")
			refused(t, err, "what the store has in /txlb/edge/order cannot be used", "delete it")
		}
		u.store.set(func() { u.store.remove("/txlb/edge/order") })
		u.does("b", func(string) (string, error) {
			u.store.set(func() { u.store.remove("/txlb/edge/order") })
			return u.replace("b")
		})
		synctest.Wait()
		_, err := u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here")
		refused(t, err, "somebody has deleted the order from the store")
		if told := u.node("a").wasTold(); len(told) > 0 {
			t.Errorf("told %q", told)
		}
	})
}

// If the store fails in the middle, the order goes on when it is back.
func TestOrderWithoutTheStoreMeanwhile(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b", "c")
		u.install("1.3.0", "a", "b", "c")
		u.does("b", func(string) (string, error) {
			u.store.set(func() { u.store.down = errors.New("no quorum") })
			go func() {
				time.Sleep(20 * time.Second)
				u.store.set(func() { u.store.down = nil })
			}()
			return u.replace("b")
		})
		if o, err := u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here"); err != nil {
			t.Fatalf("%v, %v", o, err)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if got := u.versions("c"); got != "a=1.3.0 b=1.3.0 c=1.3.0" {
			t.Error(got)
		}
	})
}
