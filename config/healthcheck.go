package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of checks.
const (
	shortestCheck = 10 * time.Millisecond // the director looks at what is due that often
	longestCheck  = 24 * time.Hour
	longestProbe  = 5 * time.Minute
	maxRounds     = 1000 // rise and fall
	maxMaxFails   = 1000
	maxSticky     = 10_000_000 // half a gigabyte
	maxCheckText  = 4096       // send and expect, in bytes
	maxCheckPath  = 2048
)

// checkPath takes what a request line can hold.
func checkPath(s string) error {
	if !strings.HasPrefix(s, "/") || len(s) > maxCheckPath || !visible(s) {
		return fmt.Errorf("%q is not a path; write / and ASCII letters without spaces, at most %d, and %%XX for every other byte", s, maxCheckPath)
	}
	return nil
}

func checkStatus(s string) error {
	_, err := ParseStatus(s)
	return err
}

// visible tells whether a text is of ASCII letters that show, without spaces:
// nothing in it can end a line of a request or one of its words.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// checkHostHeader accepts a name or an address, with or without a port.
func checkHostHeader(s string) error {
	host := s
	if name, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q: port %q is not a number between 1 and 65535", s, port)
		}
		host = name
	}
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	}
	if strings.Contains(host, ":") {
		if !visible(host) || checkAddress(net.JoinHostPort(host, "1"), false) != nil {
			return fmt.Errorf("%q is neither a host name nor an address", s)
		}
		return nil
	}
	return checkHostName(s, host)
}

// StatusRange is the HTTP statuses from Low to High, both included.
type StatusRange struct{ Low, High int }

// ParseStatus reads the statuses that pass a check: numbers from 100 to 599 and
// ranges of them, with commas between, such as "200,204,300-399".
func ParseStatus(s string) ([]StatusRange, error) {
	var ranges []StatusRange
	for part := range strings.SplitSeq(s, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, errA := parseInt(low, 100, 599)
		b, errB := parseInt(high, 100, 599)
		if errA != nil || errB != nil || a > b || len(low) != 3 || len(high) != 3 {
			return nil, fmt.Errorf("%q in %q is not a status; write numbers from 100 to 599 or ranges, such as 200,204,300-399", part, s)
		}
		ranges = append(ranges, StatusRange{a, b})
	}
	return ranges, nil
}

// unescape reads bytes written as text: \r \n \t \\ and \xNN stand for what
// they do in C, everything else for itself.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		if i == len(s) {
			return "", fmt.Errorf(`%q ends within an escape; a backslash itself is \\`, s)
		}
		switch s[i] {
		case 'r':
			b.WriteByte('\r')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '\\':
			b.WriteByte('\\')
		case 'x':
			digits := s[i+1 : min(i+3, len(s))]
			n, err := strconv.ParseUint(digits, 16, 8)
			if err != nil || len(digits) != 2 {
				return "", fmt.Errorf(`\x%s is not a byte; write two hexadecimal digits, such as \x0d`, digits)
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			_, size := utf8.DecodeRuneInString(s[i:])
			return "", fmt.Errorf(`\%s is not an escape; there are \r \n \t \\ and \xNN`, s[i:i+size])
		}
	}
	return b.String(), nil
}

// escape is the inverse of unescape.
func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		_, size := utf8.DecodeRuneInString(s[i:])
		char := s[i : i+size]
		i += size
		switch {
		case char == "\r":
			b.WriteString(`\r`)
		case char == "\n":
			b.WriteString(`\n`)
		case char == "\t":
			b.WriteString(`\t`)
		case char == `\`:
			b.WriteString(`\\`)
		case printable(char):
			b.WriteString(char)
		default:
			for _, c := range []byte(char) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
	}
	return b.String()
}
