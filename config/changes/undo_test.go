package changes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/models"
	"github.com/txlb/txlb/config/internal/tree"
)

// Undoing a change of any two models in any third gives a model without errors, or says why
// not. If nothing else has changed it is the one from before; if the change did nothing, or is
// undone already, nothing happens. A second undo finds nothing to do, unless it takes a route for
// another one, or routes stand in another order now than before.
func TestUndoOfAny(t *testing.T) {
	undone := 0
	rapid.Check(t, func(t *rapid.T) {
		before, after, now := models.Draw(t, "before"), models.Draw(t, "after"), models.Draw(t, "now")
		switch rapid.IntRange(0, 3).Draw(t, "case") {
		case 0:
			now = after
		case 1:
			after = before
		case 2:
			now = before
		}
		m, err := Undo(before, after, now)
		if err != nil {
			return
		}
		undone++
		if err := m.Config.Check("undone").Err(); err != nil {
			t.Fatal(err)
		}
		same := func(a, b *config.Config) {
			t.Helper()
			if diff := gocmp.Diff(a, b, models.SameMeaning); diff != "" {
				t.Fatal(diff)
			}
		}
		same(m.Config, must(Apply(now, m.Kept))(t))
		switch {
		case now == after:
			same(before, m.Config)
			if len(m.Lost) > 0 {
				t.Fatalf("lost %v", m.Lost)
			}
		case after == before, now == before:
			same(now, m.Config)
			if len(m.Kept)+len(m.Lost) > 0 {
				t.Fatalf("kept %v, lost %v", m.Kept, m.Lost)
			}
		}
		if repeats(before, after, now) || turned(before, now) {
			return
		}
		if again, err := Undo(before, after, m.Config); err == nil && len(again.Kept) > 0 {
			t.Fatalf("a second undo does %v", again.Kept)
		}
	})
	if undone == 0 {
		t.Error("no change of any two models could be undone")
	}
}

// repeats tells whether a service has routes, or listeners, that only their order tells apart: of
// those that an undo leaves, the first one counts as the first from before.
func repeats(list ...*config.Config) bool {
	for _, c := range list {
		for _, s := range c.Tree().Of("service") {
			if slices.ContainsFunc(s.Kids, func(kid *tree.Node) bool { return strings.Contains(kid.Key, "\x00") }) {
				return true
			}
		}
	}
	return false
}

// turned tells whether a service has routes in another order now than before. An undo keeps the
// order of now if it is not that of the change. What is left may look as if only the change had made
// it: [q p] before, [x p q] after and [p x q] now give [p q], and a second undo gives [q p].
func turned(before, now *config.Config) bool {
	is := now.Tree()
	for _, s := range before.Tree().Of("service") {
		a, b := steps(s), steps(is.Kid(s.Step()))
		if !slices.Equal(common(a, b), common(b, a)) {
			return true
		}
	}
	return false
}

// An undo leaves clients that had hosts before the change, and have some now, with one at least.
func TestUndoKeepsTheLastHost(t *testing.T) {
	const (
		a, b, drained = `<host name="a" ip="a:1"/>`, `<host name="b" ip="b:1"/>`, `<host name="a" ip="a:1" state="drain"/>`
		other         = `<group name="other"/>`
	)
	group := func(name, on, hosts string) string {
		return fmt.Sprintf(`<group name=%q enable=%q>%s</group>`, name, on, hosts)
	}
	blue := func(hosts string) string { return group("blue", "yes", hosts) }
	const route = `<route net="10.0.0.0/8" group="green"/>`
	for name, test := range map[string]struct{ before, after, now, want, kept, lost string }{
		"the others are gone":    {blue(a), blue(a + b), blue(b), blue(b), "[]", "[delHost web blue b]"},
		"one is left":            {blue(a), blue(a + b), blue(a+b) + other, blue(a) + other, "[delHost web blue b]", "[]"},
		"the others are drained": {blue(a), blue(a + b), blue(drained + b), blue(drained + b), "[]", "[delHost web blue b]"},
		"it was drained":         {blue(drained + b), blue(a + b), blue(a), blue(a), "[]", "[setHost web blue a state=drain]"},
		"there was none before":  {blue(""), blue(b), blue(b) + other, blue("") + other, "[delHost web blue b --force]", "[]"},
		"the former group has none": {
			blue(a) + group("green", "no", b), group("blue", "no", a) + group("green", "yes", b), group("blue", "no", "") + group("green", "yes", b),
			group("blue", "no", "") + group("green", "yes", b), "[]", "[enableGroup web blue]",
		},
		"of a route": {
			blue(a) + group("green", "no", a) + route, blue(a) + group("green", "no", a+b) + route, blue(a) + group("green", "no", b) + route,
			blue(a) + group("green", "no", b) + route, "[]", "[delHost web green b]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			doc := func(s string) *config.Config {
				return models.MustParse(t, `<config><service name="web"><listen ip=":80"/>`+s+`</service></config>`)
			}
			m, err := Undo(doc(test.before), doc(test.after), doc(test.now))
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(doc(test.want), m.Config, models.SameMeaning); diff != "" {
				t.Error(diff)
			}
			if kept, lost := fmt.Sprint(m.Kept), fmt.Sprint(m.Lost); kept != test.kept || lost != test.lost {
				t.Errorf("kept %s, lost %s", kept, lost)
			}
		})
	}
}
