package director

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

// heir starts a director on w with the state of another one.
func heir(t *testing.T, w *world, d *Director) *Director {
	t.Helper()
	data, err := d.Export()
	if err != nil {
		t.Fatal(err)
	}
	return heirOf(t, w, data)
}

func heirOf(t *testing.T, w *world, data []byte) *Director {
	t.Helper()
	in, err := ReadState(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	d, err := New(in.Config, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Document: in.Document, Inherited: in})
	if err != nil {
		t.Fatal(err)
	}
	runDirector(t, d)
	return d
}

// A host that is down is not used by the next process either, and the reason and the time
// stay.
func TestStateKeepsHealth(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		time.Sleep(5 * time.Second)
		b := target(t, d, "g", "b", 0)
		w.fail(b)
		was := b.Status()
		time.Sleep(3 * time.Second)

		next := newWorld()
		h := heir(t, next, d)
		if names, v := next.picks(); names != "ac" || v != sched.Picked {
			t.Errorf("the first table gives %s, %v", names, v)
		}
		is := target(t, h, "g", "b", 0).Status()
		if is.Up || is.Reason != was.Reason || !is.Since.Equal(was.Since) {
			t.Errorf("was %+v, is %+v", was, is)
		}
		if strings.Contains(next.log.String(), "host down") {
			t.Errorf("it is told again:\n%s", &next.log)
		}
	})
}

// While changes are refused, nothing changes, and everything goes on when they are not.
func TestFreeze(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		why := errors.New("an upgrade is under way")
		thaw := d.Freeze(why)
		if _, err := d.Do(t.Context(), Change{Apply: weigh}); !errors.Is(err, why) {
			t.Errorf("a change: %v", err)
		}
		if _, err := d.Do(t.Context(), Change{Apply: weigh, DryRun: true}); err != nil {
			t.Errorf("a dry run: %v", err)
		}
		if _, err := d.Save("me", ""); !errors.Is(err, why) {
			t.Errorf("a save: %v", err)
		}
		if _, err := d.Reload(context.Background(), ReloadRequest{}); !errors.Is(err, why) || d.ReloadFailed() {
			t.Errorf("a reload: %v, and it counts as failed: %v", err, d.ReloadFailed())
		}
		thaw()
		if _, err := d.Do(t.Context(), Change{Apply: weigh}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// A file on a disk that hangs ends an attempt to refuse changes: they are accepted again.
func TestFreezeOnADiskThatHangs(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d := start(t, newWorld(), with(""))
		why := errors.New("an upgrade is under way")
		d.files.mu.Lock() // as a Save has it
		over, cancel := context.WithCancel(t.Context())
		cancel() // as a wait for a lock stops the clock of this test
		if _, err := d.FreezeIn(over, why); !errors.Is(err, context.Canceled) {
			t.Errorf("frozen: %v", err)
		}
		if _, err := d.Do(t.Context(), Change{Apply: weigh}); err != nil {
			t.Errorf("a change: %v", err)
		}
		d.files.mu.Unlock()
		thaw, err := d.FreezeIn(t.Context(), why)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Do(t.Context(), Change{Apply: weigh}); !errors.Is(err, why) {
			t.Errorf("a change: %v", err)
		}
		thaw()
	})
}

// weigh is a change.
func weigh(c *config.Config) error {
	c.Services[0].Groups[0].Hosts[0].Weight++
	return nil
}

// rich is a configuration with all that a state has something of.
const rich = `<config><service name="web"><listen ip="127.0.0.1:8080"/>
	<route net="10.9.0.0/16" group="canary"/>
	<group name="g" scheduler="roundr,sticky" enable="true" maxFails="1"><check type="tcp" interval="2s" rise="2" fall="3" downInterval="5s"/>
		<host name="a" ip="10.0.0.1:80" slowStart="1m"/><host name="b" ip="10.0.0.2:80"/><host name="e" ip="10.0.0.5:80"/><host name="c" ip="10.0.0.3:80"/></group>
	<group name="canary"><host name="d" ip="d.example:80" resolve="10s"/></group>
	</service></config>`

// lived is a director over rich that has been through much. Its file lacks a change.
func lived(t *testing.T, w *world) (d *Director, stop func()) {
	t.Helper()
	w.resolves("d.example", "10.0.1.1", "10.0.1.2")
	w.set(w.dead, "10.0.0.2:80", true)
	path := filepath.Join(t.TempDir(), "config.xml")
	if err := os.WriteFile(path, []byte(rich), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, problems := document.Open(path)
	if doc == nil {
		t.Fatal(problems)
	}
	d, err := New(doc.Config, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Document: doc})
	if err != nil {
		t.Fatal(err)
	}
	stop = runDirector(t, d)
	time.Sleep(20 * time.Second) // b goes down
	w.fail(target(t, d, "g", "a", 0))
	w.resolves("d.example", "10.0.1.2")
	time.Sleep(15 * time.Second) // a comes back, d has lost an address
	change := func(verb string, apply func(*config.Config) error) {
		t.Helper()
		if _, err := d.Do(t.Context(), Change{By: "me", From: "here", Verb: verb, Apply: apply}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Do(t.Context(), Change{By: "me", From: "here", Verb: "setHost weight=2", Confirm: maxConfirm, Apply: weigh}); err != nil {
		t.Fatal(err)
	}
	gone, left := target(t, d, "g", "c", 0).Host, 1
	var tried sched.Tried
	table := w.lastPlan().Services[0].Route.Table
	for i := range 10 {
		h, _ := table.Pick(sched.TCPAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1000)), &tried)
		h.Connected(0, 3*time.Millisecond)
		h.Turned(0, 4*time.Millisecond)
		h.Ended(0, time.Second)
		if h != gone || left == 0 {
			h.Release(100, 2000)
		} else {
			left--
		}
		tried.Reset()
	}
	if left > 0 {
		t.Fatal("c has no session")
	}
	change("delHost c", func(c *config.Config) error {
		c.Services[0].Groups[0].Hosts = c.Services[0].Groups[0].Hosts[:3]
		return nil
	})
	if err := d.Drain(t.Context(), Drain{Hosts: []*sched.Host{gone}, Within: time.Hour}); err != nil {
		t.Fatal(err)
	}
	d.Note("me", "here", "shutdownSessions web", "closed 3 sessions")
	w.mu.Lock()
	w.counted = engine.Snapshot{Services: map[string]engine.ServiceStats{"web": {Active: 4, Sessions: 10, In: 1000, Refused: map[string]uint64{"no_host": 2}}}, Loops: []engine.LoopStats{{Accepts: 10}}}
	w.mu.Unlock()
	return d, stop
}

// All that a director knows goes on in the next one: what follows are its own words.
func TestStateGoesOn(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, _ := lived(t, w)
		time.Sleep(3 * time.Second)
		thaw := d.Freeze(errors.New("an upgrade is under way"))
		defer thaw()
		next := newWorld()
		next.dead, next.dnsTakes = maps.Clone(w.dead), time.Hour // nothing waits for names
		w.mu.Lock()
		next.dns = w.dns
		w.mu.Unlock()
		began := time.Now()
		h := heir(t, next, d)
		if took := time.Since(began); took > 0 {
			t.Errorf("it has begun after %v", took)
		}

		// The configuration, its file and its past.
		was, is := d.State(), h.State()
		if was.Generation != is.Generation || !changes.Same(was.Config, is.Config) {
			t.Errorf("generation %d is now %d; the configurations differ by %v", was.Generation, is.Generation, changes.Diff(was.Config, is.Config))
		}
		if a, b := fmt.Sprint(d.Unsaved()), fmt.Sprint(h.Unsaved()); a != b || len(h.Unsaved()) == 0 {
			t.Errorf("unsaved was %s and is %s", a, b)
		}
		if a, b := is.Config.Services[0].Pos, h.Stored().Config.Services[0].Pos; a != b || a.Line == 0 {
			t.Errorf("the service is in line %d, of the file in line %d", a.Line, b.Line)
		}
		if diff := cmp.Diff(wall(d.Events()), wall(h.Events()), cmp.Comparer(func(a, b changes.Edit) bool { return a.Command() == b.Command() && a.String() == b.String() })); diff != "" {
			t.Error("events differ: ", diff)
		}
		if err := h.At(was.Generation); err != nil {
			t.Errorf("a page that was open: %v", err)
		}

		// Hosts: health, counters, slow starts.
		for _, group := range is.Services[0].Groups {
			for _, host := range group.Hosts {
				before := was.Services[0].group(group.Config.Name)
				old := before.Hosts[slices.IndexFunc(before.Hosts, func(h *Host) bool { return h.Config.Name == host.Config.Name })]
				if a, b := old.Stats(), host.Stats(); b.Active != 0 || a.Picks != b.Picks || a.In != b.In || a.Failures != b.Failures || a.Connects != b.Connects || a.ConnectTime != b.ConnectTime || a.Turns != b.Turns || a.TurnTime != b.TurnTime || a.EndedTime != b.EndedTime || a.Up != b.Up {
					t.Errorf("%s: counters were %+v and are %+v", host.Config.Name, a, b)
				}
				if a, b := maps.Collect(old.Checks()), maps.Collect(host.Checks()); !maps.Equal(a, b) || len(b) == 0 && group.Config.Check != nil {
					t.Errorf("%s: checks were %v and are %v", host.Config.Name, a, b)
				}
				if len(old.Targets) != len(host.Targets) || len(old.departed) != len(host.departed) {
					t.Fatalf("%s has %d addresses and %d that it has lost; had %d and %d", host.Config.Name, len(host.Targets), len(host.departed), len(old.Targets), len(old.departed))
				}
				for i := range host.Targets {
					a, b := old.Targets[i].Status(), host.Targets[i].Status()
					if diff := cmp.Diff(a, b); diff != "" {
						t.Errorf("%s: status differs: %s", host.Config.Name, diff)
					}
					if a, b := old.Targets[i], host.Targets[i]; a.step != b.step || !a.since.Equal(b.since) && a.step < rampSteps || !a.last.Equal(b.last) && group.Config.Check != nil || a.key != b.key {
						t.Errorf("%s: step %d of a slow start since %v is step %d since %v; last check %v is %v", host.Config.Name, a.step, a.since, b.step, b.since, a.last, b.last)
					}
				}
			}
			if a, b := was.Services[0].group(group.Config.Name).Times.Counted(), group.Times.Counted(); !reflect.DeepEqual(a, b) {
				t.Errorf("times of %s were %v and are %v", group.Config.Name, a, b)
			}
		}
		if target(t, h, "g", "a", 0).step == rampSteps {
			t.Error("a is in no slow start")
		}
		if a, b := was.Services[0].Groups[0].Sticky, is.Services[0].Groups[0].Sticky; a.Len() != 10 || b.Len() == 0 || b.Count(nil) != a.Count(nil)-a.Count(gone(d)) {
			t.Errorf("%d clients are known, %d are now", a.Count(nil), b.Count(nil))
		}
		next.mu.Lock()
		if s := next.before.Services["web"]; s.Sessions != 10 || s.In != 1000 || s.Refused["no_host"] != 2 || next.before.Loops[0].Accepts != 10 {
			t.Errorf("the engine goes on from %+v", next.before)
		}
		next.mu.Unlock()

		// What leaves has its deadline, and is found by its sessions.
		key := gone(d)
		to := h.HostFor("web", "g", "c", key.Addr())
		if to != h.HostFor("web", "g", "c", key.Addr()) {
			t.Error("two sessions of one host have two")
		}
		if u := h.HostFor("web", "g", "never", key.Addr()); u == nil || u == to {
			t.Error("a host that nobody knows is none")
		}
		var until time.Time
		for l := range h.leavers.hosts { // Leavers shows those with sessions
			if l.Host == to {
				until = h.leavers.hosts[l].Until
			}
		}
		if !until.Equal(d.Leavers()[0].Until) {
			t.Errorf("it has time until %v; had until %v", until, d.Leavers()[0].Until)
		}

		// And back.
		if _, err := h.Rollback(t.Context(), 2, Change{By: "me"}); err != nil {
			t.Fatal(err)
		}
		if n := len(h.Unsaved()); n != 0 {
			t.Errorf("after the rollback of all, unsaved is %v", h.Unsaved())
		}
		if _, err := h.Save("me", ""); err != nil {
			t.Error(err)
		}
	})
}

// gone is the host that lived has removed.
func gone(d *Director) *sched.Host {
	for t := range d.leavers.hosts {
		return t.Host
	}
	return nil
}

// wall removes what a time does not take along.
func wall(list []Event) []Event {
	for i := range list {
		list[i].Time = list[i].Time.Round(0)
	}
	return list
}

// While the new process starts, the old one goes on: the new one hears what has changed.
func TestStateIsTakenIn(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, stop := lived(t, w)
		next := newWorld()
		next.dead, next.dns = maps.Clone(w.dead), maps.Clone(w.dns)
		h := heir(t, next, d)

		time.Sleep(time.Second)
		b := target(t, d, "g", "b", 0)
		w.set(w.dead, "10.0.0.2:80", false)
		next.set(next.dead, "10.0.0.2:80", false)
		if _, err := d.Retry(t.Context(), "web", "g", "b"); err != nil {
			t.Fatal(err)
		}
		w.fail(target(t, d, "g", "a", 0))
		b.Host.AddBytes(7, 0)
		var tried sched.Tried
		client := sched.TCPAddr(netip.MustParseAddrPort("192.0.2.99:1"))
		host, _ := w.lastPlan().Services[0].Route.Table.Pick(client, &tried)
		host.Release(0, 0)
		tried.Reset()
		h.Note("you", "there", "order", "of the new process")
		w.mu.Lock()
		w.counted.Services["web"] = engine.ServiceStats{Sessions: 12}
		w.mu.Unlock()
		last := d.LastEvent()

		data, err := d.ExportChanges()
		if err != nil {
			t.Fatal(err)
		}
		if err := h.TakeIn(data); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !target(t, h, "g", "b", 0).Host.Up() || target(t, h, "g", "a", 0).Host.Up() {
			t.Error("it does not know who is up")
		}
		for _, name := range []string{"a", "b"} {
			if a, b := target(t, d, "g", name, 0).Status(), target(t, h, "g", name, 0).Status(); a.Up != b.Up || a.Reason != b.Reason || !a.Since.Equal(b.Since) {
				t.Errorf("%s was %+v and is %+v", name, a, b)
			}
		}
		if names, _ := next.picks(); names != "be" {
			t.Errorf("its table gives %s", names)
		}
		if a, b := d.State().Services[0].Groups[0].Hosts[1].Stats(), h.State().Services[0].Groups[0].Hosts[1].Stats(); a.In != b.In || a.Picks > b.Picks {
			t.Errorf("counters of b were %+v and are %+v", a, b)
		}
		if home := next.lastPlan().Services[0].Route.Table.Home(client); home == nil || home.Name() != host.Name() {
			t.Errorf("the client comes back to %v, was on %s", home, host.Name())
		}
		if next.before.Services["web"].Sessions != 12 {
			t.Errorf("the engine goes on from %+v", next.before)
		}
		events := h.Events()
		if e := events[len(events)-1]; e.Verb != "order" || e.Seq != last+1 {
			t.Errorf("the event of the new process is %+v; the old one's last is %d", e, last)
		}
		if h.LastEvent() != last+1 {
			t.Errorf("the newest event is %d", h.LastEvent())
		}
		// Counts of sessions that have stayed come later.
		if data, err = d.ExportChanges(); err != nil {
			t.Fatal(err)
		}
		if err := h.TakeIn(data); err != nil || h.LastEvent() != last+1 {
			t.Errorf("again: %v; the newest event is %d", err, h.LastEvent())
		}
		a := target(t, d, "g", "a", 0)
		a.Host.MarkUp()
		a.Host.AddBytes(1000, 0)
		stop()
		a.Host.MarkDown() // which nobody decides any more
		if data, err = d.ExportChanges(); err != nil {
			t.Fatal(err)
		}
		if err := h.TakeIn(data); err != nil || h.State().Services[0].Groups[0].Hosts[0].Stats().In < 1000 {
			t.Errorf("%v; a counts %+v", err, h.State().Services[0].Groups[0].Hosts[0].Stats())
		}
		if bytes.Contains(data, []byte(`"targets"`)) {
			t.Error("a process that has stopped tells health")
		}
		if _, err := d.Export(); !errors.Is(err, ErrStopped) {
			t.Errorf("Export when Run has returned: %v", err)
		}
		if err := h.TakeIn([]byte(`{"format":2}`)); err == nil || !strings.Contains(err.Error(), "format 1") {
			t.Errorf("another format: %v", err)
		}
	})
}

// The format of a version is the one that others read. A field may come; then the file is
// written again (-update). One that goes, or means something else, needs another number.
func TestStateFormat(t *testing.T) {
	const file = "testdata/state-1.json"
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, _ := lived(t, w)
		w.doubt(target(t, d, "g", "a", 0)) // it is ejected
		data, err := d.Export()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			var b bytes.Buffer
			if err := json.Indent(&b, data, "", " "); err != nil {
				t.Fatal(err)
			}
			b.WriteByte('\n')
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := fieldsOf(t, golden), fieldsOf(t, data); !slices.Equal(a, b) {
			t.Errorf("the fields have changed (run with -update if some have come): %s", cmp.Diff(a, b))
		}
		// As another version wrote it: with fields that this one does not know.
		golden = bytes.Replace(golden, []byte(`"format": 1`), []byte(`"format": 1, "later": {"a": [1]}`), 1)
		next := newWorld()
		next.dead = maps.Clone(w.dead)
		h := heirOf(t, next, golden)
		if g := h.State().Services[0].Groups[0]; g.Hosts[1].Up() || !g.Hosts[0].Up() || g.Sticky.Len() == 0 || g.Hosts[2].Stats().Picks == 0 {
			t.Errorf("what it says is not what runs: %+v, %d clients", g.Hosts[2].Stats(), g.Sticky.Len())
		}
	})
}

// fieldsOf returns the paths of all values in a document.
func fieldsOf(t *testing.T, data []byte) []string {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, one := range v {
				if strings.HasSuffix(path, ".Ended") || strings.HasSuffix(path, ".checks") {
					key = "*"
				}
				walk(path+"."+key, one)
			}
		case []any:
			for _, one := range v {
				walk(path+"[]", one)
			}
		default:
			seen[path] = true
		}
	}
	walk("", v)
	return slices.Sorted(maps.Keys(seen))
}

// A state may say anything: it is an error or a director that works.
func FuzzState(f *testing.F) {
	golden, err := os.ReadFile("testdata/state-1.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"format":1,"config":"<config/>","changes":[{"Undo":[{"ops":[{"kids":[null]}]}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := ReadState(data)
		if err != nil {
			return
		}
		for _, s := range in.Config.Services {
			for _, a := range s.Access {
				if a.File != "" {
					return
				}
			}
		}
		d, err := New(in.Config, still{}, Options{Log: slog.New(slog.DiscardHandler), Resolver: newWorld(), Inherited: in, Document: in.Document})
		if err != nil {
			return
		}
		e, finish := d.picture(time.Now(), false)
		if err := finish(); err != nil {
			t.Fatal(err)
		}
		e.Partial = true
		d.takeIn(e, true)
		d.forgetLeavers(time.Now().Add(time.Hour))
		d.closeLeavers(time.Now())
		all, _ := d.events.all()
		for _, e := range all {
			_, _ = changes.Apply(in.Config, e.work().undo)
		}
		d.ramp(time.Now())
		d.tellUsable()
		d.publishPlan()
	})
}

// BenchmarkState is an upgrade's share of the director, with 10,000 hosts.
func BenchmarkState(b *testing.B) {
	eachScale(b, func(b *testing.B, c *config.Config) {
		d := newStill(b, c)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		data, err := d.Export()
		if err != nil {
			b.Fatal(err)
		}
		b.Run("export", func(b *testing.B) {
			for b.Loop() {
				_, _ = d.Export()
			}
			b.ReportMetric(float64(len(data))/1e6, "MB")
		})
		b.Run("director", func(b *testing.B) { // what Run does not do meanwhile
			for b.Loop() {
				_ = d.order(context.Background(), func() { d.picture(time.Now(), false) })
			}
		})
		b.Run("import", func(b *testing.B) {
			for b.Loop() {
				in, err := ReadState(data)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := New(in.Config, still{}, Options{Log: slog.New(slog.DiscardHandler), Inherited: in}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("take in", func(b *testing.B) {
			for b.Loop() {
				part, err := d.ExportChanges()
				if err == nil {
					err = d.TakeIn(part)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		cancel()
		<-done
	})
}
