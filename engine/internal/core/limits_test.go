package core

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// judgeLimit looks whether a session that a limit rejects is above it.
func (d *desk) judgeLimit(g *guest, why Refusal, l *engine.Limits) {
	if !why.OfLimits() {
		return
	}
	if g.counted || g.tries > 0 || l == nil {
		d.fail("session %d: %v, counted: %v, tries: %d, limits: %+v", g.id, why, g.counted, g.tries, l)
		return
	}
	all, mine := d.countedNow(g.from.IP().Addr())
	switch {
	case why == limitSessions && (l.Sessions == 0 || all < l.Sessions),
		why == limitClient && (l.PerClient == 0 || mine < l.PerClient),
		why == limitRate && l.Rate == 0, why == limitClientRate && l.PerClientRate == 0, why == clientsFull:
		d.fail("session %d: %v with %d sessions, %d of the client, limits %+v", g.id, why, all, mine, *l)
	}
}

// countedNow returns how many sessions are counted, and how many of a client.
func (d *desk) countedNow(who netip.Addr) (all, mine int) {
	for _, g := range d.guests {
		if g.counted {
			all++
		}
		if g.notes != nil && g.notes.counted != nil && who.IsValid() && g.notes.counted.key == keyOf(who) {
			mine++
		}
	}
	return all, mine
}

// checkLimits looks whether the limiter has counted what is counted.
func (d *desk) checkLimits() {
	l := &d.svc.limits
	clients := map[*client]uint64{}
	all := 0
	for _, g := range d.guests {
		if g.counted {
			all++
		}
		if g.gone && g.counted {
			d.fail("session %d has ended and is counted", g.id)
		}
		if g.notes != nil && g.notes.counted != nil {
			clients[g.notes.counted]++
		}
	}
	if n := l.held.Load(); n != int64(all) {
		d.fail("the limiter counts %d sessions, there are %d", n, all)
	}
	for c, want := range clients {
		if n := c.use.Load() & sessions; n != want {
			d.fail("the limiter counts %d sessions of client %x, there are %d", n, c.key, want)
		}
	}
	if route := d.svc.Route.Load(); route.Limits != nil && l.mode.Load() == modeOf(route.Limits) {
		for _, g := range d.guests {
			if !g.counted && g.Host != nil {
				d.fail("session %d has a host and is not counted", g.id)
			}
		}
	}
}

// A bucket has as many tokens in a second as its rate, exactly, whatever the rate and
// whenever they are asked for: the model keeps them as a fraction.
func TestB42BucketIsExact(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(42, seed))
		rate := 1 + r.IntN([]int{3, 50, 1000, 1_000_000}[seed%4])
		var b bucket
		now := r.Int64N(1 << uint(r.IntN(61)))
		var used uint64 // the last token that was taken, by number
		for range 2000 {
			now += r.Int64N(2 * second / int64(min(rate, 1000)))
			there := tokensUntil(now, rate)
			used = max(used, there)
			want := used < there+uint64(rate)
			if want {
				used++
			}
			if got := b.take(rate, now); got != want {
				t.Fatalf("seed %d, rate %d, at %d: %v, want %v", seed, rate, now, got, want)
			}
			if want && r.IntN(5) == 0 {
				b.giveBack(rate)
				used--
			}
		}
	}
	for _, rate := range []int{1, 3, 7, 1000, 999_983} {
		var b bucket
		start, n := int64(123_456_789), 0
		for b.take(rate, start) {
			n++
		}
		if n != rate {
			t.Errorf("rate %d: a full bucket has %d tokens", rate, n)
		}
		for i := range int64(3 * rate) { // refilled one by one, in three seconds
			at := tokenAt(tokensUntil(start, rate)+uint64(i)+1, rate)
			if b.take(rate, at-1) || !b.take(rate, at) {
				t.Fatalf("rate %d: token %d does not come at %d", rate, i, at)
			}
			if i > 10_000 {
				break
			}
		}
	}
}

// All loops together take no more than there is, and leave nothing that is there.
func TestB42BucketOfAllLoops(t *testing.T) {
	const rate = 1000
	var b bucket
	var taken atomic.Int64
	var clock atomic.Int64
	clock.Store(1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for clock.Load() < 5*second {
				if b.take(rate, clock.Add(second/20_000)) {
					taken.Add(1)
				}
			}
		})
	}
	wg.Wait()
	for b.take(rate, clock.Load()) {
		taken.Add(1)
	}
	if want := int64(tokensUntil(clock.Load(), rate)) + rate; taken.Load() != want {
		t.Errorf("%d tokens, want %d", taken.Load(), want)
	}
}

// Whatever loops do at once, a client has no more sessions than it may, has one entry,
// and leaves none behind.
func TestB42ClientsOfAllLoops(t *testing.T) {
	const keys, limit = 40, 3
	table := newClients(maxClients)
	var has [keys]atomic.Int64
	var let, rejected atomic.Int64
	var wg sync.WaitGroup
	for loop := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(42, loop))
			type holding struct {
				key int
				c   *client
			}
			var mine []holding
			for range 20_000 {
				if k := r.IntN(keys); r.IntN(2) == 0 {
					c, room := table.enter(uint64(k), limit, 1)
					switch {
					case !room:
						t.Error("the table is full")
					case c == nil:
						rejected.Add(1)
					default:
						let.Add(1)
						if n := has[k].Add(1); n > limit {
							t.Errorf("client %d has %d sessions", k, n)
						}
						mine = append(mine, holding{k, c})
					}
				} else if len(mine) > 0 {
					i := r.IntN(len(mine))
					h := mine[i]
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
					has[h.key].Add(-1)
					table.leave(h.c, 1)
				}
			}
			for _, h := range mine {
				has[h.key].Add(-1)
				table.leave(h.c, 1)
			}
		})
	}
	wg.Wait()
	if let.Load() == 0 || rejected.Load() == 0 {
		t.Errorf("%d let in, %d rejected", let.Load(), rejected.Load())
	}
	if n := table.n.Load(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// A table takes as many clients as it may and no more. What tells nothing makes room.
func TestB42ClientsAreBounded(t *testing.T) {
	const most = 500
	table := newClients(most)
	var all []*client
	for k := range uint64(most) {
		c, _ := table.enter(k, 1, second)
		if c == nil || !c.rate.take(1, second) {
			t.Fatalf("client %d gets no place", k)
		}
		all = append(all, c)
	}
	if _, room := table.enter(most, 1, second); room {
		t.Error("a full table has room")
	}
	if c, room := table.enter(7, 2, second); c != all[7] || !room {
		t.Error("a client that has a place does not find it in a full table")
	} else {
		table.leave(c, second)
	}
	for _, c := range all {
		table.leave(c, second)
	}
	if n := table.n.Load(); n != most {
		t.Errorf("%d entries: those that have used up their rate still tell that", n)
	}
	if c, _ := table.enter(3, 1, second); c != all[3] || c.rate.take(1, second) {
		t.Error("a client that has used up its rate has it again")
	} else {
		table.leave(c, second)
	}
	// Two seconds later nothing of it matters, and newcomers find room by and by.
	for k := range uint64(most) {
		for tries := 0; ; tries++ {
			if c, _ := table.enter(1_000_000+k, 1, 3*second); c != nil {
				break
			}
			if tries > 1<<clientBits/tidyAtOnce {
				t.Fatalf("client %d finds no room, with %d entries", k, table.n.Load())
			}
		}
	}
	if n := table.n.Load(); n > most {
		t.Errorf("%d entries of at most %d", n, most)
	}
}

// An IPv6 client is its /64; no two IPv4 clients are one.
func TestB42WhoIsAClient(t *testing.T) {
	key := func(s string) uint64 { return keyOf(netip.MustParseAddr(s)) }
	if key("2001:db8::1") != key("2001:db8::ffff:1:2:3") || key("2001:db8::1") == key("2001:db8:0:1::1") {
		t.Error("a client is not its /64")
	}
	if key("192.0.2.1") == key("192.0.2.2") || key("0.0.0.0") == key("::") || key("127.0.0.1") == key("::1") {
		t.Error("two clients are one")
	}
}

// What a session costs with limits, and one that a limit rejects.
func BenchmarkAdmissionLimits(b *testing.B) {
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("h", sched.UnixAddr("/nowhere")), Weight: 1}})
	if err != nil {
		b.Fatal(err)
	}
	const many = 1_000_000
	for _, c := range []struct {
		name   string
		limits *engine.Limits
		full   bool
	}{
		{"none", nil, false},
		{"sessions", &engine.Limits{Sessions: many}, false},
		{"rate", &engine.Limits{Rate: many}, false},
		{"perClient", &engine.Limits{PerClient: many}, false},
		{"perClientRate", &engine.Limits{PerClientRate: many}, false},
		{"all", &engine.Limits{Sessions: many, Rate: many, PerClient: many, PerClientRate: many}, false},
		{"rejected/sessions", &engine.Limits{Sessions: 1}, true},
		{"rejected/perClient", &engine.Limits{PerClient: 1}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			svc := newService("web", 1)
			svc.count(modeOf(c.limits))
			svc.Route.Store(&engine.Route{Table: table, Limits: c.limits})
			var a, first Admission
			var free Attempts
			g := Gate{Free: &free}
			entry := newEntry(svc, engine.ListenOptions{})
			from := sched.TCPAddr(netip.MustParseAddrPort("192.0.2.1:1"))
			if c.full {
				first.Begin(&g, entry, free.Get(), from, 1)
				first.Next(1)
			}
			now := int64(1)
			b.ReportAllocs()
			for b.Loop() {
				now += 10_000
				a.Begin(&g, entry, free.Get(), from, now)
				if step := a.Next(now); step.Do == Refuse != c.full {
					b.Fatal(fmt.Sprint(step))
				}
				if !c.full {
					a.Answered(now, syscall.EINPROGRESS)
					a.Answered(now, 0)
				}
				a.Settle(&free)
				a.End(now, Normal, Last{})
				free.PutNotes(&a)
			}
		})
	}
}

// Buckets that pass parts of a rate on to each other, as far as they have not used them, have no
// more tokens together than one bucket with the whole rate, but for one each.
func TestB107PartsOfARate(t *testing.T) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	for range 200 {
		rate, now := 2+random.IntN(1_000), second+random.Int64N(second)
		var parts [3]bucket
		rates, scales, used := [3]int{rate, 0, 0}, [3]int{rate, rate, rate}, [3][]int64{}
		began, taken := now, 0
		for range 2_000 {
			now += random.Int64N(second / int64(rate))
			i, j := random.IntN(3), random.IntN(3)
			if random.IntN(4) > 0 {
				if rates[i] > 0 && parts[i].take(rates[i], now) {
					taken++
					used[i] = append(used[i], now)
				}
				continue
			}
			for len(used[i]) > 0 && used[i][0] <= now-second {
				used[i] = used[i][1:]
			}
			gift := rates[i] - len(used[i])
			if i == j || gift <= 0 {
				continue
			}
			gift = 1 + random.IntN(gift)
			for which, to := range map[int]int{i: rates[i] - gift, j: rates[j] + gift} {
				if to > 0 {
					parts[which].rescale(scales[which], to, now)
					scales[which] = to
				}
				rates[which] = to
			}
		}
		if most := rate + int(tokensUntil(now, rate)-tokensUntil(began, rate)) + len(parts); taken > most {
			t.Fatalf("rate %d: %d tokens in %v, one bucket has %d", rate, taken, time.Duration(now-began), most)
		}
	}
}
