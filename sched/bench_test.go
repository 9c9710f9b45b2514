package sched

import (
	"fmt"
	"testing"
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
func session(tab *Table, tried *Tried) {
	h, _ := tab.Pick(Addr{}, tried)
	h.Release(0, 0)
	tried.Reset()
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
}
