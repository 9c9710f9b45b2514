package director

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// wellHost is a host that answers its clients in some time; the others differ from it.
func wellHost(median time.Duration) sighting {
	return sighting{up: true, asked: true, answered: true, turns: 100, median: median}
}

func (s sighting) but(change func(*sighting)) sighting {
	change(&s)
	return s
}

// outs has the places of the hosts that are ejected.
func outs(list []ejection) (at []int) {
	for i := range list {
		if list[i].out() {
			at = append(at, i)
		}
	}
	return at
}

// Every cause and every bound, each in a group that differs by it alone.
func TestB82WhoIsEjected(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	all := ejectRule{slow: 3, silent: 5 * time.Second, lasts: 30 * time.Second, most: 25, window: 10 * time.Second}
	const ms = time.Millisecond
	well := wellHost(20 * ms)
	tardy := wellHost(100 * ms)
	mute := well.but(func(s *sighting) { s.silent, s.answered, s.turns = 5*time.Second, false, 0 })
	resets := well.but(func(s *sighting) { s.resets, s.answered = "it reset clients", false })
	down := sighting{}
	ejectedFor := func(s sighting, what greyness, since time.Duration) sighting {
		s.was = ejection{what: what, since: now.Add(-since), until: now.Add(30*time.Second - since), row: 1}
		return s
	}
	unused := sighting{up: true}
	for _, test := range []struct {
		name  string
		rule  func(*ejectRule)
		hosts []sighting
		want  []int
		why   string // part of the reason of the first
	}{
		{"all are well", nil, []sighting{well, well, well}, nil, ""},
		{"slow", nil, []sighting{well, tardy, well}, []int{1}, "its median turnaround is 100ms, the group's is 20ms"},
		{"silent", nil, []sighting{well, well, mute}, []int{2}, "three clients have had no first answer for 5s"},
		{"resets", nil, []sighting{resets, well, well}, []int{0}, "it reset clients"},
		{"one of many", nil, slices.Concat(slices.Repeat([]sighting{well}, 9), []sighting{tardy}), []int{9}, "100ms"},

		{"as slow as allowed", nil, []sighting{well, wellHost(60 * ms), well}, nil, ""},
		{"slow, but below 10 ms", nil, []sighting{wellHost(ms), wellHost(10 * ms), wellHost(ms)}, nil, ""},
		{"slow, above 10 ms", nil, []sighting{wellHost(ms), wellHost(11 * ms), wellHost(ms)}, []int{1}, "11ms"},
		{"slow, but few turnarounds", nil, []sighting{well, tardy.but(func(s *sighting) { s.turns = greyTurns - 1 }), well}, nil, ""},
		{"slow, but nobody to compare with", nil, []sighting{well, tardy, well.but(func(s *sighting) { s.turns = 3 })}, nil, ""},
		{"slow hosts stay", func(r *ejectRule) { r.slow = 0 }, []sighting{well, tardy, well}, nil, ""},
		{"silent for too short", nil, []sighting{well, well, mute.but(func(s *sighting) { s.silent = 4 * time.Second })}, nil, ""},
		{"silent hosts stay", func(r *ejectRule) { r.silent = 0 }, []sighting{well, well, mute}, nil, ""},

		{"all are slow", nil, []sighting{tardy, tardy, tardy}, nil, ""},
		{"half are slow", nil, []sighting{tardy, tardy, well, well}, nil, ""},
		{"fewer than half are slow", func(r *ejectRule) { r.most = 100 }, []sighting{tardy, tardy, well, well, well}, []int{0, 1}, "100ms"},
		{"all are silent", nil, []sighting{mute, mute, mute}, nil, ""},
		{"all reset", nil, []sighting{resets, resets, resets}, nil, ""},
		{"silent, and the others do not answer", nil, []sighting{mute, well.but(func(s *sighting) { s.answered = false }), well.but(func(s *sighting) { s.answered = false })}, nil, ""},
		{"silent, and one of the others answers", nil, []sighting{mute, mute, well}, []int{0}, "5s"},
		{"resets, and nobody asks the others", nil, []sighting{resets, unused, unused}, []int{0}, "it reset clients"},
		{"resets, and the others are down", nil, []sighting{resets, down, down}, nil, ""},

		{"two hosts", nil, []sighting{resets, well}, nil, ""},
		{"one host", nil, []sighting{resets}, nil, ""},
		{"none", nil, nil, nil, ""},
		{"no more than a quarter", nil, []sighting{mute, resets, tardy, well, well, well, well, well}, []int{0, 1}, ""},
		{"no more than a quarter, rounded down", nil, []sighting{mute, resets, well, well, well, well, well}, []int{1}, "it reset clients"},
		{"resets are worse than silence, and that than slowness", func(r *ejectRule) { r.most = 60 }, []sighting{tardy, mute, resets, well, well}, []int{0, 1, 2}, ""},
		{"the slowest first", nil, []sighting{well, wellHost(70 * ms), wellHost(90 * ms), well, well, well, well}, []int{2}, "90ms"},
		{"none may be", func(r *ejectRule) { r.most = 0 }, []sighting{well, resets, well}, nil, ""},
		{"one is already", nil, []sighting{ejectedFor(well, greySlow, 10*time.Second), resets, well}, []int{0}, ""},
		{"who is down does not count", nil, []sighting{ejectedFor(down, greySlow, 10*time.Second), resets, well, well}, []int{1}, ""},

		{"pinned", nil, []sighting{well, resets.but(func(s *sighting) { s.pinned = true }), well}, nil, ""},
		{"pinned and bad, so not well", nil, []sighting{resets, mute.but(func(s *sighting) { s.pinned = true }), mute.but(func(s *sighting) { s.pinned = true })}, nil, ""},
		{"down", nil, []sighting{well, down.but(func(s *sighting) { s.resets = "x" }), well}, nil, ""},

		{"it stays out", nil, []sighting{well, ejectedFor(unused, greySlow, 29*time.Second), well}, []int{1}, ""},
		{"until its time is over", nil, []sighting{well, ejectedFor(unused, greySlow, 30*time.Second), well}, nil, ""},
		{"or it is pinned", nil, []sighting{well, ejectedFor(unused.but(func(s *sighting) { s.pinned = true }), greySlow, time.Second), well}, nil, ""},
		{"or goes down", nil, []sighting{well, ejectedFor(down, greySlow, time.Second), well}, nil, ""},
		{"or nobody minds", func(r *ejectRule) { r.slow = 0 }, []sighting{well, ejectedFor(unused, greySlow, time.Second), well}, nil, ""},
		{"or two are left", nil, []sighting{well, ejectedFor(unused, greySlow, time.Second)}, nil, ""},
		{"or fewer may be: the first to come back", nil, []sighting{well, ejectedFor(unused, greySlow, time.Second), ejectedFor(unused, greySlow, 2*time.Second), well}, []int{1}, ""},
		{"or the others go down", nil, []sighting{down, ejectedFor(unused, greySlow, time.Second), down}, nil, ""},
		{"or turn out to be no better", nil, []sighting{mute, ejectedFor(unused, greySilent, time.Second), mute}, nil, ""},
	} {
		r := all
		if test.rule != nil {
			test.rule(&r)
		}
		list := r.decide(now, test.hosts)
		if got := outs(list); !slices.Equal(got, test.want) {
			t.Errorf("%s: hosts %v are ejected, want %v", test.name, got, test.want)
		} else if len(got) > 0 && !strings.Contains(list[got[0]].why, test.why) {
			t.Errorf("%s: it is ejected because %q, want %q", test.name, list[got[0]].why, test.why)
		}
	}
}

// While a host is ejected again and again, it is for twice as long each time, up to ten times
// the first. After a quiet time it begins with the first again.
func TestB82EjectionsGrow(t *testing.T) {
	r := ejectRule{lasts: 30 * time.Second, most: 25, window: 10 * time.Second}
	now := time.Unix(1_000_000, 0)
	hosts := []sighting{wellHost(0), wellHost(0), wellHost(0)}
	round := func() time.Duration {
		hosts[0].resets = "it reset clients"
		list := r.decide(now, hosts)
		if !list[0].out() {
			t.Fatal("it is not ejected")
		}
		lasts := list[0].until.Sub(now)
		hosts[0].was, hosts[0].resets = list[0], ""
		now = now.Add(lasts - time.Second)
		if !r.decide(now, hosts)[0].out() {
			t.Error("it has come back early")
		}
		now = now.Add(time.Second)
		hosts[0].was = r.decide(now, hosts)[0]
		if hosts[0].was.out() {
			t.Error("it has not come back")
		}
		now = now.Add(time.Second)
		return lasts
	}
	for i, want := range []time.Duration{30, 60, 120, 240, 300, 300, 300} {
		if got := round(); got != want*time.Second {
			t.Errorf("ejection %d lasts %v, want %v", i+1, got, want*time.Second)
		}
	}
	now = now.Add(310 * time.Second) // as long as the last one, and the window
	if got := round(); got != 30*time.Second {
		t.Errorf("after a quiet time, an ejection lasts %v", got)
	}
	now = now.Add(39 * time.Second)
	if got := round(); got != time.Minute {
		t.Errorf("the next one lasts %v", got)
	}
}

// FuzzEject drives a group with random rules, hosts and moments, and holds every decision to
// what was promised.
func FuzzEject(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		one := func(n int) bool { return random.IntN(n) == 0 }
		r := ejectRule{
			slow: random.IntN(2) * (2 + random.IntN(5)), silent: time.Duration(random.IntN(3)) * time.Second,
			lasts: time.Duration(1+random.IntN(60)) * time.Second, most: random.IntN(101), window: time.Duration(1+random.IntN(20)) * time.Second,
		}
		hosts := make([]sighting, random.IntN(12))
		now := time.Unix(1_000_000, 0)
		for range 40 {
			now = now.Add(time.Duration(random.Int64N(int64(40 * time.Second))))
			if one(10) && len(hosts) > 0 {
				hosts = hosts[:len(hosts)-1]
			}
			if one(10) {
				r.most = random.IntN(101)
			}
			for i := range hosts {
				was := hosts[i].was
				hosts[i] = sighting{
					up: !one(4), pinned: one(8), asked: !one(3), answered: !one(3), turns: uint64(random.IntN(3 * greyTurns)),
					median: time.Duration(random.IntN(int(200 * time.Millisecond))), was: was,
				}
				if one(5) {
					hosts[i].resets = "it reset clients"
				}
				if one(5) {
					hosts[i].silent = time.Duration(random.IntN(5)) * time.Second
				}
			}
			before := slices.Clone(hosts)
			list := r.decide(now, hosts)
			if !slices.Equal(before, hosts) {
				t.Fatal("what was seen has changed")
			}
			if again := r.decide(now, hosts); !slices.Equal(list, again) {
				t.Fatalf("two decisions of one moment: %v, %v", list, again)
			}
			if err := r.promised(now, hosts, list); err != nil {
				t.Fatalf("%+v %+v: %v", r, hosts, err)
			}
			for i := range hosts {
				hosts[i].was = list[i]
			}
		}
	})
}

// promised tells what is wrong with a decision.
func (r *ejectRule) promised(now time.Time, hosts []sighting, list []ejection) error {
	out, up, in, well := 0, 0, 0, false
	for i := range hosts {
		h, e := &hosts[i], &list[i]
		if h.up {
			up++
			if !e.out() {
				in++
				well = well || h.resets == "" && (!h.asked || h.answered)
			}
		}
		if !e.out() {
			continue
		}
		out++
		switch lasts := e.until.Sub(e.since); {
		case h.pinned || !h.up:
			return fmt.Errorf("host %d is ejected", i)
		case lasts < r.lasts || lasts > longestEjection*r.lasts:
			return fmt.Errorf("host %d is ejected for %v", i, lasts)
		case !now.Before(e.until):
			return fmt.Errorf("host %d was to be back", i)
		case e.why == "" || e.row < 1:
			return fmt.Errorf("host %d is ejected without a reason", i)
		case !h.was.out() && h.resets == "" && h.silent < r.silent && (r.slow == 0 || h.turns < greyTurns || h.median <= slowest):
			return fmt.Errorf("host %d is ejected for nothing", i)
		}
	}
	switch {
	case out > max(1, len(hosts)*r.most/100), out > 0 && (r.most == 0 || len(hosts) < greyHosts):
		return fmt.Errorf("%d of %d are ejected", out, len(hosts))
	case up > 0 && in == 0:
		return fmt.Errorf("all that are up are ejected")
	case out > 0 && !well:
		return fmt.Errorf("%d are ejected, and no other is well", out)
	}
	return nil
}
