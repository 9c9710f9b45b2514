//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
)

// Every kind makes a valid configuration in which the first host can be changed.
func TestGrowthConfigurations(t *testing.T) {
	at := growthPlace{port: 8080, target: 8081, dead: 8082}
	for _, k := range growths() {
		for _, n := range []int{1, 1000} {
			c, problems := config.Parse("", []byte("<config>"+k.config(at, n)+"</config>"))
			if c == nil {
				t.Fatalf("%d %s: %v", n, k.name, problems)
			}
			hosts, listens := 0, 0
			for _, s := range c.Services {
				listens += len(s.Listen)
				for _, g := range s.Groups {
					hosts += len(g.Hosts)
				}
			}
			if g := c.Services[0].Groups[0]; c.Services[0].Name != "s0" || g.Name != "g" || g.Hosts[0].Name != "h0" {
				t.Errorf("%s: the change finds no host", k.name)
			}
			if n == 1000 && !k.hold && hosts < n && listens < n {
				t.Errorf("%s has %d hosts and %d listeners, want %d of something", k.name, hosts, listens, n)
			}
		}
	}
}

func TestGrowthIsKept(t *testing.T) {
	var all []grownTo
	for _, k := range growths() {
		for i, n := range growthSizes() {
			all = append(all, grownTo{k.name, n, map[string]float64{"connection": float64(100 + i), "p99": 500, "change": float64(i), "resident": 20}})
		}
	}
	dir := t.TempDir()
	if err := writeGrowth(dir, all); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, growthFile))
	if err != nil || !strings.Contains(string(text), fmt.Sprintf("%s\nhosts\t1\tconnection\t100.0000\n", growthColumns)) {
		t.Errorf("%v\n%s", err, text)
	}
	page, err := os.ReadFile(filepath.Join(dir, growthPage))
	if err != nil || !strings.Contains(string(page), "| hosts | 1 | 10 | 100 | 1,000 | 10,000 |") || !strings.Contains(string(page), "| CPU µs per connection, with all beside | 100 | 101 | 102 | 103 | 104 |") {
		t.Errorf("%v\n%s", err, page)
	}
	back, err := readGrowth(dir)
	if err != nil || len(back) != len(all) || back[7].kind != all[7].kind || back[7].size != all[7].size || back[7].values["change"] != all[7].values["change"] {
		t.Errorf("read back: %v, %v", back, err)
	}
	picture := drawGrowth(back)
	if err := xml.Unmarshal([]byte(picture), new(struct{})); err != nil {
		t.Errorf("no XML: %v", err)
	}
	if n := strings.Count(picture, "<polyline"); n != 3*len(growths()) || strings.Contains(picture, "NaN") || strings.Contains(picture, "Inf") {
		t.Errorf("%d lines:\n%s", n, picture)
	}
}
