package etcd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// operation is a change of the weight, or a read of the store.
type operation struct {
	write  bool
	weight int
}

// outcome is what became of it.
type outcome struct {
	generation uint64
	weight     int
	failed     bool // it had no effect
	unknown    bool // it may have one, now or later
}

// register is the configuration as users see it: each change that is accepted has the next
// generation.
type register struct {
	generation uint64
	weight     int
}

// linear is the model that a history has to follow.
var linear = porcupine.NondeterministicModel{
	Init: func() []any { return []any{register{1, 1}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(register), input.(operation), output.(outcome)
		switch next := (register{s.generation + 1, in.weight}); {
		case out.unknown:
			return []any{s, next}
		case in.write && out.generation == next.generation:
			return []any{next}
		case !in.write && s == register{out.generation, out.weight}:
			return []any{s}
		}
		return nil
	},
}

// history collects operations. Times are those of one clock.
type history struct {
	mu    sync.Mutex
	began time.Time
	list  []porcupine.Operation
}

func (h *history) do(client int, in operation, f func() outcome) {
	call := time.Since(h.began)
	out := f()
	end := time.Since(h.began)
	if out.failed { // which says nothing
		return
	}
	if out.unknown {
		end = 1 << 62
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(end)})
}

var stored = regexp.MustCompile(`(?s)generation="(\d+)" id=.*<host [^>]*weight="(\d+)"`)

// read is a read of the store.
func read(ctx context.Context, s fleet.Store) outcome {
	entries, _, err := s.Get(ctx, "/txlb/edge/config")
	if err != nil || len(entries) != 1 {
		return outcome{failed: true}
	}
	m := stored.FindStringSubmatch(string(entries[0].Value))
	g, _ := strconv.ParseUint(m[1], 10, 64)
	w, _ := strconv.Atoi(m[2])
	return outcome{generation: g, weight: w}
}

// leader returns the member that leads, and the others.
func leader(t *testing.T, members []*servers.Server, urls []string) (first *servers.Server, others []*servers.Server) {
	t.Helper()
	client := open(t, config.Fleet{Store: urls}).(*store).client
	testkit.Eventually(t, "the etcd has a leader", func() bool {
		first, others = nil, nil
		for i, m := range members {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			is, err := client.Status(ctx, urls[i])
			cancel()
			if err == nil && is.Leader == is.Header.MemberId {
				first = m
			} else {
				others = append(others, m)
			}
		}
		return first != nil
	})
	return first, others
}

// Changes by three nodes at the same time, on a real etcd, while the member that leads stands
// still for a while, and while the next leader dies: each that was accepted was made to its
// predecessor, in an order that agrees with the clock, and all nodes end with the same.
func TestB87ChangesAreLinearizable(t *testing.T) {
	testkit.Long(t)
	each := int64(20) // accepted changes of each node
	if *whole {
		each = 334
	}
	members, urls := cluster(t, 3)
	var all []*member
	for i := range 3 {
		all = append(all, join(t, fmt.Sprint("n", i), urls))
	}
	joined(t, all...)
	h := &history{began: time.Now()}
	var changing sync.WaitGroup
	done := make(chan struct{})
	var accepted atomic.Int64
	for i, m := range all {
		changing.Go(func() {
			had := int64(0)
			for n := 0; had < each && time.Since(h.began) < 8*testkit.Patience; n++ {
				weight := 2 + i*20_000 + n%20_000
				h.do(i, operation{true, weight}, func() outcome {
					g, err := m.weigh(weight)
					switch {
					case err == nil:
						had++
						accepted.Add(1)
						return outcome{generation: g, weight: weight}
					case errors.As(err, new(*fleet.UnknownError)):
						return outcome{unknown: true}
					}
					return outcome{failed: true}
				})
				time.Sleep(time.Millisecond) // not to ask without a pause while there is no leader
			}
		})
	}
	var reading sync.WaitGroup
	for i := range urls {
		s := open(t, config.Fleet{Store: urls[i : i+1]})
		reading.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					h.do(len(all)+i, operation{}, func() outcome { return read(ctx, s) })
					cancel()
					time.Sleep(20 * time.Millisecond) // as often as is enough
				}
			}
		})
	}
	after := func(n int64) {
		for next := accepted.Load() + 1; next <= n; next++ { // patience is for each
			testkit.Eventually(t, fmt.Sprint(next, " changes are accepted"), func() bool { return accepted.Load() >= next })
		}
	}
	after(each)
	first, others := leader(t, members, urls)
	if err := first.Freeze(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "another member leads", func() bool { return healthy(others[0].Addr) == nil })
	had := accepted.Load()
	after(min(had+each/2, 2*each))
	if err := first.Thaw(); err != nil {
		t.Fatal(err)
	}
	after(2 * each)
	second, _ := leader(t, members, urls)
	second.Kill()
	changing.Wait()
	close(done)
	reading.Wait()
	took := time.Since(h.began)
	revive(t, second)
	joined(t, all...)
	if accepted.Load() != 3*each {
		t.Errorf("only %d of %d changes were accepted", accepted.Load(), 3*each)
	}
	unknown, reads := 0, 0
	for _, o := range h.list {
		switch {
		case o.Output.(outcome).unknown:
			unknown++
		case !o.Input.(operation).write:
			reads++
		}
	}
	began := time.Now()
	verdict := porcupine.CheckOperationsTimeout(linear.ToModel(), h.list, testkit.Patience)
	t.Logf("%d changes accepted in %v, %d without an answer, %d reads, generation %d; checked in %v",
		accepted.Load(), took.Round(time.Millisecond), unknown, reads, all[0].dir.State().Generation, time.Since(began).Round(time.Millisecond))
	if verdict != porcupine.Ok {
		t.Errorf("the history is %s, not linearizable", verdict)
	}
}
