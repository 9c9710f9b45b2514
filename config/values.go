package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// parseBool reads a boolean in any spelling of earlier versions and any case.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "1", "on", "enable", "true":
		return true, nil
	case "no", "0", "off", "disable", "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is not yes or no", s)
}

// The bounds of a duration, but for 0. The timers count milliseconds.
const (
	shortest = time.Millisecond
	longest  = 10 * 365 * 24 * time.Hour
)

// parseSeconds reads a duration of earlier versions: bare seconds.
func parseSeconds(s string) (time.Duration, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= shortest.Seconds() && f <= longest.Seconds()) {
		return 0, fmt.Errorf("%q is not a number of seconds above 0, such as 10 or 0.5", s)
	}
	return time.Duration(f * float64(time.Second)).Round(shortest), nil
}

// parseDuration reads a duration with a unit; 0 needs none.
func parseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%q has no unit; write %sms or %ss", s, s, s)
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil || d < 0:
		return 0, fmt.Errorf("%q is not a duration such as 500ms, 2s, 5m or 1h", s)
	case d > longest:
		return 0, fmt.Errorf("%q is longer than %s; 0 means no limit", s, duration(longest))
	case d > 0 && d < shortest:
		return 0, fmt.Errorf("%q is shorter than %v", s, shortest)
	}
	return d, nil
}

// units of a size, the largest first.
var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// maxBytes is the largest size that a document may ask for.
const maxBytes = 1 << 40

// parseSize reads a number of bytes with or without a unit.
func parseSize(s string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 1 || n > maxBytes/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf("%q is not a size such as 64KiB, 1MiB or a number of bytes", s)
}

// formatSize is the inverse of parseSize.
func formatSize(n int64) string {
	for _, u := range units {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseInt(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a number between %d and %d", s, low, high)
	case n < low || n > high:
		return 0, fmt.Errorf("%q is not between %d and %d", s, low, high)
	}
	return n, nil
}

// maxUnixPath is the longest path that a UNIX socket can have (unix(7)).
const maxUnixPath = 107

// checkAddress checks an address. One to listen on may stand for every
// address and have port 0.
func checkAddress(s string, listen bool) error {
	if isAddrPort(s) {
		return nil
	}
	if !printable(s) {
		return fmt.Errorf("%q has a non-printable character", s)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !strings.HasPrefix(path, "/") || len(path) > maxUnixPath {
			return fmt.Errorf("%q is not unix: and an absolute path of at most %d bytes", s, maxUnixPath)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address; write host:port, [v6]:port or unix:/path", s)
	}
	lowest := 1
	if listen {
		lowest = 0
	}
	if n, err := strconv.Atoi(port); err != nil || n < lowest || n > 65535 || port != strconv.Itoa(n) {
		return fmt.Errorf("%q: port %q is not a number between %d and 65535", s, port, lowest)
	}
	switch {
	case host == "*" || host == "":
		if !listen {
			return fmt.Errorf("%q names no host to connect to; write host:port", s)
		}
		return nil
	case strings.Contains(host, ":"):
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q: %q is not an IPv6 address", s, host)
		}
		return nil
	}
	return checkHostName(s, host)
}

// lacksZone tells whether an address is a link-local IPv6 address without its
// interface, which cannot be reached.
func lacksZone(s string) (ip netip.Addr, lacks bool) {
	if !strings.HasPrefix(s, "[") {
		return ip, false
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return ip, false
	}
	ip = a.Addr()
	return ip, ip.Zone() == "" && !ip.Is4In6() && ip.IsLinkLocalUnicast()
}

// isAddrPort tells the most usual address, an IPv4 one with a port above 0, in
// a fraction of the time that the rest takes.
func isAddrPort(s string) bool {
	a, err := netip.ParseAddrPort(s)
	return err == nil && a.Addr().Is4() && s[strings.LastIndexByte(s, ':')+1] != '0'
}

// checkHostName takes IPv4 addresses and DNS names, with the underscores that
// some use.
func checkHostName(s, host string) error {
	if numeric := strings.Trim(host, "0123456789."); numeric == "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q: %q is not an IPv4 address", s, host)
		}
		return nil
	}
	if len(host) > 253 {
		return fmt.Errorf("%q: the host name is longer than 253 characters", s)
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		wrong := strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_")
		if label == "" || len(label) > 63 || wrong != "" {
			return fmt.Errorf("%q: %q is not a host name", s, host)
		}
	}
	return nil
}

// isLoopback tells whether a listening address is reachable from this machine
// alone.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if host == "localhost" || strings.HasPrefix(address, "unix:") {
		return true
	}
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// printable tells whether a text has no control characters, which would break lines
// of logs and terminals, and nothing that XML cannot contain.
func printable(s string) bool {
	plain := true // as most are, which is quicker to tell
	for _, c := range []byte(s) {
		if c < ' ' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return true
	}
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool {
		return unicode.IsControl(c) || c == 0xFFFE || c == 0xFFFF
	})
}

// isDES tells the traditional crypt(3) hash: two letters of salt and eleven
// more.
func isDES(hash string) bool {
	return len(hash) == 13 &&
		strings.Trim(hash, "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

// wellKnown are the password hashes in the samples of earlier versions.
var wellKnown = [...]string{"..xpoEyRReGzk", "iy9l0V1MkG1DE"}

// duration is the inverse of parseDuration, without the trailing zero units that a
// Duration prints.
func duration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// seconds is the inverse of parseSeconds.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}

// checkDuration checks one for which 0 means that there is no limit.
func checkDuration(d time.Duration) error {
	if d != 0 && (d < shortest || d > longest) {
		return fmt.Errorf("%v is neither 0 nor between %s and %s", d, duration(shortest), duration(longest))
	}
	return nil
}

// checkSeconds checks what is written in seconds and fractions of them.
func checkSeconds(d time.Duration) error {
	if d < shortest || d > longest || d%shortest != 0 {
		return fmt.Errorf("%v is not in whole milliseconds above 0", d)
	}
	return nil
}

// What <admin targets> lets runtime verbs name.
const (
	targetsTCP = "tcp" // no UNIX socket and no file
	targetsAny = "any"
)

// networks reads CIDRs with spaces or commas between them. An address alone is a
// network of its own.
func networks(s string) (list []netip.Prefix, err error) {
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' }) {
		n, err := netip.ParsePrefix(word)
		if ip, alone := netip.ParseAddr(word); err != nil && alone == nil && ip.Zone() == "" {
			ip = ip.Unmap()
			n, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not a network; write %s, %s, or networks such as 10.0.0.0/8", word, targetsTCP, targetsAny)
		}
		list = append(list, n.Masked())
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%q is neither %s nor %s nor networks such as 10.0.0.0/8", s, targetsTCP, targetsAny)
	}
	return list, nil
}
