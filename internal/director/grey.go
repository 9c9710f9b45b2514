package director

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

// Grey hosts: their checks pass, and their clients suffer. What is seen of hosts each second
// goes to ejectRule.decide, and what that decides is done here. An ejected host is in no
// table, so it gets no new clients; its sessions and its checks go on.

const (
	// silentClients is how many clients wait for a first answer until their host is silent.
	silentClients = 3
	// maxListened is how many sessions of silent hosts are looked at.
	maxListened = 1 << 14
	// countedWithin is how long after a turnaround it is counted, at most.
	countedWithin = 2 * time.Second
)

// Ejected says why a target gets no new clients although it is up, and until when.
type Ejected struct {
	Kind  string    `json:"kind"` // slow, silent, resets
	Why   string    `json:"why"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// greyWords are the kinds of [Ejected].
var greyWords = [...]string{greySlow: "slow", greySilent: "silent", greyResets: "resets"}

// greyOf is the inverse of greyWords.
func greyOf(word string) greyness { return greyness(max(0, slices.Index(greyWords[:], word))) }

// newEjectRule returns what a group says.
func newEjectRule(g *config.Group) ejectRule {
	return ejectRule{slow: g.Slow, silent: g.Silent, lasts: g.EjectFor, most: g.MaxEjected, window: g.FailWindow}
}

// grey is what has been seen of a target. It belongs to the director's goroutine.
type grey struct {
	ejection

	resets      string    // what the engine has said, "" if nothing
	suspectedAt time.Time // when it did
	silent      time.Duration

	looked                 time.Time // last; zero: never
	asked, answered        time.Time // when it was last seen that it has been
	picks, turns, in, said uint64    // then
	turned                 time.Time // when turns was last seen to change
	turnedPicks, turnedIn  uint64    // what picks and in were at the look before
	window                 *turnWindow
}

// turnWindow has what a host had counted at the last two turns of a half of the window: the
// median is of what came since the older one. The halves are those of the clock, so that all
// hosts are judged by the same time: when all become slow, none is the first.
type turnWindow struct {
	older, newer sched.Turns
	half         int64 // the number of the half that newer is of
	halves       int   // that newer was of so far; from 3 on, older is of the beginning of one
}

// since returns what was counted within half a window at least and a whole one at most. It
// is nothing until then.
func (w *turnWindow) since(turns sched.Turns, window time.Duration, now time.Time) sched.Turns {
	if half := now.UnixNano() / int64(max(window/2, weighEvery)); half != w.half {
		w.older, w.newer, w.half = w.newer, turns, half
		w.halves = min(w.halves+1, 3)
	}
	if w.halves < 3 {
		return sched.Turns{}
	}
	return turns.Sub(w.older)
}

// forget drops what was seen, as the host may have changed.
func (g *grey) forget() { *g = grey{ejection: g.ejection} }

// look sees what a host has done since the last look.
func (g *grey) look(h *sched.Host, now time.Time) sched.HostStats {
	s := h.Stats()
	first := now.Sub(g.looked) > 3*scanEvery
	if !first && s.In != g.in { // who connects and says nothing, as a check of others does, waits for nothing
		g.asked = now
	}
	if !first && (s.Turns != g.turns || s.Out != g.said) {
		g.answered = now
	}
	if first {
		g.picks, g.in = s.Picks, s.In
	}
	late := now.Sub(g.looked) > scanEvery*3/2 // this process may have stood still, and answers wait in the kernel
	if first || late || s.Turns != g.turns {  // since the last look: who came since then may have no answer
		g.turned, g.turnedPicks, g.turnedIn, g.silent = now, g.picks, g.in, 0
		if (first || s.Turns != g.turns) && now.Sub(g.suspectedAt) > countedWithin {
			g.resets = ""
		}
	}
	g.looked, g.picks, g.turns, g.in, g.said = now, s.Picks, s.Turns, s.In, s.Out
	return s
}

// quiet tells whether a host may be silent: since its last turnaround clients have come and
// have said something, and it was some time ago.
func (g *grey) quiet(s sched.HostStats, silent time.Duration, now time.Time) bool {
	return silent > 0 && now.Sub(g.turned) >= silent && s.Active >= silentClients &&
		int64(s.Picks-g.turnedPicks) >= silentClients && s.In != g.turnedIn
}

// sight returns what has been seen of a target lately.
func (t *Target) sight(r *ejectRule, pinned bool, now time.Time) sighting {
	g := &t.grey
	lately := func(at time.Time) bool { return !at.IsZero() && now.Sub(at) <= r.memory() }
	if now.Sub(g.suspectedAt) > r.memory() {
		g.resets = ""
	}
	s := sighting{
		up: t.Host.Up(), pinned: pinned, asked: lately(g.asked), answered: lately(g.answered),
		resets: g.resets, silent: g.silent, was: g.ejection,
	}
	if r.slow == 0 {
		g.window = nil
		return s
	}
	turns := t.Host.Turns()
	if g.window == nil {
		g.window = new(turnWindow)
	}
	lasted := g.window.since(turns, r.window, now)
	s.turns, s.median = lasted.Count, lasted.Median()
	return s
}

// weighEvery is the least time between two looks at hosts nobody has complained of.
const weighEvery = scanEvery

// weigh looks at all hosts and decides who is ejected.
func (d *Director) weigh(now time.Time) {
	quiet := map[*sched.Host]time.Time{}
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			d.weighGroup(g, now, quiet)
		}
	}
	if len(quiet) > 0 && !d.listening && now.Sub(d.listened) >= weighEvery {
		d.listening, d.listened = true, now
		go d.listen(quiet)
	}
}

// weighGroup is weigh for one group. It adds hosts that may be silent to quiet, with the time
// since when their sessions count.
func (d *Director) weighGroup(g *Group, now time.Time, quiet map[*sched.Host]time.Time) {
	r := &g.rule.eject
	if !r.watches() && !g.concerns() {
		return
	}
	var targets []*Target
	var seen []sighting
	for _, h := range g.Hosts {
		serves := h.Config.State == "ready" && h.Config.Weight > 0
		for _, t := range h.Targets {
			if !serves {
				if t.grey.ejection.out() {
					d.readmit(t, t.grey.over(now))
				}
				continue
			}
			s := t.grey.look(t.Host, now)
			if t.Host.Up() && !t.grey.ejection.out() && t.grey.quiet(s, r.silent, now) {
				quiet[t.Host] = t.grey.back
			}
			targets = append(targets, t)
			seen = append(seen, t.sight(r, h.Config.NeverEject, now))
		}
	}
	for i, e := range r.decide(now, seen) {
		switch t := targets[i]; {
		case !seen[i].was.out() && e.out():
			d.eject(t, e)
		case seen[i].was.out() && !e.out():
			d.readmit(t, e)
		}
	}
}

// concerns tells whether a host of the group is ejected, or suspect.
func (g *Group) concerns() bool {
	for _, h := range g.Hosts {
		for _, t := range h.Targets {
			if t.grey.ejection.out() || t.grey.resets != "" {
				return true
			}
		}
	}
	return false
}

// spares tells whether the group has a host that is up and not ejected. Until the next
// decision the ejected ones take clients if there is none.
func (g *Group) spares() bool {
	for t := range g.serving() {
		if t.Host.Up() && !t.grey.ejection.out() {
			return true
		}
	}
	return false
}

// listen is the goroutine that asks the engine for how long three clients of each host have
// waited for a first answer at least.
func (d *Director) listen(quiet map[*sched.Host]time.Time) {
	waits := map[*sched.Host]map[netip.Prefix]time.Duration{}
	for _, s := range d.eng.Sessions(maxListened, func(_ string, h *sched.Host) bool { _, is := quiet[h]; return is }) {
		if s.Answered || s.Waiting <= 0 || s.Started.Before(quiet[s.Host]) {
			continue
		}
		client, ok := sched.ClientNetwork(s.Client.Addr())
		if !ok {
			continue
		}
		if waits[s.Host] == nil {
			waits[s.Host] = map[netip.Prefix]time.Duration{}
		}
		waits[s.Host][client] = max(waits[s.Host][client], s.Waiting)
	}
	heard := map[*sched.Host]time.Duration{}
	for h, all := range waits {
		if longest := slices.Sorted(maps.Values(all)); len(longest) >= silentClients {
			heard[h] = longest[len(longest)-silentClients]
		}
	}
	d.heard <- heard // has room for the one that runs
}

// hearSilence takes in what listen has found.
func (d *Director) hearSilence(heard map[*sched.Host]time.Duration) {
	d.listening = false
	for h, wait := range heard {
		if t := d.byHost[h]; t != nil {
			t.grey.silent = wait
			d.reweigh = true
		}
	}
}

// awaitSilence waits for the listen that is under way.
func (d *Director) awaitSilence() {
	if d.listening {
		d.hearSilence(<-d.heard)
	}
}

// suspectEvery is the least time between two decisions about the same suspect host. If it may
// not be ejected, reports of it continue.
const suspectEvery = time.Second

// suspect notes that a host has reset its clients.
func (d *Director) suspect(t *Target, why string) {
	now := time.Now()
	if !t.Host.Up() || now.Sub(t.grey.suspectedAt) < suspectEvery || t.grey.ejection.out() {
		return
	}
	t.grey.resets, t.grey.suspectedAt = why, now
	d.reweigh = true
}

// eject keeps new clients from a target.
func (d *Director) eject(t *Target, e ejection) {
	t.grey.ejection = e
	t.showEjection()
	d.changed(t.key.service)
	d.touched[t.key.service] = true
	until := e.until.Format("15:04:05")
	d.noteTarget("host ejected", t, Notice{Kind: HostEjected, Reason: e.why}, e.why+"; until "+until)
	d.log.Warn("host ejected", "service", t.key.service, "group", t.key.group, "host", t.key.host,
		"addr", t.key.addr.String(), "reason", e.why, "for", e.until.Sub(e.since).String(), "in_a_row", e.row)
}

// readmit gives a target new clients again. e is what is remembered.
func (d *Director) readmit(t *Target, e ejection) {
	t.grey.ejection = e
	t.grey.forget()
	t.showEjection()
	t.Host.Refresh()
	d.startRamp(t, e.back)
	d.changed(t.key.service)
	d.touched[t.key.service] = true
	after := e.back.Sub(e.since).Round(time.Millisecond).String()
	d.noteTarget("host readmitted", t, Notice{Kind: HostReadmitted}, "after "+after)
	d.log.Info("host readmitted", "service", t.key.service, "group", t.key.group, "host", t.key.host,
		"addr", t.key.addr.String(), "ejected_for", after)
}

// endEjection forgets what was seen of a target that goes down or comes up. If it was ejected,
// that is over.
func (t *Target) endEjection(now time.Time) {
	if t.grey.ejection.out() {
		t.grey.ejection = t.grey.over(now)
	}
	t.grey.forget()
	t.showEjection()
}

// showEjection publishes whether the target is ejected.
func (t *Target) showEjection() {
	var shown *Ejected
	if e := &t.grey.ejection; e.out() {
		shown = &Ejected{Kind: greyWords[e.what], Why: e.why, Since: e.since, Until: e.until}
	}
	if shown != nil || t.Status().Ejected != nil {
		t.restate(func(s *Status) { s.Ejected = shown })
	}
}

// exportedEjection is the last ejection of a target.
type exportedEjection struct {
	Kind  string    `json:"kind,omitempty"` // "": it is over
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Row   int       `json:"row"`
	Back  time.Time `json:"back,omitzero"`
}

func (e *ejection) export() *exportedEjection {
	if e.row == 0 {
		return nil
	}
	return &exportedEjection{greyWords[e.what], e.why, e.since.Round(0), e.until.Round(0), e.row, e.back.Round(0)}
}

// ejection returns what was exported; the zero one of nil. Times ahead of the clock, which may
// have been set back, shorten it.
func (e *exportedEjection) ejection(now time.Time) (is ejection) {
	if e == nil {
		return is
	}
	is = ejection{what: greyOf(e.Kind), why: e.Why, since: earlier(e.Since, now), row: max(e.Row, 1), back: earlier(e.Back, now)}
	is.until = is.since.Add(max(0, e.Until.Sub(e.Since)))
	return is
}

// restoreEjection gives a target what another process has decided, if that is newer than what
// is known here.
func (t *Target) restoreEjection(e *exportedEjection, now time.Time) (changed bool) {
	theirs, ours := e.ejection(now), t.grey.ejection
	latest := func(e ejection) time.Time {
		if e.back.After(e.since) {
			return e.back
		}
		return e.since
	}
	if !latest(theirs).After(latest(ours)) {
		return false
	}
	t.grey.ejection = theirs
	t.showEjection()
	return theirs.out() != ours.out()
}
