//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// forecast says how long visits take: it learns from those that are made.
type forecast struct {
	opt             options
	once            time.Duration // a visit to each comparison
	guessed, needed time.Duration
}

func newForecast(o options, all []comparison) *forecast {
	f := &forecast{opt: o}
	r := rig{options: o}
	for _, c := range all {
		f.once += f.guess(c, len(r.contestants(c.workload)))
	}
	f.once = f.once.Round(time.Second)
	return f
}

// guess returns how long a visit should take.
func (f *forecast) guess(c comparison, peers int) time.Duration {
	const start, around = 400 * time.Millisecond, 150 * time.Millisecond // of a peer, of a slice
	return time.Duration(peers) * (start + time.Duration(f.opt.roundsOf(c.workload))*(f.opt.lengthOf(c.workload)+max(around, c.around)))
}

// takes returns how long a visit will take, if it is as slow as those before.
func (f *forecast) takes(c comparison, peers int) time.Duration {
	g := f.guess(c, peers)
	if f.guessed > 0 {
		g = time.Duration(float64(g) * float64(f.needed) / float64(f.guessed))
	}
	return g
}

func (f *forecast) visited(c comparison, peers int, took time.Duration) {
	f.guessed += f.guess(c, peers)
	f.needed += took
}

// progressLine says in one line what is known of a comparison.
func progressLine(res *results, c comparison) string {
	var b strings.Builder
	b.WriteString(c.label() + ":")
	for _, j := range res.verdicts(c) {
		fmt.Fprintf(&b, " %s", j.figure.name)
		if j.against != "" {
			b.WriteString("/" + j.against)
		}
		fmt.Fprintf(&b, " %s %s;", j.got, j.verdict)
	}
	if share := res.others(c); share >= disturbing {
		fmt.Fprintf(&b, " other programs took %.0f %% of the machine", 100*share)
	}
	return strings.TrimRight(b.String(), ":;")
}

// others returns the share of the machine that other programs took in the slices of
// a comparison.
func (rec *record) others(c comparison) float64 {
	var shares []float64
	for _, s := range rec.samples {
		if s.setting == c.setting {
			shares = append(shares, s.others)
		}
	}
	return median(shares)
}

// disturbing is from what share of the machine on others are mentioned.
const disturbing = 0.05
