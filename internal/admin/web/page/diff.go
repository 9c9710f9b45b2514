package page

import (
	"slices"
	"strings"
)

// comparison is the running and the stored configuration side by side.
type comparison struct {
	Configs
	Lines []sideLine
}

// sideLine is a line of one or both.
type sideLine struct {
	Running, Stored     string
	InRunning, InStored bool
	Kind                string // same, only-running, only-stored, both (the lines differ), fold
}

// RunningSign and StoredSign mark lines that only one side has.
func (l sideLine) RunningSign() string { return l.sign("+") }
func (l sideLine) StoredSign() string  { return l.sign("−") }

func (l sideLine) sign(s string) string {
	if l.Kind == "same" {
		return ""
	}
	return s
}

const (
	// longConfig is from how many lines on only what differs is shown, with
	// foldAround lines around it.
	longConfig, foldAround = 1500, 5
	// smallTable is up to how many pairs of lines the best match is searched for.
	smallTable = 1 << 20
)

// sideBySide matches the lines of two texts.
func sideBySide(running, stored string) []sideLine {
	if stored == "" {
		stored = running
	}
	d := differ{a: splitLines(running), b: splitLines(stored)}
	d.diff(0, len(d.a), 0, len(d.b))
	if len(d.lines) <= longConfig {
		return d.lines
	}
	return fold(d.lines)
}

func splitLines(s string) []string {
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// fold leaves out long runs of lines that are the same.
func fold(lines []sideLine) (out []sideLine) {
	near := make([]bool, len(lines))
	for i, l := range lines {
		if l.Kind != "same" {
			for j := max(0, i-foldAround); j < min(len(lines), i+foldAround+1); j++ {
				near[j] = true
			}
		}
	}
	folded := false
	for i, l := range lines {
		if near[i] {
			out = append(out, l)
		} else if !folded {
			out = append(out, sideLine{Running: "…", Stored: "…", Kind: "fold"})
		}
		folded = !near[i]
	}
	return out
}

// differ matches lines: what is the same at both ends, then the longest common
// sequence where the rest is small, else what is there once on each side, and
// the same between those.
type differ struct {
	a, b  []string
	lines []sideLine
}

func (d *differ) diff(a0, a1, b0, b1 int) {
	for a0 < a1 && b0 < b1 && d.a[a0] == d.b[b0] {
		d.same(a0)
		a0, b0 = a0+1, b0+1
	}
	tail := 0
	for a0 < a1-tail && b0 < b1-tail && d.a[a1-1-tail] == d.b[b1-1-tail] {
		tail++
	}
	a1, b1 = a1-tail, b1-tail
	switch {
	case a0 == a1 || b0 == b1:
		d.differ(a0, a1, b0, b1)
	case (a1-a0)*(b1-b0) <= smallTable:
		d.between(a0, a1, b0, b1, d.longest(a0, a1, b0, b1), false)
	default:
		d.between(a0, a1, b0, b1, d.unique(a0, a1, b0, b1), true)
	}
	for i := range tail {
		d.same(a1 + i)
	}
}

// pair is a line of a and the same line of b.
type pair struct{ a, b int }

// between writes the matched lines, and what lies between them.
func (d *differ) between(a0, a1, b0, b1 int, matched []pair, deeper bool) {
	gap := d.differ
	if deeper && len(matched) > 0 {
		gap = d.diff
	}
	for _, m := range matched {
		gap(a0, m.a, b0, m.b)
		d.same(m.a)
		a0, b0 = m.a+1, m.b+1
	}
	gap(a0, a1, b0, b1)
}

func (d *differ) same(a int) {
	d.lines = append(d.lines, sideLine{d.a[a], d.a[a], true, true, "same"})
}

// differ writes lines that have no match, side by side as far as both have some.
func (d *differ) differ(a0, a1, b0, b1 int) {
	for a0 < a1 || b0 < b1 {
		var l sideLine
		if a0 < a1 {
			l.Running, l.InRunning, l.Kind = d.a[a0], true, "only-running"
			a0++
		}
		if b0 < b1 {
			l.Stored, l.InStored = d.b[b0], true
			l.Kind = "only-stored"
			if l.InRunning {
				l.Kind = "both"
			}
			b0++
		}
		d.lines = append(d.lines, l)
	}
}

// longest finds the longest common sequence.
func (d *differ) longest(a0, a1, b0, b1 int) (matched []pair) {
	n, m := a1-a0, b1-b0
	length := make([]int32, (n+1)*(m+1)) // of what is common from there on
	at := func(i, j int) *int32 { return &length[i*(m+1)+j] }
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if d.a[a0+i] == d.b[b0+j] {
				*at(i, j) = *at(i+1, j+1) + 1
			} else {
				*at(i, j) = max(*at(i+1, j), *at(i, j+1))
			}
		}
	}
	for i, j := 0, 0; i < n && j < m; {
		switch {
		case d.a[a0+i] == d.b[b0+j]:
			matched = append(matched, pair{a0 + i, b0 + j})
			i, j = i+1, j+1
		case *at(i+1, j) >= *at(i, j+1):
			i++
		default:
			j++
		}
	}
	return matched
}

// unique finds the longest sequence of lines that are there once on each side.
func (d *differ) unique(a0, a1, b0, b1 int) []pair {
	type place struct{ a, b, inA, inB int }
	places := map[string]*place{}
	for i := a0; i < a1; i++ {
		p := places[d.a[i]]
		if p == nil {
			p = &place{}
			places[d.a[i]] = p
		}
		p.a, p.inA = i, p.inA+1
	}
	for j := b0; j < b1; j++ {
		if p := places[d.b[j]]; p != nil {
			p.b, p.inB = j, p.inB+1
		}
	}
	// Piles as of patience sorting: tops holds the pair with the least b that
	// ends a rising sequence of each length.
	type card struct {
		pair
		under *card
	}
	var tops []*card
	for i := a0; i < a1; i++ {
		p := places[d.a[i]]
		if p.inA != 1 || p.inB != 1 {
			continue
		}
		c := &card{pair: pair{p.a, p.b}}
		k, _ := slices.BinarySearchFunc(tops, p.b, func(c *card, b int) int { return c.b - b })
		if k > 0 {
			c.under = tops[k-1]
		}
		if k == len(tops) {
			tops = append(tops, c)
		} else {
			tops[k] = c
		}
	}
	if len(tops) == 0 {
		return nil
	}
	var matched []pair
	for c := tops[len(tops)-1]; c != nil; c = c.under {
		matched = append(matched, c.pair)
	}
	slices.Reverse(matched)
	return matched
}
