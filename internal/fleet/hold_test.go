package fleet

import (
	"fmt"
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

// hold holds the group of a node.
func (m *member) hold(within time.Duration) (*director.Hold, error) {
	h, _, err := m.dir.Hold(m.t.Context(), director.HoldOrder{By: "ops of " + m.name, From: "here", Service: "web", Group: "g", For: within})
	return h, err
}

func (m *member) release(over time.Duration) (director.Released, error) {
	return m.dir.Release(m.t.Context(), director.ReleaseOrder{By: "ops of " + m.name, From: "here", Service: "web", Group: "g", Over: over})
}

// held says how a node holds its group: "" if it does not.
func (m *member) held() string {
	h := m.dir.State().Services[0].Groups[0].Hold()
	switch {
	case h == nil:
		return ""
	case h.Releasing():
		return "releasing"
	}
	return fmt.Sprintf("by %s from %s until %ds, %d", h.By, h.From, int(time.Until(h.Until).Round(time.Second).Seconds()), h.Most)
}

// holding fails unless all nodes hold like this.
func holding(t *testing.T, want string, all ...*member) {
	t.Helper()
	synctest.Wait()
	for _, m := range all {
		if got := m.held(); got != want {
			t.Errorf("node %s holds %q; want %q\n%s", m.name, got, want, m.log)
		}
	}
}

// A hold on one node holds on all, and on those that come; so does a release on another one.
func TestHoldOnAllNodes(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		h, err := a.hold(30 * time.Second)
		if err != nil || h.By != "ops of a" || h.Most != director.DefaultMostHeld {
			t.Fatal(h, err)
		}
		holding(t, "by ops of a from node a until 30s, 10000", a, b)
		if got := store.keysBelow("/txlb/edge/hold/"); len(got) != 1 || got[0] != "/txlb/edge/hold/web/g" {
			t.Errorf("keys %q", got)
		}
		time.Sleep(10 * time.Second)
		c := join(t, store, "c", folder(t, oneService))
		holding(t, "by ops of a from node a until 20s, 10000", a, b)
		holding(t, "by ops of a from node a until 30s, 10000", c) // the store ends it before
		for _, m := range []*member{a, b, c} {
			if s := m.Status().String(); !strings.Contains(s, "held: group g of service web, by ops of a on node a, until ") {
				t.Errorf("status:\n%s", s)
			}
		}
		// Extended by another node, from then on.
		if _, err := b.hold(time.Minute); err != nil {
			t.Fatal(err)
		}
		holding(t, "by ops of b from node b until 60s, 10000", a, b, c)
		r, err := c.release(0)
		if err != nil || !r.Held || r.Alone != nil {
			t.Fatal(r, err)
		}
		holding(t, "", a, b, c)
		if r, err := a.release(0); err != nil || r.Held {
			t.Errorf("released twice: %+v, %v", r, err)
		}
		// One that joins now does not hold, and a new hold holds.
		d := join(t, store, "d", folder(t, oneService))
		holding(t, "", d)
		if _, err := a.hold(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		holding(t, "by ops of a from node a until 30s, 10000", a, b, c, d)
		time.Sleep(33 * time.Second)
		holding(t, "", a, b, c, d)
		for verb, n := range map[string]int{"1 hold web g for=30s by ops of a from node a": 2, "1 hold web g for=1m0s by ops of b from node b": 0, "1 release web g by ops of c from node c": 1, "1 hold ended by  from ": 1} {
			got := 0
			for _, e := range b.events() {
				if e == verb {
					got++
				}
			}
			if got != n {
				t.Errorf("%d times %q; want %d in %q", got, verb, n, b.events())
			}
		}
		time.Sleep(time.Minute)
		if got := store.keysBelow("/txlb/edge/hold/"); len(got) > 0 {
			t.Errorf("keys %q", got)
		}
	})
}

// Without the store no new hold begins, those that are there end by the node's own clock, and a
// release releases here. What was released so is not held again when the store is back.
func TestHoldWithoutTheStore(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		c := join(t, store, "c", folder(t, oneService))
		if _, err := a.hold(time.Minute); err != nil {
			t.Fatal(err)
		}
		holding(t, "by ops of a from node a until 60s, 10000", a, b, c)
		cut := func(err error, all ...*member) {
			store.set(func() {
				for _, m := range all {
					m.link.cut = err
				}
			})
		}
		cut(errCut, a, b)
		time.Sleep(20 * time.Second)
		holding(t, "by ops of a from node a until 40s, 10000", a, b, c)
		_, err := b.hold(time.Minute)
		refused(t, err, "fleet edge takes no changes from this node now: no route to the store")
		r, err := b.release(0)
		if err != nil || !r.Held || r.Alone == nil || !strings.Contains(r.Alone.Error(), "no route to the store") {
			t.Errorf("released alone: %+v, %v", r, err)
		}
		holding(t, "", b)
		cut(nil, b)
		time.Sleep(2 * longestPause)
		holding(t, "", b)
		holding(t, "by ops of a from node a until 30s, 10000", a, c)
		time.Sleep(31 * time.Second)
		holding(t, "", a, b, c)
		cut(nil, a)
		time.Sleep(2 * longestPause)
		holding(t, "", a, b, c)
		if _, err := b.hold(time.Minute); err != nil {
			t.Fatal(err)
		}
		holding(t, "by ops of b from node b until 60s, 10000", a, b, c)
		// The store ends it for nodes that were away.
		cut(errCut, a)
		time.Sleep(20 * time.Second)
		if r, err := c.release(0); err != nil || !r.Held {
			t.Error(r, err)
		}
		time.Sleep(15 * time.Second) // for longer than the store tells of it
		holding(t, "by ops of b from node b until 25s, 10000", a)
		cut(nil, a)
		time.Sleep(2 * longestPause)
		holding(t, "", a, b, c)
	})
}

// Two nodes that hold at the same moment: the later one counts on all. A lost answer is told.
func TestHoldAtTheSameMoment(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { a.link.stalled, b.link.stalled = true, true })
		ended := make(chan error, 2)
		for _, m := range []*member{a, b} {
			go func() { _, err := m.hold(time.Minute); ended <- err }()
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		store.set(func() { a.link.stalled, b.link.stalled = false, false })
		synctest.Wait()
		if a.held() != b.held() || a.held() == "" {
			t.Errorf("a %q, b %q", a.held(), b.held())
		}
	})
}

// A group that is deleted and comes back while it is held is held. Its command is the node's,
// and comes back with it.
func TestHeldGroupComesBack(t *testing.T) {
	two := strings.Replace(oneService, `<group name="g">`, `<group name="spare" onHold="start it"><host name="s" ip="10.0.0.9:80"/></group><group name="g" enable="true">`, 1)
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, strings.Replace(two, "start it", "start other", 1)))
		b := join(t, store, "b", folder(t, two))
		command := func(m *member, want string) {
			t.Helper()
			synctest.Wait()
			got := "no group"
			for _, g := range m.dir.State().Config.Services[0].Groups {
				if g.Name == "spare" {
					got = g.OnHold
				}
			}
			if got != want {
				t.Errorf("node %s: %q; want %q", m.name, got, want)
			}
		}
		command(a, "start other")
		command(b, "start it")
		if _, _, err := a.dir.Hold(t.Context(), director.HoldOrder{By: "ops", Service: "web", Group: "spare", For: time.Hour}); err != nil {
			t.Fatal(err)
		}
		must(t)(a.dir.Do(t.Context(), director.Change{By: "ops", Verb: "delGroup web spare", Apply: func(c *config.Config) error {
			c.Services[0].Groups = c.Services[0].Groups[1:]
			return nil
		}}))
		command(b, "no group")
		time.Sleep(3 * saveEvery)
		if says := b.fileSays(); strings.Contains(says, "start it") {
			t.Errorf("the file says\n%s", says)
		}
		if _, err := a.dir.Rollback(t.Context(), 1, director.Change{By: "ops"}); err != nil {
			t.Fatal(err)
		}
		command(a, "start other")
		command(b, "start it")
		time.Sleep(3 * saveEvery)
		if says := b.fileSays(); !strings.Contains(says, `onHold="start it"`) {
			t.Errorf("the file says\n%s", says)
		}
		for _, m := range []*member{a, b} {
			for _, g := range m.dir.State().Services[0].Groups {
				if g.Config.Name == "spare" && g.Hold() == nil {
					t.Errorf("node %s does not hold it", m.name)
				}
			}
		}
		// A restart while it is gone loses nothing.
		must(t)(a.dir.Do(t.Context(), director.Change{By: "ops", Verb: "delGroup web spare", Apply: func(c *config.Config) error {
			c.Services[0].Groups = slices.DeleteFunc(c.Services[0].Groups, func(g *config.Group) bool { return g.Name == "spare" })
			return nil
		}}))
		command(b, "no group")
		time.Sleep(3 * saveEvery)
		b.kill()
		b = join(t, store, "b", filepath.Dir(b.file))
		if says := b.fileSays(); strings.Contains(says, "start it") {
			t.Errorf("the file says\n%s", says)
		}
		if _, err := a.dir.Rollback(t.Context(), 1, director.Change{By: "ops"}); err != nil {
			t.Fatal(err)
		}
		command(b, "start it")
		// The node's file says otherwise now: that counts.
		must(t)(b.dir.Do(t.Context(), director.Change{Verb: "reload", Apply: func(c *config.Config) error {
			for _, g := range c.Services[0].Groups {
				g.OnHold = ""
			}
			return nil
		}}))
		for range 2 {
			if _, err := a.dir.Rollback(t.Context(), 1, director.Change{By: "ops"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		command(b, "")
		store.set(func() {
			for _, e := range store.log {
				if strings.Contains(string(e.Value), "start it") {
					t.Errorf("the store has a command: %s", e.Value)
				}
			}
		})
	})
}

// What the store has and is no hold is ignored.
func TestBadHolds(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		const key, good = "/txlb/edge/hold/web/g", `{"service":"web","group":"g","id":"x","node":"b","by":"ops","time":"2026-11-29T01:02:03Z","for":"30s"}`
		for _, bad := range []string{
			"", "{", "[]", strings.Replace(good, `"id":"x"`, `"id":""`, 1), strings.Replace(good, "30s", "-30s", 1), strings.Replace(good, "30s", "300h", 1),
			strings.Replace(good, "web", "other", 1), strings.Replace(good, `"for"`, `"released":{"over":"-1s"},"for"`, 1), strings.Replace(good, "30s", "soon", 1),
		} {
			store.set(func() { store.put(key, []byte(bad), 0) })
			holding(t, "", a)
			if !says(a.log, "not a hold, ignored") {
				t.Errorf("the log does not tell of %s", bad)
			}
		}
		store.set(func() {
			store.put("/txlb/edge/hold/web/nowhere", []byte(strings.Replace(good, `"g"`, `"nowhere"`, 1)), 0)
			store.put(key, []byte(good), 0)
		})
		holding(t, "by ops from node b until 30s, 10000", a)
		if _, err := a.hold(time.Minute); err != nil {
			t.Error(err)
		}
		// A process that takes the place holds on.
		a.HandOver()
		next := join(t, store, "a", filepath.Dir(a.file))
		a.stop()
		holding(t, "by ops of a from node a until 60s, 10000", next)
	})
}

// An answer that comes when the hold is over already does not bring it back.
func TestHoldWithALateAnswer(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		store.set(func() { a.link.late = 4 * time.Second })
		if _, err := a.hold(2 * time.Second); err == nil {
			t.Error("it was over before the answer came, and nobody says so")
		}
		holding(t, "", a)
		if s := a.Status(); len(s.Holds) > 0 {
			t.Errorf("status %+v", s.Holds)
		}
	})
}

// A reload that waits to be confirmed does so on all nodes, and its file counts when it is
// confirmed, on whichever node.
func TestConfirmOfAReload(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				a := join(t, store, "a", folder(t, oneService))
				b := join(t, store, "b", folder(t, oneService))
				edited := strings.Replace(oneService, `ip="10.0.0.1:80"`, `ip="10.0.0.1:80" weight="6"`, 1)
				if err := os.WriteFile(a.file, []byte(edited), 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := a.dir.Reload(t.Context(), director.ReloadRequest{By: "ops", Confirm: time.Minute}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * saveEvery)
				synctest.Wait()
				waits(t, "[2]", a, b)
				a.runs(2, "a6 b1")
				b.runs(2, "a6 b1")
				if s := a.Status(); s.Problem != "" || strings.Contains(b.fileSays(), `weight="6"`) {
					t.Errorf("problem %q", s.Problem)
				}
				want, generation := "a1 b1", uint64(3)
				if keep {
					want, generation = "a6 b1", 2
					if _, err := b.dir.Confirm(t.Context(), 0, "ann", ""); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				waits(t, "[]", a, b)
				a.runs(generation, want)
				b.runs(generation, want)
				if stored := a.dir.Stored().Config.Services[0].Groups[0].Hosts[0].Weight == 6; stored != keep || strings.Contains(b.fileSays(), `weight="6"`) != keep {
					t.Errorf("the file counts: %v; b says\n%s", stored, b.fileSays())
				}
			})
		})
	}
}
