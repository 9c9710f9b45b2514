package page

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/txlb/txlb/internal/admin"
)

// How numbers are written. page.js has the same functions for live values; a test
// compares them.

// count writes a whole number with separated thousands.
func count[T int | int64 | uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	from := 0
	if n < 0 {
		from = 1
	}
	for i := len(s) - 3; i > from; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// decimal writes a number with one decimal below 10, and none above.
func decimal(f float64) string {
	switch {
	case f < 0.05:
		return "0"
	case f < 9.95:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return count(int64(math.Round(f)))
}

// amount writes a number of bytes in decimal units.
func amount(f float64) string {
	if f < 999.5 {
		return strconv.FormatFloat(math.Round(f), 'f', 0, 64) + " B"
	}
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		if f /= 1000; f < 999.5 {
			return decimal(f) + " " + unit
		}
	}
	return decimal(f/1000) + " PB"
}

// span writes a duration in its greatest unit.
func span(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s < 1:
		return "now"
	case s < 120:
		return strconv.FormatInt(s, 10) + " s"
	case s < 2*3600:
		return strconv.FormatInt(s/60, 10) + " min"
	case s < 2*86400:
		return strconv.FormatInt(s/3600, 10) + " h"
	}
	return strconv.FormatInt(s/86400, 10) + " d"
}

// since is the span from at to now, "" if at is zero.
func since(at, now time.Time) string {
	if at.IsZero() {
		return ""
	}
	return span(max(0, now.Sub(at)))
}

// ago is since as people say it.
func ago(at, now time.Time) string {
	if s := since(at, now); s != "now" {
		return s + " ago"
	}
	return "now"
}

// left is the time until something happens.
func left(until, now time.Time) string {
	if s := span(until.Sub(now)); s != "now" {
		return s
	}
	return "a moment"
}

// clock writes a time of day in UTC, with the date if that is not today. The page's
// script writes it in the time zone of the browser, as the head of the page says.
func clock(t, now time.Time) template.HTML {
	t = t.UTC()
	layout := "2 Jan 15:04:05"
	y, m, d := t.Date()
	if ny, nm, nd := now.UTC().Date(); y == ny && m == nm && d == nd {
		layout = "15:04:05"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" data-clock="%d">%s</time>`, t.Format(time.RFC3339), t.UnixMilli(), t.Format(layout)))
}

// took writes milliseconds, "" for nil.
func took(ms *float64) string {
	switch {
	case ms == nil:
		return ""
	case *ms < 0.995:
		return strconv.FormatFloat(*ms, 'f', 2, 64) + " ms"
	case *ms < 9.95:
		return strconv.FormatFloat(*ms, 'f', 1, 64) + " ms"
	}
	return count(int64(math.Round(*ms))) + " ms"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}

// clip shortens a text to that many letters.
func clip(s string, letters int) string {
	if utf8.RuneCountInString(s) <= letters {
		return s
	}
	r := []rune(s)
	return string(r[:letters-1]) + "…"
}

// short shortens a name for a line.
func short(name string) string { return admin.Short(name) }
