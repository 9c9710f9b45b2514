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
	addUnlessDefault(root, "engine", &c.Engine)
	for _, s := range c.Services {
		s.marshal(root)
	}
	c.Admin.marshal(root)
	m := root.CreateElement("manager")
	for _, task := range []string{"hostCheck", "configCheck", "heartbeat"} {
		add(m, task, &c.Manager)
	}
	addUnlessDefault(root, "dns", &c.DNS)
	addUnlessDefault(root, "control", &c.Control)
	addUnlessDefault(root, "logging", &c.Logging)
	return doc
}

func (s *Service) marshal(root *etree.Element) {
	e := add(root, "service", s)
	for i := range s.Listen {
		add(e, "listen", &s.Listen[i])
	}
	addUnlessDefault(e, "timeouts", &s.Timeouts)
	addUnlessDefault(e, "limits", &s.Limits)
	for _, g := range s.Groups {
		group := add(e, "group", g)
		if g.Check != nil {
			add(group, "check", g.Check)
		}
		for _, h := range g.Hosts {
			add(group, "host", h)
		}
	}
}

func (a *Admin) marshal(root *etree.Element) {
	e := add(root, "admin", a)
	if a.Web != nil {
		add(e, "web", a.Web)
	}
	if a.SSH != nil {
		add(e, "ssh", a.SSH)
	}
	if a.Socket != nil {
		add(e, "socket", a.Socket)
	}
	if a.Metrics != "" {
		add(e, "metrics", a)
	}
	for _, u := range a.Users {
		el := add(e, "user", u)
		for _, k := range u.Keys {
			el.CreateElement("key").SetText(k)
		}
	}
	if len(e.Attr) == 0 && len(e.Child) == 0 {
		root.RemoveChild(e)
	}
}

// add writes an element with the attributes that p, its struct, has.
func add(to *etree.Element, tag string, p any) *etree.Element {
	e := etree.NewElement(tag)
	rows := schema[tag]
	for i := range rows {
		if a := &rows[i]; a.always || !a.isDefault(p) {
			e.CreateAttr(a.Name, a.write(p))
		}
	}
	to.AddChild(e)
	return e
}

// addUnlessDefault is add for an element that says nothing without attributes.
func addUnlessDefault(to *etree.Element, tag string, p any) {
	if e := add(to, tag, p); len(e.Attr) == 0 {
		to.RemoveChild(e)
	}
}

// duration is the inverse of parseDuration, without the zeros that a Duration
// says at its end.
func duration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
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
