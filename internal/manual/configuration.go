package manual

import (
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

// values are the kinds of values of attributes.
var values = []Row{
	{"yes, no", "Also `1`, `on`, `enable`, `true`, and `0`, `off`, `disable`, `false`, in any case."},
	{"a duration", "With a unit: `500ms`, `2s`, `5m`, `1h30m`. `0` needs none."},
	{"seconds", "Without a unit, fractions allowed: `10`, `0.5`."},
	{"a size", "`64KiB`, `1MiB`, `2GiB`, or a number of bytes."},
	{"an address", "`host:port`, `[v6]:port` or `unix:/path`. To listen on: also `*:port` or `:port` for every address, `0.0.0.0:port` for IPv4 alone, and port 0 for a free one."},
	{"a name", "1 to 64 letters, digits and `_ . : -`. Services are unique, groups within a service, hosts within a group."},
}

// Configuration returns the page txlb.xml(5).
func Configuration(version string, date time.Time) string {
	p := newPage("TXLB.XML", "5", "txlb.xml", "configuration of the TCP load balancer txlb", "txlb "+version, date)
	p.section("DESCRIPTION")
	p.text("The configuration of txlb(1) is one XML file. `txlb run` reads the file that `-c` names, else ./etc/config.xml, else /etc/txlb/config.xml.")
	p.paragraph()
	p.text("Text, comments and `<note>` are for people and ignored everywhere. An unknown element or attribute is a mistake. " +
		"`txlb check` reports every mistake with its line and with what would be right. A file with mistakes is never used in part.")
	p.paragraph()
	p.text("A running txlb takes a changed file with `txlb ctl reload`, or SIGHUP. Sessions go on. " +
		"Changes made at run time stay; `txlb ctl saveConfig` writes them to the file, with its comments kept.")
	p.section("EXAMPLE FILE")
	p.example(smallest)
	p.section("VALUES")
	p.list(func() {
		for _, v := range values {
			p.item(v.Name, "", v.Does)
		}
	})
	p.section("STRUCTURE")
	p.example(tree())
	p.section("ELEMENTS")
	p.text("Behind the meaning of an attribute stand its values and its default. " +
		"**Runtime** marks what commands can change while txlb runs.")
	for _, e := range config.Elements() {
		p.element(e)
	}
	p.schedulers()
	p.section("FILES")
	p.rows("Pa", []Row{
		{"/etc/txlb/config.xml", "The configuration of the service."},
		{"/etc/txlb/config.xml-YYYYmmddHHMMSS", "The file before a save. `<configCheck backups>` says how many are kept."},
		{"/usr/share/doc/txlb/examples/config.xml", "A longer example, with comments."},
	})
	p.section("SEE ALSO")
	p.macro("Xr", "txlb", "1")
	p.paragraph()
	p.text("docs/configuration.md in /usr/share/doc/txlb explains more, with examples.")
	return p.String()
}

// smallest is a complete file.
const smallest = `<config>
  <service name="web">
    <listen ip="*:80"/>
    <group name="servers" scheduler="leastc">
      <host name="one" ip="10.0.0.1:8080"/>
      <host name="two" ip="10.0.0.2:8080" weight="2"/>
    </group>
  </service>
  <admin>
    <metrics listen="localhost:9107"/>
    <socket path="/run/txlb/admin.sock"/>
  </admin>
</config>
`

// tree shows which element stands where.
func tree() string {
	var b strings.Builder
	depth := map[string]int{}
	for _, e := range config.Elements() {
		if e.In != "" {
			depth[e.Name] = depth[e.In] + 1
		}
		line := strings.Repeat("  ", depth[e.Name]) + "<" + e.Name + ">"
		if e.In != "" {
			line += strings.Repeat(" ", max(1, 24-len(line))) + e.Often
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// element writes what an element is for, and its attributes.
func (p *page) element(e config.Element) {
	p.macro("Ss", quoted("<"+e.Name+">"))
	where := ""
	if e.In != "" {
		where = "In `<" + e.In + ">`, " + e.Often + "."
	}
	p.text(e.Help + " " + where)
	rows := config.Attributes(e.Name)
	if len(rows) == 0 {
		return
	}
	p.list(func() {
		for i := range rows {
			a := &rows[i]
			p.item(a.Name, "", sentence(a.Help), facts(a))
		}
	})
}

// facts are the values of an attribute, its default, and when it can change.
func facts(a *config.Attribute) string {
	var list []string
	if v := a.Values(); v != "" {
		list = append(list, "Values: "+v)
	}
	if std := a.Default; std != "" {
		if a.Type == config.TypeBool {
			std = map[string]string{"true": "yes", "false": "no"}[std]
		}
		list = append(list, "Default: `"+std+"`")
	}
	if a.Required() {
		list = append(list, "Required")
	}
	if a.Runtime {
		list = append(list, "Runtime")
	}
	if len(list) == 0 {
		return ""
	}
	return strings.Join(list, ". ") + "."
}

// schedulers writes what <group scheduler> may be.
func (p *page) schedulers() {
	p.section("SCHEDULERS")
	p.text("`,sticky` behind the name of any of them lets clients come back to the host that they had.")
	p.list(func() {
		for _, name := range sched.Names() {
			aliases, picks, equals := sched.Describe(name)
			of := ""
			if equals != "" {
				of = "Of equals: " + equals + "."
			}
			also := ""
			if len(aliases) > 0 {
				also = "Also called `" + strings.Join(aliases, "`, `") + "`."
			}
			weights := "Of the weights it obeys only 0."
			if _, same := sched.Weighted(name); same {
				weights = ""
			}
			p.item(name, "", sentence(picks), of, weights, also)
		}
	})
}
