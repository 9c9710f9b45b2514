package page

import (
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
)

func row(s *status.Service, g *status.Group, h *status.Host) HostRow {
	c := h.Config
	r := HostRow{
		ID: hostID(s.Config.Name, g.Config.Name, c.Name), Service: s.Config.Name, Group: g.Config.Name, Name: c.Name,
		Address: c.Address, State: c.State, Weight: c.Weight, Backup: c.Backup, Zone: c.Zone, TLS: c.TLS,
		Health: h.Health.String(), Reason: h.Reason, Since: h.Since, Level: h.Level, Figures: hostFigures(h),
		Turnaround: h.Traffic.Turnaround, WorstTurnaround: h.Traffic.WorstTurnaround, Pinned: c.NeverEject,
	}
	if h.Ejected != nil {
		r.Ejected = &EjectedView{h.Ejected.Why, h.Ejected.Until}
	}
	if h.Check != nil {
		r.Check = checkView(h.Check.Status())
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

func (r *HostRow) where() Where { return Where{r.Service, r.Group, r.Name} }

// Place names the host in the query of an address.
func (r *HostRow) Place() template.URL {
	return template.URL("service=" + url.QueryEscape(r.Service) + "&group=" + url.QueryEscape(r.Group) + "&name=" + url.QueryEscape(r.Name))
}

// Ready is the button that gives the host clients again.
func (r *HostRow) Ready(v *View) Action {
	return Action{"Ready", "setHost", append(r.where().params("state", "ready"), v.generation())}
}

// Pin is the button that keeps the host in, whatever its clients meet.
func (r *HostRow) Pin(v *View) Action {
	return Action{"Never eject", "setHost", append(r.where().params("eject", "never"), v.generation())}
}

// ShortAddress and ShortReason fit into a row.
func (r *HostRow) ShortAddress() string { return clip(r.Address, 80) }
func (r *HostRow) ShortReason() string  { return clip(r.Reason, 160) }

// Age tells how long the host has had its health. Like Cells it may be HTML because
// it contains only numbers and words of this package. A template that escapes each
// value takes twice as long for a long page.
func (r *HostRow) Age(now time.Time) template.HTML {
	if r.Since.IsZero() || r.Health == "maint" {
		return ""
	}
	return template.HTML(fmt.Sprintf(`for <time data-at="%d">%s</time>`, r.Since.UnixMilli(), since(r.Since, now)))
}

// Cells are the columns of numbers.
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
	if f.Elsewhere != "" { // only letters and digits of this package
		b = b[:len(b)-len(`</td>`)]
		b = append(append(append(b, `<small data-f="elsewhere" title="Sessions on other nodes of the fleet">`...), f.Elsewhere...), `</small></td>`...)
	}
	cell("Rate", "rate", decimal(f.Rate)+"/s", f.Rate == 0, "", "")
	cell("Failures", "failures", count(f.Failures), f.Failures == 0, "", "")
	cell("In", "in_rate", amount(f.InRate)+"/s", f.InRate == 0, "in", amount(float64(f.In)))
	cell("Out", "out_rate", amount(f.OutRate)+"/s", f.OutRate == 0, "out", amount(float64(f.Out)))
	return template.HTML(b)
}
