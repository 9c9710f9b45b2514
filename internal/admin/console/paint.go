package console

import (
	"strings"

	"github.com/txlb/txlb/internal/admin"
)

// colour is an SGR code.
type colour string

const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	bold   colour = "1"
	faint  colour = "2"
	invert colour = "7"
)

// paint colours a text, if the style has colours.
func (s Style) paint(c colour, text string) string {
	if !s.Color || c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// colour paints the answer of a verb by what it says: what is wrong in red,
// what is on its way out in yellow.
func (s Style) colour(text string, data any) string {
	lines := strings.Split(text, "\n")
	switch data := data.(type) {
	case admin.Status:
		for i := range data.Problems {
			if i+1 < len(lines) {
				lines[i+1] = s.paint(red, lines[i+1])
			}
		}
	case []admin.HostInfo:
		if len(lines) != len(data)+1 {
			break
		}
		state, health := strings.Index(lines[0], "state"), strings.Index(lines[0], "health")
		for i, h := range data {
			lines[i+1] = s.cell(lines[i+1], health, hostColour(h))
			if h.State != "ready" {
				lines[i+1] = s.cell(lines[i+1], state, yellow)
			}
		}
		lines[0] = s.paint(bold, lines[0])
	case []admin.ServiceInfo:
		if len(lines) != len(data)+1 {
			break
		}
		up := strings.Index(lines[0], " up ")
		for i, svc := range data {
			// The column stands at the right: its head ends where the cell does.
			lines[i+1] = s.cellBefore(lines[i+1], up+3, serviceColour(svc))
		}
		lines[0] = s.paint(bold, lines[0])
	}
	return strings.Join(lines, "\n")
}

// hostColour is the colour of a host's health.
func hostColour(h admin.HostInfo) colour {
	switch {
	case h.State == "maint":
		return yellow
	case !h.Up:
		return red
	}
	return green
}

// serviceColour is the colour of how many of a service's hosts are up.
func serviceColour(s admin.ServiceInfo) colour {
	switch {
	case s.HostsUp == 0:
		return red
	case s.HostsUp < s.Hosts:
		return yellow
	}
	return green
}

// cell paints the cell that begins at a column and ends before two blanks.
func (s Style) cell(line string, at int, c colour) string {
	runes := []rune(line)
	if at < 0 || at >= len(runes) {
		return line
	}
	cell, rest, _ := strings.Cut(string(runes[at:]), "  ")
	if rest != "" {
		rest = "  " + rest
	}
	return string(runes[:at]) + s.paint(c, cell) + rest
}

// cellBefore paints the cell that ends before a column.
func (s Style) cellBefore(line string, end int, c colour) string {
	runes := []rune(line)
	if end <= 0 || end > len(runes) {
		return line
	}
	before := string(runes[:end])
	start := strings.LastIndexByte(before, ' ') + 1
	return before[:start] + s.paint(c, before[start:]) + string(runes[end:])
}
