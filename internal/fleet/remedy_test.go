package fleet

import (
	"strings"
	"testing"
)

// Who has a wrong certificate is not sent to look for a port, nor to a secret that he has not.
func TestRemedyForSharing(t *testing.T) {
	for _, c := range []struct {
		s        Shares
		has, not string
	}{
		{Shares{Closed: "x", Unfit: true, Certificates: true}, "cert, key and ca", "ss -ltnp"},
		{Shares{Closed: "x", Certificates: true}, "ss -ltnp", "cert"},
		{Shares{Certificates: true}, "certificates", "secret"},
		{Shares{}, "secret", "cert"},
	} {
		if got := c.s.Remedy(); !strings.Contains(got, c.has) || strings.Contains(got, c.not) {
			t.Errorf("%+v: %s", c.s, got)
		}
	}
	s := Shares{Stale: "no key"}
	if text := s.String(); !strings.Contains(text, "the former ones are in use: no key") || strings.Contains(text, "cannot follow") {
		t.Error(text)
	}
}
