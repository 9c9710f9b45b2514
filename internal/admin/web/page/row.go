package page

import (
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"time"

	"github.com/txlb/txlb/internal/director"
)

func (v *View) rows(s *director.Service, g *director.Group) []HostRow {
	rows := make([]HostRow, len(g.Hosts))
	for i, h := range g.Hosts {
		rows[i] = v.row(s, g, h)
	}
	return rows
}

func (v *View) row(s *director.Service, g *director.Group, h *director.Host) HostRow {
	c := h.Config
	r := HostRow{
		ID: hostID(s.Config.Name, g.Config.Name, c.Name), Service: s.Config.Name, Group: g.Config.Name, Name: c.Name,
		Address: c.Address, State: c.State, Weight: c.Weight, Backup: c.Backup,
	}
	f, known := HostFigures{}, false
	if v.Figures != nil {
		f, known = v.Figures.all[r.ID]
	}
	r.Figures = hostFigures(h)
	if known { // what is counted is of now, rates are of the last sample
		r.Figures.Rate, r.Figures.InRate, r.Figures.OutRate = f.Rate, f.InRate, f.OutRate
	}
	up, reason, since := health(h)
	r.Since, r.Reason = since, reason
	switch {
	case c.State == "maint":
		r.Health = "maint"
	case len(h.Targets) == 0:
		r.Health = "none"
	case up:
		r.Health = "up"
		for _, t := range h.Targets {
			if !t.Host.Up() {
				r.Health = "part"
			}
		}
	default:
		r.Health = "down"
	}
	if r.Health != "up" && r.Health != "maint" || h.Problem != "" {
		r.Level = Notice
		if g.Config.Enabled {
			r.Level = Warning
		}
	} else if c.State != "ready" || c.Weight == 0 {
		r.Level = Notice
	}
	for _, t := range h.Targets {
		status := t.Status()
		if k := checkView(status); r.Check.At.IsZero() || k.At.After(r.Check.At) || (r.Health == "part" && !status.Up) {
			r.Check = k
		}
	}
	return r
}

func checkView(s director.Status) CheckView {
	k := CheckView{At: s.Checked, Text: s.Check.Text, Took: s.Check.Took}
	if !s.Checked.IsZero() {
		k.Code = s.Check.Code.String()
	}
	switch {
	case s.Up && s.Failed > 0 && !s.Checked.IsZero():
		k.Progress = fmt.Sprintf("%d of %d failed", s.Failed, s.Fall)
	case !s.Up && s.Passed > 0:
		k.Progress = fmt.Sprintf("%d of %d passed", s.Passed, s.Rise)
	}
	return k
}

// health tells whether a host has an address that is up, what is wrong with
// those that are not or with its name, and since when it is so.
func health(h *director.Host) (up bool, reason string, since time.Time) {
	downReason, downSince := "", time.Time{}
	for _, t := range h.Targets {
		s := t.Status()
		if t.Host.Up() {
			up = true
			if since.IsZero() || s.Since.Before(since) {
				since = s.Since
			}
			continue
		}
		if s.Since.After(downSince) {
			downSince = s.Since
		}
		if downReason == "" {
			downReason = s.Reason
			if s.Up { // the engine has just marked it, the director has not seen it yet
				downReason = "a client could not be connected"
			}
		}
	}
	if downReason == "" {
		downReason = h.Problem
	}
	switch {
	case !up && len(h.Targets) == 0:
		return false, downReason, h.ProblemSince
	case !up:
		return false, downReason, downSince
	}
	return true, downReason, since
}

func (r *HostRow) where() Where { return Where{r.Service, r.Group, r.Name} }

// Place names the host in the query of an address.
func (r *HostRow) Place() template.URL {
	return template.URL("service=" + url.QueryEscape(r.Service) + "&group=" + url.QueryEscape(r.Group) + "&name=" + url.QueryEscape(r.Name))
}

// Ready is the button that gives the host clients again.
func (r *HostRow) Ready(v *View) Action {
	return Action{"Ready", "setHost", append(r.where().params("state", "ready"), v.generation())}
}

// ShortAddress and ShortReason fit into a row.
func (r *HostRow) ShortAddress() string { return clip(r.Address, 80) }
func (r *HostRow) ShortReason() string  { return clip(r.Reason, 160) }

// Age tells since when the health is what it is. Like Cells it is made of
// figures and words of this package alone, which is why it may be HTML: a
// template that escapes each on its own takes twice as long for a long page.
func (r *HostRow) Age(now time.Time) template.HTML {
	if r.Since.IsZero() || r.Health == "maint" {
		return ""
	}
	return template.HTML(fmt.Sprintf(`for <time data-at="%d">%s</time>`, r.Since.UnixMilli(), since(r.Since, now)))
}

// Cells are the columns of figures.
func (r *HostRow) Cells(now time.Time) template.HTML {
	f := &r.Figures
	b := make([]byte, 0, 1024)
	cell := func(label, name, value string, zero bool, small, smallValue string) {
		b = append(b, `<td class="num" data-label="`...)
		b = append(append(b, label...), `"><span`...)
		if name != "" {
			b = append(append(append(b, ` data-f="`...), name...), '"')
		}
		if zero {
			b = append(b, ` class="zero"`...)
		}
		b = append(append(append(b, '>'), value...), `</span>`...)
		if small != "" {
			b = append(append(b, `<small data-f="`...), small...)
			b = append(append(append(b, `">`...), smallValue...), `</small>`...)
		}
		b = append(b, `</td>`...)
	}
	check := "–"
	switch {
	case f.CheckMS != nil:
		check = took(f.CheckMS)
	case r.Check.Code != "":
		check = r.Check.Code // HAProxy's word
	}
	b = append(append(append(b, `<td data-label="Last check"><span data-f="check_ms">`...), check...), `</span><small>`...)
	if f.Checked != 0 {
		b = fmt.Appendf(b, `<time data-f="checked" data-at="%d">%s</time>`, f.Checked, since(time.UnixMilli(f.Checked), now))
	}
	if r.Check.Progress != "" {
		b = append(append(b, ", "...), r.Check.Progress...)
	}
	b = append(b, `</small></td>`...)
	cell("Weight", "", strconv.Itoa(r.Weight), r.Weight == 0, "", "")
	cell("Sessions", "sessions", count(f.Sessions), f.Sessions == 0, "total", count(f.Total))
	cell("Rate", "rate", decimal(f.Rate)+"/s", f.Rate == 0, "", "")
	cell("Failures", "failures", count(f.Failures), f.Failures == 0, "", "")
	cell("In", "in_rate", amount(f.InRate)+"/s", f.InRate == 0, "in", amount(float64(f.In)))
	cell("Out", "out_rate", amount(f.OutRate)+"/s", f.OutRate == 0, "out", amount(float64(f.Out)))
	return template.HTML(b)
}
