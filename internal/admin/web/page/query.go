package page

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// ParseQuery reads which hosts to show from the parameters of a page: q, only, sort,
// more, from. Unknown values are ignored, because a bookmark may be old.
func ParseQuery(v url.Values) Query {
	q := Query{Filter: strings.TrimSpace(v.Get("q")), Only: v.Get("only"), Sort: v.Get("sort"), More: v.Get("more")}
	if len(q.Filter) > maxFilter {
		q.Filter = strings.ToValidUTF8(q.Filter[:maxFilter], "")
	}
	if !slices.ContainsFunc(onlyChoices, func(c Choice) bool { return c.Value == q.Only }) {
		q.Only = ""
	}
	if _, ok := orders[strings.TrimPrefix(q.Sort, "-")]; !ok {
		q.Sort = ""
	}
	if n, err := strconv.Atoi(v.Get("from")); err == nil && n > 0 && q.More != "" {
		q.From = n
	}
	return q
}

// With returns the address of a page with another value of one parameter: sort,
// more or from.
func (q Query) With(name, value string) string {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" && value != "0" {
			v.Set(name, value)
		}
	}
	set("q", q.Filter)
	set("only", q.Only)
	set("sort", q.Sort)
	if name == "more" {
		group, from, _ := strings.Cut(value, " ")
		set("more", group)
		set("from", from)
	} else if name != "" {
		v.Del(name)
		set(name, value)
	} else {
		set("more", q.More)
		set("from", strconv.Itoa(q.From))
	}
	if len(v) == 0 {
		return "./"
	}
	return "./?" + v.Encode()
}

// Address returns the address of the page that the query is from.
func (q Query) Address() string { return q.With("", "") }

// Choice is one entry of a list to choose from.
type Choice struct{ Value, Text string }

var onlyChoices = []Choice{
	{"", "all hosts"}, {"problems", "with problems"}, {"up", "up"}, {"down", "down"},
	{"ready", "ready"}, {"drain", "draining"}, {"maint", "in maintenance"},
}

// Choices lists what Only can be.
func (q Query) Choices() []Choice { return onlyChoices }

// orders are how hosts can be sorted; the greatest numbers come first.
var orders = map[string]func(a, b *HostRow) int{
	"":     func(a, b *HostRow) int { return cmp.Compare(b.Level, a.Level) },
	"name": func(a, b *HostRow) int { return natural(a.Name, b.Name) },
	"health": func(a, b *HostRow) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.Health, b.Health), cmp.Compare(a.State, b.State))
	},
	"weight":   func(a, b *HostRow) int { return cmp.Compare(b.Weight, a.Weight) },
	"sessions": func(a, b *HostRow) int { return cmp.Compare(b.Figures.Sessions, a.Figures.Sessions) },
	"rate":     func(a, b *HostRow) int { return cmp.Compare(b.Figures.Rate, a.Figures.Rate) },
	"failures": func(a, b *HostRow) int { return cmp.Compare(b.Figures.Failures, a.Figures.Failures) },
	"in":       func(a, b *HostRow) int { return cmp.Compare(b.Figures.InRate, a.Figures.InRate) },
	"out":      func(a, b *HostRow) int { return cmp.Compare(b.Figures.OutRate, a.Figures.OutRate) },
	"check": func(a, b *HostRow) int {
		took := func(r *HostRow) float64 {
			if r.Figures.CheckMS == nil {
				return -1
			}
			return *r.Figures.CheckMS
		}
		return cmp.Compare(took(b), took(a))
	},
}

// natural compares names as people do: a2 comes before a10.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, ra := leadingNumber(a)
		nb, rb := leadingNumber(b)
		if na != "" && nb != "" {
			x, y := strings.TrimLeft(na, "0"), strings.TrimLeft(nb, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = ra, rb
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingNumber(s string) (number, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

// wants tells whether a query asks for a host.
func (q *Query) wants(r *HostRow, words []string) bool {
	switch q.Only {
	case "problems":
		if r.Level < Warning && r.Health != "down" && r.Health != "part" && r.Health != "none" {
			return false
		}
	case "up":
		if r.Health != "up" && r.Health != "part" {
			return false
		}
	case "down":
		if r.Health != "down" && r.Health != "none" {
			return false
		}
	case "ready", "drain", "maint":
		if r.State != q.Only {
			return false
		}
	}
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join([]string{r.Name, r.Address, r.Reason, r.Health, r.State, r.Group, r.Service}, "\x00"))
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
