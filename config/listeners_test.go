package config

import (
	"testing"

	"github.com/txlb/txlb/config/internal/address"
)

// TestWhatOverlapsIsOneRule holds the table of the check, which is quick, and the
// set of package address, which forgets, together.
func TestWhatOverlapsIsOneRule(t *testing.T) {
	all := []string{
		":80", "*:80", "0.0.0.0:80", "[::]:80", "127.0.0.1:80", "localhost:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "host.example:80",
		"HOST.example.:80", ":81", "127.0.0.1:81", ":0", "127.0.0.1:0", "unix:/a", "unix:/b/../a", "unix:/b",
	}
	overlaps := 0
	for _, first := range all {
		for _, second := range all {
			table, set := listenTable{}, address.Set{}
			table.add(taken{"first", first, 1})
			set.Add(first)
			byTable, bySet := table.add(taken{"second", second, 2}) != nil, set.Overlaps(second)
			if byTable != bySet {
				t.Errorf("%s beside %s: the table says %v, the set %v", second, first, byTable, bySet)
			}
			if bySet {
				overlaps++
			}
			if set.Remove(first); set.Overlaps(second) {
				t.Errorf("%s: %s is in the way, and has gone", second, first)
			}
		}
	}
	if overlaps < len(all) {
		t.Errorf("%d pairs overlap", overlaps)
	}
}
