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

// A process that takes over what the one before had a moment ago, because that has died meanwhile,
// does not have again what that has given since.
func TestB107AStateThatIsOld(t *testing.T) {
	w := newWorld(t, 300, "a", "b", "c")
	w.settle()
	for _, name := range []string{"a", "b"} { // a is the keeper
		old := w.nodes[name]
		text, err := json.Marshal(old.State())
		if err != nil {
			t.Fatal(err)
		}
		c := w.nodes["c"]
		c.used, c.wants = c.allowed, 60
		w.settle()
		var s State
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		if s.Ledgers["k"].Row.Part <= old.Row("k").Part {
			w.fail("node %s has given nothing since it had %d", name, s.Ledgers["k"].Row.Part)
		}
		next := NewNode(name, "unused")
		next.Take(&s)
		old.Node = next
		w.latest()
		w.look(old) // which checks what nodes hold together
		w.settle()
		c.used = 0
		w.settle()
	}
}
