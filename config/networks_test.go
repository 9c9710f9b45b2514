package config

import (
	"strings"
	"testing"
)

func TestNetworks(t *testing.T) {
	for in, want := range map[string]string{
		"*": "*", " 10.0.0.0/8 ": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "10.0.0.0/8, 2001:db8::/32\n::1": "10.0.0.0/8 2001:db8::/32 ::1/128",
		"::ffff:10.0.0.0/104": "10.0.0.0/8", "::ffff:10.0.0.1": "10.0.0.1/32",
	} {
		got, err := parseNetworks(in)
		if err != nil || got.String() != want {
			t.Errorf("%q is %q, %v; want %q", in, got, err, want)
		}
		if n := len(got.Prefixes()); want == "*" && n != 0 || want != "*" && n != len(strings.Fields(want)) {
			t.Errorf("%q has %d networks", in, n)
		}
	}
	for in, want := range map[string]string{
		"": "no network", "10.0.0.1/8": "want 10.0.0.0/8 or 10.0.0.1", "* 10.0.0.0/8": "is not a network", "ops.example": "is not a network",
		"10.0.0.0/33": "is not a network", "fe80::1%eth0": "is not a network", "::ffff:0:0/90": "is not a network",
	} {
		if _, err := parseNetworks(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", in, err, want)
		}
	}
}
