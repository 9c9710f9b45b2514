package config_test

import (
	"testing"

	"github.com/txlb/txlb/config/internal/models"
)

func BenchmarkClone10000Hosts(b *testing.B) {
	c := models.Large(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Clone()
	}
}

func BenchmarkCheck10000Hosts(b *testing.B) {
	c := models.Large(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Check("")
	}
}
