package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/sched"
)

// mutate changes a model at random places.
func mutate(t *rapid.T, c *Config) {
	names := rapid.SampledFrom([]string{"n1", "two", "new", `q"<&'`, "é", "€"})
	name := func() string { return names.Draw(t, "name") }
	some := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "which") }
	port := func() int { return rapid.IntRange(20000, 60000).Draw(t, "port") }
	s := c.Services[some(len(c.Services))]
	switch what := rapid.IntRange(0, 17).Draw(t, "what"); what {
	case 17:
		for _, u := range c.Admin.Users {
			u.Keys = drawKeys(t)
		}
		c.Admin.Socket = rapid.SampledFrom([]*Socket{nil, NewSocket("/run/s"), {Path: "/run/t<", Mode: 0o660, Group: "é"}}).Draw(t, "socket")
		c.Control.Socket = rapid.SampledFrom([]string{"", "relative", "/run/control"}).Draw(t, "control")
	case 0:
		n := NewService(name())
		n.Listen = []Listen{{Address: fmt.Sprint(":", port())}}
		g := NewGroup("g")
		g.Enabled = true
		g.Hosts = []*Host{parseHost(t, name(), "h:1")}
		n.Groups = []*Group{g}
		c.Services = append(c.Services, n)
	case 1:
		if len(c.Services) > 1 {
			c.Services = append(c.Services[:0:0], c.Services[1:]...)
		}
	case 2:
		s.Listen = append(s.Listen, Listen{Address: fmt.Sprint("127.0.0.1:", port())})
	case 3:
		s.Listen = append(s.Listen[1:], Listen{Address: fmt.Sprint("[::1]:", port())})
	case 4:
		s.Timeouts.Idle = rapid.SampledFrom([]time.Duration{0, time.Hour, time.Minute}).Draw(t, "idle")
		s.Timeouts.Connect = rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second}).Draw(t, "connect")
	case 5:
		s.Limits.Tries = some(3)
	case 6:
		g := NewGroup(name())
		g.Enabled = len(s.Groups) == 0
		s.Groups = append(s.Groups, g)
	case 7:
		if len(s.Groups) > 0 {
			n := some(len(s.Groups))
			for i, g := range s.Groups {
				g.Enabled = i == n
			}
		}
	case 8:
		s.Groups = nil
	case 9, 10, 11, 12:
		if len(s.Groups) == 0 {
			return
		}
		g := s.Groups[some(len(s.Groups))]
		g.Scheduler = rapid.SampledFrom(sched.Names()).Draw(t, "scheduler")
		if what == 9 || len(g.Hosts) == 0 {
			g.Hosts = append(g.Hosts, parseHost(t, name(), "h:1"))
			return
		}
		n := some(len(g.Hosts))
		switch what {
		case 10:
			g.Hosts = append(g.Hosts[:n:n], g.Hosts[n+1:]...)
		default:
			h := g.Hosts[n]
			h.Weight, h.State, h.Backup = some(9), rapid.SampledFrom(Find("host", "state").Choices).Draw(t, "state"), rapid.Bool().Draw(t, "backup")
			if what == 12 {
				h.Address = fmt.Sprint("é"[:0], "x:", port())
			}
		}
	case 13:
		c.Manager.HostCheck.Enable = rapid.Bool().Draw(t, "enable")
		c.Manager.HostCheck.Interval = time.Duration(1+some(20)) * time.Second
		c.Manager.Backups = some(20)
	case 14:
		c.Admin.Web = rapid.SampledFrom([]*AdminListen{nil, {Listen: "localhost:17001", Enable: false, Refresh: time.Second}, {Listen: "*:17777", Enable: true, Secure: true, Refresh: 10 * time.Second, Certificate: "/c", Key: "/é"}}).Draw(t, "web")
		c.Admin.Metrics = rapid.SampledFrom([]string{"", "localhost:9107", "localhost:9108"}).Draw(t, "metrics")
	case 15:
		c.Admin.Users = rapid.SampledFrom([][]*User{nil, {{Name: "admin", Password: "$6$€", Access: "full"}}, {{Name: "reader", Password: "x y", Access: "readonly"}}}).Draw(t, "users")
	case 16:
		c.Engine.Loops = some(3)
		c.Logging.File = rapid.SampledFrom([]string{"", "é.log"}).Draw(t, "file")
	}
}

// annotated are sample documents with what people write beside the elements.
func annotated(t testing.TB) map[string][]byte {
	all := samples(t)
	all["keys"] = []byte("<config>\n  <service name=\"a\"><listen ip=\":1\"/></service>\n  <admin>\n    <socket path=\"/run/s\"/> <!-- ours -->\n    <user name=\"ann\" access=\"full\">\n      <!-- at her desk -->\n      <key>" + edKey +
		"</key>\n      <key><!-- her token -->\n        " + ecKey + "\n      </key>\n    </user>\n  </admin>\n  <control socket=\"None\"/>\n</config>\n<!-- end -->\n")
	all["inline"] = []byte(`<config><service name="a"><listen ip=":1"/></service></config>`)
	all["single quotes"] = []byte("<config\n>\n\t<service   name = 'a'\n\t\t><listen ip=':1' /><group name='g'><!-- 1 --><host\n  ip = 'h:1'/><!-- 2 --><host ip='h:2'/><!-- 3 --><host name='' ip='h:3'/></group></service  ></config  >\n<!-- end -->\n")
	all["windows"] = []byte(strings.ReplaceAll(string(all["config.xml"]), "\n", "\r\n"))
	all["marked"] = []byte(byteOrderMark + string(all["pythondirector.xml"]))
	all["latin1"] = []byte("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<config>\n  <!-- caf\xe9 -->\n  <service name=\"caf\xe9\">\n    <listen ip=\":1\"/>\n    <note>\xfcber</note>\n    <group name=\"g\"><host name=\"n1\" ip=\"h:1\"/></group>\n  </service>\n</config>\n")
	return all
}

// What is written says exactly what runs, comments survive, and what has not
// changed is there byte for byte.
func TestRewriteOfAny(t *testing.T) {
	docs := annotated(t)
	var names []string
	for name := range docs {
		names = append(names, name)
	}
	changed := 0
	rapid.Check(t, func(t *rapid.T) {
		data := docs[rapid.SampledFrom(names).Draw(t, "document")]
		was, _ := Parse("was", data)
		c := was.Clone()
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			next := c.Clone()
			mutate(t, next)
			if next.Check("").Err() == nil {
				c = next
			}
		}
		out, err := Rewrite(data, c)
		if err != nil {
			t.Fatal(err)
		}
		again, problems := Parse("again", out)
		if again == nil {
			t.Fatalf("%v\n%s", problems, out)
		}
		if diff := gocmp.Diff(c, again, sameMeaning); diff != "" {
			t.Fatalf("says something else:\n%s\n%s", diff, out)
		}
		if len(Diff(was, c)) == 0 {
			if !bytes.Equal(data, out) {
				t.Fatal("rewritten for nothing")
			}
			return
		}
		changed++
		// Comments outside of what went.
		if len(c.Services) >= len(was.Services) {
			for _, comment := range [][]byte{[]byte("<!-- end -->"), []byte("caf\xe9 -->"), []byte("<!DOCTYPE config"), []byte("Everything here stays on this machine."), []byte("Prometheus asks here")} {
				if bytes.Contains(data, comment) && !bytes.Contains(out, comment) {
					t.Fatalf("%s is lost:\n%s", comment, out)
				}
			}
		}
		back, err := Rewrite(out, was)
		if err != nil {
			t.Fatalf("back again: %v\n%s", err, out)
		}
		if c, _ := Parse("back", back); !gocmp.Equal(was, c, sameMeaning) {
			t.Fatal("the way back leads elsewhere")
		}
	})
	if changed == 0 {
		t.Error("nothing changed")
	}
}

func TestRewriteTouchesNoMore(t *testing.T) {
	docs := annotated(t)
	for _, test := range []struct {
		doc    string
		edit   func(c *Config)
		change [][2]string // of the text
	}{
		{"config.xml", func(c *Config) { c.Services[0].Groups[0].Hosts[1].Weight = 7 }, [][2]string{{`ip="127.0.0.1:9002" weight="5"`, `ip="127.0.0.1:9002" weight="7"`}}},
		{"config.xml", func(c *Config) { c.Services[0].Groups[0].Hosts[3].Backup = false }, [][2]string{{` backup="yes"`, ``}}},
		{"config.xml", func(c *Config) {
			g := c.Services[0].Groups[1]
			h := *g.Hosts[1]
			h.Name, h.Address, h.State = "large", "127.0.0.1:9013", "drain"
			g.Hosts = append(g.Hosts, &h)
		}, [][2]string{{`ip="127.0.0.1:9012"/>`, "ip=\"127.0.0.1:9012\"/>\n      <host name=\"large\" ip=\"127.0.0.1:9013\" weight=\"1\" state=\"drain\"/>"}}},
		{"config.xml", func(c *Config) { c.Services[0].Groups[1].Hosts = c.Services[0].Groups[1].Hosts[:1] }, [][2]string{{"\n      <host name=\"medium\" ip=\"127.0.0.1:9012\"/>", ""}}},
		{"windows", func(c *Config) {
			c.Services[1].Listen = append(c.Services[1].Listen, Listen{Address: "127.0.0.1:6433"})
		},
			[][2]string{{`ip="127.0.0.1:6432"/>`, "ip=\"127.0.0.1:6432\"/>\r\n    <listen ip=\"127.0.0.1:6433\"/>"}}},
		{"config.xml", func(c *Config) {
			c.Services[0].Groups[0].Enabled, c.Services[0].Groups[1].Enabled = false, true
		}, [][2]string{{`scheduler="weightr" enable="true"`, `scheduler="weightr" enable="false"`}, {`name="green" scheduler="leastc"`, `name="green" scheduler="leastc" enable="true"`}}},
		{"pythondirector.xml", func(c *Config) {
			c.Services[0].Groups[0].Enabled, c.Services[0].Groups[1].Enabled = false, true
		}, [][2]string{{"<enable group=\"main\" />", "<enable group=\"upgrade\" />"}}},
		{"pythondirector.xml", func(c *Config) { c.Manager.HostCheck.Interval = 7 * time.Second },
			[][2]string{{"\n    <checktime time=\"15\"/>", "\n    <manager>\n        <hostCheck interval=\"7\" enable=\"true\"/>\n        <configCheck interval=\"30\" enable=\"false\" backups=\"10\"/>\n        <heartbeat interval=\"60\" enable=\"false\"/>\n    </manager>"}}},
		{"single quotes", func(c *Config) { c.Services[0].Groups[0].Hosts = c.Services[0].Groups[0].Hosts[1:] },
			[][2]string{{"<host\n  ip = 'h:1'/>", ""}, {"<host ip='h:2'/>", `<host ip='h:2' name="host.1"/>`}, {"<host name='' ip='h:3'/>", "<host name='host.2' ip='h:3'/>"}}},
		{"latin1", func(c *Config) { c.Services[0].Groups[0].Name = "é€" },
			[][2]string{{`    <group name="g"><host name="n1" ip="h:1"/></group>`, "    <group name=\"\xe9&#x20AC;\" scheduler=\"leastc\">\n      <host name=\"n1\" ip=\"h:1\" weight=\"1\"/>\n    </group>"}}},
		{"keys", func(c *Config) { c.Admin.Users[0].Keys = c.Admin.Users[0].Keys[:1] },
			[][2]string{{"\n      <key><!-- her token -->\n        " + ecKey + "\n      </key>", ""}}},
		{"keys", func(c *Config) { c.Admin.Socket.Group, c.Control.Socket = "adm", "/run/c" },
			[][2]string{{`path="/run/s"/>`, `path="/run/s" mode="0600" group="adm"/>`}, {`"None"`, `"/run/c"`}}},
		{"inline", func(c *Config) { c.Services[0].Listen = append(c.Services[0].Listen, Listen{Address: ":2"}) },
			[][2]string{{`<listen ip=":1"/>`, `<listen ip=":1"/><listen ip=":2"/>`}}},
	} {
		data := docs[test.doc]
		want := string(data)
		for _, change := range test.change {
			if strings.Count(want, change[0]) != 1 {
				t.Fatalf("%s: %q is not there once", test.doc, change[0])
			}
			want = strings.Replace(want, change[0], change[1], 1)
		}
		c, _ := Parse(test.doc, data)
		test.edit(c)
		out, err := Rewrite(data, c)
		if err != nil {
			t.Errorf("%s: %v", test.doc, err)
			continue
		}
		if diff := gocmp.Diff(strings.SplitAfter(want, "\n"), strings.SplitAfter(string(out), "\n")); diff != "" {
			t.Errorf("%s:\n%s", test.doc, diff)
		}
	}
}
