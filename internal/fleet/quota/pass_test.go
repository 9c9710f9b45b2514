package quota

import (
	"encoding/json"
	"testing"
)

// A State is of one moment: it is written while the node goes on.
func TestAStateStaysAsItIs(t *testing.T) {
	text := func(s *State) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	change := func(n *Node) {
		l := n.ledgers["k"]
		l.even["b"] = true
		l.even["c"] = true
		l.gift("b", 5)
		l.taken["b"]++
	}
	n := NewNode("a", "life")
	n.ledgers["k"] = &ledger{
		carried: 90, even: map[string]bool{"b": true}, most: -1,
		row: Row{Part: 90, Given: map[string]int64{"b": 1}, Taken: map[string]int64{"b": 1}}, given: map[string]int64{"b": 1}, taken: map[string]int64{"b": 1},
	}
	s := n.State()
	before := text(s)
	next := NewNode("a", "unused")
	next.Take(s)
	for what, of := range map[string]*Node{"gives it": n, "takes it": next} {
		if change(of); text(s) != before {
			t.Errorf("the node that %s has changed it from %s to %s", what, before, text(s))
		}
	}
	if row := next.Row("k"); row.Given["b"] != 1 {
		t.Errorf("a gift of which nobody has been told is in %+v", *row)
	}
}
