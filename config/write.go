package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"
)

// Marshal writes the model as a new document, with every value that differs
// from its default. Reading it gives the same model.
func (c *Config) Marshal() ([]byte, error) {
	doc := c.document()
	doc.Indent(2)
	data, err := doc.WriteToBytes()
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return data, nil
}

// document is the model as a document without layout.
func (c *Config) document() *etree.Document {
	doc := etree.NewDocument()
	doc.WriteSettings.CanonicalAttrVal = true
	root := doc.CreateElement(c.Root)
	std := New()
	add(root, "engine",
		unless(c.Engine.Loops == 0, "loops", strconv.Itoa(c.Engine.Loops)),
		unless(c.Engine.Ring == std.Engine.Ring, "ring", c.Engine.Ring),
		unless(c.Engine.Splice == std.Engine.Splice, "splice", c.Engine.Splice),
		unless(c.Engine.PipeSize == std.Engine.PipeSize, "pipeSize", formatSize(c.Engine.PipeSize)),
		unless(c.Engine.PipeMemory == std.Engine.PipeMemory, "pipeMemory", formatSize(c.Engine.PipeMemory)),
		unless(c.Engine.MaxSessions == 0, "maxSessions", strconv.Itoa(c.Engine.MaxSessions)),
		unless(c.Engine.Backlog == std.Engine.Backlog, "backlog", strconv.Itoa(c.Engine.Backlog)),
		unless(c.Engine.Drain == std.Engine.Drain, "drain", duration(c.Engine.Drain)))
	for _, s := range c.Services {
		s.marshal(root)
	}
	c.Admin.marshal(root)
	m := root.CreateElement("manager")
	addCheck(m, "hostCheck", c.Manager.HostCheck)
	addCheck(m, "configCheck", c.Manager.ConfigCheck).CreateAttr("backups", strconv.Itoa(c.Manager.Backups))
	addCheck(m, "heartbeat", c.Manager.Heartbeat)
	add(root, "dns", unless(len(c.DNS.Servers) == 0, "servers", strings.Join(c.DNS.Servers, " ")))
	add(root, "control", unless(c.Control.Socket == "", "socket", c.Control.Socket))
	add(root, "logging",
		unless(c.Logging.File == "", "file", c.Logging.File),
		unless(c.Logging.Level == std.Logging.Level, "level", c.Logging.Level),
		unless(c.Logging.Format == std.Logging.Format, "format", c.Logging.Format))
	return doc
}

func (s *Service) marshal(root *etree.Element) {
	e := root.CreateElement("service")
	e.CreateAttr("name", s.Name)
	for _, l := range s.Listen {
		e.CreateElement("listen").CreateAttr("ip", l.Address)
	}
	std := NewService("")
	add(e, "timeouts",
		unless(s.Timeouts.Connect == std.Timeouts.Connect, "connect", duration(s.Timeouts.Connect)),
		unless(s.Timeouts.Total == std.Timeouts.Total, "total", duration(s.Timeouts.Total)),
		unless(s.Timeouts.Idle == std.Timeouts.Idle, "idle", duration(s.Timeouts.Idle)),
		unless(s.Timeouts.HalfClosed == std.Timeouts.HalfClosed, "halfClosed", duration(s.Timeouts.HalfClosed)))
	add(e, "limits", unless(s.Limits.Tries == 0, "tries", strconv.Itoa(s.Limits.Tries)))
	for _, g := range s.Groups {
		group := e.CreateElement("group")
		group.CreateAttr("name", g.Name)
		group.CreateAttr("scheduler", g.Scheduler)
		group.CreateAttr("enable", strconv.FormatBool(g.Enabled))
		if g.Refuse {
			group.CreateAttr("allDown", "refuse")
		}
		if g.StartDown {
			group.CreateAttr("start", "down")
		}
		std := NewGroup("")
		if g.MaxFails != std.MaxFails {
			group.CreateAttr("maxFails", strconv.Itoa(g.MaxFails))
		}
		if g.FailWindow != std.FailWindow {
			group.CreateAttr("failWindow", g.FailWindow.String())
		}
		if g.Check != nil {
			g.Check.marshal(group)
		}
		for _, h := range g.Hosts {
			host := group.CreateElement("host")
			host.CreateAttr("name", h.Name)
			host.CreateAttr("ip", h.Address)
			host.CreateAttr("weight", strconv.Itoa(h.Weight))
			if h.Backup {
				host.CreateAttr("backup", "true")
			}
			if h.State != "ready" {
				host.CreateAttr("state", h.State)
			}
			if h.SlowStart != 0 {
				host.CreateAttr("slowStart", h.SlowStart.String())
			}
			if h.Resolve != DefaultResolve {
				host.CreateAttr("resolve", h.Resolve.String())
			}
		}
	}
}

func (a *Admin) marshal(root *etree.Element) {
	if a.Web == nil && a.SSH == nil && a.Socket == nil && a.Metrics == "" && len(a.Users) == 0 {
		return
	}
	e := root.CreateElement("admin")
	listen := func(tag string, l *AdminListen) *etree.Element {
		el := e.CreateElement(tag)
		el.CreateAttr("listen", l.Listen)
		el.CreateAttr("enable", strconv.FormatBool(l.Enable))
		return el
	}
	if w := a.Web; w != nil {
		el := listen("web", w)
		el.CreateAttr("secure", strconv.FormatBool(w.Secure))
		el.CreateAttr("refresh", seconds(w.Refresh))
		set(el, unless(w.Certificate == "", "certificate", w.Certificate), unless(w.Key == "", "key", w.Key))
	}
	if a.SSH != nil {
		set(listen("ssh", a.SSH), unless(a.SSH.HostKey == "", "hostKey", a.SSH.HostKey))
	}
	if s := a.Socket; s != nil {
		el := e.CreateElement("socket")
		el.CreateAttr("path", s.Path)
		el.CreateAttr("mode", formatMode(s.Mode))
		set(el, unless(s.Group == "", "group", s.Group))
	}
	if a.Metrics != "" {
		e.CreateElement("metrics").CreateAttr("listen", a.Metrics)
	}
	for _, u := range a.Users {
		el := e.CreateElement("user")
		el.CreateAttr("name", u.Name)
		el.CreateAttr("password", u.Password)
		el.CreateAttr("access", u.Access)
		for _, k := range u.Keys {
			el.CreateElement("key").SetText(k)
		}
	}
}

func addCheck(to *etree.Element, tag string, c Check) *etree.Element {
	e := to.CreateElement(tag)
	e.CreateAttr("interval", seconds(c.Interval))
	e.CreateAttr("enable", strconv.FormatBool(c.Enable))
	return e
}

// duration is the inverse of parseDuration, without the zeros that a Duration
// says at its end.
func duration(d time.Duration) string {
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

// unless returns an attribute to write, or none if it says the default.
func unless(isDefault bool, name, value string) *etree.Attr {
	if isDefault {
		return nil
	}
	return &etree.Attr{Key: name, Value: value}
}

// set gives an element its attributes.
func set(e *etree.Element, attrs ...*etree.Attr) {
	for _, a := range attrs {
		if a != nil {
			e.CreateAttr(a.Key, a.Value)
		}
	}
}

// add writes an element, unless it would have no attribute.
func add(to *etree.Element, tag string, attrs ...*etree.Attr) {
	var e *etree.Element
	for _, a := range attrs {
		if a == nil {
			continue
		}
		if e == nil {
			e = to.CreateElement(tag)
		}
		e.CreateAttr(a.Key, a.Value)
	}
}
