package core

import (
	"testing"

	"github.com/txlb/txlb/engine"
)

// Every reason of a rejection has its meaning, and no other has one.
func TestRejectionsHaveMeanings(t *testing.T) {
	known := map[string]bool{}
	for _, r := range engine.Rejections() {
		if known[r.Reason] || r.Meaning == "" {
			t.Errorf("%s stands twice, or without a meaning", r.Reason)
		}
		known[r.Reason] = true
	}
	for why := range refusals {
		if !known[why.String()] {
			t.Errorf("%s has no row in engine.Rejections", why)
		}
		delete(known, why.String())
	}
	for reason := range known {
		t.Errorf("engine.Rejections has %s, which the engines do not", reason)
	}
}
