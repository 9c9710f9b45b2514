package document

import (
	"bytes"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/internal/models"
)

// annotated are sample documents with what people write beside the elements.
func annotated(t testing.TB) map[string][]byte {
	all := models.Samples(t)
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
		was, _ := config.Parse("was", data)
		c := was.Clone()
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			next := c.Clone()
			models.Mutate(t, next)
			if next.Check("").Err() == nil {
				c = next
			}
		}
		out, err := rewrite(data, c)
		if err != nil {
			t.Fatal(err)
		}
		again, problems := config.Parse("again", out)
		if again == nil {
			t.Fatalf("%v\n%s", problems, out)
		}
		if diff := gocmp.Diff(c, again, models.SameMeaning); diff != "" {
			t.Fatalf("says something else:\n%s\n%s", diff, out)
		}
		if len(changes.Diff(was, c)) == 0 {
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
		back, err := rewrite(out, was)
		if err != nil {
			t.Fatalf("back again: %v\n%s", err, out)
		}
		if c, _ := config.Parse("back", back); !gocmp.Equal(was, c, models.SameMeaning) {
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
		edit   func(c *config.Config)
		change [][2]string // of the text
	}{
		{"config.xml", func(c *config.Config) { c.Services[0].Groups[0].Hosts[1].Weight = 7 }, [][2]string{{`ip="127.0.0.1:9002" weight="5"`, `ip="127.0.0.1:9002" weight="7"`}}},
		{"config.xml", func(c *config.Config) { c.Services[0].Groups[0].Hosts[3].Backup = false }, [][2]string{{` backup="yes"`, ``}}},
		{"config.xml", func(c *config.Config) {
			g := c.Services[0].Groups[1]
			h := *g.Hosts[1]
			h.Name, h.Address, h.State = "large", "127.0.0.1:9013", "drain"
			g.Hosts = append(g.Hosts, &h)
		}, [][2]string{{`ip="127.0.0.1:9012"/>`, "ip=\"127.0.0.1:9012\"/>\n      <host name=\"large\" ip=\"127.0.0.1:9013\" weight=\"1\" state=\"drain\"/>"}}},
		{"config.xml", func(c *config.Config) { c.Services[0].Groups[1].Hosts = c.Services[0].Groups[1].Hosts[:1] }, [][2]string{{"\n      <host name=\"medium\" ip=\"127.0.0.1:9012\"/>", ""}}},
		{"windows", func(c *config.Config) {
			c.Services[1].Listen = append(c.Services[1].Listen, config.Listen{Address: "127.0.0.1:6433"})
		},
			[][2]string{{`ip="127.0.0.1:6432"/>`, "ip=\"127.0.0.1:6432\"/>\r\n    <listen ip=\"127.0.0.1:6433\"/>"}}},
		{"config.xml", func(c *config.Config) {
			c.Services[0].Groups[0].Enabled, c.Services[0].Groups[1].Enabled = false, true
		}, [][2]string{{`scheduler="weightr" enable="true"`, `scheduler="weightr" enable="false"`}, {`name="green" scheduler="leastc"`, `name="green" scheduler="leastc" enable="true"`}}},
		{"pythondirector.xml", func(c *config.Config) {
			c.Services[0].Groups[0].Enabled, c.Services[0].Groups[1].Enabled = false, true
		}, [][2]string{{"<enable group=\"main\" />", "<enable group=\"upgrade\" />"}}},
		{"pythondirector.xml", func(c *config.Config) { c.Manager.HostCheck.Interval = 7 * time.Second },
			[][2]string{{"\n    <checktime time=\"15\"/>", "\n    <manager>\n        <hostCheck interval=\"7\" enable=\"true\"/>\n        <configCheck interval=\"30\" enable=\"false\" backups=\"10\"/>\n        <heartbeat interval=\"60\" enable=\"false\"/>\n    </manager>"}}},
		{"single quotes", func(c *config.Config) { c.Services[0].Groups[0].Hosts = c.Services[0].Groups[0].Hosts[1:] },
			[][2]string{{"<host\n  ip = 'h:1'/>", ""}, {"<host ip='h:2'/>", `<host ip='h:2' name="host.1"/>`}, {"<host name='' ip='h:3'/>", "<host name='host.2' ip='h:3'/>"}}},
		{"latin1", func(c *config.Config) { c.Services[0].Groups[0].Name = "é€" },
			[][2]string{{`    <group name="g"><host name="n1" ip="h:1"/></group>`, "    <group name=\"\xe9&#x20AC;\" scheduler=\"leastc\">\n      <host name=\"n1\" ip=\"h:1\" weight=\"1\"/>\n    </group>"}}},
		{"keys.xml", func(c *config.Config) { c.Admin.Users[0].Keys = c.Admin.Users[0].Keys[:1] },
			[][2]string{{"\n      <key><!-- her token -->\n        " + models.EcKey + "\n      </key>", ""}}},
		{"keys.xml", func(c *config.Config) { c.Admin.Socket.Group, c.Control.Socket = "adm", "/run/c" },
			[][2]string{{`path="/run/s"/>`, `path="/run/s" mode="0600" group="adm"/>`}, {`"None"`, `"/run/c"`}}},
		{"inline", func(c *config.Config) {
			c.Services[0].Listen = append(c.Services[0].Listen, config.Listen{Address: ":2"})
		},
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
		c, _ := config.Parse(test.doc, data)
		test.edit(c)
		out, err := rewrite(data, c)
		if err != nil {
			t.Errorf("%s: %v", test.doc, err)
			continue
		}
		if diff := gocmp.Diff(strings.SplitAfter(want, "\n"), strings.SplitAfter(string(out), "\n")); diff != "" {
			t.Errorf("%s:\n%s", test.doc, diff)
		}
	}
}
