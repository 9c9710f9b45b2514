package logs

import (
	"fmt"
	"log/slog"
	"strconv"
	"unicode/utf8"
)

const (
	// longestValue bounds a value of a line, in bytes as they are written.
	longestValue = 8 << 10
	// strangersValue bounds a value that a stranger may have chosen.
	strangersValue = 256
)

// cutAttr bounds the value of an attribute.
func cutAttr(a slog.Attr, limit int) slog.Attr {
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindString:
		if s := v.String(); len(s) > limit/longestRune {
			a.Value = slog.StringValue(cut(s, limit))
		}
	case slog.KindAny:
		var s string
		switch x := v.Any().(type) {
		case error:
			s = x.Error()
		case slog.Level, *slog.Source:
			return a
		default:
			s = fmt.Sprint(x)
		}
		if short := cut(s, limit); len(short) < len(s) {
			a.Value = slog.StringValue(short)
		}
	case slog.KindGroup:
		// Handlers ask for its attributes one by one; Strangers does not.
		group := v.Group()
		short := make([]slog.Attr, len(group))
		for i := range group {
			short[i] = cutAttr(group[i], limit)
		}
		a.Value = slog.GroupValue(short...)
	}
	return a
}

// longestRune is how many bytes a letter can become between quotes: \U0010fffd.
const longestRune = 10

// cut shortens a text so that it takes at most limit bytes between quotes, in
// text and in JSON, and says how much is missing.
func cut(s string, limit int) string {
	if len(s) <= limit/longestRune {
		return s
	}
	size, fits := 0, 0 // fits: up to here there is room for the note
	note := len("… (+ bytes)") + len(strconv.Itoa(len(s)))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t':
			size += 2
		case r == utf8.RuneError && n == 1, r < ' ', r == 0x7f:
			size += 6
		case !strconv.IsPrint(r) && r > 0xffff:
			size += 10
		case !strconv.IsPrint(r):
			size += 6
		default:
			size += n
		}
		if size > limit {
			return fmt.Sprintf("%s… (+%d bytes)", s[:fits], len(s)-fits)
		}
		i += n
		if size+note <= limit {
			fits = i
		}
	}
	return s
}
