package web

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/words"
)

// ownRoutes are those that are neither page nor verb.
func (s *server) ownRoutes() []route {
	list := []route{
		{method: http.MethodGet, path: "/healthz", open: true, about: "200 while every loop works; needs no login", serve: s.serveHealthz},
		{method: http.MethodGet, path: "/readyz", open: true, about: "200 while clients are served; 503 while draining or, as <web readyz> says, without a usable host; needs no login", serve: s.serveReadyz},
	}
	if s.opt.Metrics != nil {
		list = append(list, route{
			method: http.MethodGet, path: "/metrics", role: users.Readonly, about: "metrics for Prometheus", serve: s.serveMetrics,
		})
	}
	return list
}

func (s *server) serveHealthz(q *request) (answer, error) {
	if s.opt.Healthy != nil {
		if err := s.opt.Healthy(q.Context()); err != nil {
			return answer{}, fail(http.StatusServiceUnavailable, "unhealthy", "%v", err)
		}
	}
	return text("ok"), nil
}

func (s *server) serveReadyz(*request) (answer, error) {
	if s.opt.Ready != nil {
		if err := s.opt.Ready(); err != nil {
			return answer{}, fail(http.StatusServiceUnavailable, "not_ready", "%v", err)
		}
	}
	return text("ok"), nil
}

func (s *server) serveMetrics(q *request) (answer, error) {
	body, header, done, err := s.opt.Metrics(q.Request)
	if err != nil {
		return answer{}, err
	}
	return answer{kind: "text/plain; version=0.0.4; charset=utf-8", body: body, header: header, done: done}, nil
}

// rawRoutes are for scripts that txLoadBalancer and PythonDirector served too.
func (s *server) rawRoutes() []route {
	var list []route
	for _, r := range []struct {
		path, about string
		serve       func(*request) (answer, error)
	}{
		{"/running.txt", "what runs, one thing a line", s.serveRunningText},
		{"/status.txt", "the answer to status", s.serveStatusText},
		{"/running.xml", "what runs, as XML", s.serveRunningXML},
		{"/rawConfig.xml", "the running configuration", func(q *request) (answer, error) { return s.serveXML(q, "show config") }},
		{"/rawStored.xml", "the stored configuration", func(q *request) (answer, error) { return s.serveXML(q, "show stored") }},
		{"/rawConfig.obj", "the running configuration as txlb holds it", s.serveObject},
	} {
		list = append(list, route{method: http.MethodGet, path: r.path, role: users.Readonly, about: r.about, serve: r.serve})
	}
	return list
}

func (s *server) serveXML(q *request, verb string) (answer, error) {
	result, err := s.read(q, verb)
	a := text(result.Text)
	a.kind = "application/xml; charset=utf-8"
	return a, err
}

func (s *server) serveStatusText(q *request) (answer, error) {
	result, err := s.execute(q, words.Command{Verb: "status"})
	return text(result.Text), err
}

// hostNow is a host as the raw formats show it.
type hostNow struct {
	Name    string `xml:"name,attr"`
	IP      string `xml:"ip,attr"`
	Weight  int    `xml:"weight,attr"`
	State   string `xml:"state,attr"`
	Health  string `xml:"health,attr"`
	Reason  string `xml:"reason,attr,omitempty"`
	Open    int64  `xml:"open,attr"`
	Total   uint64 `xml:"total,attr"`
	Failed  uint64 `xml:"failed,attr"`
	In      uint64 `xml:"in,attr"`
	Out     uint64 `xml:"out,attr"`
	serving bool   // it takes clients, as far as it goes
}

func hostAsNow(h *director.Host) hostNow {
	n := hostNow{
		Name: h.Config.Name, IP: h.Config.Address, Weight: h.Config.Weight, State: h.Config.State, Health: "up", Reason: h.Problem,
	}
	c := h.Stats()
	n.Open, n.Total, n.Failed, n.In, n.Out = c.Active, c.Picks, c.Failures, c.In, c.Out
	for _, t := range h.Targets {
		if !t.Host.Up() && n.Reason == "" {
			n.Reason = t.Status().Reason
		}
	}
	up := h.Up()
	if !up {
		n.Health = "down"
	}
	n.serving = up && h.Config.State == "ready"
	return n
}

// serveRunningText writes a line for each service, group and host, in the format of
// txLoadBalancer. Words with blanks are quoted as in commands.
func (s *server) serveRunningText(*request) (answer, error) {
	bound := s.bound()
	var b bytes.Buffer
	line := func(cells ...any) {
		for i, w := range cells {
			if i > 0 {
				b.WriteByte(' ')
			}
			word := strings.Map(func(c rune) rune {
				if c < ' ' || c == 0x7f {
					return ' '
				}
				return c
			}, fmt.Sprint(w))
			b.WriteString(words.Quote(word))
		}
		b.WriteByte('\n')
	}
	for _, svc := range s.opt.Director.State().Services {
		group := "-"
		if g := svc.Config.Enabled(); g != nil {
			group = g.Name
		}
		listen := strings.Join(bound[svc.Config.Name], ",")
		if listen == "" {
			listen = "-"
		}
		line("service", svc.Config.Name, listen, group)
		for _, g := range svc.Groups {
			word := "inactive"
			if g.Config.Enabled {
				word = "enabled"
			}
			line("group", g.Config.Name, word)
			for _, h := range g.Hosts {
				n := hostAsNow(h)
				switch {
				case n.serving:
					line("host", n.Name, n.IP, n.Open, "-")
				case n.State != "ready":
					line("disabled", n.Name, n.IP, n.State, "-")
				default:
					line("disabled", n.Name, n.IP, n.Reason, "-")
				}
			}
		}
	}
	return text(b.String()), nil
}

// bound returns the addresses that each service listens on.
func (s *server) bound() map[string][]string {
	all := map[string][]string{}
	for _, l := range s.opt.Engine.Listeners() {
		all[l.Service] = append(all[l.Service], l.Addr)
	}
	return all
}

// serveRunningXML writes what runs as XML: the services with groups and hosts,
// their counters and their health.
func (s *server) serveRunningXML(*request) (answer, error) {
	type group struct {
		Name      string    `xml:"name,attr"`
		Scheduler string    `xml:"scheduler,attr"`
		Enabled   bool      `xml:"enabled,attr"`
		Hosts     []hostNow `xml:"host"`
	}
	type listener struct {
		IP string `xml:"ip,attr"`
	}
	type service struct {
		Name   string     `xml:"name,attr"`
		Open   int64      `xml:"open,attr"`
		Total  uint64     `xml:"total,attr"`
		In     uint64     `xml:"in,attr"`
		Out    uint64     `xml:"out,attr"`
		Listen []listener `xml:"listen"`
		Groups []group    `xml:"group"`
	}
	doc := struct {
		XMLName    xml.Name  `xml:"running"`
		Version    string    `xml:"version,attr"`
		Time       string    `xml:"time,attr"`
		Generation uint64    `xml:"generation,attr"`
		Services   []service `xml:"service"`
	}{Version: s.opt.Status.Version, Time: time.Now().Format(time.RFC3339)}
	state, snap, bound := s.opt.Director.State(), s.opt.Engine.Snapshot(), s.bound()
	doc.Generation = state.Generation
	for _, svc := range state.Services {
		stats := snap.Services[svc.Config.Name]
		one := service{Name: svc.Config.Name, Open: stats.Active, Total: stats.Sessions, In: stats.In, Out: stats.Out}
		for _, addr := range bound[svc.Config.Name] {
			one.Listen = append(one.Listen, listener{addr})
		}
		for _, g := range svc.Groups {
			gr := group{Name: g.Config.Name, Scheduler: g.Config.Scheduler, Enabled: g.Config.Enabled}
			for _, h := range g.Hosts {
				gr.Hosts = append(gr.Hosts, hostAsNow(h))
			}
			one.Groups = append(one.Groups, gr)
		}
		doc.Services = append(doc.Services, one)
	}
	body, err := xml.MarshalIndent(doc, "", "  ")
	if err != nil {
		return answer{}, fmt.Errorf("write what runs as XML: %w", err)
	}
	a := text(xml.Header + string(body))
	a.kind = "application/xml; charset=utf-8"
	return a, nil
}

// serveObject writes the model of the running configuration, one field per line.
// Password hashes and what checks send are never shown.
func (s *server) serveObject(*request) (answer, error) {
	var b strings.Builder
	dump(&b, "config", reflect.ValueOf(s.opt.Director.State().Config.Masked()))
	return text(b.String()), nil
}

// dump writes the fields below a value, each with its path.
func dump(b *strings.Builder, at string, v reflect.Value) {
	switch x := v.Interface().(type) {
	case config.Pos:
		return
	case fmt.Stringer:
		if v.Kind() != reflect.Pointer || !v.IsNil() {
			fmt.Fprintf(b, "%s = %s\n", at, x)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			dump(b, at, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				dump(b, at+"."+f.Name, v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			dump(b, fmt.Sprintf("%s[%d]", at, i), v.Index(i))
		}
	case reflect.String:
		fmt.Fprintf(b, "%s = %q\n", at, v.String())
	default:
		fmt.Fprintf(b, "%s = %v\n", at, v.Interface())
	}
}
