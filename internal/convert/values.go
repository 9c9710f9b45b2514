package convert

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/sched"
)

// timeUnits are those of HAProxy and nginx, the longest first.
var timeUnits = []struct {
	name string
	unit time.Duration
}{
	{"us", time.Microsecond}, {"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour},
	{"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour}, {"M", 30 * 24 * time.Hour}, {"y", 365 * 24 * time.Hour},
}

// maxTime is the longest time that we take.
const maxTime = 10 * 365 * 24 * time.Hour

// parseTime reads a number with or without a unit; bare is the unit of one without.
func parseTime(s string, bare time.Duration) (time.Duration, error) {
	digits := strings.TrimRight(s, "usmhdwMy")
	unit := bare
	if suffix := s[len(digits):]; suffix != "" {
		i := slices.IndexFunc(timeUnits, func(u struct {
			name string
			unit time.Duration
		}) bool {
			return u.name == suffix
		})
		if i < 0 {
			return 0, fmt.Errorf("%q is not a time such as 500ms, 10s or 5m", s)
		}
		unit = timeUnits[i].unit
	}
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time such as 500ms, 10s or 5m", s)
	}
	if n > uint64(maxTime/unit) {
		return maxTime, nil
	}
	d := time.Duration(n) * unit
	if d > 0 && d < time.Millisecond {
		d = time.Millisecond
	}
	return d.Truncate(time.Millisecond), nil
}

// spell writes a time as a document does.
func spell(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseTimes reads times in a row, as in 1h30m, which nginx takes.
func parseTimes(s string, bare time.Duration) (time.Duration, error) {
	var sum time.Duration
	rest := s
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if n < 0 {
			n = len(rest)
		}
		unit := strings.IndexFunc(rest[n:], func(r rune) bool { return r >= '0' && r <= '9' })
		if unit < 0 {
			unit = len(rest) - n
		}
		d, err := parseTime(rest[:n+unit], bare)
		if err != nil {
			return 0, fmt.Errorf("%q is not a time such as 500ms, 10s or 1h30m", s)
		}
		sum, rest = min(sum+d, maxTime), rest[n+unit:]
	}
	if s == "" {
		return 0, fmt.Errorf("a time is missing")
	}
	return sum, nil
}

// parseCount reads a number with or without k, m or g, which stand for powers of
// 1024.
func parseCount(s string) (int64, error) {
	shift := 0
	digits := strings.ToLower(s)
	for i, suffix := range []string{"k", "m", "g"} {
		if d, ok := strings.CutSuffix(digits, suffix); ok {
			digits, shift = d, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<32 {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n << shift, nil
}

// network returns what a word says as a network that the schema takes: masked, and an
// address as it is. ok is false for names and nonsense.
func network(s string) (text string, ok bool) {
	if s == "all" || s == "*" {
		return "*", true
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.Unmap().String(), true
	}
	if ip, mask, cut := strings.Cut(s, "/"); cut && strings.Contains(mask, ".") { // 10.0.0.0/255.0.0.0
		a, err := netip.ParseAddr(ip)
		m := net.ParseIP(mask).To4()
		if err != nil || m == nil {
			return "", false
		}
		if bits, size := net.IPMask(m).Size(); size > 0 {
			s = fmt.Sprintf("%s/%d", a, bits)
		}
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return "", false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 && p.Addr().Is4() {
		return "0.0.0.0/0", true
	}
	return p.Masked().String(), true
}

// escapeBytes writes bytes as <check send> and <check expect> have them.
func escapeBytes(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\\':
			b.WriteString(`\\`)
		case c >= ' ' && c <= '~':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// plainName makes a name that commands need not quote.
func plainName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '_' || r == '.' || r == ':' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
			return r
		}
		return '-'
	}, s)
	return s[:min(len(s), 64)]
}

// uniqueName returns a name that is not taken, and takes it.
func uniqueName(name string, taken map[string]bool) string {
	name = plainName(name)
	if name == "" {
		name = "service"
	}
	free := name
	for i := 2; taken[free]; i++ {
		suffix := fmt.Sprintf("-%d", i)
		free = name[:min(len(name), 64-len(suffix))] + suffix
	}
	taken[free] = true
	return free
}

// portsOf returns the ports of PORT or LOW-HIGH, or says why there are none.
func portsOf(s string) (list []string, why string) {
	low, high, isRange := strings.Cut(s, "-")
	if !isRange {
		high = low
	}
	a, errA := strconv.Atoi(low)
	b, errB := strconv.Atoi(high)
	switch {
	case errA != nil || errB != nil || a < 1 || b > 65535 || a > b:
		return nil, fmt.Sprintf("%q is not a port to listen on", s)
	case b-a >= maxPorts:
		return nil, fmt.Sprintf("more than %d ports", maxPorts)
	}
	for ; a <= b; a++ {
		list = append(list, strconv.Itoa(a))
	}
	return list, ""
}

// scheduler returns the form of a scheduler that suits the weights of hosts: where all
// are equal, the plain one.
func scheduler(group *node, plain string) string {
	weight := ""
	for _, h := range group.kids {
		if h.tag != "host" || h.get("backup") == "true" {
			continue
		}
		w := h.get("weight")
		if w == "" {
			w = "1"
		}
		if weight != "" && w != weight {
			weighted, _ := sched.Weighted(plain)
			return weighted
		}
		weight = w
	}
	return plain
}

// choose gives a group its scheduler: the first that the schema has, and a comment if
// that is not the one that was wanted.
func (c *converter) choose(group *node, at place, wanted, instead string) {
	if c.has("group", "scheduler", wanted) {
		group.attr("scheduler", wanted, at)
		return
	}
	group.attr("scheduler", instead, at)
	c.note(group, at, "no equivalent yet: <group scheduler=%q>; %s instead", wanted, instead)
}

// joinFamilies makes one listener of 0.0.0.0:80 and [::]:80, which txlb writes *:80.
func joinFamilies(service *node) {
	every := map[string]*node{}
	for _, l := range service.kids {
		if host, port := hostPort(l.get("ip")); l.tag == "listen" && (host == "::" || host == "*") && every[port] == nil {
			every[port] = l
		}
	}
	service.kids = slices.DeleteFunc(service.kids, func(l *node) bool {
		host, port := hostPort(l.get("ip"))
		both := every[port]
		if l.tag != "listen" || both == nil || host != "0.0.0.0" {
			return false
		}
		both.attr("ip", "*:"+port, both.from)
		both.notes = append(both.notes, l.notes...)
		return true
	})
}
