//go:build linux

package loops

import (
	"cmp"
	"slices"
	"time"
)

// Governor is how loops are spread over goroutines. The tests have their own.
type Governor struct {
	Every  time.Duration
	Decide func(runner []int, share []float64) []Handover
}

// Handover gives a loop, which the goroutine of loop from runs, to the
// goroutine of loop to.
type Handover struct{ Loop, From, To int }

// govern moves loops between goroutines until Close, so that as few are at
// work as the load needs.
func (e *Engine) govern() {
	defer close(e.governed)
	if len(e.loops) == 1 {
		return // there is nothing to move
	}
	tick := time.NewTicker(e.tuning.Governor.Every)
	defer tick.Stop()
	runner := make([]int, len(e.loops)) // whose goroutine runs a loop
	for i := range runner {
		runner[i] = i
	}
	awake := make([]int64, len(e.loops)) // ns, when last looked at
	share := make([]float64, len(e.loops))
	for last := e.clock(); ; {
		select {
		case <-e.closing:
			return
		case <-tick.C:
		}
		now := e.clock()
		for i, l := range e.loops {
			total := l.count.awake.Load()
			share[i] = float64(total-awake[i]) / float64(now-last)
			awake[i] = total
		}
		last = now
		for _, h := range e.tuning.Governor.Decide(runner, share) {
			if !e.move(h) {
				h.To = h.Loop
			}
			runner[h.Loop] = h.To
			e.loops[h.Loop].count.runner.Store(int32(h.To))
		}
	}
}

// decide says what is to change. runner tells whose goroutine runs each loop,
// share for how much of the time that goroutine was awake.
func decide(runner []int, share []float64) (changes []Handover) {
	carried := make([][]int, len(runner))
	var atWork []int // goroutines that run their own loop
	for loop, r := range runner {
		if r == loop {
			atWork = append(atWork, loop)
		} else {
			carried[r] = append(carried[r], loop)
		}
	}
	for _, r := range atWork {
		if share[r] > pressed {
			for _, loop := range carried[r][:(len(carried[r])+1)/2] {
				changes = append(changes, Handover{loop, r, loop})
			}
		}
	}
	if len(changes) > 0 {
		return changes
	}
	slices.SortStableFunc(atWork, func(a, b int) int { return cmp.Compare(share[a], share[b]) })
	to, sum := atWork[0], share[atWork[0]]
	for _, r := range atWork[1:] {
		if sum += share[r]; sum > calm {
			break
		}
		for _, loop := range append(carried[r], r) {
			changes = append(changes, Handover{loop, r, to})
		}
	}
	return changes
}

// move makes a handover. It returns when it is made, and false if the loop had
// to go home instead. No loop may quit meanwhile.
func (e *Engine) move(h Handover) bool {
	l, from, to := e.loops[h.Loop], e.loops[h.From], e.loops[h.To]
	done := make(chan bool, 1)
	arrive := func() {
		if to == l {
			l.carrier.home <- struct{}{}
			done <- true
			return
		}
		to.inbox.submit(func() {
			ok := to.carrier.adopt(l)
			if !ok {
				l.carrier.home <- struct{}{}
			}
			done <- ok
		})
	}
	from.inbox.submit(func() {
		if from == l {
			l.carrier.leaving = arrive // between two turns
			return
		}
		from.carrier.drop(l)
		arrive()
	})
	return <-done
}
