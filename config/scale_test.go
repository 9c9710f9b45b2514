package config

import (
	"fmt"
	"testing"
)

// large returns a configuration of 10,000 hosts, read as from a file.
func large(b *testing.B) *Config {
	b.Helper()
	c := New()
	s := NewService("s")
	s.Listen = []Listen{{Address: ":80"}}
	g := NewGroup("g")
	g.Enabled = true
	for i := range 10_000 {
		g.Hosts = append(g.Hosts, &Host{Name: fmt.Sprint("h", i), Address: fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), Weight: 1, State: "ready"})
	}
	s.Groups = []*Group{g}
	c.Services = []*Service{s}
	data, err := c.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	c, _ = Parse("large", data)
	return c
}

func BenchmarkClone10000Hosts(b *testing.B) {
	c := large(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Clone()
	}
}

func BenchmarkCheck10000Hosts(b *testing.B) {
	c := large(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Check("")
	}
}

func BenchmarkDiffOneOf10000Hosts(b *testing.B) {
	c := large(b)
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
	c := large(b)
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
	base := large(b)
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

func BenchmarkRewrite10000Hosts(b *testing.B) {
	c := large(b)
	data, err := c.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	d := c.Clone()
	d.Services[0].Groups[0].Hosts[5000].Weight = 7
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Rewrite(data, d); err != nil {
			b.Fatal(err)
		}
	}
}
