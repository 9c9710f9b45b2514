package changes

import (
	"testing"

	"github.com/txlb/txlb/config/internal/models"
)

func BenchmarkDiffOneOf10000Hosts(b *testing.B) {
	c := models.Large(b)
	d := c.Clone()
	d.Services[0].Groups[0].Hosts[5000].Weight = 7
	b.ReportAllocs()
	for b.Loop() {
		if len(Diff(c, d)) != 1 {
			b.Fatal("not one edit")
		}
	}
}

func BenchmarkDiffAllOf10000Hosts(b *testing.B) {
	c := models.Large(b)
	d := c.Clone()
	for _, h := range d.Services[0].Groups[0].Hosts {
		h.Weight = 7
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(Diff(c, d)) != 10_000 {
			b.Fatal("not every host")
		}
	}
}

// Both the file and what runs have changed a host.
func BenchmarkMerge10000Hosts(b *testing.B) {
	base := models.Large(b)
	file, running := base.Clone(), base.Clone()
	file.Services[0].Groups[0].Hosts[1].Weight = 7
	running.Services[0].Groups[0].Hosts[2].Weight = 7
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Merge(base, file, running); err != nil {
			b.Fatal(err)
		}
	}
}
