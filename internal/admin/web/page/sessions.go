package page

import (
	"cmp"
	"html/template"
	"net/url"
	"slices"
	"strings"

	"github.com/txlb/txlb/internal/admin"
)

// SessionList is what the page of sessions shows.
type SessionList struct {
	List   []Session
	Total  int  // that were looked at
	Match  int  // of them, that the filter wants
	Looked bool // there are more, which were not looked at
	Filter string
	Sort   string // a column, with "-" in front for the reverse order; "": the oldest first

	Ended []EndedSession // those that the filter wants, the last one first
}

// sessionOrders are the columns; the greatest figures come first.
var sessionOrders = map[string]func(a, b *Session) int{
	"client":  func(a, b *Session) int { return natural(a.Client, b.Client) },
	"service": func(a, b *Session) int { return natural(a.Service, b.Service) },
	"host":    func(a, b *Session) int { return cmp.Or(natural(a.Host, b.Host), natural(a.Group, b.Group)) },
	"age":     func(a, b *Session) int { return a.Started.Compare(b.Started) },
	"idle":    func(a, b *Session) int { return cmp.Compare(b.Idle, a.Idle) },
	"in":      func(a, b *Session) int { return cmp.Compare(b.In, a.In) },
	"out":     func(a, b *Session) int { return cmp.Compare(b.Out, a.Out) },
}

// ChooseSessions filters and sorts sessions by the parameters of the page: q, words
// that client, service, group, host or ID must have, and sort. At most so many are
// kept. What makes no sense is left out.
func ChooseSessions(all []Session, v url.Values, most int) SessionList {
	l := SessionList{Total: len(all), Filter: strings.TrimSpace(v.Get("q")), Sort: v.Get("sort")}
	if len(l.Filter) > maxFilter {
		l.Filter = strings.ToValidUTF8(l.Filter[:maxFilter], "")
	}
	order := sessionOrders[strings.TrimPrefix(l.Sort, "-")]
	if order == nil {
		l.Sort, order = "", sessionOrders["age"]
	}
	for i := range all {
		if l.wants(&all[i]) {
			l.List = append(l.List, all[i])
		}
	}
	slices.SortStableFunc(l.List, func(a, b Session) int {
		if strings.HasPrefix(l.Sort, "-") {
			return order(&b, &a)
		}
		return order(&a, &b)
	})
	l.Match = len(l.List)
	l.List = l.List[:min(len(l.List), most)]
	return l
}

// wants tells whether the filter wants a session; more are further words about it.
func (l *SessionList) wants(s *Session, more ...string) bool {
	text := append([]string{s.Client, s.Service, s.Group, s.Host, admin.FormatSessionID(s.ID)}, more...)
	all := strings.ToLower(strings.Join(text, "\x00"))
	return !slices.ContainsFunc(strings.Fields(strings.ToLower(l.Filter)), func(w string) bool { return !strings.Contains(all, w) })
}

// ChooseEnded keeps those sessions that the filter wants, at most so many. The termination is
// a word of theirs as well.
func (l *SessionList) ChooseEnded(all []EndedSession, most int) {
	for i := range all {
		if len(l.Ended) < most && l.wants(&all[i].Session, all[i].Termination) {
			l.Ended = append(l.Ended, all[i])
		}
	}
}

// Head is the head of a column. A second click turns the order round.
func (l SessionList) Head(by, text string) template.HTML {
	to, mark := by, ""
	switch l.Sort {
	case by:
		to, mark = "-"+by, ` <span class="order" aria-label="sorted">▾</span>`
	case "-" + by:
		mark = ` <span class="order" aria-label="sorted, reversed">▴</span>`
	}
	v := url.Values{"sort": {to}}
	if l.Filter != "" {
		v.Set("q", l.Filter)
	}
	return template.HTML(`<a href="sessions?` + template.HTMLEscapeString(v.Encode()) + `">` + template.HTMLEscapeString(text) + mark + `</a>`)
}
