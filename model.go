package txlb

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
)

// A Config and the model of package config are turned into each other by the tags of their
// fields: each names a row of the schema, which reads and writes the value as text.

// part is a struct of a Config: its fields are attributes of an element.
type part struct {
	is     reflect.Type
	fields []field
}

// field is one attribute.
type field struct {
	index    int
	name     string // in Go
	row      *config.Attribute
	inverted bool // true says no
}

// parts are all elements that a Config has.
var parts = map[string]part{
	"engine":    partOf[Engine]("engine"),
	"hostCheck": partOf[HostCheck]("hostCheck"),
	"heartbeat": partOf[Heartbeat]("heartbeat"),
	"dns":       partOf[Config]("dns"),
	"service":   partOf[Service]("service"),
	"listen":    partOf[Listener]("listen"),
	"timeouts":  partOf[Timeouts]("timeouts"),
	"limits":    partOf[Limits]("limits"),
	"allow":     partOf[AccessRule]("allow"),
	"deny":      partOf[AccessRule]("deny"),
	"route":     partOf[Route]("route"),
	"group":     partOf[Group]("group"),
	"check":     partOf[Check]("check"),
	"host":      partOf[Host]("host"),
	"mirror":    partOf[Mirror]("mirror"),
}

func partOf[T any](element string) part {
	p := part{is: reflect.TypeFor[T]()}
	for i := range p.is.NumField() {
		f := p.is.Field(i)
		tag, option, _ := strings.Cut(f.Tag.Get("txlb"), ",")
		if tag == "" {
			continue
		}
		p.fields = append(p.fields, field{i, f.Name, config.Find(element, tag), option == "inverted"})
	}
	return p
}

// yes returns the word for true and that for false.
func (f *field) words() (yes, no string) {
	yes, no = "true", "false"
	if f.row.Type == config.TypeChoice {
		yes, no = f.row.Choices[1], f.row.Choices[0]
	}
	if f.inverted {
		yes, no = no, yes
	}
	return yes, no
}

// text returns the value as a document has it, "" for the default.
func (f *field) text(v reflect.Value) (string, error) {
	if v.IsZero() {
		return "", nil
	}
	switch v := v.Interface().(type) {
	case string:
		return v, nil
	case []string:
		for _, s := range v {
			if s == "" || strings.ContainsAny(s, " \t\n,") {
				return "", fmt.Errorf("%q is not one word; give each as an element of its own", s)
			}
		}
		return strings.Join(v, " "), nil
	case bool:
		yes, _ := f.words()
		return yes, nil
	case time.Duration:
		switch {
		case v == None:
			return "0", nil
		case v < 0:
			return "", fmt.Errorf("%v is negative; None says 0", v)
		case f.row.Type == config.TypeSeconds:
			return strconv.FormatFloat(v.Seconds(), 'f', -1, 64), nil
		}
		return v.String(), nil
	case int:
		return number(int64(v))
	case int64:
		return number(v)
	}
	panic(fmt.Sprintf("txlb: a field of type %v", v.Type()))
}

func number(n int64) (string, error) {
	switch {
	case n == None:
		return "0", nil
	case n < 0:
		return "", fmt.Errorf("%d is negative; None says 0", n)
	}
	return strconv.FormatInt(n, 10), nil
}

// put is the inverse of text: it gives v the value of a text that a row has written.
func (f *field) put(v reflect.Value, text string) {
	if text == f.row.Default || text == "" {
		v.SetZero()
		return
	}
	switch v.Interface().(type) {
	case string:
		v.SetString(text)
	case []string:
		v.Set(reflect.ValueOf(strings.Fields(text)))
	case bool:
		yes, _ := f.words()
		v.SetBool(text == yes)
	case time.Duration:
		d, err := config.ParseDuration(text)
		if f.row.Type == config.TypeSeconds {
			s, _ := strconv.ParseFloat(text, 64)
			d, err = time.Duration(s*float64(time.Second)).Round(time.Millisecond), nil
		}
		if err == nil && d == 0 {
			d = None
		}
		v.SetInt(int64(d))
	default:
		n, err := strconv.ParseInt(text, 10, 64)
		if f.row.Type == config.TypeSize {
			n, err = size(text)
		}
		if err == nil && n == 0 {
			n = None
		}
		v.SetInt(n)
	}
}

// size reads a number of bytes as the schema writes it.
func size(text string) (int64, error) {
	shift := 0
	for unit, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			text, shift = digits, bits
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n << shift, err
}

// builder makes a model and gathers what is wrong.
type builder struct {
	wrong  []error
	places []string // what stands in a line, by its number less one
}

func (b *builder) fail(where, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if where != "" {
		text = where + ": " + text
	}
	b.wrong = append(b.wrong, errors.New("txlb: "+text))
}

// within names a part of a place.
func within(where, part string, args ...any) string {
	part = fmt.Sprintf(part, args...)
	if where == "" {
		return part
	}
	return where + ", " + part
}

// at gives a place a line, so that the check of the model can say where something is wrong.
func (b *builder) at(where string) config.Pos {
	b.places = append(b.places, where)
	return config.Pos{Line: len(b.places)}
}

// set gives to, the struct of an element, what from says.
func (b *builder) set(element, where string, from, to any) {
	v := reflect.ValueOf(from).Elem()
	for _, f := range parts[element].fields {
		text, err := f.text(v.Field(f.index))
		if err == nil && text != "" {
			err = f.row.Set(to, text)
		}
		if err != nil {
			b.fail(where, "%s: %v", f.name, err)
		}
	}
}

// model returns the model of a configuration. The error has everything that is wrong.
func (c *Config) model() (*config.Config, error) {
	b := new(builder)
	m := config.New()
	m.Program = true
	b.set("engine", "Engine", &c.Engine, &m.Engine)
	b.set("hostCheck", "HostCheck", &c.HostCheck, &m.Manager)
	b.set("heartbeat", "Heartbeat", &c.Heartbeat, &m.Manager)
	b.set("dns", "", c, &m.DNS)
	for i := range c.Services {
		m.Services = append(m.Services, b.service(fmt.Sprintf("Services[%d]", i), &c.Services[i]))
	}
	return m, b.check(m)
}

// check returns all that is wrong with a model.
func (b *builder) check(m *config.Config) error {
	if len(b.wrong) == 0 {
		b.tell(m.Check(""))
	}
	clearPlaces(m)
	return errors.Join(b.wrong...)
}

// tell notes the errors of the check of a model.
func (b *builder) tell(problems config.Problems) {
	for _, p := range problems {
		if p.Warning {
			continue
		}
		where := ""
		if p.Line > 0 && p.Line <= len(b.places) {
			where = b.places[p.Line-1]
		}
		text := inLine.ReplaceAllStringFunc(inGo(p.Text), func(s string) string {
			if n, _ := strconv.Atoi(strings.TrimPrefix(s, " in line ")); n > 0 && n <= len(b.places) {
				return " (" + b.places[n-1] + ")"
			}
			return ""
		})
		b.fail(where, "%s", text)
	}
}

var (
	inLine     = regexp.MustCompile(` in line \d+`)
	inDocument = regexp.MustCompile(`<(\w+)((?: \w+)?)((?:="[^"]*")?)/?>`)
	inElement  = regexp.MustCompile(`\b\w+="[^"]*"`)
)

// inGo writes the names of elements and attributes as those of structs and fields. An attribute
// that stands alone is one of the last element before it.
func inGo(text string) string {
	var last part
	text = inDocument.ReplaceAllStringFunc(text, func(s string) string {
		m := inDocument.FindStringSubmatch(s)
		p, ours := parts[m[1]]
		if !ours {
			return s
		}
		last = p
		name := strings.TrimSpace(m[2])
		if name == "" {
			return p.is.Name()
		}
		for _, f := range p.fields {
			if f.row != nil && f.row.Name == name {
				return p.is.Name() + "." + f.name + m[3]
			}
		}
		return s
	})
	return inElement.ReplaceAllStringFunc(text, func(s string) string {
		name, value, _ := strings.Cut(s, "=")
		for _, f := range last.fields {
			if f.row != nil && f.row.Name == name {
				return f.name + "=" + value
			}
		}
		return s
	})
}

// clearPlaces takes the lines out of a model, as it has none.
func clearPlaces(m *config.Config) {
	m.DNS.Pos = config.Pos{}
	for _, s := range m.Services {
		clearService(s)
	}
}

func clearService(s *config.Service) {
	s.Pos = config.Pos{}
	for i := range s.Listen {
		s.Listen[i].Pos = config.Pos{}
	}
	for i := range s.Access {
		s.Access[i].Pos = config.Pos{}
	}
	for i := range s.Routes {
		s.Routes[i].Pos = config.Pos{}
	}
	for _, g := range s.Groups {
		g.Pos = config.Pos{}
		if g.Check != nil {
			g.Check.Pos = config.Pos{}
		}
		for _, h := range g.Hosts {
			h.Pos = config.Pos{}
		}
		for i := range g.Mirrors {
			g.Mirrors[i].Pos = config.Pos{}
		}
	}
}

// mainGroup is the name of a group that has none.
const mainGroup = "main"

// service makes one service. place names it if it has no name.
func (b *builder) service(place string, from *Service) *config.Service {
	where := place
	if from.Name == "" {
		b.fail(where, "Name is missing")
	} else {
		where = fmt.Sprintf("service %q", from.Name)
	}
	s := config.NewService("")
	s.Pos = b.at(where)
	b.set("service", where, from, s)
	for _, addr := range from.Listen {
		s.Listen = append(s.Listen, b.listener(where, &Listener{Addr: addr}))
	}
	for i := range from.Listeners {
		s.Listen = append(s.Listen, b.listener(where, &from.Listeners[i]))
	}
	b.set("timeouts", where+", Timeouts", &from.Timeouts, &s.Timeouts)
	b.set("limits", where+", Limits", &from.Limits, &s.Limits)
	for i := range from.Access {
		s.Access = append(s.Access, b.rule(fmt.Sprintf("%s, Access[%d]", where, i), &from.Access[i]))
	}
	for i := range from.Routes {
		s.Routes = append(s.Routes, b.route(fmt.Sprintf("%s, Routes[%d]", where, i), &from.Routes[i]))
	}
	groups := from.Groups
	switch single := len(from.Hosts) > 0 || from.Scheduler != "" || from.Check != nil; {
	case len(groups) == 0:
		groups = []Group{{Hosts: from.Hosts, Scheduler: from.Scheduler, Check: from.Check}}
	case single:
		b.fail(where, "it has Groups, and Hosts, Scheduler or Check as well; put those into a group")
	}
	for i := range groups {
		s.Groups = append(s.Groups, b.group(where, i, &groups[i], len(groups) == 1))
	}
	return s
}

func (b *builder) listener(where string, from *Listener) config.Listen {
	if from.Addr == "" {
		b.fail(where, "a listener without Addr; want host:port, :port or unix:/path")
	}
	where = within(where, "listener %q", from.Addr)
	l := config.Listen{Pos: b.at(where)}
	b.set("listen", where, from, &l)
	return l
}

func (b *builder) rule(where string, from *AccessRule) config.AccessRule {
	r := config.AccessRule{Deny: from.Deny, Pos: b.at(where)}
	b.set("allow", where, from, &r)
	if (len(from.Nets) == 0) == (from.File == "") {
		b.fail(where, "Nets or File is needed, and not both")
	}
	return r
}

func (b *builder) route(where string, from *Route) config.Route {
	if from.Group == "" {
		b.fail(where, "Group is missing: where the clients go")
	}
	r := config.NewRoute("")
	r.Pos = b.at(where)
	b.set("route", where, from, r)
	return *r
}

func (b *builder) group(where string, i int, from *Group, only bool) *config.Group {
	name := from.Name
	switch {
	case name == "" && only:
		name = mainGroup
	case name == "":
		b.fail(within(where, "Groups[%d]", i), "Name is missing")
	}
	if !only || from.Name != "" {
		where = within(where, "group %q", name)
	}
	g := config.NewGroup(name)
	g.Pos = b.at(where)
	b.set("group", where, from, g)
	g.Name = name
	g.Enabled = g.Enabled || only
	if from.Check != nil {
		g.Check = config.NewHealthCheck()
		g.Check.Pos = b.at(within(where, "Check"))
		b.set("check", within(where, "Check"), from.Check, g.Check)
	}
	for i := range from.Hosts {
		g.Hosts = append(g.Hosts, b.host(where, i, &from.Hosts[i]))
	}
	for i := range from.Mirrors {
		g.Mirrors = append(g.Mirrors, b.mirror(where, i, &from.Mirrors[i]))
	}
	return g
}

func (b *builder) mirror(where string, i int, from *Mirror) config.Mirror {
	if from.Addr == "" {
		b.fail(within(where, "Mirrors[%d]", i), "Addr is missing; want host:port or unix:/path")
	}
	where = within(where, "mirror %q", from.Addr)
	m := config.NewMirror("")
	m.Pos = b.at(where)
	b.set("mirror", where, from, m)
	return *m
}

func (b *builder) host(where string, i int, from *Host) *config.Host {
	if from.Addr == "" {
		b.fail(within(where, "Hosts[%d]", i), "Addr is missing; want host:port, unix:/path or the name of SRV records")
	}
	h := config.NewHost(from.name(), "")
	where = within(where, "host %q", h.Name)
	h.Pos = b.at(where)
	b.set("host", where, from, h)
	h.Name = from.name()
	return h
}

// name is what the host is called.
func (h *Host) name() string {
	if h.Name == "" {
		return h.Addr
	}
	return h.Name
}

// get gives to what from, the struct of an element, says.
func get(element string, from, to any) {
	v := reflect.ValueOf(to).Elem()
	for _, f := range parts[element].fields {
		f.put(v.Field(f.index), f.row.Get(from))
	}
}

// configOf is the inverse of Config.model.
func configOf(m *config.Config) Config {
	var c Config
	get("engine", &m.Engine, &c.Engine)
	get("hostCheck", &m.Manager, &c.HostCheck)
	get("heartbeat", &m.Manager, &c.Heartbeat)
	get("dns", &m.DNS, &c)
	for _, s := range m.Services {
		c.Services = append(c.Services, serviceOf(s))
	}
	return c
}

func serviceOf(m *config.Service) Service {
	var s Service
	get("service", m, &s)
	for i := range m.Listen {
		var l Listener
		get("listen", &m.Listen[i], &l)
		if bare := (Listener{Addr: l.Addr}); reflect.DeepEqual(l, bare) {
			s.Listen = append(s.Listen, l.Addr)
		} else {
			s.Listeners = append(s.Listeners, l)
		}
	}
	get("timeouts", &m.Timeouts, &s.Timeouts)
	get("limits", &m.Limits, &s.Limits)
	for i := range m.Access {
		r := AccessRule{Deny: m.Access[i].Deny}
		get("allow", &m.Access[i], &r)
		s.Access = append(s.Access, r)
	}
	for i := range m.Routes {
		var r Route
		get("route", &m.Routes[i], &r)
		s.Routes = append(s.Routes, r)
	}
	for _, g := range m.Groups {
		s.Groups = append(s.Groups, groupOf(g))
	}
	return s
}

func groupOf(m *config.Group) Group {
	var g Group
	get("group", m, &g)
	if m.Check != nil {
		g.Check = new(Check)
		get("check", m.Check, g.Check)
	}
	for _, h := range m.Hosts {
		g.Hosts = append(g.Hosts, hostOf(h))
	}
	for i := range m.Mirrors {
		var one Mirror
		get("mirror", &m.Mirrors[i], &one)
		g.Mirrors = append(g.Mirrors, one)
	}
	return g
}

func hostOf(m *config.Host) Host {
	var h Host
	get("host", m, &h)
	return h
}

// XML returns the configuration as a document that [Load] reads, and txlb too if each service
// listens somewhere. Logger, OnEvent, Schedulers and Fallback are not in it.
func (c Config) XML() ([]byte, error) {
	m, err := c.model()
	if err != nil {
		return nil, err
	}
	return m.Marshal()
}

// sameEngine returns the fields of Engine that differ.
func sameEngine(a, b *config.Engine) (differ []string) {
	for _, f := range parts["engine"].fields {
		if f.row.Get(a) != f.row.Get(b) {
			differ = append(differ, f.name)
		}
	}
	return slices.Clip(differ)
}
