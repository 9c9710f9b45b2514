package director

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// address gives the n-th host of the only group an address.
func address(n int, to string) func(*config.Config) error {
	return func(c *config.Config) error { c.Services[0].Groups[0].Hosts[n].Address = to; return nil }
}

const saysLeftOut = "host not used until its name resolves"

// A change with a new name is done when the name has been looked up: the
// group is never without the host that it had and the one that it gets.
func TestDoWaitsForNewNames(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dns["new"] = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
		w.dnsTakes = time.Second
		d := start(t, w, with(""))
		plans := len(w.plans)
		begun := time.Now()
		if _, err := d.Do(t.Context(), Change{Apply: address(0, "new:80")}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %v", took)
		}
		if got := target(t, d, "g", "a", 0).key.addr.String(); got != "10.0.0.9:80" || len(w.plans) != plans+1 {
			t.Errorf("address %s after %d plans", got, len(w.plans)-plans)
		}
		// A known name costs no look-up.
		begun = time.Now()
		if _, err := d.Do(t.Context(), Change{Apply: address(1, "new:81")}); err != nil || time.Since(begun) != 0 {
			t.Errorf("took %v, %v", time.Since(begun), err)
		}
	})
}

// While a change waits, health goes on and other changes queue behind it.
func TestDoQueuesBehindNames(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dns["new"] = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
		w.dnsTakes = 2 * time.Second
		d := start(t, w, with(""))
		first, second := make(chan uint64, 1), make(chan uint64, 1)
		do := func(answer chan uint64, c Change) {
			g, err := d.Do(t.Context(), c)
			if err != nil {
				t.Error(err)
			}
			answer <- g
		}
		go do(first, Change{Apply: address(0, "new:80")})
		synctest.Wait()
		go do(second, Change{Apply: address(1, "10.0.0.8:80")})
		synctest.Wait()
		w.fail(target(t, d, "g", "c", 0))
		if names, _ := w.picks(); names != "ab" || d.State().Generation != 1 {
			t.Errorf("hosts %s, generation %d", names, d.State().Generation)
		}
		if g := [2]uint64{<-first, <-second}; g != [2]uint64{2, 3} {
			t.Errorf("generations %v", g)
		}
		hosts := d.State().Config.Services[0].Groups[0].Hosts
		if hosts[0].Address != "new:80" || hosts[1].Address != "10.0.0.8:80" {
			t.Errorf("addresses %s, %s", hosts[0].Address, hosts[1].Address)
		}
	})
}

// A caller who gives up, or the end of Run, drops a change that waits.
func TestDoGivenUp(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dnsTakes = 4 * time.Second
		d := start(t, w, with(""))
		state := d.State()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := d.Do(ctx, Change{Apply: address(0, "new:80")})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.State() != state || len(d.names) != 0 {
			t.Errorf("left names %v", d.names)
		}
		if _, err := d.Do(t.Context(), Change{Apply: address(0, "10.0.0.9:80")}); err != nil {
			t.Errorf("the next change: %v", err)
		}
	})
}

func TestDoEndsWithRun(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		w.dnsTakes = time.Second
		c, problems := config.Parse("", []byte(with("")))
		if c == nil {
			t.Fatal(problems)
		}
		d, err := New(c, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		answered := make(chan error, 1)
		go func() {
			_, err := d.Do(t.Context(), Change{Apply: address(0, "new:80")})
			answered <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-answered; !errors.Is(err, ErrStopped) {
			t.Errorf("answered %v", err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// That a host is left out is said once until it is back, wherever it came from.
func TestLeftOutIsToldOnce(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		told := func(want int) {
			t.Helper()
			if n := strings.Count(w.log.String(), saysLeftOut); n != want {
				t.Errorf("told %d times, want %d:\n%s", n, want, w.log.String())
			}
		}
		do := func(change func(*config.Config) error) {
			t.Helper()
			if _, err := d.Do(t.Context(), Change{Apply: change}); err != nil {
				t.Fatal(err)
			}
		}
		do(address(0, "ghost:80"))
		told(1)
		if p := d.State().Services[0].Groups[0].Hosts[0].Problem; !strings.Contains(p, "no such host") {
			t.Errorf("problem %q", p)
		}
		do(address(1, "10.0.0.8:80"))
		time.Sleep(time.Minute)
		synctest.Wait()
		told(1)
		w.mu.Lock()
		w.dns["ghost"] = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
		w.mu.Unlock()
		time.Sleep(lookupAgain)
		synctest.Wait()
		if names, _ := w.picks(); names != "abc" || strings.Count(w.log.String(), "name resolved") != 1 {
			t.Errorf("hosts %s, log:\n%s", names, w.log.String())
		}
		do(address(0, "ghost2:80"))
		told(2)
	})
}

// What a refused change brought is not looked up any more.
func TestRefusedChangeLeavesNoNames(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, with(""))
		w.refuse = errors.New("the port is in use")
		if _, err := d.Do(t.Context(), Change{Apply: address(0, "ghost:80")}); !errors.Is(err, w.refuse) {
			t.Errorf("said %v", err)
		}
		synctest.Wait()
		if len(d.names) != 0 {
			t.Errorf("left names %v", d.names)
		}
	})
}

// Who prepares a change is asked before it is made, may refuse it, and is told what
// became of it.
func TestPreparedChanges(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		c, problems := config.Parse("", []byte(with("")))
		if c == nil {
			t.Fatal(problems)
		}
		var takes time.Duration
		var no error
		var settled []bool
		var d *Director
		prepare := func(ctx context.Context, was, next *config.Config) (func(bool), error) {
			if was != d.State().Config || next == was {
				t.Error("it is asked about another change")
			}
			select {
			case <-time.After(takes):
			case <-ctx.Done():
			}
			if no != nil {
				return nil, no
			}
			return func(accepted bool) { settled = append(settled, accepted) }, nil
		}
		d, err := New(c, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Prepare: prepare})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		do := func(ctx context.Context, change Change) error {
			change.Apply = address(0, "10.0.0.9:"+strconv.Itoa(80+len(settled)))
			before := d.State().Generation
			_, err := d.Do(ctx, change)
			if (err == nil && !change.DryRun) == (d.State().Generation == before) {
				t.Errorf("answered %v, and generation %d became %d", err, before, d.State().Generation)
			}
			synctest.Wait()
			return err
		}
		if err := do(ctx, Change{}); err != nil {
			t.Fatal(err)
		}
		if err := do(ctx, Change{DryRun: true}); err != nil {
			t.Fatal(err)
		}
		w.refuse = errors.New("the port is in use")
		if err := do(ctx, Change{}); !errors.Is(err, w.refuse) {
			t.Errorf("the engine refused: %v", err)
		}
		w.refuse = nil
		short, stop := context.WithTimeout(ctx, time.Second)
		takes = 2 * time.Second
		if err := do(short, Change{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up: %v", err)
		}
		stop()
		takes = time.Hour // until it is told that the change is off
		if err := do(ctx, Change{}); err == nil || !strings.Contains(err.Error(), "not ready") {
			t.Errorf("it hangs: %v", err)
		}
		takes, no = 0, errors.New("no certificate")
		if err := do(ctx, Change{}); !errors.Is(err, no) {
			t.Errorf("refused: %v", err)
		}
		if want := []bool{true, false, false, false, false}; !slices.Equal(settled, want) {
			t.Errorf("told %v, want %v", settled, want)
		}
		cancel()
		<-ended
	})
}
