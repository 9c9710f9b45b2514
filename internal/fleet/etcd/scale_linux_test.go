package etcd

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// whole is for the proofs that take too long for every day: make fleet.
var whole = flag.Bool("whole", false, "test with the full numbers, see make fleet")

// A change is on all nodes soon, however many hosts there are: with 10,000 of them and an etcd
// of three members, within a second on a machine that does nothing else.
func TestChangeIsEverywhere(t *testing.T) {
	testkit.Long(t)
	hosts, rounds, limit := 1000, 5, testkit.Patience
	if *whole {
		hosts, rounds, limit = 10_000, 30, time.Second
	}
	_, urls := cluster(t, 3)
	var all []*member
	for i := range 3 {
		all = append(all, join(t, fmt.Sprint("n", i), urls))
	}
	joined(t, all...)
	_, err := all[0].dir.Do(t.Context(), director.Change{By: "ops", Verb: "reload", Apply: func(c *config.Config) error {
		g := c.Services[0].Groups[0]
		for i := len(g.Hosts); i < hosts; i++ {
			h := *g.Hosts[0]
			h.Name, h.Address = fmt.Sprint("h", i), fmt.Sprintf("10.%d.%d.%d:8080", i>>16, i>>8&255, i&255)
			g.Hosts = append(g.Hosts, &h)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	joined(t, all...)
	for _, m := range all { // the files have all hosts
		testkit.Eventually(t, m.name+" has saved", func() bool { return len(m.dir.Unsaved()) == 0 })
	}
	var answered, everywhere []time.Duration
	for i := range rounds {
		began := time.Now()
		generation, err := all[i%3].weigh(2 + i)
		if err != nil {
			t.Fatal(err)
		}
		answered = append(answered, time.Since(began))
		var waiting sync.WaitGroup
		for _, m := range all {
			waiting.Go(func() {
				for state := m.dir.State(); state.Generation < generation; state = m.dir.State() {
					<-state.Replaced()
				}
			})
		}
		waiting.Wait()
		everywhere = append(everywhere, time.Since(began))
	}
	joined(t, all...)
	t.Logf("%d hosts, %d changes: answered after %s; everywhere after %s", hosts, rounds, distribution(answered), distribution(everywhere))
	if worst := slices.Max(everywhere); worst > limit {
		t.Errorf("a change was everywhere after %v; want at most %v", worst, limit)
	}
}

// distribution are the median, some percentiles and the most.
func distribution(all []time.Duration) string {
	all = slices.Sorted(slices.Values(all))
	var b strings.Builder
	for _, p := range []int{50, 90, 99} {
		fmt.Fprintf(&b, "p%d %v, ", p, all[(len(all)-1)*p/100].Round(time.Millisecond))
	}
	fmt.Fprintf(&b, "most %v", all[len(all)-1].Round(time.Millisecond))
	return b.String()
}
