package core

import (
	"testing"

	"github.com/txlb/txlb/engine"
)

// Each way to end has a meaning, and each meaning is one of a way to end.
func TestTerminationsHaveMeanings(t *testing.T) {
	codes := map[string]bool{}
	for how := range terminations {
		code := how.String()
		if codes[code] {
			t.Errorf("the code %s is there twice", code)
		}
		codes[code] = true
		if known, ok := engine.TerminationOf(code); !ok || known.Meaning == "" {
			t.Errorf("no row of engine.Terminations says what %s means", code)
		}
	}
	for _, known := range engine.Terminations() {
		if !codes[known.Code] {
			t.Errorf("engine.Terminations has %s, with which no session ends", known.Code)
		}
	}
}
