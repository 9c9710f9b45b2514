package document

import (
	"testing"

	"github.com/txlb/txlb/config/internal/models"
)

func BenchmarkRewrite10000Hosts(b *testing.B) {
	c := models.Large(b)
	data, err := c.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	d := c.Clone()
	d.Services[0].Groups[0].Hosts[5000].Weight = 7
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rewrite(data, d); err != nil {
			b.Fatal(err)
		}
	}
}
