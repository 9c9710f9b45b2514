//go:build linux

package loops

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		runner []int
		share  []float64
		want   []Handover
	}{
		{"one loop", []int{0}, []float64{1}, nil},
		{"two calm ones join", []int{0, 1}, []float64{0.2, 0.1}, []Handover{{0, 0, 1}}},
		{"two that would be too much stay apart", []int{0, 1}, []float64{0.3, 0.3}, nil},
		{"carried already", []int{0, 0}, []float64{0.1, 0}, nil},
		{"neither calm nor pressed", []int{0, 0}, []float64{0.7, 0}, nil},
		{"pressed gives one back", []int{0, 0}, []float64{0.9, 0}, []Handover{{1, 0, 1}}},
		{"and half of many", []int{1, 1, 1, 1, 1}, []float64{0, 0.9, 0, 0, 0}, []Handover{{0, 1, 0}, {2, 1, 2}}},
		{"pressed goes before calm", []int{0, 0, 2, 3}, []float64{0.9, 0, 0, 0}, []Handover{{1, 0, 1}}},
		{"the busy one is left alone", []int{0, 1, 2}, []float64{1, 0.1, 0.1}, []Handover{{2, 2, 1}}},
		{"who carries brings its own along", []int{0, 0, 2}, []float64{0.1, 0, 0}, []Handover{{1, 0, 2}, {0, 0, 2}}},
		{"as many as fit", []int{0, 1, 2, 3}, []float64{0.1, 0.2, 0.3, 0.15}, []Handover{{3, 3, 0}, {1, 1, 0}}},
	} {
		if diff := cmp.Diff(c.want, decide(c.runner, c.share), cmp.AllowUnexported(Handover{})); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

// TestDecideKeepsOrder applies decisions under loads that change at random:
// each loop has somebody who runs it, nobody is carried who carries, and under
// a load that stays the same there is an end of changes.
func TestDecideKeepsOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 65))
	for range 2000 {
		loads := make([]float64, 1+r.IntN(9)) // of each loop
		runner := make([]int, len(loads))
		for i := range runner {
			runner[i] = i
		}
		for range 4 {
			for i := range loads {
				loads[i] = r.Float64() * r.Float64()
			}
			changes := -1
			for range 20 {
				if changes == 0 {
					break
				}
				share := make([]float64, len(loads))
				for loop, load := range loads {
					share[runner[loop]] = min(1, share[runner[loop]]+load)
				}
				list := decide(runner, share)
				changes = len(list)
				for _, h := range list {
					if runner[h.Loop] != h.From || h.From == h.To {
						t.Fatalf("%v: %+v", runner, h)
					}
					runner[h.Loop] = h.To
				}
				for loop, by := range runner {
					if runner[by] != by {
						t.Fatalf("loop %d is run by %d, which is carried: %v after %+v", loop, by, runner, list)
					}
				}
			}
			if changes != 0 {
				t.Fatalf("no end of changes with %v: %v", loads, runner)
			}
		}
	}
}

// TestLoopsJoinAndPart: loops at rest end up with one goroutine, one that has
// much to do runs alone, and the sessions of a carried loop are served.
func TestLoopsJoinAndPart(t *testing.T) {
	const loops = 4
	var mu sync.Mutex
	pressing := -1 // the loop that is said to be busy
	rig, _ := loopRig(t, engine.Options{Loops: loops}, Tuning{Governor: Governor{time.Millisecond, func(runner []int, _ []float64) []Handover {
		mu.Lock()
		defer mu.Unlock()
		share := make([]float64, loops)
		if pressing >= 0 {
			share[runner[pressing]] = 1
		}
		return decide(runner, share)
	}}}, enginetest.BackendServer(t, enginetest.Echo))
	runners := func() (list []int) {
		for _, l := range rig.E.Snapshot().Loops {
			list = append(list, l.Runner)
		}
		return list
	}
	conns := make([]*enginetest.Peer, 16) // some on each loop
	for i := range conns {
		conns[i] = rig.Dial()
	}
	for _, busy := range []int{-1, 2, -1, 0, 3} {
		mu.Lock()
		pressing = busy
		mu.Unlock()
		testkit.Eventually(t, "the loops are spread as the load needs", func() bool {
			now := runners()
			others := slices.Clone(now)
			if busy >= 0 {
				others = slices.Delete(others, busy, busy+1)
				if now[busy] != busy || slices.Contains(others, busy) {
					return false
				}
			}
			slices.Sort(others)
			return len(slices.Compact(others)) == 1
		})
		for _, c := range conns {
			c.Send([]byte("hello"))
			c.Expect([]byte("hello"))
		}
	}
}

// TestAwake: a goroutine is awake while it works, and not while it waits.
func TestAwake(t *testing.T) {
	rig, _ := loopRig(t, engine.Options{Loops: 1}, Tuning{}, enginetest.BackendServer(t, enginetest.Echo))
	c := rig.Dial()
	hello := func() time.Duration {
		before := rig.E.Snapshot().Loops[0].Awake
		c.Send([]byte("hello"))
		c.Expect([]byte("hello"))
		testkit.Eventually(t, "the loop has been awake", func() bool { return rig.E.Snapshot().Loops[0].Awake > before })
		return rig.E.Snapshot().Loops[0].Awake
	}
	const wait = 300 * time.Millisecond
	before := hello()
	<-time.After(wait) // what is measured
	if awake := hello() - before; awake >= wait {
		t.Errorf("awake for %v with nothing to do for %v", awake, wait)
	}
}
