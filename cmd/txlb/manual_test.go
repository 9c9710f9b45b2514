package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// The manual page and docs/commands.md say the same of the exit statuses.
func TestExitStatusesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range commands() {
		found := false
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "| `txlb "+cmd.name) && strings.HasSuffix(line, "| "+cmd.exits+" |\n") {
				found = true
			}
		}
		if !found {
			t.Errorf("docs/commands.md has no line of txlb %s that ends with: | %s |", cmd.name, cmd.exits)
		}
	}
}

func TestManualCommand(t *testing.T) {
	for _, test := range []struct {
		words  []string
		status int
		want   string
	}{
		{[]string{"txlb.1", "1700000000"}, exitOK, ".Dd November 14, 2023\n.Dt TXLB 1\n"},
		{[]string{"txlb.xml.5", "0"}, exitOK, ".Dd January 1, 1970\n.Dt TXLB.XML 5\n"},
		{[]string{"txlb.2", "0"}, exitUsage, `"txlb.2" is not txlb.1 or txlb.xml.5`},
		{[]string{"txlb.1", "today"}, exitUsage, `"today" is not a number of seconds`},
		{nil, exitUsage, "usage: txlb __manual"},
	} {
		var out bytes.Buffer
		status := runArgs(t.Context(), console{&answers{to: &out}, &out}, append([]string{manualWord}, test.words...))
		if status != test.status || !strings.Contains(out.String(), test.want) {
			t.Errorf("%q: status %d, want %d with %q:\n%.300s", test.words, status, test.status, test.want, out.String())
		}
	}
}
