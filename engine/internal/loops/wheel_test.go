//go:build linux

package loops

import (
	"math/rand/v2"
	"testing"
)

// Every timer fires once, never early and at most one tick late, whatever the
// order of setting, moving and stopping.
func TestWheelFiresOnTime(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var w wheel
		now := rng.Int64N(1 << 50)
		w.tick = now >> tickShift
		fired := map[*timer]int64{}
		w.fire = func(tm *timer, at int64) {
			if tm.when > at {
				t.Fatalf("seed %d: timer for %d fired early, at %d", seed, tm.when, at)
			}
			fired[tm] = at
		}
		live := map[*timer]bool{}
		for range 300 {
			switch rng.IntN(4) {
			case 0, 1:
				tm := &timer{}
				w.set(tm, now+rng.Int64N(1<<(20+rng.IntN(30))))
				live[tm] = true
			case 2:
				for tm := range live {
					if rng.IntN(2) == 0 {
						w.set(tm, now+rng.Int64N(1<<42))
					} else {
						w.stop(tm)
						delete(live, tm)
					}
					break
				}
			case 3:
				// Step as the loop does: never past the time the wheel asks for
				// by more than a little.
				if due, ok := w.next(); ok {
					now = max(now, due)
				}
				w.run(now)
				for tm := range live {
					at, ok := fired[tm]
					if ok && at-tm.when > tickSize {
						t.Fatalf("seed %d: timer for %d fired late, at %d", seed, tm.when, at)
					}
					if !ok && tm.when+tickSize < now {
						t.Fatalf("seed %d: at %d the timer for %d has not fired", seed, now, tm.when)
					}
					if ok {
						delete(live, tm)
						delete(fired, tm)
					}
				}
			}
			if w.count != len(live) {
				t.Fatalf("seed %d: wheel holds %d timers, want %d", seed, w.count, len(live))
			}
		}
		for len(live) > 0 {
			due, ok := w.next()
			if !ok {
				t.Fatalf("seed %d: %d timers are lost", seed, len(live))
			}
			w.run(due)
			for tm := range fired {
				delete(live, tm)
			}
		}
		if _, ok := w.next(); ok || w.count != 0 {
			t.Fatalf("seed %d: the wheel is not empty at the end", seed)
		}
	}
}

func BenchmarkWheelSetStop(b *testing.B) {
	var w wheel
	var tm timer
	b.ReportAllocs()
	for i := range int64(b.N) {
		w.set(&tm, i+5e9)
		w.stop(&tm)
	}
}
