package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// ordered is what the store has as the order, as a build reads it that does not know Cancelled.
func (u *upgrading) ordered() (text string, o Order) {
	u.store.mu.Lock()
	defer u.store.mu.Unlock()
	text = string(u.store.keys["/txlb/edge/order"].Value)
	_ = json.Unmarshal([]byte(text), &o)
	return text, o
}

// An upgrade that is cancelled on any node: the node that has begun finishes, those behind it are
// left alone, and the command that waits says by whom. Then another one can begin.
func TestCancel(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b", "c")
		u.install("1.3.0", "a", "b", "c")
		u.does("b", func(string) (string, error) { time.Sleep(10 * time.Second); return u.replace("b") })
		answer := make(chan error, 1)
		go func() {
			_, err := u.node("c").Order(context.Background(), Upgrade, nil, "boss", "here")
			answer <- err
		}()
		time.Sleep(time.Second)
		done, o, err := u.node("a").Cancel(t.Context(), "", "ann")
		if want := "upgrade by boss on c: stopped after 1 of 3 nodes: cancelled by ann on node a; node b has begun and finishes; done: a; not begun: c"; err != nil || done != want || o == nil || !o.Cancelled {
			t.Fatalf("%q, %+v, %v; want %q", done, o, err, want)
		}
		refused(t, <-answer, "cancelled by ann on node a; node b has begun and finishes; done: a; not begun: c")
		time.Sleep(20 * time.Second)
		if got := u.versions("c"); got != "a=1.3.0 b=1.3.0 c=1.2.3" {
			t.Error(got)
		}
		for _, name := range []string{"a", "b", "c"} {
			s := u.node(name).Status()
			if running, stopped := s.Upgrade(); s.Order == nil || running || stopped {
				t.Errorf("node %s: running %v, stopped %v\n%s", name, running, stopped, s)
			}
		}
		_, _, err = u.node("b").Cancel(t.Context(), "", "ann")
		refused(t, err, "there is nothing to cancel: upgrade by boss on c: stopped after 1 of 3 nodes: cancelled by ann")
		time.Sleep(2 * shownFor)
		if s := u.node("b").Status(); s.Order != nil {
			t.Errorf("shown for ever:\n%s", s)
		}
		u.install("1.3.0", "b")
		if _, err := u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here"); err != nil {
			t.Fatal(err)
		}
	})
}

// A node that has been asked and has not begun does not, whichever of both is first.
func TestCancelBeforeItBegins(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		u.node("b").opt.Obey = nil // it obeys nobody
		answer := make(chan error, 1)
		go func() {
			_, err := u.node("a").Order(context.Background(), Upgrade, []string{"b"}, "boss", "here")
			answer <- err
		}()
		synctest.Wait()
		if done, _, err := u.node("b").Cancel(t.Context(), "", "ann"); err != nil || !strings.HasSuffix(done, "stopped after 0 of 1 node: cancelled by ann on node b") {
			t.Errorf("%q, %v", done, err)
		}
		refused(t, <-answer, "cancelled by ann on node b")
		_, _, err := u.node("a").Cancel(t.Context(), "", "ann")
		refused(t, err, "there is nothing to cancel")
	})
}

// One that has stopped is forgotten, and so is one that cannot be read. None is no error of the
// store.
func TestCancelForgets(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		_, _, err := u.node("a").Cancel(t.Context(), "", "ann")
		refused(t, err, "there is nothing to cancel: the fleet has no order")
		u.does("b", func(string) (string, error) { return "", errors.New("no such file") })
		_, err = u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here")
		refused(t, err, "node b: no such file")
		synctest.Wait()
		s := u.node("b").Status()
		if running, stopped := s.Upgrade(); running || !stopped {
			t.Errorf("running %v, stopped %v\n%s", running, stopped, s)
		}
		done, _, err := u.node("b").Cancel(t.Context(), s.Order.ID, "ann")
		if err != nil || !strings.HasPrefix(done, "forgotten: upgrade by boss on a: stopped after 0 of 2 nodes: node b: no such file") {
			t.Errorf("%q, %v", done, err)
		}
		if s := u.node("b").Status(); s.Order != nil { // at once
			t.Errorf("it is still there:\n%s", s)
		}
		synctest.Wait()
		if text, _ := u.ordered(); text != "" || u.node("a").Status().Order != nil {
			t.Errorf("it is still there: %s", text)
		}
		u.store.set(func() {
			u.store.put("/txlb/edge/order", []byte(`{"id":"9","verb":"format","steps":[{"node":"b","state":"asked"}]}`), 0)
		})
		synctest.Wait()
		_, err = u.node("a").Order(t.Context(), Upgrade, nil, "boss", "here")
		refused(t, err, "it is not an order that this version of txlb knows", "delete it: upgrade --cancel")
		_, _, err = u.node("a").Cancel(t.Context(), "9", "ann")
		refused(t, err, "the order that was meant is not there any more")
		if done, o, err := u.node("a").Cancel(t.Context(), "", "ann"); err != nil || o != nil || !strings.HasPrefix(done, "forgotten: what the store has in /txlb/edge/order cannot be used") {
			t.Errorf("%q, %v, %v", done, o, err)
		}
		if text, _ := u.ordered(); text != "" {
			t.Errorf("it is still there: %s", text)
		}
		u.store.set(func() { u.store.down = errors.New("no quorum") })
		time.Sleep(2 * lease)
		_, _, err = u.node("a").Cancel(t.Context(), "", "ann")
		refused(t, err, "fleet edge takes no changes from this node now", "no quorum")
	})
}

// A cancellation is for the order that was meant, and never ends one that came later: neither
// by its id, nor if the node has not heard of the later one yet.
func TestCancelSparesALaterOrder(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b", "c")
		u.does("b", func(string) (string, error) { time.Sleep(10 * time.Second); return u.replace("b") })
		begin := func() {
			within, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if o, err := u.node("a").Order(within, Upgrade, []string{"b"}, "boss", "here"); err != nil || o.over() {
				t.Fatalf("%v, %v", o, err)
			}
		}
		begin()
		_, first := u.ordered()
		c := u.node("c")
		u.store.set(func() { c.link.stalled = true })
		time.Sleep(20 * time.Second) // it is done
		u.does("b", func(string) (string, error) { time.Sleep(10 * time.Second); return u.replace("b") })
		begin()
		_, second := u.ordered()
		if first.ID == second.ID {
			t.Fatal("there is no second order")
		}
		_, _, err := u.node("a").Cancel(t.Context(), first.ID, "ann")
		refused(t, err, "the order that was meant is not there any more")
		_, _, err = c.Cancel(t.Context(), "", "ann") // it knows the first one alone
		refused(t, err, "the order that was meant is not there any more")
		if _, is := u.ordered(); is.ID != second.ID || is.over() {
			t.Errorf("it was ended: %+v", is)
		}
		u.store.set(func() { c.link.stalled = false })
		synctest.Wait()
		if _, _, err := c.Cancel(t.Context(), second.ID, "ann"); err != nil {
			t.Error(err)
		}
	})
}

// An order that nodes of an older version carry out ends for them too: they go on with nothing
// that has an end, and show the problem.
func TestCancelReachesOlderVersions(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		// As a version without Cancelled has written it, for a node that hangs.
		u.store.set(func() {
			u.store.put("/txlb/edge/order", []byte(`{"id":"1","verb":"upgrade","by":"boss","node":"a","begun":"2026-01-01T00:00:00Z",
				"steps":[{"node":"z","state":"begun","instance":"x","before":"1.2.3"},{"node":"a","state":"waiting","instance":"y","before":"1.2.3"}]}`), 0)
		})
		synctest.Wait()
		if _, _, err := u.node("a").Cancel(t.Context(), "", "ann"); err != nil {
			t.Fatal(err)
		}
		text, o := u.ordered()
		if o.Ended.IsZero() || o.Problem != "cancelled by ann on node a; node z has begun and finishes" || o.Steps[1].State != Waiting {
			t.Errorf("older versions read %s", text)
		}
		time.Sleep(5 * time.Minute)
		if now, _ := u.ordered(); now != text {
			t.Errorf("somebody goes on with it: %s", now)
		}
	})
}

// A cancellation finds out that the store has gone back, and does not try for ever.
func TestCancelFindsAStoreThatWentBack(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		put := func() {
			u.store.set(func() {
				u.store.put("/txlb/edge/order", []byte(`{"id":"1","verb":"upgrade","by":"boss","node":"a","begun":"2026-01-01T00:00:00Z",
					"steps":[{"node":"z","state":"begun","instance":"x","before":"1.2.3"}]}`), 0)
			})
			synctest.Wait()
		}
		put()
		restore := u.store.backup()
		put()
		a := u.node("a")
		u.store.set(func() { a.link.stalled = true })
		restore()
		_, _, err := a.Cancel(t.Context(), "", "ann")
		refused(t, err, errWentBack.Error())
	})
}

// An order that cannot be read is cancelled as the one that was seen.
func TestCancelAnUnreadableOrder(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		put := func(id string) string {
			u.store.set(func() {
				u.store.put("/txlb/edge/order", []byte(`{"id":"`+id+`","verb":"format","steps":[{"node":"b","state":"asked"}]}`), 0)
			})
			synctest.Wait()
			return u.node("a").Status().OrderProblemID
		}
		seen := put("1")
		later := put("2")
		if seen == "" || seen == later {
			t.Fatalf("seen %q, later %q", seen, later)
		}
		_, _, err := u.node("a").Cancel(t.Context(), seen, "ann")
		refused(t, err, "the order that was meant is not there any more")
		if _, _, err := u.node("a").Cancel(t.Context(), later, "ann"); err != nil {
			t.Error(err)
		}
		if text, _ := u.ordered(); text != "" {
			t.Errorf("it is still there: %s", text)
		}
		if id := u.node("a").Status().OrderProblemID; id != "" {
			t.Error(id)
		}
	})
}

// If the answer of the store is lost, that is said.
func TestCancelWithoutAnAnswer(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		u := newUpgrading(t, "a", "b")
		u.node("b").opt.Obey = nil
		within, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := u.node("a").Order(within, Upgrade, []string{"b"}, "boss", "here"); err != nil {
			t.Fatal(err)
		}
		a := u.node("a")
		u.store.set(func() { a.link.lostReply = true })
		_, _, err := a.Cancel(t.Context(), "", "ann")
		refused(t, err, "may still take effect")
		synctest.Wait()
		if s := a.Status(); s.Order == nil || !s.Order.Cancelled {
			t.Errorf("it did not:\n%s", s)
		}
	})
}
