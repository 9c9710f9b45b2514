//go:build unix

package director

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// onHold is a service whose group runs a program when clients wait.
const onHold = `<config><service name="web"><listen ip=":1"/>
	<group name="g" enable="true" onHold="echo one more"><host name="a" ip="10.0.0.1:80"/></group></service></config>`

// starts returns how often the program of onHold was started.
func (w *world) starts() int { return len(w.log.Lines("running onHold")) }

// idle returns a director that nobody runs.
func idle(t *testing.T, w *world) *Director {
	t.Helper()
	c, problems := config.Parse("c.xml", []byte(onHold))
	if c == nil {
		t.Fatal(problems)
	}
	d, err := New(c, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// While changes are refused, no program is started: in an upgrade it would run in both
// processes. Afterwards it is, if clients still wait.
func TestOnHoldIsNotStartedInAnUpgrade(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, onHold)
		hold(t, d, "g", time.Hour)
		thaw := d.Freeze(errors.New("an upgrade is under way"))
		w.join(func(time.Time) {})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.starts(); n != 0 {
			t.Errorf("started %d times while changes are refused", n)
		}
		thaw()
		time.Sleep(2 * scanEvery)
		synctest.Wait()
		if n := w.starts(); n != 1 || len(w.log.Lines("onHold has ended")) != 1 {
			t.Errorf("started %d times afterwards:\n%s", n, &w.log)
		}
	})
}

// The next process knows when the program was last started, and does not start it again
// sooner than this one would have.
func TestOnHoldIsNotStartedAgainAfterAnUpgrade(t *testing.T) {
	for name, test := range map[string]struct {
		runs bool          // still, when it is handed over
		wait time.Duration // until it may start again
	}{
		"ended": {false, commandAgain - 4*time.Second},
		"runs":  {true, commandAgain},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				w := newWorld()
				d := start(t, w, onHold)
				hold(t, d, "g", time.Hour)
				w.join(func(time.Time) {})
				synctest.Wait()
				time.Sleep(4 * time.Second)
				synctest.Wait()
				if n := w.starts(); n != 1 {
					t.Fatalf("started %d times:\n%s", n, &w.log)
				}
				if err := d.order(t.Context(), func() {
					g, _ := d.groupFor("web", "g")
					g.holding.running.Store(test.runs)
				}); err != nil {
					t.Fatal(err)
				}
				d.Freeze(errors.New("handed over"))
				data, err := d.Export()
				if err != nil {
					t.Fatal(err)
				}
				state, err := ReadState(data)
				if err != nil {
					t.Fatal(err)
				}
				next := newWorld()
				heir, err := New(state.Config, next, Options{Log: next.logger(), Resolver: next, Probe: next.probe, Inherited: state})
				if err != nil {
					t.Fatal(err)
				}
				next.join(func(time.Time) {}) // it has moved
				runDirector(t, heir)
				time.Sleep(test.wait - time.Millisecond)
				synctest.Wait()
				if n := next.starts(); n != 0 {
					t.Errorf("started %d times by the next process", n)
				}
				time.Sleep(2 * scanEvery)
				synctest.Wait()
				if n := next.starts(); n != 1 {
					t.Errorf("started %d times after its time:\n%s", n, &next.log)
				}
			})
		})
	}
}

// A program that has succeeded and leaves a daemon behind, which keeps its output open, has
// not failed. The daemon runs on.
func TestOnHoldLeavesADaemon(t *testing.T) {
	t.Parallel()
	w := newWorld()
	d := idle(t, w)
	d.runCommand(t.Context(), "web", "g", `sh -c 'sleep 600 & echo daemon $!'`)
	lines := w.log.Lines("onHold has ended")
	if len(lines) != 1 {
		t.Fatalf("it has failed:\n%s", &w.log)
	}
	_, pid, _ := strings.Cut(lines[0], `output="daemon `)
	daemon, err := strconv.Atoi(strings.TrimSuffix(pid, `"`))
	if err != nil {
		t.Fatalf("%v in %s", err, lines[0])
	}
	if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
		t.Errorf("the daemon: %v", err)
	}
	if e := d.Events(); len(e) == 0 || !strings.Contains(e[len(e)-1].Text, "sh ended after") {
		t.Errorf("events: %+v", e)
	}
}

// The log says why a program has failed: by itself, or because this process ends.
func TestOnHoldFails(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	end()
	for command, test := range map[string]struct {
		ctx  context.Context
		want string
	}{
		`sh -c 'echo no such database; exit 3'`:           {t.Context(), `err="exit status 3" output="no such database"`},
		`sh -c 'sleep 3 & echo no such database; exit 3'`: {t.Context(), `err="exit status 3" output="no such database"`},
		`sleep 600`: {ended, `err="it was killed because this process of txlb ends"`},
	} {
		w := newWorld()
		d := idle(t, w)
		d.runCommand(test.ctx, "web", "g", command)
		if got := w.log.Lines("onHold failed"); len(got) != 1 || !strings.Contains(got[0], test.want) {
			t.Errorf("%s: want %s\n%s", command, test.want, &w.log)
		}
	}
}
