package config

import (
	"slices"
	"testing"
)

// Files with spaces between them are pairs.
func TestKeyPairs(t *testing.T) {
	p, err := parseKeyPairs(" a.pem\ta.key\n b b ")
	if err != nil || p != "a.pem a.key b b" || !slices.Equal(p.List(), []KeyPair{{"a.pem", "a.key"}, {"b", "b"}}) {
		t.Errorf("%q, %v, %v", p, p.List(), err)
	}
	if p, err := parseKeyPairs(" "); err != nil || p != "" || len(p.List()) != 0 {
		t.Errorf("nothing: %q, %v", p, err)
	}
}

// The name that a certificate must be for is said, or that of the address.
func TestServerNameOfHosts(t *testing.T) {
	for address, want := range map[string]string{
		"DB.example.:5432": "db.example", "10.0.0.1:80": "10.0.0.1", "[2001:db8::1]:80": "2001:db8::1", "[fe80::1%eth0]:80": "fe80::1",
		"unix:/run/x": "", "_pg._tcp.example": "", "": "",
	} {
		h := Host{Address: address}
		if got := h.ServerName(); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
		h.SNI = "said.example"
		if got := h.ServerName(); got != "said.example" {
			t.Errorf("%s: %q", address, got)
		}
	}
}

// Whatever is read is written so that it is read the same again.
func FuzzKeyPairs(f *testing.F) {
	for _, s := range []string{"", "a b", " a\tb c d ", "a", "a b a b", "\x00 b", "ä ö"} {
		f.Add(s)
	}
	row := Find("listen", "tls")
	f.Fuzz(func(t *testing.T, s string) {
		var l Listen
		if err := row.Set(&l, s); err != nil {
			if l.TLS != "" || err.Error() == "" {
				t.Errorf("%q: %v, %+v", s, err, l)
			}
			return
		}
		again, err := row.Parse(row.Get(&l))
		if err != nil || again != row.Get(&l) || row.check(&l) != nil {
			t.Errorf("%q is written %q, which is read as %q: %v", s, row.Get(&l), again, err)
		}
		if n := len(l.TLS.List()); (n == 0) != (l.TLS == "") {
			t.Errorf("%q has %d pairs", s, n)
		}
	})
}
