package engine_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// slowdown measures clients of ten hosts, one of which is ten times as slow, with a scheduler.
// It returns what all of them waited for their answers, sorted. Clients come at an even rate,
// whether others have been answered or not.
func slowdown(t *testing.T, opt setup, scheduler string, clients int, every time.Duration) []time.Duration {
	const fast, slow = 30 * time.Millisecond, 300 * time.Millisecond
	var members []sched.Member
	group := new(sched.Times)
	for i := range 10 {
		takes := fast
		if i == 0 {
			takes = slow
		}
		addr := enginetest.BackendServer(t, func(p *enginetest.Peer) {
			buf := make([]byte, 16)
			if n, err := p.Read(buf); err == nil {
				time.Sleep(takes) // what the host has to do
				_, _ = p.Write(buf[:n])
			}
		})
		members = append(members, sched.Member{Host: sched.NewHostIn(group, fmt.Sprint(i), addr), Weight: 1})
	}
	table, err := sched.NewTable(sched.Policy{Scheduler: scheduler, Seed: 1}, members)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, opt, engine.Route{Table: table})
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	next := time.Now()
	for range clients {
		next = next.Add(every)
		time.Sleep(time.Until(next)) // the rate of clients
		wg.Go(func() {
			began := time.Now()
			c := r.Dial()
			defer func() { _ = c.Close() }()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Since(began))
		})
	}
	wg.Wait()
	slices.Sort(all)
	return all
}

// With one host of ten ten times as slow, one client in a hundred waits at most half as long
// with ewma as with leastc. See also TestEWMAAvoidsASlowHost in package sched, where nothing
// but the schedulers is measured: here a busy machine may spoil a measurement.
func TestEWMAHalvesTheWorstWaits(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	at := func(all []time.Duration, part int) time.Duration { return all[len(all)*part/100] }
	for _, opt := range modesToTest {
		for try := 1; ; try++ {
			least, ewma := slowdown(t, opt, "leastc", 500, 10*time.Millisecond), slowdown(t, opt, "ewma", 500, 10*time.Millisecond)
			t.Logf("leastc: median %v, 99 %% %v, worst %v; ewma: %v, %v, %v", at(least, 50), at(least, 99), least[len(least)-1], at(ewma, 50), at(ewma, 99), ewma[len(ewma)-1])
			if at(ewma, 99) <= at(least, 99)/2 {
				return // one mode is enough: they share the scheduler
			}
			if try == 3 {
				t.Fatalf("one client in a hundred waits %v or longer with ewma, and %v with leastc", at(ewma, 99), at(least, 99))
			}
		}
	}
}
