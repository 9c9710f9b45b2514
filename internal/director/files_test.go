package director

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/internal/testkit"
)

// startFile runs a director over a file.
func startFile(t *testing.T, w *world, doc string) (*Director, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.xml")
	writeFile(t, path, doc)
	d, problems := document.Open(path)
	if d == nil {
		t.Fatal(problems)
	}
	dir, err := New(d.Config, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Document: d})
	if err != nil {
		t.Fatal(err)
	}
	runDirector(t, dir)
	return dir, path
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// weight gives the n-th host of the only group a weight.
func weight(n, to int) func(*config.Config) error {
	return func(c *config.Config) error { c.Services[0].Groups[0].Hosts[n].Weight = to; return nil }
}

func do(t *testing.T, d *Director, change func(*config.Config) error) {
	t.Helper()
	if _, err := d.Do(t.Context(), Change{By: "tester", Apply: change}); err != nil {
		t.Fatal(err)
	}
}

// weights returns the weights of the only group's hosts.
func weights(d *Director) string {
	var all []string
	for _, h := range d.State().Config.Services[0].Groups[0].Hosts {
		all = append(all, fmt.Sprint(h.Name, "=", h.Weight))
	}
	return strings.Join(all, " ")
}

func TestReloadMergesThreeWays(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, path := startFile(t, w, with(""))
		before := d.State().Services[0].Groups[0].Hosts[2].Targets[0]
		do(t, d, weight(0, 5))
		do(t, d, weight(1, 6))
		writeFile(t, path, strings.ReplaceAll(with("<engine loops=\"3\"/>"), `<host name="b" ip="10.0.0.2:80"/>`, `<host name="b" ip="10.0.0.2:80" weight="7"/>`))

		dry, err := d.Reload(t.Context(), ReloadRequest{DryRun: true})
		if err != nil || weights(d) != "a=5 b=6 c=1" || d.State().Generation != 3 {
			t.Fatalf("a dry run: %v, %s, generation %d", err, weights(d), d.State().Generation)
		}
		r, err := d.Reload(t.Context(), ReloadRequest{By: "tester"})
		if err != nil || r.Generation != 4 || weights(d) != "a=5 b=7 c=1" {
			t.Fatalf("%v, generation %d, weights %s", err, r.Generation, weights(d))
		}
		const want = `changed: setHost web g b weight=7
changed: # <engine> loops auto -> 3: needs restart
kept, not in the file: setHost web g a weight=5
lost: setHost web g b weight=6
needs a restart: # <engine> loops auto -> 3: needs restart
`
		if r.String() != want || dry.String() != want {
			t.Errorf("said\n%s\ndry\n%s\nwant\n%s", r, dry, want)
		}
		if fmt.Sprint(d.Unsaved()) != "[setHost web g a weight=5]" {
			t.Errorf("unsaved: %v", d.Unsaved())
		}
		if d.State().Services[0].Groups[0].Hosts[2].Targets[0] != before {
			t.Error("the target of a host that did not change is another one")
		}
		// Nothing new in the file: nothing changes, and the restart is still due.
		if r, err := d.Reload(t.Context(), ReloadRequest{}); err != nil || len(r.Changed) > 0 || r.Generation != 4 || len(r.Restart) != 1 {
			t.Errorf("%v, %s", err, r)
		}
		r, err = d.Reload(t.Context(), ReloadRequest{Discard: true})
		if err != nil || weights(d) != "a=1 b=7 c=1" || len(d.Unsaved()) != 0 || fmt.Sprint(r.Lost) != "[setHost web g a weight=5]" {
			t.Errorf("discard: %v, %s, weights %s", err, r, weights(d))
		}
	})
}

func TestWrongFileChangesNothing(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, path := startFile(t, w, with(""))
		do(t, d, weight(0, 5))
		state := d.State()
		wrong := strings.ReplaceAll(with("\n<engine loops=\"many\"/>\n<logging level=\"loud\"/>"), `scheduler="roundr"`, `scheduler="none"`)
		writeFile(t, path, wrong)
		_, err := d.Reload(t.Context(), ReloadRequest{})
		if err == nil || d.State() != state || !d.ReloadFailed() {
			t.Errorf("said %v", err)
		}
		for _, line := range []string{":2: ", ":4: <engine loops>", ":5: <logging level>"} {
			if !strings.Contains(w.log.String(), path+line) || !strings.Contains(err.Error(), path+line) {
				t.Errorf("no problem%s in\n%s", line, w.log.String())
			}
		}
		// What is not wrong by itself, but with what was changed at run time.
		do(t, d, func(c *config.Config) error {
			c.Services[0].Listen = append(c.Services[0].Listen, config.Listen{Address: ":9107"})
			return nil
		})
		state = d.State()
		writeFile(t, path, with(`<admin><metrics listen="localhost:9107"/></admin>`))
		if _, err := d.Reload(t.Context(), ReloadRequest{}); err == nil || !strings.Contains(err.Error(), "conflict") || d.State() != state {
			t.Errorf("said %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Reload(t.Context(), ReloadRequest{}); err == nil || !strings.Contains(err.Error(), path) || d.State() != state {
			t.Errorf("said %v", err)
		}
		// The engine refuses.
		writeFile(t, path, strings.ReplaceAll(with(""), ":8080", ":8081"))
		w.mu.Lock()
		w.refuse = errors.New("the port is in use")
		w.mu.Unlock()
		if _, err := d.Reload(t.Context(), ReloadRequest{}); !errors.Is(err, w.refuse) || d.State() != state || !d.ReloadFailed() {
			t.Errorf("said %v", err)
		}
		w.mu.Lock()
		w.refuse = nil
		w.mu.Unlock()
		if _, err := d.Reload(t.Context(), ReloadRequest{}); err != nil || d.ReloadFailed() || d.State().Config.Services[0].Listen[0].Address != "127.0.0.1:8081" {
			t.Errorf("said %v", err)
		}
	})
}

func TestGenerationsAndRollback(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, path := startFile(t, w, with(""))
		first := d.State().Config
		do(t, d, weight(0, 5))
		do(t, d, address(1, "10.0.0.9:80"))
		do(t, d, func(c *config.Config) error {
			g := config.NewGroup("new")
			c.Services[0].Groups[0].Enabled, g.Enabled = false, true
			c.Services[0].Groups = append(c.Services[0].Groups, g)
			return nil
		})
		var moved *MovedError
		_, err := d.Do(t.Context(), Change{Generation: 2, Apply: weight(2, 9)})
		if !errors.As(err, &moved) || err.Error() != "the configuration has changed from generation 2 to 4; "+
			"3 by tester: setHost web g b ip=10.0.0.9:80; 4 by tester: addGroup web new leastc, enableGroup web new --force" {
			t.Errorf("said %v", err)
		}
		if _, err := d.Reload(t.Context(), ReloadRequest{Generation: 3}); !errors.As(err, &moved) {
			t.Errorf("said %v", err)
		}
		var edits []changes.Edit
		if g, err := d.Do(t.Context(), Change{Generation: 4, DryRun: true, Edits: &edits, Apply: weight(2, 9)}); err != nil || g != 4 || fmt.Sprint(edits) != "[setHost web g c weight=9]" {
			t.Errorf("dry run: %d, %v, %v", g, edits, err)
		}
		if _, err := d.Rollback(t.Context(), 9, Change{}); err == nil || !strings.Contains(err.Error(), "the number of remembered changes is 3") {
			t.Errorf("said %v", err)
		}
		if g, err := d.Rollback(t.Context(), 2, Change{By: "tester"}); err != nil || g != 5 {
			t.Fatal(g, err)
		}
		if weights(d) != "a=5 b=1 c=1" || len(d.State().Config.Services[0].Groups) != 1 {
			t.Errorf("weights %s", weights(d))
		}
		// A rollback is a change: two steps back are this one and the one before.
		if _, err := d.Rollback(t.Context(), 4, Change{Edits: &edits}); err != nil || !changes.Same(first, d.State().Config) {
			t.Errorf("%v: %v", err, changes.Diff(first, d.State().Config))
		}
		list := d.Events()
		if len(list) != 5 || list[4].Verb != "rollback 4" || list[3].Generation != 5 || list[0].By != "tester" || fmt.Sprint(list[4].Edits) != fmt.Sprint(edits) {
			t.Errorf("events %+v", list)
		}
		if len(d.Unsaved()) != 0 || readFile(t, path) != with("") {
			t.Errorf("unsaved %v", d.Unsaved())
		}
		for i := range maxEvents + 10 {
			do(t, d, weight(0, 1+i%2))
		}
		if list := d.Events(); len(list) != maxEvents || list[maxEvents-1].Generation != d.State().Generation {
			t.Errorf("%d events", len(list))
		}
	})
}

// Large changes are not remembered for ever.
func TestEventsAreBounded(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d := start(t, newWorld(), with(""))
		for i := range 8 {
			do(t, d, func(c *config.Config) error {
				g := c.Services[0].Groups[0]
				g.Hosts = g.Hosts[:1]
				for n := range 3000 {
					g.Hosts = append(g.Hosts, &config.Host{Name: fmt.Sprint("h", n), Address: fmt.Sprint("10.0.0.1:", 1000+n+i*4000), Weight: 1, State: "ready"})
				}
				return nil
			})
		}
		total := 0
		for _, e := range d.Events() {
			total += 2 * len(e.Edits)
		}
		if total > maxEventEdits+2*6001 || total < maxEventEdits/2 {
			t.Errorf("%d edits are kept", total)
		}
	})
}

// TestEventsAreOfOneMoment reads the list while changes and orders come in turns.
func TestEventsAreOfOneMoment(t *testing.T) {
	d := &Director{}
	quit := make(chan struct{})
	var writers sync.WaitGroup
	for range 4 { // so many that they wait for each other
		writers.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					d.events.add(&event{work: func() edits { return edits{} }})
					d.events.note(Event{Kind: OrderEvent})
				}
			}
		})
	}
	for d.LastEvent() < 30_000 {
		list := d.Events()
		for i := max(1, len(list)-50); i < len(list); i++ {
			if list[i].Seq != list[i-1].Seq+1 {
				t.Errorf("event %d comes after %d", list[i].Seq, list[i-1].Seq)
			}
		}
		if t.Failed() {
			break
		}
	}
	close(quit)
	writers.Wait()
}

func TestSaveAndConfigCheck(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, path := startFile(t, w, with("<!-- kept -->"))
		if saved, err := d.Save("tester", ""); err != nil || len(saved.Edits) > 0 || readFile(t, path) != with("<!-- kept -->") {
			t.Fatal(saved, err)
		}
		do(t, d, weight(0, 5))
		saved, err := d.Save("tester", "")
		if err != nil || saved.Path != path || fmt.Sprint(saved.Edits) != "[setHost web g a weight=5]" || len(d.Unsaved()) > 0 {
			t.Fatal(saved, err)
		}
		if text := readFile(t, path); !strings.Contains(text, `ip="10.0.0.1:80" weight="5"`) || !strings.Contains(text, "<!-- kept -->") {
			t.Errorf("the file is\n%s", text)
		}
		// What was written is the base now.
		if r, err := d.Reload(t.Context(), ReloadRequest{}); err != nil || len(r.Changed) > 0 {
			t.Errorf("%v, %s", err, r)
		}
		// In time, once it is turned on.
		do(t, d, func(c *config.Config) error {
			c.Manager.ConfigCheck = config.Check{Interval: 30 * time.Second, Enable: true}
			return nil
		})
		do(t, d, weight(1, 6))
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if n := len(d.Unsaved()); n != 2 {
			t.Errorf("%d changes are not saved", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := len(d.Unsaved()); n != 0 || !strings.Contains(readFile(t, path), `weight="6"`) {
			t.Errorf("%d changes are not saved:\n%s", n, readFile(t, path))
		}
		// Edits by hand are told of, once, and stay.
		by := strings.ReplaceAll(readFile(t, path), `weight="6"`, `weight="60"`)
		writeFile(t, path, by)
		do(t, d, weight(2, 7))
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if readFile(t, path) != by || strings.Count(w.log.String(), "cannot save") != 1 || !strings.Contains(w.log.String(), "changed by hand") {
			t.Errorf("the file is\n%s\nlog\n%s", readFile(t, path), w.log.String())
		}
		if _, err := d.Save("", ""); !errors.Is(err, document.ErrEdited) {
			t.Errorf("said %v", err)
		}
		if _, err := d.Reload(t.Context(), ReloadRequest{}); err != nil || weights(d) != "a=5 b=60 c=7" {
			t.Errorf("%v, weights %s", err, weights(d))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !strings.Contains(readFile(t, path), `weight="60"`) || !strings.Contains(readFile(t, path), `weight="7"`) {
			t.Errorf("the file is\n%s", readFile(t, path))
		}
	})
}

func TestNoFile(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		d := start(t, newWorld(), with(""))
		if _, err := d.Reload(t.Context(), ReloadRequest{}); !errors.Is(err, ErrNoFile) {
			t.Error(err)
		}
		if _, err := d.Save("", ""); !errors.Is(err, ErrNoFile) || d.Unsaved() != nil {
			t.Error(err)
		}
	})
}

// What was not saved in time is saved at the end.
func TestConfigCheckSavesAtTheEnd(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		path := filepath.Join(t.TempDir(), "c.xml")
		writeFile(t, path, with(`<manager><configCheck interval="30" enable="yes"/></manager>`))
		doc, _ := document.Open(path)
		d, err := New(doc.Config, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Document: doc})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		do(t, d, weight(0, 5))
		cancel()
		if err := <-ended; err != nil || !strings.Contains(readFile(t, path), `weight="5"`) {
			t.Errorf("%v:\n%s", err, readFile(t, path))
		}
	})
}

// What a reload has done needs no reload any more: neither the log, nor the answer,
// nor the events say so. What waits for a restart is still said.
func TestReloadDoesNotAskForAReload(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, path := startFile(t, w, with(""))
		writeFile(t, path, with(`<engine loops="3"/><manager><hostCheck interval="7"/></manager>`))
		r, err := d.Reload(t.Context(), ReloadRequest{By: "tester"})
		if err != nil {
			t.Fatal(err)
		}
		_, moved := d.Reload(t.Context(), ReloadRequest{Generation: 1})
		if moved == nil {
			t.Fatal("took an old generation")
		}
		said := w.log.String() + r.String() + moved.Error()
		if strings.Contains(said, "needs reload") {
			t.Errorf("a reload is asked for:\n%s", said)
		}
		for _, want := range []string{`edit="# <manager><hostCheck> interval 10 -> 7"`, "changed: # <manager><hostCheck> interval 10 -> 7\n", "needs restart"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q is missing:\n%s", want, said)
			}
		}
	})
}
