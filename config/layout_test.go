package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The list of elements has each element that has attributes, and the reader takes each
// where the list says that it stands, and nowhere else.
func TestElementsAreWhatIsRead(t *testing.T) {
	in := map[string]string{}
	for _, e := range Elements() {
		if _, twice := in[e.Name]; twice {
			t.Errorf("<%s> is there twice", e.Name)
		}
		if _, known := in[e.In]; e.In != "" && !known {
			t.Errorf("<%s> stands before <%s>, which it is in", e.Name, e.In)
		}
		if !strings.HasSuffix(e.Help, ".") || !slices.Contains([]string{"one", "at most one", "any number", "one or more"}, e.Often) {
			t.Errorf("<%s>: %q, %q", e.Name, e.Often, e.Help)
		}
		in[e.Name] = e.In
	}
	for element := range schema {
		if _, known := in[element]; !known {
			t.Errorf("<%s> has attributes, but is not in the list of elements", element)
		}
	}
	// said is what the reader says of an element that stands in outer so many times.
	said := func(outer, name string, times int) string {
		text := strings.Repeat("<"+name+"/>", times)
		for at := outer; at != ""; at = in[at] {
			text = "<" + at + ">" + text + "</" + at + ">"
		}
		_, problems := Parse("c.xml", []byte(text))
		return fmt.Sprint(problems)
	}
	for _, e := range Elements()[1:] {
		for outer := range in {
			text := said(outer, e.Name, 1)
			refused := strings.Contains(text, fmt.Sprintf("unknown element <%s> in <%s>", e.Name, outer)) ||
				strings.Contains(text, fmt.Sprintf("<%s> cannot contain elements; remove <%s>", outer, e.Name))
			if refused != (outer != e.In) {
				t.Errorf("<%s> in <%s>, and the list has it in <%s>: %s", e.Name, outer, e.In, text)
			}
		}
		once := strings.Contains(said(e.In, e.Name, 2), fmt.Sprintf("a second <%s> in <%s>", e.Name, e.In))
		if once != (e.Often == "at most one") {
			t.Errorf("<%s>: %s, but one alone is allowed: %v", e.Name, e.Often, once)
		}
	}
}
