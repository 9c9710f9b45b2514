package config

import (
	"slices"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	for text, want := range map[string][]string{
		"systemctl start db":                   {"systemctl", "start", "db"},
		"  /bin/sh  -c 'sleep 1; echo \"a\"' ": {"/bin/sh", "-c", `sleep 1; echo "a"`},
		`a "" b"c d"'e'`:                       {"a", "", "bc de"},
	} {
		if got, err := Command(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"": "missing", "  ": "missing", `"" a`: "missing", `a "b`: "not closed"} {
		if got, err := Command(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want an error with %q", text, got, err, want)
		}
	}
}

// What programs run is the node's own to say: no store can.
func TestKeepOwn(t *testing.T) {
	groups := func(commands ...string) *Config {
		c := New()
		s := NewService("db")
		for i, command := range commands {
			g := NewGroup(string(rune('a' + i)))
			g.OnHold = command
			s.Groups = append(s.Groups, g)
		}
		c.Services = append(c.Services, s)
		return c
	}
	stored := groups("evil", "", "evil")
	stored.KeepOwn(groups("start a", "start b"))
	for i, want := range []string{"start a", "start b", ""} {
		if got := stored.Services[0].Groups[i].OnHold; got != want {
			t.Errorf("group %d runs %q, want %q", i, got, want)
		}
	}
	stored.KeepOwn(nil)
	if got := stored.Services[0].Groups[0].OnHold; got != "" {
		t.Errorf("without a file it runs %q", got)
	}
}
