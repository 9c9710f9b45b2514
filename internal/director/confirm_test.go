package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// blueGreen is a service with two groups. A host of each is enough to serve it.
const blueGreen = `<config><service name="web"><listen ip="127.0.0.1:8080"/>
	<group name="blue" scheduler="roundr" enable="true"><host name="a" ip="10.0.0.1:80"/></group>
	<group name="green" scheduler="roundr"><host name="b" ip="10.0.0.2:80"/><host name="c" ip="10.0.0.3:80"/></group>
	</service>%s</config>`

// enable makes a group active.
func enable(group string) func(*config.Config) error {
	return func(c *config.Config) error {
		for _, g := range c.Services[0].Groups {
			g.Enabled = g.Name == group
		}
		return nil
	}
}

func active(d *Director) string { return d.State().Config.Services[0].Enabled().Name }

// try makes a change that has to be confirmed within a time.
func try(t *testing.T, d *Director, within time.Duration, change func(*config.Config) error) (generation uint64) {
	t.Helper()
	generation, err := d.Do(t.Context(), Change{By: "tester", From: "here", Verb: "try", Confirm: within, Apply: change})
	if err != nil {
		t.Fatal(err)
	}
	return generation
}

// passes lets a time pass.
func passes(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// pending returns the generations of changes that wait.
func pending(d *Director) string {
	var list []uint64
	for _, p := range d.State().Pending() {
		list = append(list, p.Generation)
	}
	return fmt.Sprint(list)
}

// lastNote is the newest event.
func lastNote(d *Director) Event {
	all := d.Events()
	return all[len(all)-1]
}

// A change that nobody confirms is undone at its time, by whatever door it was made. One that is confirmed stays.
func TestB80UnconfirmedChangeIsUndoneInTime(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(blueGreen, ""))
		ctx, leave := context.WithCancel(t.Context())
		g, err := d.Do(ctx, Change{By: "tester", Verb: "try", Confirm: time.Minute, Apply: enable("green")})
		leave()
		if err != nil || active(d) != "green" || pending(d) != "[2]" {
			t.Fatalf("%v: %s is active, %s wait", err, active(d), pending(d))
		}
		if e := lastNote(d); e.Generation != g || !strings.Contains(e.Text, "unless confirmed") {
			t.Errorf("the event is %+v", e)
		}
		passes(time.Minute - time.Millisecond)
		if active(d) != "green" {
			t.Error("undone before its time")
		}
		passes(time.Millisecond)
		if active(d) != "blue" || pending(d) != "[]" || d.State().Generation != 3 || d.Undone() != 1 {
			t.Errorf("%s is active, %s wait, generation %d, %d undone", active(d), pending(d), d.State().Generation, d.Undone())
		}
		if e := lastNote(d); e.Generation != 3 || e.By != "confirm" || e.Verb != "undo 2" || e.Text != "not confirmed within 1m0s" || fmt.Sprint(e.Edits) != "[enableGroup web blue]" {
			t.Errorf("the event is %+v", e)
		}
		if !strings.Contains(w.log.String(), `msg="change undone" undone=2 verb=try by=tester`) {
			t.Errorf("the log has\n%s", w.log.String())
		}
		if table := w.lastPlan().Services[0].Route.Table; table == nil {
			t.Error("no table")
		} else if names, _ := w.picks(); names != "a" {
			t.Errorf("clients go to %s", names)
		}

		g = try(t, d, time.Minute, enable("green"))
		passes(59 * time.Second)
		if p, err := d.Confirm(t.Context(), 0, "tester", "here"); err != nil || p.Generation != g || pending(d) != "[]" {
			t.Fatalf("%v, %v, %s wait", p, err, pending(d))
		}
		passes(time.Hour)
		if active(d) != "green" || d.State().Generation != g {
			t.Errorf("%s is active in generation %d", active(d), d.State().Generation)
		}
	})
}

func TestConfirmNamesTheChange(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d := start(t, newWorld(), with(""))
		if _, err := d.Confirm(t.Context(), 0, "", ""); !errors.Is(err, ErrNothingPending) {
			t.Errorf("without any: %v", err)
		}
		try(t, d, time.Minute, weight(0, 2))
		try(t, d, time.Minute, weight(1, 3))
		for g, want := range map[uint64]string{
			0: "2 changes wait to be confirmed; say which one: 2 (try), 3 (try)",
			9: "generation 9 does not wait to be confirmed; those that do: 2 (try), 3 (try)",
		} {
			if _, err := d.Confirm(t.Context(), g, "", ""); err == nil || err.Error() != want {
				t.Errorf("confirm %d: %v", g, err)
			}
		}
		if _, err := d.Confirm(t.Context(), 2, "", ""); err != nil || pending(d) != "[3]" {
			t.Errorf("%v, %s wait", err, pending(d))
		}
		passes(time.Minute)
		if weights(d) != "a=2 b=1 c=1" {
			t.Errorf("weights %s", weights(d))
		}
		for _, within := range []time.Duration{-1, time.Millisecond, 25 * time.Hour} {
			if _, err := d.Do(t.Context(), Change{Confirm: within, Apply: weight(2, 9)}); err == nil {
				t.Errorf("confirm=%v was taken", within)
			}
		}
		for i := range maxUnconfirmed {
			try(t, d, time.Hour, weight(i%3, 100+i))
		}
		if _, err := d.Do(t.Context(), Change{Confirm: time.Hour, Apply: weight(2, 9)}); err == nil || !strings.Contains(err.Error(), "no more can") {
			t.Errorf("one too many: %v", err)
		}
	})
}

// That change alone is undone. What has been changed since stays, also where it builds on it.
func TestUndoKeepsLaterChanges(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		try(t, d, 10*time.Second, weight(0, 5))
		do(t, d, weight(1, 6))
		passes(10 * time.Second)
		if weights(d) != "a=1 b=6 c=1" {
			t.Errorf("weights %s", weights(d))
		}

		// The same attribute was set again.
		try(t, d, 10*time.Second, func(c *config.Config) error { _ = weight(0, 5)(c); return weight(2, 5)(c) })
		do(t, d, weight(0, 7))
		passes(10 * time.Second)
		if e := lastNote(d); weights(d) != "a=7 b=6 c=1" || e.Text != "not confirmed within 10s; later changes stand in the way of: setHost web g a weight=1" {
			t.Errorf("weights %s, %q", weights(d), e.Text)
		}
		if !strings.Contains(w.log.String(), `stays="setHost web g a weight=1"`) {
			t.Errorf("the log has\n%s", w.log.String())
		}

		// All of it was.
		generation := d.State().Generation
		try(t, d, 10*time.Second, weight(0, 8))
		do(t, d, weight(0, 9))
		passes(10 * time.Second)
		if e := lastNote(d); weights(d) != "a=9 b=6 c=1" || d.State().Generation != generation+2 || pending(d) != "[]" ||
			!strings.Contains(e.Text, "later changes stand in the way of: setHost web g a weight=7; nothing was changed") {
			t.Errorf("weights %s, generation %d, %q", weights(d), d.State().Generation, e.Text)
		}
		if !strings.Contains(w.log.String(), "change not undone, later changes stand in the way") {
			t.Errorf("the log has\n%s", w.log.String())
		}

		// A host that was added, and then changed, stays.
		added := func(c *config.Config) error {
			g := c.Services[0].Groups[0]
			g.Hosts = append(g.Hosts, config.NewHost("d", "10.0.0.4:80"))
			return nil
		}
		try(t, d, 10*time.Second, added)
		do(t, d, weight(3, 4))
		passes(10 * time.Second)
		if weights(d) != "a=9 b=6 c=1 d=4" {
			t.Errorf("weights %s", weights(d))
		}
	})
}

// Several changes that wait, one on top of the other, are undone in any order as if those that
// are undone had never been.
func TestUndoOfSeveral(t *testing.T) {
	for _, order := range []struct{ first, second time.Duration }{{10, 20}, {20, 10}, {10, 10}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				d := start(t, newWorld(), with(""))
				try(t, d, order.first*time.Second, weight(0, 5))
				try(t, d, order.second*time.Second, func(c *config.Config) error { _ = weight(0, 7)(c); return weight(1, 3)(c) })
				do(t, d, weight(2, 2))
				if c, err := d.State().Settled(); err != nil || c.Services[0].Groups[0].Hosts[0].Weight != 1 {
					t.Errorf("without them: %v", err)
				}
				passes(20 * time.Second)
				if weights(d) != "a=1 b=1 c=2" || pending(d) != "[]" {
					t.Errorf("weights %s, %s wait", weights(d), pending(d))
				}
			})
		})
	}
	// The later one is confirmed.
	testkit.Bubble(t, func(t *testing.T) {
		d := start(t, newWorld(), with(""))
		try(t, d, 10*time.Second, weight(0, 5))
		g := try(t, d, 10*time.Second, weight(0, 7))
		if _, err := d.Confirm(t.Context(), g, "", ""); err != nil {
			t.Fatal(err)
		}
		passes(10 * time.Second)
		if weights(d) != "a=7 b=1 c=1" || pending(d) != "[]" {
			t.Errorf("weights %s, %s wait", weights(d), pending(d))
		}
	})
}

// A group that a change has enabled and that has lost its last host is given up at once. One
// that never had any was enabled by force, and has its time.
func TestUndoAtOnceWithoutHost(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(blueGreen, ""))
		try(t, d, time.Hour, enable("green"))
		w.fail(target(t, d, "green", "b", 0))
		if active(d) != "green" {
			t.Error("undone though a host is left")
		}
		w.fail(target(t, d, "green", "c", 0))
		if e := lastNote(d); active(d) != "blue" || e.Text != "group green of service web has no host that is up and ready" {
			t.Errorf("%s is active: %q", active(d), e.Text)
		}

		try(t, d, time.Minute, enable("green")) // as with --force
		passes(0)
		if active(d) != "green" {
			t.Error("undone though it never had a host")
		}
		w.set(w.dead, "10.0.0.3:80", true)
		passes(30 * time.Second) // hostCheck finds b
		if !target(t, d, "green", "b", 0).Host.Up() || active(d) != "green" {
			t.Fatalf("%s is active", active(d))
		}
		w.fail(target(t, d, "green", "b", 0))
		if active(d) != "blue" {
			t.Error("not undone though the host has gone again")
		}

		// If somebody has enabled another group since, there is nothing to give up.
		passes(time.Minute)
		try(t, d, time.Minute, enable("green"))
		do(t, d, enable("blue"))
		if pending(d) != "[]" {
			t.Errorf("undone by hand, and %s wait", pending(d))
		}
	})
}

// The first clients may find every host of the group dead before anybody else has looked at it.
func TestUndoAtOnceUnderTraffic(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(blueGreen, ""))
		w.applied = func(p engine.Plan) {
			for tried := (sched.Tried{}); ; {
				h, _ := p.Services[0].Route.Table.Pick(sched.Addr{}, &tried)
				if h == nil {
					return
				}
				if h.Release(0, 0); (h.Name() == "b" || h.Name() == "c") && h.Fail() {
					w.failures <- engine.Failure{Host: h, Err: errors.New("connect: connection refused")}
				}
			}
		}
		try(t, d, time.Hour, enable("green"))
		passes(0)
		if e := lastNote(d); active(d) != "blue" || e.Text != "group green of service web has no host that is up and ready" {
			t.Errorf("%s is active: %q", active(d), e.Text)
		}
	})
}

// What waits is in no file: not by a save, not at the end, and nobody counts it as unsaved.
func TestUnconfirmedIsNotSaved(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, path := startFile(t, w, with(""))
		do(t, d, weight(0, 5))
		g := try(t, d, time.Minute, weight(1, 6))
		if fmt.Sprint(d.Unsaved()) != "[setHost web g a weight=5]" {
			t.Errorf("unsaved: %v", d.Unsaved())
		}
		if _, err := d.Save("tester", ""); err != nil {
			t.Fatal(err)
		}
		saved := func() string {
			doc, problems := document.Open(path)
			if doc == nil {
				t.Fatal(problems)
			}
			h := doc.Config.Services[0].Groups[0].Hosts
			return fmt.Sprint(h[0].Weight, h[1].Weight)
		}
		if saved() != "5 1" || len(d.Unsaved()) != 0 || weights(d) != "a=5 b=6 c=1" {
			t.Errorf("saved %s, unsaved %v, weights %s", saved(), d.Unsaved(), weights(d))
		}
		if _, err := d.Confirm(t.Context(), g, "", ""); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(d.Unsaved()) != "[setHost web g b weight=6]" {
			t.Errorf("unsaved: %v", d.Unsaved())
		}
		if _, err := d.Save("tester", ""); err != nil || saved() != "5 6" {
			t.Errorf("%v: saved %s", err, saved())
		}
	})
	// configCheck saves at the end as well.
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		path := t.TempDir() + "/c.xml"
		writeFile(t, path, with(`<manager><configCheck interval="5" enable="true"/></manager>`))
		doc, problems := document.Open(path)
		if doc == nil {
			t.Fatal(problems)
		}
		d, err := New(doc.Config, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Document: doc})
		if err != nil {
			t.Fatal(err)
		}
		stop := runDirector(t, d)
		try(t, d, time.Hour, weight(1, 6))
		passes(10 * time.Second)
		do(t, d, weight(0, 5))
		stop()
		if text := readFile(t, path); !strings.Contains(text, `weight="5"`) || strings.Contains(text, `weight="6"`) {
			t.Errorf("the file has\n%s", text)
		}
	})
}

// What was undone by hand waits no longer, but while a later change could bring it back.
func TestUndoneByHand(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d := start(t, newWorld(), with(""))
		try(t, d, 10*time.Second, weight(0, 5))
		if _, err := d.Rollback(t.Context(), 1, Change{}); err != nil || pending(d) != "[]" || weights(d) != "a=1 b=1 c=1" {
			t.Errorf("%v: %s wait, weights %s", err, pending(d), weights(d))
		}
		try(t, d, 10*time.Second, weight(0, 5))
		do(t, d, weight(0, 1))
		if pending(d) != "[]" {
			t.Errorf("%s wait", pending(d))
		}
		// The rollback waits itself, longer than the change: both go.
		try(t, d, 10*time.Second, weight(0, 5))
		if _, err := d.Rollback(t.Context(), 1, Change{Confirm: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
		do(t, d, weight(2, 2))
		passes(20 * time.Second)
		if weights(d) != "a=1 b=1 c=2" || pending(d) != "[]" {
			t.Errorf("weights %s, %s wait", weights(d), pending(d))
		}
	})
}

// A change that cannot be undone stays in force, says so, and is undone when that is possible.
func TestUndoThatFails(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		refuse := func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refuse = err
		}
		g := try(t, d, 10*time.Second, weight(0, 5))
		refuse(errors.New("the port is in use"))
		passes(10 * time.Second)
		p := d.State().Pending()
		if weights(d) != "a=5 b=1 c=1" || len(p) != 1 || p[0].Trouble != "the port is in use" {
			t.Fatalf("weights %s, pending %+v", weights(d), p)
		}
		passes(10 * time.Minute)
		if e := lastNote(d); e.Verb != fmt.Sprint("undo ", g) || e.Text != "failed, and is tried again: the port is in use" {
			t.Errorf("the event is %+v", e)
		}
		if n := strings.Count(w.log.String(), "cannot undo a change"); n != 1 {
			t.Errorf("told %d times", n)
		}
		refuse(nil)
		passes(undoAgainMost)
		if weights(d) != "a=1 b=1 c=1" || pending(d) != "[]" {
			t.Errorf("weights %s, %s wait", weights(d), pending(d))
		}

		// It can be confirmed late.
		g = try(t, d, 10*time.Second, weight(0, 5))
		refuse(errors.New("the port is in use"))
		passes(time.Minute)
		if _, err := d.Confirm(t.Context(), g, "", ""); err != nil {
			t.Error(err)
		}
		refuse(nil)
		passes(time.Hour)
		if weights(d) != "a=5 b=1 c=1" {
			t.Errorf("weights %s", weights(d))
		}
	})
}

// An undo waits for the names that it brings back, as any change does. A change that is
// confirmed meanwhile stays.
func TestUndoWaitsForNames(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dns["old"] = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
		w.dnsTakes = 2 * time.Second
		d := start(t, w, strings.Replace(with(""), "10.0.0.1:80", "old:80", 1))
		at := func() string { return d.State().Config.Services[0].Groups[0].Hosts[0].Address }
		try(t, d, 10*time.Second, address(0, "10.0.0.1:80"))
		passes(11 * time.Second)
		if at() != "10.0.0.1:80" {
			t.Errorf("undone before the name was looked up: %s", at())
		}
		passes(time.Second)
		if at() != "old:80" || target(t, d, "g", "a", 0).key.addr.String() != "10.0.0.9:80" {
			t.Errorf("the address is %s", at())
		}
		g := try(t, d, 10*time.Second, address(0, "10.0.0.1:80"))
		passes(11 * time.Second)
		if _, err := d.Confirm(t.Context(), g, "", ""); err != nil {
			t.Error(err)
		}
		passes(time.Minute)
		if at() != "10.0.0.1:80" || pending(d) != "[]" {
			t.Errorf("the address is %s, %s wait", at(), pending(d))
		}
	})
}

// The next process undoes what waits at its time, and confirms it, as this one would have.
func TestUnconfirmedSurvivesHandOver(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(blueGreen, ""))
		kept := try(t, d, time.Hour, func(c *config.Config) error { c.Services[0].Groups[0].Hosts[0].Weight = 3; return nil })
		g := try(t, d, time.Minute, enable("green"))
		do(t, d, func(c *config.Config) error { c.Services[0].Groups[1].Hosts[0].Weight = 4; return nil })
		late := try(t, d, 20*time.Second, func(c *config.Config) error { c.Services[0].Groups[1].Hosts[1].Weight = 5; return nil })
		passes(10 * time.Second)
		thaw := d.Freeze(errors.New("an upgrade is under way"))
		data, err := d.Export()
		if err != nil {
			t.Fatal(err)
		}
		passes(20 * time.Second)
		if pending(d) != fmt.Sprint([]uint64{kept, g, late}) {
			t.Errorf("%s wait during the upgrade", pending(d))
		}
		h := heirOf(t, newWorld(), data)
		if p := h.State().Pending(); pending(h) != fmt.Sprint([]uint64{kept, g}) || p[1].By != "tester" || p[1].Verb != "try" || fmt.Sprint(p[1].Edits()) != "[enableGroup web green]" {
			t.Fatalf("%s wait, the second %+v", pending(h), p)
		}
		if _, err := h.Confirm(t.Context(), kept, "", ""); err != nil {
			t.Error(err)
		}
		passes(29 * time.Second)
		if active(h) != "green" {
			t.Error("undone before its time")
		}
		passes(time.Second)
		groups := h.State().Config.Services[0].Groups
		if active(h) != "blue" || groups[0].Hosts[0].Weight != 3 || groups[1].Hosts[0].Weight != 4 || groups[1].Hosts[1].Weight != 1 || h.Undone() != 2 {
			t.Errorf("%s is active, %d undone: %+v", active(h), h.Undone(), groups)
		}
		// If there was no upgrade in the end, this process does it.
		thaw()
		passes(time.Second)
		if active(d) != "blue" || pending(d) != fmt.Sprint([]uint64{kept}) {
			t.Errorf("%s is active, %s wait", active(d), pending(d))
		}
	})
}

// A group that lost its hosts is given up by the next process, too.
func TestWatchSurvivesHandOver(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, fmt.Sprintf(blueGreen, ""))
		try(t, d, time.Hour, enable("green"))
		next := newWorld()
		h := heir(t, next, d)
		next.fail(target(t, h, "green", "b", 0))
		next.fail(target(t, h, "green", "c", 0))
		if active(h) != "blue" {
			t.Errorf("%s is active", active(h))
		}
	})
}

// A reload that waits counts as not read: nothing is saved over the file, and after the undo it
// can be read again.
func TestReloadConfirm(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, path := startFile(t, w, with(""))
		do(t, d, weight(0, 5))
		edited := strings.Replace(with(""), `name="b"`, `name="b" weight="7"`, 1)
		writeFile(t, path, edited)
		r, err := d.Reload(t.Context(), ReloadRequest{By: "tester", Confirm: time.Minute})
		if err != nil || weights(d) != "a=5 b=7 c=1" || pending(d) != "[3]" {
			t.Fatalf("%v, %s, weights %s, %s wait", err, r, weights(d), pending(d))
		}
		for what, err := range map[string]error{
			"a save":         func() error { _, err := d.Save("", ""); return err }(),
			"another reload": func() error { _, err := d.Reload(t.Context(), ReloadRequest{}); return err }(),
		} {
			if err == nil || !strings.Contains(err.Error(), "the reload of generation 3 is not confirmed yet; write confirm 3") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if fmt.Sprint(d.Unsaved()) != "[setHost web g a weight=5]" || d.ReloadFailed() {
			t.Errorf("unsaved %v, the reload failed: %v", d.Unsaved(), d.ReloadFailed())
		}
		passes(time.Minute)
		if weights(d) != "a=5 b=1 c=1" || readFile(t, path) != edited {
			t.Errorf("weights %s, the file has\n%s", weights(d), readFile(t, path))
		}
		if _, err := d.Save("", ""); err == nil {
			t.Error("the file that nobody has confirmed was overwritten")
		}
		r, err = d.Reload(t.Context(), ReloadRequest{Confirm: time.Minute})
		if err != nil || weights(d) != "a=5 b=7 c=1" {
			t.Fatalf("again: %v, weights %s", err, weights(d))
		}
		if _, err := d.Confirm(t.Context(), r.Generation, "", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Save("", ""); err != nil || fmt.Sprint(d.Unsaved()) != "[]" {
			t.Errorf("%v, unsaved %v", err, d.Unsaved())
		}
		passes(time.Hour)
		if weights(d) != "a=5 b=7 c=1" {
			t.Errorf("weights %s", weights(d))
		}
		if r, err := d.Reload(t.Context(), ReloadRequest{Confirm: time.Minute}); err != nil || pending(d) != "[]" || len(r.Changed) > 0 {
			t.Errorf("nothing to confirm: %v, %s, %s wait", err, r, pending(d))
		}
	})
}

// A reload leaves waiting what waits. If the file says the same now, that is a confirmation.
func TestReloadWhileSomethingWaits(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d, path := startFile(t, newWorld(), with(""))
		g := try(t, d, time.Minute, weight(0, 5))
		writeFile(t, path, strings.Replace(with(""), `name="b"`, `name="b" weight="7"`, 1))
		if r, err := d.Reload(t.Context(), ReloadRequest{}); err != nil || pending(d) != fmt.Sprint([]uint64{g}) || weights(d) != "a=5 b=7 c=1" {
			t.Fatalf("%v, %s, weights %s, %s wait", err, r, weights(d), pending(d))
		}
		writeFile(t, path, strings.NewReplacer(`name="a"`, `name="a" weight="5"`, `name="b"`, `name="b" weight="7"`).Replace(with("")))
		r, err := d.Reload(t.Context(), ReloadRequest{By: "tester"})
		if err != nil || pending(d) != "[]" || !strings.Contains(r.String(), "confirmed, as the file has it: generation 2 (try)") {
			t.Fatalf("%v, %s, %s wait", err, r, pending(d))
		}
		passes(time.Minute)
		if weights(d) != "a=5 b=7 c=1" {
			t.Errorf("weights %s", weights(d))
		}
		try(t, d, time.Minute, weight(0, 6))
		if _, err := d.Reload(t.Context(), ReloadRequest{Discard: true}); err != nil || pending(d) != "[]" || weights(d) != "a=5 b=7 c=1" {
			t.Errorf("%v, weights %s, %s wait", err, weights(d), pending(d))
		}
		// The file had it before: its reload says nothing about the change.
		do(t, d, weight(0, 1))
		try(t, d, time.Minute, weight(0, 5))
		if _, err := d.Reload(t.Context(), ReloadRequest{}); err != nil || pending(d) == "[]" {
			t.Errorf("%v, %s wait", err, pending(d))
		}
		passes(time.Minute)
		if weights(d) != "a=1 b=7 c=1" {
			t.Errorf("weights %s", weights(d))
		}
	})
}

// A file that an undo needs and that is gone is a reason that is told.
func TestUndoNeedsAFile(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		list := t.TempDir() + "/list"
		writeFile(t, list, "192.0.2.0/24\n")
		doc := strings.Replace(with(""), "<group", `<access><deny file="`+list+`"/></access><group`, 1)
		d := start(t, newWorld(), doc)
		if err := os.Remove(list); err != nil {
			t.Fatal(err)
		}
		try(t, d, time.Second, func(c *config.Config) error { c.Services[0].Access = nil; return nil })
		passes(time.Second)
		if p := d.State().Pending(); len(p) != 1 || !strings.Contains(p[0].Trouble, list) {
			t.Fatalf("pending %+v", p)
		}
		writeFile(t, list, "192.0.2.0/24\n")
		passes(undoAgainMost)
		if len(d.State().Config.Services[0].Access) != 1 || pending(d) != "[]" {
			t.Errorf("%s wait", pending(d))
		}
	})
}
