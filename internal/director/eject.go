package director

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Who is ejected, and for how long: a decision without side effects. What is seen of the
// hosts, and what follows from the decision, is in grey.go.

// greyness is what is wrong with a host that its checks find well, the worst last.
type greyness uint8

const (
	notGrey    greyness = iota
	greySlow            // it answers much later than the others
	greySilent          // it does not answer
	greyResets          // it resets its clients
)

const (
	// greyTurns is how many turnarounds a median is made of at least. Of fewer, a few slow
	// requests by chance would make a host slow.
	greyTurns = 10
	// slowest is the median that no host is slow below, however fast the others are.
	slowest = 10 * time.Millisecond
	// greyHosts is how many hosts a group has at least that ejects one.
	greyHosts = 3
	// longestEjection is how many times the first ejection the longest lasts.
	longestEjection = 10
)

// ejectRule is what a group says of grey hosts.
type ejectRule struct {
	slow   int           // how many times the group's median turnaround is slow; 0: slow hosts stay
	silent time.Duration // how long without a first answer is silent; 0: silent hosts stay
	lasts  time.Duration // the first ejection in a row
	most   int           // percentage of the hosts that may be ejected at once
	window time.Duration // what is seen within it counts
}

// watches tells whether hosts are looked at that nobody has complained of.
func (r *ejectRule) watches() bool { return (r.slow > 0 || r.silent > 0) && r.most > 0 }

// minds tells whether a host may be ejected for what is wrong with it.
func (r *ejectRule) minds(g greyness) bool {
	switch g {
	case greySlow:
		return r.slow > 0
	case greySilent:
		return r.silent > 0
	}
	return g == greyResets
}

// spares is how many of so many hosts may be ejected at once.
func (r *ejectRule) spares(hosts int) int {
	if hosts < greyHosts || r.most == 0 {
		return 0
	}
	return min(max(1, hosts*r.most/100), hosts-1)
}

// memory is how long after an ejection what has been seen of the host may be the same trouble.
func (r *ejectRule) memory() time.Duration { return r.window + r.silent }

// sighting is what has been seen of a host that is to take clients.
type sighting struct {
	up       bool // as far as checks and connects tell
	pinned   bool // it is never ejected
	asked    bool // clients have said something to it lately
	answered bool // it has said something lately
	// resets says how it has reset its clients, "" if it has not. silent is for how long
	// at least three clients have had no first answer, without an answer to anybody.
	resets string
	silent time.Duration
	turns  uint64        // turnarounds of the window
	median time.Duration // of these
	was    ejection
}

// ejection is that a host gets no new clients for a time; or, not out, what is remembered of
// the last one.
type ejection struct {
	what         greyness // notGrey: it is not ejected
	why          string
	since, until time.Time
	row          int       // how many there were in a row, this one or the last one included
	back         time.Time // when the last one was over
}

// out tells whether the host is ejected.
func (e *ejection) out() bool { return e.what != notGrey }

// over returns what is remembered of an ejection that ends.
func (e ejection) over(now time.Time) ejection {
	e.what, e.back = notGrey, now
	return e
}

// next returns the ejection of a host whose last one is was.
func (r *ejectRule) next(was ejection, what greyness, why string, now time.Time) ejection {
	row := 1
	if was.row > 0 && now.Sub(was.back) <= was.until.Sub(was.since)+r.memory() {
		row = was.row + 1
	}
	lasts := r.lasts
	for n := 1; n < row && lasts < longestEjection*r.lasts; n++ {
		lasts *= 2
	}
	lasts = min(lasts, longestEjection*r.lasts)
	return ejection{what: what, why: why, since: now, until: now.Add(lasts), row: row, back: was.back}
}

// decide returns the ejections of a group's hosts from now on, given those that were. The
// hosts are all that are to take clients.
//
//   - At most [ejectRule.spares] are out. Who would be back first comes back if these are too
//     many, for example because other hosts were removed.
//   - Who is down is not out: that it is down says more.
//   - A host is ejected only while another one is well: it is up, not grey, and answers those
//     who ask. If none is, what is wrong is no host's own fault, and all come back.
func (r *ejectRule) decide(now time.Time, hosts []sighting) []ejection {
	list := make([]ejection, len(hosts))
	var out []int
	for i := range hosts {
		h := &hosts[i]
		list[i] = h.was
		switch {
		case !h.was.out():
		case !now.Before(h.was.until), h.pinned, !h.up, !r.minds(h.was.what):
			list[i] = h.was.over(now)
		default:
			out = append(out, i)
		}
	}
	most, release := r.spares(len(hosts)), 0
	if len(out) > most {
		slices.SortStableFunc(out, func(i, j int) int { return list[i].until.Compare(list[j].until) })
		release = len(out) - most
	}
	median, some := medianOf(hosts)
	type suspect struct {
		host int
		what greyness
		why  string
		by   float64 // how bad it is, among those of its kind
	}
	var grey []suspect
	well := false
	for i := range hosts {
		h := &hosts[i]
		if !h.up || h.was.out() { // of one that comes back, what was seen is of the time before
			continue
		}
		what, why, by := r.judge(h, median, some)
		switch {
		case what != notGrey && !h.pinned:
			grey = append(grey, suspect{i, what, why, by})
		case what == notGrey && h.well(&list[i], now, r.memory()):
			well = true
		}
	}
	if !well {
		release, grey = len(out), nil
	}
	for _, i := range out[:release] {
		list[i] = list[i].over(now)
	}
	slices.SortStableFunc(grey, func(a, b suspect) int { return cmp.Or(cmp.Compare(b.what, a.what), cmp.Compare(b.by, a.by)) })
	for _, s := range grey[:min(len(grey), max(most-len(out), 0))] {
		list[s.host] = r.next(list[s.host], s.what, s.why, now)
	}
	return list
}

// well tells whether a host that is not grey shows that others are worse than it has to be.
// One that nobody asks counts, such as a backup; but not one that has just come back.
func (h *sighting) well(last *ejection, now time.Time, memory time.Duration) bool {
	if h.asked {
		return h.answered
	}
	return last.row == 0 || now.Sub(last.back) > memory
}

// judge tells what is wrong with a host, in words, and how much. median is that of its
// group, if there is one.
func (r *ejectRule) judge(h *sighting, median time.Duration, some bool) (what greyness, why string, by float64) {
	switch {
	case h.resets != "":
		return greyResets, h.resets, 0
	case r.silent > 0 && h.silent >= r.silent:
		return greySilent, fmt.Sprintf("three clients have had no first answer for %v", h.silent.Round(time.Millisecond)), h.silent.Seconds()
	case r.slow > 0 && some && h.turns >= greyTurns && h.median > slowest && h.median > time.Duration(r.slow)*median:
		return greySlow, fmt.Sprintf("its median turnaround is %v, the group's is %v", short(h.median), short(median)), float64(h.median) / float64(max(median, 1))
	}
	return notGrey, "", 0
}

// medianOf returns the group's median turnaround: that of the medians of its hosts. So a host
// with many clients does not count more than another, and more than half of the hosts have to
// be faster than one that is slow.
func medianOf(hosts []sighting) (median time.Duration, some bool) {
	var all []time.Duration
	for i := range hosts {
		if hosts[i].turns >= greyTurns {
			all = append(all, hosts[i].median)
		}
	}
	if len(all) < greyHosts {
		return 0, false
	}
	slices.Sort(all)
	return all[len(all)/2], true
}

// short is a time in two or three digits.
func short(d time.Duration) time.Duration {
	unit := time.Nanosecond
	for d >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit)
}
