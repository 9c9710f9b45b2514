package sched

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// sizes are how many hosts the benchmarks run with.
var sizes = []int{3, 10, 100, 1000, 10_000}

// mixed makes hosts of the weights 1 to 7.
func mixed(n int) []Member {
	m := equal(n)
	for i := range m {
		m[i].Weight = 1 + i%7
	}
	return m
}

// session is one pick and its release.
func session(tab *Table, tried *Tried) { sessionOf(tab, Addr{}, tried) }

func sessionOf(tab *Table, client Addr, tried *Tried) {
	h, _ := tab.Pick(client, tried)
	h.Release(0, 0)
	tried.Reset()
}

// clients are those of the benchmarks where it matters who they are.
var clients = func() (list [1024]Addr) {
	for i := range list {
		list[i] = clientOf(i)
	}
	return list
}()

// BenchmarkPickByClient is of the schedulers that look at who the client is. Of a Sticky,
// it finds clients that are known.
func BenchmarkPickByClient(b *testing.B) {
	for _, scheduler := range []string{"maglev", "maglev,sticky", "leastc,sticky", "roundr,sticky"} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", scheduler, n), func(b *testing.B) {
				p := Policy{Scheduler: scheduler, Seed: 1}
				if IsSticky(scheduler) {
					p.Sticky = NewSticky(100_000, time.Hour)
				}
				tab := table(b, p, mixed(n))
				b.ReportAllocs()
				var tried Tried
				i := 0
				for b.Loop() {
					i++
					sessionOf(tab, clients[i%len(clients)], &tried)
				}
			})
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, scheduler := range Names() {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", scheduler, n), func(b *testing.B) {
				tab := table(b, Policy{Scheduler: scheduler, Seed: 1}, mixed(n))
				b.ReportAllocs()
				var tried Tried
				for b.Loop() {
					session(tab, &tried)
				}
			})
		}
	}
}

// BenchmarkPickCustom is of a scheduler that a program might write, beside leastc, which
// does the same work. If a host is down or full, the custom one may be asked twice.
func BenchmarkPickCustom(b *testing.B) {
	for _, n := range sizes[:3] {
		for name, change := range map[string]func(h *Host){
			"all up": func(*Host) {}, "one full": func(h *Host) { h.SetMaxSessions(1); h.take(1) }, "one down": func(h *Host) { h.MarkDown() },
		} {
			for scheduler, pick := range map[string]SchedulerFunc{"leastc": nil, "custom: fewest sessions": fewest, "custom: first": firstOf} {
				b.Run(fmt.Sprintf("%s/%s/%d", scheduler, name, n), func(b *testing.B) {
					m := mixed(n)
					p := Policy{Scheduler: scheduler, Seed: 1}
					if pick != nil {
						p.Scheduler, p.Custom = "custom:c", NewCustom(pick)
					}
					tab := table(b, p, m)
					change(m[0].Host)
					b.ReportAllocs()
					var tried Tried
					for b.Loop() {
						session(tab, &tried)
					}
				})
			}
		}
	}
}

func firstOf(netip.Addr, []Candidate) int { return 0 }

func fewest(_ netip.Addr, hosts []Candidate) int {
	best, least := 0, hosts[0].Sessions()
	for i := 1; i < len(hosts); i++ {
		if n := hosts[i].Sessions(); n < least {
			best, least = i, n
		}
	}
	return best
}

func BenchmarkPickParallel(b *testing.B) {
	for _, scheduler := range Names() {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", scheduler, n), func(b *testing.B) {
				tab := table(b, Policy{Scheduler: scheduler, Seed: 1}, mixed(n))
				b.RunParallel(func(pb *testing.PB) {
					var tried Tried
					for pb.Next() {
						session(tab, &tried)
					}
				})
			})
		}
	}
}

// BenchmarkPickLastResort is the slow path: every host is down.
func BenchmarkPickLastResort(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := equal(n)
			for i := range m {
				m[i].Host.MarkDown()
			}
			tab := table(b, Policy{}, m)
			var tried Tried
			for b.Loop() {
				session(tab, &tried)
			}
		})
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, scheduler := range Names() {
		b.Run(scheduler+"/10000", func(b *testing.B) {
			m := mixed(10_000)
			for b.Loop() {
				table(b, Policy{Scheduler: scheduler, Seed: 1}, m)
			}
		})
	}
	// After a change of health or a step of a slow start, maglev needs no new slots.
	b.Run("maglev, same slots/10000", func(b *testing.B) {
		m := mixed(10_000)
		p := Policy{Scheduler: "maglev"}
		p.Before = table(b, p, m)
		for b.Loop() {
			table(b, p, m)
		}
	})
	for _, n := range []int{100, 655, 1000, 65_536} {
		b.Run(fmt.Sprintf("maglev/%d", n), func(b *testing.B) {
			m := mixed(n)
			for b.Loop() {
				table(b, Policy{Scheduler: "maglev"}, m)
			}
		})
	}
	b.Run("leastc,sticky/10000", func(b *testing.B) {
		m := mixed(10_000)
		p := Policy{Scheduler: "leastc,sticky", Sticky: NewSticky(100_000, time.Hour)}
		for b.Loop() {
			table(b, p, m)
		}
	})
}
