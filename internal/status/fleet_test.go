package status

import (
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/fleet"
)

// What is wrong between a node and its fleet is said in the words that fit: a node whose file is
// older runs all that the fleet has, and one whose store refuses its writes has joined.
func TestProblemsOfANode(t *testing.T) {
	const older = "its file has an older configuration: f.xml has been changed by hand"
	for name, test := range map[string]struct {
		fleet fleet.Status
		kind  Kind
		want  []string
	}{
		"all is well":  {fleet.Status{Joined: true}, "", nil},
		"older file":   {fleet.Status{Joined: true, Problem: older, Older: older}, FleetBehind, []string{"The node b runs what its fleet edge has, but without the store it would start with something older: " + older}},
		"old and file": {fleet.Status{Joined: true, Problem: "generation 7 cannot run here; " + older, Older: older}, FleetBehind, []string{"The node b does not run all that its fleet edge has: generation 7 cannot run here", "The node b runs what"}},
		"behind":       {fleet.Status{Joined: true, Problem: "generation 7 cannot run here"}, FleetBehind, []string{"The node b does not run all that its fleet edge has: generation 7 cannot run here"}},
		"refused":      {fleet.Status{Joined: true, Refused: "it cannot write to the store: no space"}, FleetStore, []string{"The node b is in its fleet edge, but it cannot write to the store: no space: changes are refused until it can"}},
	} {
		f := test.fleet
		f.Fleet, f.Node = "edge", "b"
		var got []Problem
		r := Read(Facts{State: state(t, web), Fleet: &f})
		for _, p := range r.Problems {
			if strings.HasPrefix(string(p.Kind), "fleet_") {
				got = append(got, p)
			}
		}
		if len(got) != len(test.want) {
			t.Errorf("%s: %v", name, got)
			continue
		}
		for i, p := range got {
			if p.Kind != test.kind || !strings.HasPrefix(p.Text, test.want[i]) || strings.Contains(p.Text, "does not run") && strings.Contains(p.Text, "by hand") {
				t.Errorf("%s: %s: %s; want %s", name, p.Kind, p.Text, test.want[i])
			}
		}
	}
}
