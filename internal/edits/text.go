package edits

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/txlb/txlb/config"
)

// longestShown is how much of a wrong word an error shows, in bytes.
const longestShown = 80

// Show quotes a word for an error.
func Show(s string) string {
	if len(s) > longestShown {
		s = strings.ToValidUTF8(s[:longestShown], "") + "…"
	}
	return strconv.Quote(s)
}

// Shorten keeps a long word in an error from filling the screen.
func Shorten(err error) error {
	if err == nil || len(err.Error()) <= 4*longestShown {
		return err
	}
	text := err.Error()
	head, tail := text[:2*longestShown], text[len(text)-2*longestShown:]
	return fmt.Errorf("%s…%s", strings.ToValidUTF8(head, ""), strings.ToValidUTF8(tail, ""))
}

// manyNames is from how many on an error does not list what there is.
const manyNames = 20

// Suggest says what was probably meant, or what there is.
func Suggest(word string, names []string) string {
	if len(names) <= manyNames {
		return config.Suggest(word, names)
	}
	if s := config.Suggest(word, names); strings.HasPrefix(s, "; did you mean") {
		return s
	}
	return fmt.Sprintf("; %d exist, such as %s", len(names), strings.Join(names[:3], ", "))
}
