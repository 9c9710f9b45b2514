package peers

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

// What a node says of limits others hear: what is new, what is another, and what is gone.
func TestLimitsAreHeard(t *testing.T) {
	a, b := start(t, "a", bySecret()), start(t, "b", bySecret())
	many := map[string]string{}
	for i := range 3 * perEvent {
		many[fmt.Sprint("sessions ", i)] = fmt.Sprintf(`{"part":%d,"x":"%s"}`, i, strings.Repeat("x", 4096)) // more than one event
	}
	a.Say(many)
	b.Follow([]Member{{"a", a.addr}, {"b", b.addr}})
	heard := func(want map[string]string) func() bool {
		return func() (is bool) {
			b.Read(func(h *Heard) {
				h.Limits(func(n NodeLimits) { is = n.Node == "a" && n.Addr == a.addr && maps.Equal(n.Says, want) })
			})
			return is
		}
	}
	testkit.Eventually(t, "b hears all", heard(many))
	few := map[string]string{"sessions 1": `{"part":9}`, "": `{"life":"x"}`}
	a.Say(few)
	testkit.Eventually(t, "b hears what has changed", heard(few))
	a.Say(nil)
	testkit.Eventually(t, "b hears that there is none", heard(nil))
}

// What a node says may have all nodes of the largest fleet, with long names, twice.
func TestLimitsHaveRoomForAllNodes(t *testing.T) {
	a, b := start(t, "a", bySecret()), start(t, "b", bySecret())
	var members, hears []string
	for i := range MaxNodes {
		name := fmt.Sprintf("node-%04d.rack-17.ams.example.com", i)
		members = append(members, fmt.Sprintf(`"%s":{"life":"0123456789abcdef","since":12345}`, name))
		hears = append(hears, fmt.Sprintf(`"%s":"%s:4300"`, name, name))
	}
	text := `{"view":{"members":{` + strings.Join(members, ",") + `}},"hears":{` + strings.Join(hears, ",") + `}}`
	a.Say(map[string]string{"": text})
	b.Follow([]Member{{"a", a.addr}})
	testkit.Eventually(t, "b hears it", func() (is bool) {
		b.Read(func(h *Heard) { h.Limits(func(n NodeLimits) { is = n.Says[""] == text }) })
		return is
	})
}

// A node that is lost while somebody begins to read is not one that says nothing of limits: it may
// hold parts.
func TestLimitsOfANodeThatIsLost(t *testing.T) {
	a, b := start(t, "a", bySecret()), start(t, "b", bySecret())
	a.Say(map[string]string{"": `{"life":"x"}`})
	b.Follow([]Member{{"a", a.addr}})
	b.sees(t, "a", true, "")
	h := b.heard()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lose(b.peers["a"], errSilent)
	h.Limits(func(n NodeLimits) { t.Errorf("node %s, which is lost, says %q", n.Node, n.Says) })
}

// What is too much, or no JSON, ends the stream of the node that says it.
func TestLimitsAreBounded(t *testing.T) {
	says := func(tables *tables, text string) error {
		e, err := newReader(strings.NewReader("event: limits\ndata: " + text + "\n\n")).next()
		if err != nil {
			t.Fatal(err)
		}
		_, err = tables.take(e)
		return err
	}
	for _, text := range []string{
		`{"set":[{"k":"` + strings.Repeat("k", maxLimitKey+1) + `","v":1}]}`,
		`{"set":[{"k":"k","v":"` + strings.Repeat("v", maxLimit) + `"}]}`,
		`{"set":[{"k":"k","v":}]}`,
	} {
		few := newTables()
		if err := says(&few, text); err == nil || len(few.limits) > 0 {
			t.Errorf("%.60s: %v, %d limits", text, err, len(few.limits))
		}
	}
	for what, size := range map[string]int{"limits": 1, "bytes": maxLimit - 2} {
		full := newTables()
		for i := 0; ; i++ {
			err := says(&full, fmt.Sprintf(`{"set":[{"k":"%d","v":"%s"}]}`, i, strings.Repeat("v", size)))
			if err != nil {
				if !strings.Contains(err.Error(), what) {
					t.Error(err)
				}
				break
			}
			if i > MaxLimits {
				t.Fatal("a node may say more than it may")
			}
		}
		if err := says(&full, `{"set":[{"k":"0","v":1}]}`); err != nil {
			t.Errorf("a shorter text for a limit that it has: %v", err)
		}
	}
}
