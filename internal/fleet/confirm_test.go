package fleet

import (
	"context"
	"errors"
	"fmt"
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

// try makes a change that waits to be confirmed.
func (m *member) try(host string, weight int, within time.Duration) (uint64, error) {
	return m.dir.Do(context.Background(), director.Change{
		By: "ops of " + m.name, From: "here", Verb: fmt.Sprintf("setHost web g %s weight=%d", host, weight), Confirm: within,
		Apply: func(c *config.Config) error { return setWeight(c, host, weight) },
	})
}

// waiting are the generations that wait to be confirmed.
func (m *member) waiting() string {
	var list []uint64
	for _, p := range m.dir.State().Pending() {
		list = append(list, p.Generation)
	}
	return fmt.Sprint(list)
}

// waits fails unless these generations wait to be confirmed on all nodes.
func waits(t *testing.T, want string, all ...*member) {
	t.Helper()
	for _, m := range all {
		if got := m.waiting(); got != want {
			t.Errorf("on node %s wait %s; want %s\n%s", m.name, got, want, m.log)
		}
	}
}

// events returns the verbs of a node's events with who gave them.
func (m *member) events() (list []string) {
	for _, e := range m.dir.Events() {
		list = append(list, fmt.Sprintf("%d %s by %s from %s", e.Generation, e.Verb, e.By, e.From))
	}
	return list
}

// writes counts the documents of a generation that were written.
func (m *memoryStore) writes(t *testing.T, generation uint64) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.log {
		if e.Key != configKey || e.Deleted {
			continue
		}
		d, err := decode(e.Value, "edge")
		if err != nil {
			t.Error(err)
		} else if d.Generation == generation {
			n++
		}
	}
	return n
}

// keysBelow are the keys with a prefix.
func (m *memoryStore) keysBelow(prefix string) (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.keys {
		if strings.HasPrefix(key, prefix) {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

// A change that waits to be confirmed does so on all nodes, and is in no file. Any node confirms
// it.
func TestConfirmOnAnotherNode(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		c := join(t, store, "c", folder(t, oneService))
		all := []*member{a, b, c}
		waits(t, "[2]", all...)
		if got := store.keysBelow("/txlb/edge/confirm/"); !slices.Equal(got, []string{"/txlb/edge/confirm/2"}) {
			t.Errorf("keys %q", got)
		}
		if p := b.dir.State().Pending()[0]; p.By != "ops of a" || p.From != "node a" || p.Verb != "setHost web g a weight=4" || p.Until.Sub(p.Made) != time.Minute || fmt.Sprint(p.Edits()) != "[setHost web g a weight=4]" {
			t.Errorf("node b knows %+v, %v", p, p.Edits())
		}
		time.Sleep(10 * time.Second)
		for _, m := range all {
			m.runs(2, "a4 b1")
			if strings.Contains(m.fileSays(), `weight="4"`) {
				t.Errorf("the file of %s has it", m.name)
			}
		}
		if _, err := b.dir.Confirm(t.Context(), 3, "ann", "here"); err == nil || !strings.Contains(err.Error(), "generation 3 does not wait") {
			t.Errorf("confirmed what does not wait: %v", err)
		}
		p, err := b.dir.Confirm(t.Context(), 0, "ann", "here")
		if err != nil || p.Generation != 2 {
			t.Fatal(p, err)
		}
		waits(t, "[]", b)
		time.Sleep(2 * time.Minute)
		waits(t, "[]", all...)
		for _, m := range all {
			m.runs(2, "a4 b1")
			if !strings.Contains(m.fileSays(), `weight="4"`) {
				t.Errorf("the file of %s does not have it", m.name)
			}
		}
		if got := a.events(); !slices.Contains(got, "2 confirm 2 by ann from node b") {
			t.Errorf("events of a: %q", got)
		}
		if got := store.keysBelow("/txlb/edge/confirm/"); len(got) > 0 {
			t.Errorf("keys %q", got)
		}
		must(t)(c.weigh("b", 2))
	})
}

// When the time is over, one of the nodes that live undoes the change, whatever has become of
// the one that made it.
func TestUndoneByAnotherNode(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		c := join(t, store, "c", folder(t, oneService))
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		a.kill()
		must(t)(b.weigh("b", 3)) // a later change stays
		time.Sleep(59 * time.Second)
		synctest.Wait()
		b.runs(3, "a4 b3")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		a = join(t, store, "a", filepath.Dir(a.file))
		for _, m := range []*member{a, b, c} {
			m.runs(4, "a1 b3")
		}
		waits(t, "[]", a, b, c)
		if n := store.writes(t, 4); n != 1 {
			t.Errorf("undone %d times", n)
		}
		if got := c.events(); !slices.Contains(got, "4 undo 2 by confirm from node b") {
			t.Errorf("events of c: %q", got)
		}
		for _, e := range c.dir.Events() {
			if e.Generation == 4 && e.Text != "not confirmed within 1m0s" {
				t.Errorf("event %+v", e)
			}
		}
		if n := b.dir.Undone() + c.dir.Undone(); n != 1 {
			t.Errorf("%d nodes have undone it", n)
		}
		time.Sleep(time.Minute)
		b.runs(4, "a1 b3")
	})
}

// A node that made a change and starts again knows that it waits, and so do nodes that were all
// away when its time was over.
func TestConfirmOutlivesProcesses(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		a.kill()
		a = join(t, store, "a", filepath.Dir(a.file))
		a.runs(2, "a4 b1")
		waits(t, "[2]", a, b)
		if _, err := a.dir.Confirm(t.Context(), 2, "ops", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		waits(t, "[]", a, b)

		must(t)(b.try("b", 5, time.Minute))
		must(t)(b.try("a", 6, time.Hour))
		synctest.Wait()
		a.stop()
		b.kill()
		time.Sleep(2 * time.Minute)
		a = join(t, store, "a", filepath.Dir(a.file))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		a.runs(5, "a6 b1")
		waits(t, "[4]", a)
		if strings.Contains(a.fileSays(), `weight="6"`) {
			t.Error("the file has a change that waits")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		a.runs(6, "a4 b1")
		waits(t, "[]", a)
	})
}

// Without the store nothing is undone and nothing confirmed; when it is back, one node does it.
func TestConfirmWithoutTheStore(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		store.set(func() { store.down = errCut })
		time.Sleep(3 * time.Minute)
		for _, m := range []*member{a, b} {
			m.runs(2, "a4 b1")
			if !m.dir.State().Pending()[0].Overdue(time.Now()) {
				t.Errorf("the time of %+v is not over", m.dir.State().Pending()[0])
			}
			if fate := m.dir.State().Pending()[0].Fate(); !strings.Contains(fate, "undone when the store of the fleet says so") {
				t.Errorf("fate %q", fate)
			}
			if s := m.Status().String(); !strings.Contains(s, "not confirmed: generation 2 (setHost web g a weight=4) by ops of a on node a: its time is over, but without the store nothing is undone\n") {
				t.Errorf("status:\n%s", s)
			}
		}
		_, err := b.dir.Confirm(t.Context(), 2, "ops", "")
		refused(t, err, "fleet edge takes no changes from this node now: no route to the store", "generation 2 is not undone either until the store is back")
		waits(t, "[2]", a, b)
		store.set(func() { store.down = nil })
		time.Sleep(2 * longestPause)
		synctest.Wait()
		a.runs(3, "a1 b1")
		b.runs(3, "a1 b1")
		waits(t, "[]", a, b)
		if n := store.writes(t, 3); n != 1 {
			t.Errorf("undone %d times", n)
		}
	})
}

// A change whose answer is lost keeps its deadline; so does one that never arrived no harm.
func TestLostAnswerKeepsItsConfirm(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		store.set(func() { a.link.lostReply = true })
		_, err := a.try("a", 4, time.Minute)
		refused(t, err, "may still take effect")
		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			t.Errorf("the error is a %T", err)
		}
		synctest.Wait()
		waits(t, "[2]", a, b)
		// A confirm whose answer is lost is one, too.
		must(t)(a.try("b", 7, time.Minute))
		synctest.Wait()
		store.set(func() { b.link.lostReply = true })
		_, err = b.dir.Confirm(t.Context(), 3, "ops", "")
		refused(t, err, "has not said whether generation 3 is confirmed")
		synctest.Wait()
		waits(t, "[2]", a, b)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		a.runs(4, "a1 b7")
		b.runs(4, "a1 b7")
	})
}

// Several changes wait, each for itself; an undo takes back only its own, and a rollback ends
// the wait.
func TestConfirmSeveral(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		must(t)(a.try("a", 4, 30*time.Second))
		synctest.Wait()
		must(t)(b.try("b", 5, time.Minute))
		synctest.Wait()
		must(t)(b.try("a", 9, 2*time.Minute))
		synctest.Wait()
		waits(t, "[2 3 4]", a, b)
		time.Sleep(35 * time.Second)
		synctest.Wait()
		waits(t, "[3 4]", a, b)
		a.runs(5, "a9 b5") // what a later change has set again stays: nothing to undo
		b.runs(5, "a9 b5")
		time.Sleep(30 * time.Second)
		synctest.Wait()
		waits(t, "[4]", a, b)
		a.runs(6, "a9 b1")
		g, err := a.dir.Rollback(t.Context(), 3, director.Change{By: "ops"}) // the undos, and the change
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.runs(g, "a4 b5")
		time.Sleep(time.Minute)
		synctest.Wait()
		waits(t, "[]", a, b)
	})
}

// A change of what is the node's own waits there alone, and has the fleet's generation: two
// changes that wait are never told apart by nothing else, and neither are two that are undone.
func TestConfirmOfTheNodesOwn(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		level := func(text string) func(*config.Config) error {
			return func(c *config.Config) error { c.Logging.Level = text; return nil }
		}
		own := func(text string, within time.Duration) (uint64, error) {
			return a.dir.Do(t.Context(), director.Change{By: "ops", Verb: "level " + text, Confirm: within, Apply: level(text)})
		}
		must(t)(own("debug", time.Minute))
		synctest.Wait()
		waits(t, "[1]", a)
		waits(t, "[]", b)
		_, err := own("warn", time.Minute)
		refused(t, err, "generation 1 has a change that waits to be confirmed already", "confirm that one first")
		must(t)(a.try("a", 4, time.Hour))
		synctest.Wait()
		waits(t, "[1 2]", a)
		_, err = own("warn", time.Minute)
		refused(t, err, "generation 2 has a change that waits to be confirmed already")
		must(t)(own("error", 0))
		_, err = a.dir.Rollback(t.Context(), 1, director.Change{By: "ops", Generation: 2})
		refused(t, err, "2 changes have generation 2", "without generation=")
		// Its own clock counts for it, also without the store.
		store.set(func() { store.down = errCut })
		if _, err = a.dir.Rollback(t.Context(), 1, director.Change{By: "ops"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		waits(t, "[2]", a)
		if level := a.dir.State().Config.Logging.Level; level != "info" {
			t.Errorf("level %s", level)
		}
	})
}

// A change of both parts is undone in both, also if another node undoes it while this one is
// cut off; and stays in both if another node confirms it.
func TestConfirmOfBothParts(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				a := join(t, store, "a", folder(t, oneService))
				b := join(t, store, "b", folder(t, oneService))
				must(t)(a.dir.Do(t.Context(), director.Change{By: "ops", Verb: "both", Confirm: time.Minute, Apply: func(c *config.Config) error {
					c.Logging.Level = "debug"
					return setWeight(c, "a", 4)
				}}))
				synctest.Wait()
				b.runs(2, "a4 b1")
				store.set(func() { a.link.cut = errCut })
				want, generation, level := "a1 b1", uint64(3), "info"
				if keep {
					want, generation, level = "a4 b1", 2, "debug"
					if _, err := b.dir.Confirm(t.Context(), 2, "ops", ""); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				b.runs(generation, want)
				a.runs(2, "a4 b1")
				waits(t, "[2]", a)
				store.set(func() { a.link.cut = nil })
				time.Sleep(2 * longestPause)
				synctest.Wait()
				a.runs(generation, want)
				waits(t, "[]", a, b)
				if got := a.dir.State().Config.Logging.Level; got != level {
					t.Errorf("level %s; want %s", got, level)
				}
				time.Sleep(2 * saveEvery)
				if says := a.fileSays(); strings.Contains(says, `level="debug"`) != keep {
					t.Errorf("the file says\n%s", says)
				}
			})
		})
	}
}

// A confirm and the end of the time exclude each other: the quicker one counts.
func TestConfirmAtTheLastMoment(t *testing.T) {
	for i := range 20 {
		testkit.Bubble(t, func(t *testing.T) {
			store := newMemoryStore()
			a := join(t, store, "a", folder(t, oneService))
			b := join(t, store, "b", folder(t, oneService))
			must(t)(a.try("a", 4, time.Minute))
			time.Sleep(time.Minute - time.Duration(i%3-1)*time.Millisecond)
			_, err := b.dir.Confirm(t.Context(), 2, "ops", "")
			time.Sleep(time.Minute)
			synctest.Wait()
			waits(t, "[]", a, b)
			if err == nil {
				a.runs(2, "a4 b1")
				b.runs(2, "a4 b1")
			} else {
				a.runs(3, "a1 b1")
				b.runs(3, "a1 b1")
			}
		})
	}
}

// A key of the store that is deleted with the configuration does not lose what waits.
func TestConfirmWithoutTheDocument(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		store.set(func() { store.remove(configKey) })
		synctest.Wait()
		a.runs(3, "a4 b1")
		waits(t, "[2]", a, b)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		a.runs(4, "a1 b1")
		b.runs(4, "a1 b1")
	})
}

// The process that takes a node's place waits on.
func TestConfirmAtHandOver(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		must(t)(a.try("a", 4, time.Minute))
		synctest.Wait()
		a.HandOver()
		next := join(t, store, "a", filepath.Dir(a.file))
		a.stop()
		waits(t, "[2]", next)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		next.runs(3, "a1 b1")
	})
}

// What the store has of a change that waits, and cannot be undone, makes the document unusable.
func TestBadUnconfirmed(t *testing.T) {
	c := hosts(t, 2, "")
	was := c.Clone()
	c.Services[0].Groups[0].Hosts[0].Weight = 4
	d := &document{Fleet: "edge", Version: "1", Generation: 2, ID: "x", Config: c, Unconfirmed: []*unconfirmed{
		{change{Generation: 2, Node: "a", By: "ops", Verb: "v"}, time.Minute, was, c},
	}, Confirmed: []confirmed{{Generation: 1, Node: "b", By: "ann"}}}
	value, err := d.encode()
	if err != nil {
		t.Fatal(err)
	}
	text := string(value)
	if again, err := decode(value, "edge"); err != nil || len(again.Unconfirmed) != 1 || again.Confirmed[0] != d.Confirmed[0] {
		t.Fatal(err)
	} else if u := again.Unconfirmed[0]; u.For != time.Minute || !sameShared(u.before, was) || !sameShared(u.after, c) {
		t.Errorf("%+v", u)
	}
	for _, bad := range [][2]string{{`for="1m0s"`, `for="soon"`}, {"<then>", "<then>["}, {`&#34;web&#34;`, `&#34;other&#34;`}} {
		if !strings.Contains(text, bad[0]) {
			t.Fatalf("no %s in\n%s", bad[0], text)
		}
		_, err := decode([]byte(strings.Replace(text, bad[0], bad[1], 1)), "edge")
		refused(t, err, "has generation 2 as not confirmed, which cannot be undone here")
	}
}
