package sched

import "testing"

// 64 loops that all look before any of them takes a host, again and again, still spread
// their sessions exactly: no two loops take the same host for the same number of sessions,
// and none takes one blindly.
func TestB39LeastConnectionsDoNotHerd(t *testing.T) {
	const loops = 64
	for _, scheduler := range []string{"leastc", "weightlc"} {
		for _, ahead := range []int{0, 16, 100} { // sessions that all but the first host have at first
			for _, hosts := range []int{2, 4, 10, 64} {
				m := equal(hosts)
				l := table(t, Policy{Scheduler: scheduler}, m).first.(*least)
				for _, other := range m[1:] {
					for range ahead {
						other.Host.take(l.cursor.next())
					}
				}
				rounds := 0
				for range 3 {
					rounds = max(rounds, pickAtOnce(t, l, loops))
				}
				lowest, highest := int64(1<<62), int64(0)
				for _, one := range m {
					n := one.Host.Stats().Active
					lowest, highest = min(lowest, n), max(highest, n)
				}
				looks := contended // each time one loop gets the host that is behind
				if ahead == 0 {
					looks = loops/hosts + 3 // each time one loop gets each host
				}
				if catchesUp := 3*loops >= ahead; catchesUp && highest-lowest > 1 || rounds > looks {
					t.Errorf("%s, %d hosts, %d ahead: %d to %d sessions, after %d looks", scheduler, hosts, ahead, lowest, highest, rounds)
				}
			}
		}
	}
}

// pickAtOnce makes the picks of loops that run in step: all look, then all try to take
// what they saw. It returns how often the last of them had to look.
func pickAtOnce(t *testing.T, l *least, loops int) (looks int) {
	t.Helper()
	type seen struct {
		host      *Host
		active, n uint64
	}
	for left := loops; left > 0; looks++ {
		var all []seen
		for range left {
			var tried Tried
			n := l.cursor.next()
			host, active := l.look(n, looks, &tried)
			all = append(all, seen{host, active, n})
		}
		before := left
		for _, s := range all {
			if s.host.takeIf(s.active, s.n) {
				left--
			}
		}
		if left == before {
			t.Fatal("no loop got its host")
		}
	}
	return looks
}
