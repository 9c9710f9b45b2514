package users

import (
	"slices"
	"time"
)

// counter counts failed logins that have something in common. They are counted
// when they begin, so that many at once win nothing.
type counter struct {
	failures int       // in a row
	last     time.Time // of them
	told     time.Time // when it was last logged that somebody has to wait
	known    bool      // it is about a user that there is
}

// pair counts the failed logins of one name from one source.
type pair struct {
	counter
	wrong   [repeats]login // the last ones, each counted once
	good    time.Time      // the last good one
	guesses int            // refused in the minute since
	since   time.Time
}

// counters are the counters of one kind. They are bounded; the oldest go, those of
// users that there are after the others, so that nobody is forgotten because
// somebody makes names up.
type counters[K comparable, C interface{ counting() *counter }] map[K]C

func (c *counter) counting() *counter { return c }

// fresh returns a counter, nil if there is none, after it has forgotten what is
// too long ago.
func (all counters[K, C]) fresh(key K, now time.Time) (c C) {
	c, there := all[key]
	if !there {
		return c
	}
	if n := c.counting(); now.Sub(n.last) > forgetFailures {
		n.failures = 0
		if p, is := any(c).(*pair); is {
			p.wrong = [repeats]login{}
		}
	}
	return c
}

// add puts a counter in place.
func (all counters[K, C]) add(key K, c C) C {
	if len(all) >= maxCounted {
		evict(all, func(c C) time.Time {
			n := c.counting()
			if n.known {
				return n.last.Add(knownFor)
			}
			return n.last
		})
	}
	all[key] = c
	return c
}

// wait is how long the next login has to wait.
func (c *counter) wait(l limit, now time.Time) time.Duration {
	if c == nil || c.failures < l.free {
		return 0
	}
	after := min(time.Second<<min(c.failures-l.free, 30), l.longest)
	return max(0, c.last.Add(after).Sub(now))
}

// begin counts a login that may fail.
func (c *counter) begin(now time.Time) {
	c.failures++
	c.last = now
}

// back takes back what begin has counted, and forgets what counts nothing then.
func (all counters[K, C]) back(key K) {
	c, there := all[key]
	if !there {
		return
	}
	n := c.counting()
	n.failures = max(0, n.failures-1)
	if p, is := any(c).(*pair); n.failures == 0 && !(is && !p.good.IsZero()) {
		delete(all, key)
	}
}

// knows tells whether the user has logged in from there lately.
func (p *pair) knows(now time.Time) bool {
	return p != nil && !p.good.IsZero() && now.Sub(p.good) < knownFor
}

// guess counts a login that has to wait and is not remembered.
func (p *pair) guess(now time.Time) {
	if now.Sub(p.since) >= time.Minute {
		p.guesses, p.since = 0, now
	}
	p.guesses++
}

// guessed tells whether there are so many of them that what is remembered has to
// wait too: else it could be guessed, very fast, by who shares the source.
func (p *pair) guessed(now time.Time) bool {
	return p.guesses >= maxGuesses && now.Sub(p.since) < time.Minute
}

// wait is why a login has to wait.
type wait struct {
	time       time.Duration
	everywhere bool // because of what came from other sources
	tell       bool // it is time to log it
}

// enter says what becomes of a login. One that begins is counted as failed until
// it ends.
func (u *Users) enter(a attempt, now time.Time) (verdict, wait, *flight) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.flights[a.id]; f != nil {
		return tried, wait{}, f
	}
	p, source, name := u.pairs.fresh(a.pair, now), u.sources.fresh(a.source, now), u.names.fresh(a.name, now)
	var w wait
	var by *counter
	if p != nil {
		w.time, by = p.wait(pairLimit, now), &p.counter
	}
	if until, there := u.verified[a.id]; there {
		switch {
		case p == nil, !now.Before(until):
			delete(u.verified, a.id)
		case w.time == 0, !p.guessed(now):
			return good, wait{}, nil
		}
	}
	if !p.knows(now) {
		if t := source.wait(sourceLimit, now); t > w.time {
			w.time, by = t, source
		}
		if t := name.wait(userLimit, now); t > w.time {
			w.time, w.everywhere, by = t, true, name
		}
	}
	repeated := p != nil && slices.Contains(p.wrong[:], a.id)
	switch {
	case w.time > 0:
		if p != nil && !repeated {
			p.guess(now)
		}
		if w.tell = now.Sub(by.told) >= tellEvery; w.tell {
			by.told = now
		}
		return waits, w, nil
	case repeated:
		return wrongAgain, wait{}, nil
	}
	if p == nil {
		p = u.pairs.add(a.pair, &pair{counter: counter{known: a.known}})
	}
	if source == nil {
		source = u.sources.add(a.source, &counter{})
	}
	if name == nil {
		name = u.names.add(a.name, &counter{known: a.known})
	}
	p.begin(now)
	source.begin(now)
	name.begin(now)
	f := &flight{done: make(chan struct{})}
	u.flights[a.id] = f
	return begins, wait{}, f
}

// end tells how a login that began has ended. With an error nobody knows, and it
// does not count.
func (u *Users) end(a attempt, f *flight, ok bool, err error, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.flights, a.id)
	f.ok, f.err = ok, err
	close(f.done)
	if ok || err != nil {
		u.sources.back(a.source)
		u.names.back(a.name)
	}
	switch {
	case ok:
		if u.pairs[a.pair] == nil {
			u.pairs.add(a.pair, &pair{})
		}
		*u.pairs[a.pair] = pair{good: now, counter: counter{known: true, last: now}}
		if len(u.verified) >= maxVerified {
			evict(u.verified, func(until time.Time) time.Time { return until })
		}
		u.verified[a.id] = now.Add(verifiedFor)
	case err != nil:
		u.pairs.back(a.pair)
	default: // what it was counted by may have been forgotten
		if p := u.pairs[a.pair]; p != nil {
			p.last = now
			p.wrong[p.failures%repeats] = a.id
		}
		for _, c := range []*counter{u.sources[a.source], u.names[a.name]} {
			if c != nil {
				c.last = now
			}
		}
	}
}

// evict removes the oldest of what is remembered.
func evict[M ~map[K]V, K comparable, V any](all M, when func(V) time.Time) {
	var oldest K
	var at time.Time
	for k, v := range all {
		if w := when(v); at.IsZero() || w.Before(at) {
			oldest, at = k, w
		}
	}
	delete(all, oldest)
}
