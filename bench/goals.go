//go:build linux

package main

import "fmt"

// goal is a bound that txlb, as it starts by itself, has to keep to with as many
// threads as the peer that it is held against.
type goal struct {
	work    string // a group of workloads or the name of one
	figure  string
	against string // installed or tuned peers, every one, the name of one; "" for the figure itself
	bound   float64
}

// What goals hold txlb against, beside names of peers.
const (
	asInstalled = "as installed"
	asTuned     = "tuned"
	every       = "each"
)

// goals returns them. Figures of which more is better have to reach their bound,
// the others may not exceed it.
func goals() []goal {
	return []goal{
		{string(flows), cpu, asInstalled, 0.70},
		{string(flows), cpu, asTuned, 0.80},
		{string(flows), rate, every, 1.05},
		{string(bulks), cpu, asInstalled, 0.70},
		{string(bulks), cpu, spliced, 0.45},
		{string(bulks), rate, every, 1.05},
		{string(files), cpu, asInstalled, 0.70},
		{string(files), cpu, spliced, 0.75},
		{string(files), rate, every, 1.05},
		{string(rates), cpu, every, 1.00},
		{string(rates), added99, every, 1.00},
		{"short18k", segs, plain, 0.88},
		{"mixed", p99, asInstalled, 1.00},
		{"stalled", added99, asInstalled, 1.00},
		{"idle", grown, "", 0.40},
		{string(attacked), attackFigure, "", 2},
		// TLS has no goals: who is ahead is said.
		{string(tlsShakes), cpu, every, 1.00},
		{string(tlsShakes), rate, every, 1.00},
		{string(tlsShakes), p99, every, 1.00},
		{string(tlsFlows), cpu, every, 1.00},
		{string(tlsFlows), rate, every, 1.00},
		{string(tlsFlows), p99, every, 1.00},
		{string(tlsBulks), cpu, every, 1.00},
		{string(tlsBulks), rate, every, 1.00},
		{string(tlsHeld), grown, every, 1.00},
	}
}

// String says what has to be true.
func (g goal) String() string {
	for _, w := range workloads() {
		for _, f := range w.figures {
			if f.name == g.figure && g.holds(w) {
				sign := "≤"
				if f.more {
					sign = "≥"
				}
				s := fmt.Sprintf("%s: %s %s %.2f", g.work, f.name, sign, g.bound)
				if g.against != "" {
					s += " of " + g.against
				}
				return s
			}
		}
	}
	return g.work
}

// holds reports whether a goal is about a workload, and holdsAgainst about a peer.
func (g goal) holds(w workload) bool {
	return g.work == w.name || g.work == string(w.group)
}

func (g goal) holdsAgainst(p peer) bool {
	switch g.against {
	case asInstalled:
		return p.role == installed
	case asTuned:
		return p.role == tuned
	case every:
		return p.rival()
	}
	return p.name == g.against
}

// judged is what has become of a goal in one comparison with one peer.
type judged struct {
	goal
	setting
	figure  figure
	against string // the peer; "" for none
	got     interval
	verdict verdict
	floor   interval // of the best bare relay against that peer, where the goal is not reached
}

// outOfReach returns what the best bare relay has where txlb has not reached a goal, and tells
// whether every relay that was measured misses that goal too. A relay that is no better than txlb
// itself shows nothing.
func (rec *record) outOfReach(j judged, c comparison) (interval, bool) {
	best := nothing()
	if j.verdict == ahead || j.against == "" {
		return best, false
	}
	missed := true
	for _, p := range peers() {
		if p.role != bare || !rec.has(c, p.name) {
			continue
		}
		in := rec.ratio(c, j.figure, p.name, j.against)
		missed = missed && in.n > 0 && in.against(j.bound, j.figure.more) == behind
		if in.n > 0 && (best.n == 0 || better(in.middle, best.middle, j.figure.more)) {
			best = in
		}
	}
	return best, missed && best.n > 0 && better(best.middle, j.got.middle, j.figure.more)
}

// says is the verdict in words.
func (j judged) says() string {
	if j.verdict == outOfReach {
		return fmt.Sprintf("%s: the bare relay has %s", j.verdict, j.floor)
	}
	return string(j.verdict)
}

func better(a, b float64, more bool) bool { return more && a > b || !more && a < b }

// verdicts judges the goals of a comparison by all slices that there are.
func (rec *record) verdicts(c comparison) []judged {
	var all []judged
	for _, g := range goals() {
		if !g.holds(c.workload) {
			continue
		}
		for _, f := range c.figures {
			if f.name != g.figure {
				continue
			}
			judge := func(against string, got interval) {
				j := judged{goal: g, setting: c.setting, figure: f, against: against, got: got, verdict: got.against(g.bound, f.more)}
				floor, out := rec.outOfReach(j, c)
				if j.floor = floor; out {
					j.verdict = outOfReach
				}
				all = append(all, j)
			}
			if g.against == "" {
				judge("", rec.interval(c, f, ours))
				continue
			}
			for _, p := range peers() {
				if g.holdsAgainst(p) && rec.has(c, p.name) {
					judge(p.name, rec.ratio(c, f, ours, p.name))
				}
			}
		}
	}
	return all
}
