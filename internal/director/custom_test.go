package director

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// lastHost picks the last host.
var lastHost = sched.SchedulerFunc(func(_ netip.Addr, hosts []sched.Candidate) int { return len(hosts) - 1 })

// startCustom is start with schedulers of the program, of which the only group has one.
func startCustom(t *testing.T, w *world, scheduler string, given map[string]sched.Scheduler) (*Director, error) {
	t.Helper()
	c, problems := config.Parse("c.xml", []byte(with("")))
	if c == nil {
		t.Fatal(problems)
	}
	c.Services[0].Groups[0].Scheduler = scheduler
	d, err := New(c, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Schedulers: given})
	if err == nil {
		runDirector(t, d)
	}
	return d, err
}

// A program's scheduler chooses in every table of its group, whatever changes; a group may
// get one, lose it and be sticky with it at run time.
func TestCustomSchedulers(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		first := sched.SchedulerFunc(func(netip.Addr, []sched.Candidate) int { return 0 })
		d, err := startCustom(t, w, "custom:last", map[string]sched.Scheduler{"last": lastHost, "first": first})
		if err != nil {
			t.Fatal(err)
		}
		picks := func(want string) {
			t.Helper()
			synctest.Wait()
			for n := range 5 {
				if h := w.sessionOf(n); h != want {
					t.Errorf("client %d has host %s, not %s", n, h, want)
				}
			}
		}
		change := func(what func(g *config.Group)) {
			t.Helper()
			if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
				what(c.Services[0].Groups[0])
				return nil
			}}); err != nil {
				t.Fatal(err)
			}
		}
		picks("c")
		change(func(g *config.Group) { g.Hosts[2].State = "drain" })
		picks("b")
		w.fail(target(t, d, "g", "b", 0))
		picks("a")
		change(func(g *config.Group) { g.Hosts = append(g.Hosts, config.NewHost("d", "10.0.0.4:80")) })
		picks("d")
		change(func(g *config.Group) { g.Scheduler = "custom:first" })
		picks("a")
		change(func(g *config.Group) { g.Scheduler = "custom:last,sticky" })
		picks("d")
		change(func(g *config.Group) { g.Hosts = append(g.Hosts, config.NewHost("e", "10.0.0.5:80")) })
		picks("d")
		if h := w.sessionOf(9); h != "e" {
			t.Errorf("a new client has host %s", h)
		}
		if _, err := d.Rollback(t.Context(), 2, Change{}); err != nil { // by way of the model as a tree
			t.Fatal(err)
		}
		if g := d.State().Config.Services[0].Groups[0]; g.Scheduler != "custom:first" {
			t.Errorf("after the rollback the scheduler is %s", g.Scheduler)
		}
		picks("a")
		if faults := d.SchedulerFaults(); len(faults) != 2 || faults["first"] != 0 || faults["last"] != 0 {
			t.Errorf("faults: %v", faults)
		}
	})
}

// A scheduler that the program has not given is refused, at the start and in a change,
// and says which there are.
func TestCustomSchedulersThatAreNotThere(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		given := map[string]sched.Scheduler{"last": lastHost}
		for _, c := range []struct {
			scheduler string
			given     map[string]sched.Scheduler
			want      string
		}{
			{"custom:lost", given, `group "g" of service "web": scheduler "custom:lost" is not one that the program has given; did you mean "last"?`},
			{"custom:last", nil, `group "g" of service "web": scheduler "custom:last" is a program's own, and this program has none`},
			{"leastc", map[string]sched.Scheduler{"none": nil}, `scheduler "none" is nil`},
			{"leastc", map[string]sched.Scheduler{"a b": lastHost}, `scheduler "a b": a name has 1 to 64 characters`},
			{"leastc", map[string]sched.Scheduler{"": lastHost}, `scheduler "": a name has 1 to 64 characters`},
		} {
			if _, err := startCustom(t, newWorld(), c.scheduler, c.given); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, not %s", c.scheduler, err, c.want)
			}
		}
		d, err := startCustom(t, newWorld(), "custom:last", given)
		if err != nil {
			t.Fatal(err)
		}
		for _, dry := range []bool{true, false} {
			_, err = d.Do(t.Context(), Change{DryRun: dry, Apply: func(c *config.Config) error {
				g := config.NewGroup("standby")
				g.Scheduler = "custom:best"
				c.Services[0].Groups = append(c.Services[0].Groups, g)
				return nil
			}})
			if err == nil || !strings.Contains(err.Error(), `group "standby" of service "web": scheduler "custom:best" is not one that the program has given`) {
				t.Errorf("dry run %v: %v", dry, err)
			}
		}
	})
}

// Faults are logged at once, then summed up while they go on, and counted.
func TestCustomSchedulerFaults(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d, err := startCustom(t, w, "custom:none", map[string]sched.Scheduler{
			"none": sched.SchedulerFunc(func(netip.Addr, []sched.Candidate) int { return -1 }), "unused": lastHost,
		})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for range 100 { // 25 seconds
			for n := range 3 {
				seen[w.sessionOf(n)] = true
			}
			time.Sleep(time.Second / 4)
		}
		time.Sleep(tellFaultsEvery)
		synctest.Wait()
		if !seen["a"] || !seen["b"] || !seen["c"] || seen[""] {
			t.Errorf("clients went to %v", seen)
		}
		if faults := d.SchedulerFaults(); faults["none"] != 300 || faults["unused"] != 0 {
			t.Errorf("faults: %v", faults)
		}
		lines := w.log.Lines("scheduler failed")
		if len(lines) < 3 || len(lines) > 5 || !strings.Contains(lines[0], `scheduler=custom:none`) || !strings.Contains(lines[0], `err="Pick returned -1 for 3 hosts"`) {
			t.Errorf("the log has\n%s", strings.Join(lines, "\n"))
		}
	})
}
