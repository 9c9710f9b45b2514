package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

const configKey, nodeA = "/txlb/edge/config", "/txlb/edge/node/a"

// Two nodes change at the same moment: one wins, the other is told, and every node ends with
// the same configuration. Without the store all keep serving.
func TestB87OneOfTwoChangesWins(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		c := join(t, store, "c", folder(t, oneService))
		type result struct {
			who string
			err error
		}
		results := make(chan result, 2)
		deaf := func(is bool) { store.set(func() { a.link.stalled, b.link.stalled = is, is }) }
		deaf(true) // neither hears of the other's before it makes its own
		for i, m := range []*member{a, b} {
			go func() {
				_, err := m.weigh("a", 10+i)
				results <- result{m.name, err}
			}()
		}
		var winner string
		var lost error
		for range 2 {
			if r := <-results; r.err == nil {
				winner = r.who
			} else {
				lost = r.err
			}
		}
		deaf(false)
		moved := (*director.MovedError)(nil)
		if winner == "" || !errors.As(lost, &moved) {
			t.Fatalf("winner %q, the other %v", winner, lost)
		}
		refused(t, lost, "from generation 1 to 2", "2 by ops of "+winner+" on node "+winner+":", "setHost web g a weight=")
		synctest.Wait()
		want := map[string]string{"a": "a10 b1", "b": "a11 b1"}[winner]
		for _, m := range []*member{a, b, c} {
			m.runs(2, want)
		}

		store.set(func() { store.down = errCut })
		time.Sleep(2 * lease)
		for _, m := range []*member{a, b, c} {
			_, err := m.weigh("b", 5)
			refused(t, err, "fleet edge takes no changes from this node now: no route to the store")
			m.runs(2, want)
			if m.Status().Joined {
				t.Errorf("node %s has joined a store that is down", m.name)
			}
		}
		store.set(func() { store.down = nil })
		time.Sleep(2 * longestPause)
		must(t)(c.weigh("b", 5))
		synctest.Wait()
		for _, m := range []*member{a, b, c} {
			m.runs(3, want[:len(want)-1]+"5")
		}
	})
}

// A node that finds a configuration takes it, logs what its file said otherwise, and keeps a
// copy in its file. What is the node's own stays.
func TestJoiningTakesTheFleets(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, strings.Replace(oneService, `<config>`, `<config><admin><user name="u" password="$6$secret" access="full"/></admin>`, 1)))
		b := join(t, store, "b", folder(t, `<config>
  <!-- of this node -->
  <service name="web"><listen ip="unix:/run/web"/><group name="g"><host name="a" ip="10.0.0.1:80" weight="9"/><host name="b" ip="10.0.0.2:80"/></group></service>
  <logging level="debug"/>
</config>`))
		a.runs(1, "a1 b1")
		b.runs(1, "a1 b1")
		if c := b.dir.State().Config; c.Logging.Level != "debug" || len(c.Admin.Users) != 1 {
			t.Errorf("node b: %+v, users %v", c.Logging, c.Admin.Users)
		}
		if !says(b.log, "the fleet's configuration replaces what the file of this node says") || !says(b.log, "setHost web g a weight=1") || says(b.log, "$6$secret") {
			t.Errorf("log:\n%s", b.log)
		}
		time.Sleep(2 * saveEvery)
		synctest.Wait()
		if says := b.fileSays(); !strings.Contains(says, `weight="1"`) || !strings.Contains(says, "<!-- of this node -->") || !strings.Contains(says, `level="debug"`) {
			t.Errorf("the file says\n%s", says)
		}
		// Without the store, the node starts with that.
		b.stop()
		must(t)(a.weigh("b", 3))
		dir := filepath.Dir(b.file)
		l := store.link()
		l.cut = errCut
		b = begin(t, l, "b", dir)
		synctest.Wait()
		b.runs(1, "a1 b1")
		_, err := b.weigh("a", 2)
		refused(t, err, "takes no changes", "no route to the store")
		// Its own part it may change.
		g, err := b.dir.Do(t.Context(), director.Change{Verb: "reload", Apply: func(c *config.Config) error { c.Logging.Level = "info"; return nil }})
		if err != nil || g != 1 {
			t.Errorf("a change of the node's own: generation %d, %v", g, err)
		}
		store.set(func() { l.cut = nil })
		time.Sleep(2 * longestPause)
		synctest.Wait()
		b.runs(2, "a1 b3")
		if level := b.dir.State().Config.Logging.Level; level != "info" {
			t.Errorf("level %s", level)
		}
	})
}

// An answer that is lost is told as that, and what the store has taken is made.
func TestLostAnswer(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { a.link.lostReply = true })
		_, err := a.weigh("a", 4)
		refused(t, err, "has not said whether it takes the change", "may still take effect")
		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			t.Errorf("the error is a %T", err)
		}
		synctest.Wait()
		a.runs(2, "a4 b1")
		b.runs(2, "a4 b1")
		must(t)(a.weigh("b", 2))
	})
}

// A change can be undone from another node, with the history that it has followed.
func TestRollbackOnAnotherNode(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		must(t)(a.weigh("a", 4))
		synctest.Wait()
		events := b.dir.Events()
		last := events[len(events)-1]
		if last.By != "ops of a" || last.From != "node a" || last.Generation != 2 || len(last.Edits) != 1 || last.Edits[0].Done() != "setHost web g a weight=4" {
			t.Errorf("event %+v", last)
		}
		g, err := b.dir.Rollback(t.Context(), 1, director.Change{By: "ops"})
		if err != nil || g != 3 {
			t.Fatalf("generation %d, %v", g, err)
		}
		synctest.Wait()
		a.runs(3, "a1 b1")
		if _, err := a.dir.Do(t.Context(), director.Change{Generation: 2, Apply: func(c *config.Config) error { return setWeight(c, "a", 6) }}); err == nil {
			t.Error("a change that was meant for generation 2 was made at 3")
		}
	})
}

// A second node with the same name does not join. The first one's place is free when it leaves.
func TestTwoNodesWithOneName(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		twin := join(t, store, "a", folder(t, strings.Replace(oneService, `ip="10.0.0.1:80"`, `ip="10.0.0.1:80" weight="8"`, 1)))
		_, err := twin.weigh("a", 4)
		refused(t, err, `another node of the fleet has the name "a"`, "<fleet node>")
		twin.runs(1, "a8 b1")
		if twin.Status().Joined || !a.Status().Joined {
			t.Error("the wrong one has joined")
		}
		a.stop()
		time.Sleep(2 * longestPause)
		synctest.Wait()
		twin.runs(1, "a1 b1")
	})
}

// A node that starts again takes its place at once, though its lease has not ended. A copy of
// its folder does not.
func TestRestartTakesItsPlace(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		dir := filepath.Dir(a.file)
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		a.kill()
		again := join(t, store, "a", dir)
		if !again.Status().Joined {
			t.Fatalf("has not joined: %+v", again.Status())
		}
		clone := join(t, store, "a", copied)
		_, err := clone.weigh("a", 4)
		refused(t, err, `another process is the node "a", with the same id`, "copied from another machine")
		time.Sleep(3 * lease)
		if !again.Status().Joined || clone.Status().Joined {
			t.Errorf("%+v\n%+v", again.Status(), clone.Status())
		}
	})
}

// A hand-over passes the node's place on: the others see the node all the time.
func TestHandOver(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		b := join(t, store, "b", folder(t, oneService))
		old := join(t, store, "a", folder(t, oneService))
		old.HandOver()
		next := join(t, store, "a", filepath.Dir(old.file))
		old.stop()
		time.Sleep(3 * lease)
		synctest.Wait()
		if !next.Status().Joined || len(b.Status().Nodes) != 2 {
			t.Errorf("%+v\n%+v", next.Status(), b.Status())
		}
		store.set(func() {
			for _, e := range store.log {
				if e.Key == nodeA && e.Deleted {
					t.Error("the node's key was gone")
				}
			}
		})
		must(t)(next.weigh("a", 2))
	})
}

// What the store has and no node can run leaves everything as it is, and is told.
func TestBadDocuments(t *testing.T) {
	doc := func(change func(*document)) []byte {
		c, problems := config.Parse("c", []byte(oneService))
		if c == nil {
			t.Fatal(problems)
		}
		d := &document{Fleet: "edge", Version: "9", Generation: 5, ID: "x", Config: c}
		change(d)
		value, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	for name, test := range map[string]struct {
		value []byte
		want  string
	}{
		"garbage":          {[]byte("\x1f\x8b\x00garbage"), "is not what txlb writes"},
		"no document":      {[]byte("<config/>"), "is not what txlb writes"},
		"empty":            {nil, "is not what txlb writes"},
		"another fleet's":  {doc(func(d *document) { d.Fleet = "core" }), `is of the fleet "core", not of "edge"`},
		"newer":            {[]byte(strings.Replace(string(doc(func(*document) {})), `format="1"`, `format="2"`, 1)), "has format 2, by txlb 9; this one reads format 1: upgrade this node"},
		"unknown element":  {[]byte(strings.Replace(string(doc(func(*document) {})), `<manager>`, `<teapot/><manager>`, 1)), "by txlb 9 is not valid here"},
		"no generation":    {[]byte(strings.Replace(string(doc(func(*document) {})), `generation="5"`, `generation="-5"`, 1)), `has the generation "-5"`},
		"older":            {doc(func(d *document) { d.Generation = 1 }), "the store has generation 1, and this node had 2: was it restored from a backup?"},
		"another of these": {doc(func(d *document) { d.Generation = 2 }), "the store has another generation 2 than this node had"},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				a := join(t, store, "a", folder(t, oneService))
				must(t)(a.weigh("a", 3))
				synctest.Wait()
				store.set(func() { store.put(configKey, test.value, 0) })
				time.Sleep(2 * retryEvery)
				synctest.Wait()
				a.runs(2, "a3 b1")
				if s := a.Status(); !strings.Contains(s.Problem, test.want) {
					t.Errorf("problem %q; want %q", s.Problem, test.want)
				}
				if _, err := a.weigh("a", 4); err == nil {
					t.Error("a change was accepted")
				}
				a.runs(2, "a3 b1")
				// The way out that the message tells.
				store.set(func() { store.remove(configKey) })
				time.Sleep(2 * retryEvery)
				synctest.Wait()
				a.runs(3, "a3 b1")
				must(t)(a.weigh("a", 4))
			})
		})
	}
}

// A listener that one node cannot open is closed there, and only there, until it can.
func TestPortInUseOnOneNode(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		b.eng.take("unix:/run/other", true)
		_, err := a.dir.Do(t.Context(), director.Change{By: "ops", Verb: "addListen", Apply: func(c *config.Config) error {
			c.Services[0].Listen = append(c.Services[0].Listen, config.Listen{Address: "unix:/run/other"}, config.Listen{Address: "unix:/run/third"})
			return setWeight(c, "a", 2)
		}})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.runs(2, "a2 b1")
		b.runs(2, "a2 b1")
		if got := a.eng.listens(); !slices.Equal(got, []string{"unix:/run/other", "unix:/run/third", "unix:/run/web"}) {
			t.Errorf("node a listens on %q", got)
		}
		if got := b.eng.listens(); !slices.Equal(got, []string{"unix:/run/third", "unix:/run/web"}) {
			t.Errorf("node b listens on %q", got)
		}
		time.Sleep(lease)
		for _, m := range []*member{a, b} {
			text := m.Status().String()
			if !strings.Contains(text, `service "web" does not listen on unix:/run/other: listen on unix:/run/other: the address is in use`) {
				t.Errorf("node %s shows\n%s", m.name, text)
			}
		}
		// It takes part in changes all the same, and loses nothing of them.
		must(t)(b.weigh("b", 3))
		synctest.Wait()
		a.runs(3, "a2 b3")
		if got := a.eng.listens(); len(got) != 3 {
			t.Errorf("node a listens on %q", got)
		}
		b.eng.take("unix:/run/other", false)
		time.Sleep(time.Minute)
		if got := b.eng.listens(); len(got) != 3 || b.Status().Problem != "" {
			t.Errorf("node b listens on %q: %s", got, b.Status().Problem)
		}
	})
}

// A change that cannot be made here at all is told, and is made when it can.
func TestFileMissingOnOneNode(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		list := filepath.Join(t.TempDir(), "list")
		if err := os.WriteFile(list, []byte("10.0.0.0/8\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := a.dir.Do(t.Context(), director.Change{Apply: func(c *config.Config) error {
			c.Services[0].Access = []config.AccessRule{{File: list}, {Deny: true, Nets: "*"}}
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(list); err != nil {
			t.Fatal(err)
		}
		b := join(t, store, "b", folder(t, oneService))
		if p := b.Status().Problem; !strings.Contains(p, "generation 2 cannot run here") || !strings.Contains(p, list) {
			t.Errorf("problem %q", p)
		}
		b.runs(1, "a1 b1")
		// It says so of each change that it is given, and not that somebody else has changed something.
		_, err := b.weigh("a", 4)
		refused(t, err, "node b cannot run generation 2 of fleet edge, so no change is made on it: ", list, "; make the change on another node")
		if errors.As(err, new(*director.MovedError)) {
			t.Errorf("%v is a MovedError", err)
		}
		if err := os.WriteFile(list, []byte("10.0.0.0/8\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryEvery)
		synctest.Wait()
		b.runs(2, "a1 b1")
	})
}

// A watch that has missed what the store has forgotten reads all again.
func TestCompaction(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { b.link.stalled = true })
		for i := range 5 {
			must(t)(a.weigh("a", 2+i))
		}
		synctest.Wait()
		b.runs(1, "a1 b1")
		_, err := b.weigh("a", 99)
		refused(t, err, "from generation 1 to 6", "setHost web g a weight=6")
		store.set(func() { store.compacted = store.revision; b.link.stalled = false })
		synctest.Wait()
		b.runs(6, "a6 b1")
	})
}

// A store that takes no writes refuses changes with its reason, and nobody leaves.
func TestStoreFull(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		store.set(func() { store.full = errors.New("etcd: mvcc: database space exceeded") })
		_, err := a.weigh("a", 2)
		refused(t, err, "fleet edge takes no changes from this node now: etcd: mvcc: database space exceeded")
		a.runs(1, "a1 b1")
		store.set(func() { store.full = nil })
		time.Sleep(longestPause)
		must(t)(a.weigh("a", 2))
	})
}

// A partition parts one node from the store. It changes nothing, and follows when it is back.
func TestPartition(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { b.link.cut = errCut })
		time.Sleep(2 * lease)
		if nodes := a.Status().Nodes; len(nodes) != 1 {
			t.Errorf("node a sees %v", nodes)
		}
		must(t)(a.weigh("a", 2))
		_, err := b.weigh("b", 2)
		refused(t, err, "no route to the store")
		store.set(func() { b.link.cut = nil })
		time.Sleep(2 * longestPause)
		synctest.Wait()
		b.runs(2, "a2 b1")
		text := a.Status().String()
		if !strings.Contains(text, "fleet edge, generation 2; this node is a, joined") || strings.Count(text, "\n") != 3 {
			t.Errorf("node a shows\n%s", text)
		}
	})
}

// Random changes and faults: whatever happens, all nodes end with one configuration, and every
// change that was accepted was made to its predecessor.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				store := newMemoryStore()
				var all []*member
				for i := range 3 {
					all = append(all, join(t, store, fmt.Sprint("n", i), folder(t, oneService)))
				}
				accepted := map[uint64]int{}
				for range 60 {
					m := all[r.IntN(len(all))]
					switch r.IntN(8) {
					case 0:
						store.set(func() {
							if m.link.cut = nil; r.IntN(2) == 0 {
								m.link.cut = errCut
							}
						})
					case 1:
						store.set(func() { m.link.lostReply = true })
					case 2:
						store.set(func() { store.compacted = store.revision })
					case 3:
						store.set(func() { m.link.stalled = !m.link.stalled })
					case 4:
						time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
					default:
						w := r.IntN(1000)
						if g, err := m.weigh("a", w); err == nil {
							if _, twice := accepted[g]; twice {
								t.Errorf("generation %d was accepted twice", g)
							}
							accepted[g] = w
						}
					}
				}
				store.set(func() {
					for _, m := range all {
						m.link.cut, m.link.stalled, m.link.lostReply = nil, false, false
					}
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				want := all[0].weights()
				for _, m := range all {
					m.runs(all[0].dir.State().Generation, want)
				}
				// The store's history has every accepted change under its generation.
				store.set(func() {
					for _, e := range store.log {
						if e.Key != configKey {
							continue
						}
						d, err := decode(e.Value, "edge")
						if err != nil {
							t.Fatal(err)
						}
						if w, there := accepted[d.Generation]; there && d.Config.Services[0].Groups[0].Hosts[0].Weight != w {
							t.Errorf("generation %d has weight %d; %d was accepted", d.Generation, d.Config.Services[0].Groups[0].Hosts[0].Weight, w)
						}
						delete(accepted, d.Generation)
					}
				})
				if len(accepted) > 0 {
					t.Errorf("accepted, but not in the store: %v", accepted)
				}
			})
		})
	}
}

// What a node tells the others is what show fleet shows.
func TestMember(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		time.Sleep(lease)
		synctest.Wait()
		nodes := b.Status().Nodes
		if len(nodes) != 2 || nodes[0].Name != "a" || nodes[0].Version != "1.2.3" || !nodes[0].Ready || nodes[0].Sessions != 7 || nodes[0].Generation != 1 || nodes[0].Behind != 0 {
			t.Errorf("%+v", nodes)
		}
		// Somebody's nonsense among the nodes is nobody.
		store.set(func() { store.put("/txlb/edge/node/x", []byte("nonsense"), 0) })
		synctest.Wait()
		if nodes := b.Status().Nodes; len(nodes) != 2 {
			t.Errorf("%+v", nodes)
		}
		if _, err := json.Marshal(b.Status()); err != nil {
			t.Error(err)
		}
	})
}
