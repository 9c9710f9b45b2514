package sched

// Tried is what one session knows of the hosts that it has tried. The zero value
// is empty. It belongs to one goroutine and must not be copied while in use.
type Tried struct {
	few        [first]*Host
	n          int32
	resorts    int32          // how many of these were down when they were picked
	lastResort bool           // the last one was down when it was picked
	fell       uint8          // bit i: few[i] has gone down since it was picked
	more       map[*Host]bool // beyond the first four, and whether they have gone down since; the only thing here that allocates
	last       *Host          // of these
	walk       walk
	client     uint64 // hash of its address, of use to a consistent scheduler alone; 0: none
	hold       hold   // on what a Sticky knows of the client
}

// first is how many hosts of a session the scheduler chooses.
const first = 4

// walk is a session's walk through the hosts of a table after its first four picks.
// It looks at each host once per stage, so that all picks of a session together
// look at each host a few times at most.
type walk struct {
	table *Table
	stage stage
	at    int  // index of the next host of the stage
	left  int  // how many hosts of the stage are left
	full  bool // it has passed a host that is full
}

// stage is the index of a tier, whose hosts that are up are looked at, or one of two
// that come after all tiers.
type stage uint8

const (
	anyHost stage = maxTiers + iota
	walked
)

// Has tells whether h is in the set.
func (t *Tried) Has(h *Host) bool {
	if t.n == 0 {
		return false
	}
	for _, other := range t.few[:min(t.n, first)] {
		if other == h {
			return true
		}
	}
	if t.n <= first {
		return false
	}
	_, has := t.more[h]
	return has
}

// Len returns the number of hosts in the set.
func (t *Tried) Len() int { return int(t.n) }

// LastResorts returns how many of the hosts were down when they were picked.
func (t *Tried) LastResorts() int { return int(t.resorts) }

// Fell notes that the host that was added last has gone down since it was picked. If it is up again,
// it has come back, and that the session has failed on it says nothing any more: a session
// whose group waits for a host (Policy.Await) waits for it rather than having none left.
func (t *Tried) Fell() {
	switch {
	case t.n == 0: // another process has picked it
	case t.n <= first:
		t.fell |= 1 << (t.n - 1)
	default:
		t.more[t.last] = true
	}
}

// stands tells whether h is up, and the session has not tried it before it came back.
func (t *Tried) stands(h *Host) bool {
	if !h.Up() {
		return false
	}
	for i, other := range t.few[:min(t.n, first)] {
		if other == h {
			return t.fell&(1<<i) == 0
		}
	}
	return !t.more[h]
}

// Forget removes the host that was added last: it was picked, but not asked.
// There must be a Pick before each Forget.
func (t *Tried) Forget() {
	t.n--
	if t.lastResort {
		t.resorts--
	}
	if t.n < first {
		t.few[t.n] = nil
		t.fell &^= 1 << t.n
	} else {
		delete(t.more, t.last)
		t.walk.at-- // look at it again
		t.walk.left++
	}
}

// Reset empties the set and keeps no host or table alive. A hold on the client of a
// Sticky ends, unless [Tried.Keep] has taken it over.
func (t *Tried) Reset() {
	if t.hold.in != nil {
		t.hold.Leave()
	}
	if t.n > first || t.walk.table != nil {
		*t = Tried{}
		return
	}
	for i := range t.n {
		t.few[i] = nil
	}
	t.n, t.resorts, t.lastResort, t.fell = 0, 0, false, 0
}

func (t *Tried) add(h *Host, v Verdict) (*Host, Verdict) {
	if t.n < first {
		t.few[t.n] = h
	} else {
		if t.more == nil {
			t.more = make(map[*Host]bool)
		}
		t.more[h] = false
		t.last = h
	}
	t.n++
	t.lastResort = v == LastResort
	if t.lastResort {
		t.resorts++
	}
	return h, v
}

// goOn continues the walk of a session through the table. With a new table the walk
// starts again; hosts that were tried stay tried.
func (t *Table) goOn(tried *Tried) (*Host, Verdict) {
	w := &tried.walk
	if w.table != t {
		*w = walk{table: t}
		w.enterRank(0, t, tried)
	}
	for w.stage != walked {
		hosts := t.hosts
		if w.stage < anyHost {
			hosts = t.ranks[w.stage].hosts
		}
		for w.left > 0 {
			if w.at >= len(hosts) {
				w.at = 0
			}
			h := hosts[w.at]
			w.at++
			w.left--
			up := h.Up()
			if tried.Has(h) || !up && w.stage != anyHost {
				continue
			}
			n, _ := t.turn(tried, 1)
			if !h.claim(n) {
				w.full = true
				continue
			}
			if up {
				return tried.add(h, Picked)
			}
			return tried.add(h, LastResort)
		}
		switch {
		case w.stage < anyHost:
			w.enterRank(w.stage+1, t, tried)
		default:
			w.stage = walked
		}
	}
	switch {
	case w.full:
		w.table = nil // it has passed hosts that it will want
		return nil, Full
	case t.await && !t.anyStands(tried):
		w.table = nil // likewise
		return nil, Held
	}
	return nil, None
}

// enterRank starts the walk through a rank, or what comes after the last one.
func (w *walk) enterRank(i stage, t *Table, tried *Tried) {
	switch {
	case int(i) < len(t.ranks) && t.ranks[i].backup && w.full:
		w.stage = walked
	case int(i) < len(t.ranks):
		w.enter(i, len(t.ranks[i].hosts), t, tried)
	case t.refuse || t.await || w.full || t.anyUp(tried):
		w.stage = walked
	default:
		w.enter(anyHost, len(t.hosts), t, tried)
	}
}

// enter starts a stage of n hosts, each time at another host, or where the client says.
func (w *walk) enter(s stage, n int, t *Table, tried *Tried) {
	w.stage, w.at, w.left = s, 0, n
	if n > 0 {
		_, at := t.turn(tried, uint64(n))
		w.at = int(at)
	}
}

// anyStands tells whether a host is up that has failed the session as it is now.
func (t *Table) anyStands(tried *Tried) bool {
	for _, h := range t.hosts {
		if tried.Has(h) && tried.stands(h) {
			return true
		}
	}
	return false
}

// anyUp tells whether a host is up that the session has tried. One that is up
// but untried came up this moment: the session may still have it.
func (t *Table) anyUp(tried *Tried) bool {
	for _, h := range t.hosts {
		if h.Up() && tried.Has(h) {
			return true
		}
	}
	return false
}
