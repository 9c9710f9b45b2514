//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// forecast says how far a run is.
type forecast struct {
	total, made int
	expected    time.Duration // of all measurements
	spent       time.Duration // what those that are made should have taken
	opt         options
	began       time.Time
}

func newForecast(o options) *forecast {
	f := &forecast{opt: o, began: time.Now()}
	for _, w := range o.workloads {
		for _, p := range o.peers {
			if !o.skips(w, p) {
				n := o.roundsOf(w)
				f.total += n
				f.expected += time.Duration(n)*f.one(w) + f.calls(w)
			}
		}
	}
	return f
}

// one returns how long a measurement should take, everything included.
func (f *forecast) one(w workload) time.Duration {
	const around = 750 * time.Millisecond // start, warm-up, end
	return f.opt.lengthOf(w) + around
}

// calls returns how long counting system calls takes, once for each peer.
func (f *forecast) calls(w workload) time.Duration {
	if !f.opt.counts(w) {
		return 0
	}
	return w.brief + ramp/2
}

// whole is the time that everything should take.
func (f *forecast) whole() time.Duration { return f.expected.Round(time.Second) }

// done counts a measurement.
func (f *forecast) done(w workload) {
	f.made++
	// The counting, spread evenly over the rounds.
	f.spent += f.one(w) + f.calls(w)/time.Duration(f.opt.roundsOf(w))
}

// String says how many measurements are made and how long the rest takes, if
// it is as slow as they were.
func (f *forecast) String() string {
	left := f.expected - f.spent
	if f.spent > 0 {
		left = time.Duration(float64(left) * float64(time.Since(f.began)) / float64(f.spent))
	}
	return fmt.Sprintf("[%d/%d, %v left]", f.made, f.total, max(0, left).Round(time.Second))
}

// progressLine says in one line what a measurement gave.
func progressLine(w workload, p peer, s sample, rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d/%d %-13s %-14s", s.round+1, rounds, w.name, p.name)
	for _, f := range w.figures {
		if f.compared && !(f.proxy && p.argv == nil) {
			fmt.Fprintf(&b, " %s %s", f.name, short(f.of(s)))
		}
	}
	if share := s.elsewhere(); share >= disturbing {
		fmt.Fprintf(&b, ", other programs took %.0f %% of the machine", 100*share)
	}
	if s.failed > 0 {
		fmt.Fprintf(&b, ", FAILED: %d", s.failed)
	}
	return b.String()
}

// disturbing is from what share of the machine on others are mentioned while
// the bench runs.
const disturbing = 0.05
