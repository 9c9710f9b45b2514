package changes

import (
	"fmt"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/internal/models"
)

// Merging any three models gives one without errors, or says why not. What one
// side alone has changed is all there is when the other is as it was, and what
// the file changed is in the result.
func TestMergeOfAny(t *testing.T) {
	merged := 0
	rapid.Check(t, func(t *rapid.T) {
		base, file, running := models.Draw(t, "base"), models.Draw(t, "file"), models.Draw(t, "running")
		switch rapid.IntRange(0, 3).Draw(t, "case") {
		case 0:
			file = base
		case 1:
			running = base
		case 2:
			file = running
		}
		m, err := Merge(base, file, running)
		if err != nil {
			return // both have changed what excludes each other
		}
		merged++
		if err := m.Config.Check("merged").Err(); err != nil {
			t.Fatal(err)
		}
		same := func(a, b *config.Config) {
			t.Helper()
			if diff := gocmp.Diff(a, b, models.SameMeaning); diff != "" {
				t.Fatal(diff)
			}
		}
		switch {
		case file == base:
			same(running, m.Config)
		case running == base, file == running:
			same(file, m.Config)
			if len(m.Kept)+len(m.Lost) > 0 {
				t.Fatalf("kept %v, lost %v", m.Kept, m.Lost)
			}
		}
		same(m.Config, must(Apply(file, m.Kept))(t))
		// What the file changed is so: each attribute of a host that the file
		// has and base had otherwise.
		old, now := hostsByPath(base), hostsByPath(m.Config)
		for path, h := range hostsByPath(file) {
			was, is := old[path], now[path]
			if was != nil && *was == *h {
				continue
			}
			if is == nil {
				t.Fatalf("host %v, which the file changed, is missing", path)
			}
			if (was == nil || was.Weight != h.Weight) && is.Weight != h.Weight || (was == nil || was.State != h.State) && is.State != h.State {
				t.Fatalf("host %v is %+v; base %+v, file %+v", path, is, was, h)
			}
		}
		for path := range old {
			if hostsByPath(file)[path] == nil && now[path] != nil {
				t.Fatalf("host %v, which the file deleted, is there", path)
			}
		}
	})
	if merged == 0 {
		t.Error("nothing was merged")
	}
}

func must[T any](v T, err error) func(t rapid.TB) T {
	return func(t rapid.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func hostsByPath(c *config.Config) map[[3]string]*config.Host {
	all := map[[3]string]*config.Host{}
	for _, s := range c.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				all[[3]string{s.Name, g.Name, h.Name}] = h
			}
		}
	}
	return all
}

func TestMergeExamples(t *testing.T) {
	const base = `<service name="web"><listen ip=":80"/><timeouts idle="5m"/>
		<group name="blue" enable="yes"><host name="a" ip="a:1"/><host name="b" ip="b:1"/></group><group name="green"><host name="c" ip="c:1"/></group></service>`
	const dropped = `<service name="web"><listen ip=":80"/><group name="blue"><host name="a" ip="a:1"/></group></service>`
	for name, test := range map[string]struct {
		file, running    string
		want, kept, lost string
	}{
		"apart": {
			`<service name="web"><listen ip=":80"/><timeouts idle="1m"/><group name="blue" enable="yes"><host name="a" ip="a:1" weight="3"/><host name="b" ip="b:1"/></group><group name="green"><host name="c" ip="c:1"/></group></service>`,
			`<service name="web"><listen ip=":80"/><timeouts idle="5m"/><group name="blue"><host name="a" ip="a:1" state="drain"/></group><group name="green" enable="yes"><host name="c" ip="c:1"/></group></service>`,
			`<service name="web"><listen ip=":80"/><timeouts idle="1m"/><group name="blue"><host name="a" ip="a:1" weight="3" state="drain"/></group><group name="green" enable="yes"><host name="c" ip="c:1"/></group></service>`,
			"[setHost web blue a state=drain enableGroup web green delHost web blue b]", "[]",
		},
		"the same attribute": {
			`<service name="web"><listen ip=":80"/><group name="blue"><host name="a" ip="a:1" weight="3"/></group></service>`,
			`<service name="web"><listen ip=":80"/><group name="blue"><host name="a" ip="a:1" weight="4"/></group></service>`,
			`<service name="web"><listen ip=":80"/><group name="blue"><host name="a" ip="a:1" weight="3"/></group></service>`,
			"[]", "[setHost web blue a weight=4]",
		},
		"the enabled group is deleted": {
			dropped,
			`<service name="web"><listen ip=":80"/><timeouts idle="5m"/><group name="green" enable="yes"><host name="c" ip="c:1"/></group></service>`,
			dropped, "[]", "[enableGroup web green delGroup web blue]",
		},
		"a listener of the file": {
			`<service name="api"><listen ip=":81"/></service>` + base, `<service name="web"><listen ip=":80"/><listen ip="127.0.0.1:81"/></service>`,
			`<service name="api"><listen ip=":81"/></service><service name="web"><listen ip=":80"/></service>`, "", "",
		},
	} {
		b := base
		switch name {
		case "the same attribute":
			b = dropped
		case "a listener of the file":
			b = `<service name="web"><listen ip=":80"/></service>`
			test.file = `<service name="api"><listen ip=":81"/></service>` + b
			test.kept, test.lost = "[]", "[addListen web 127.0.0.1:81]"
		}
		doc := func(s string) *config.Config { return models.MustParse(t, "<config>"+s+"</config>") }
		m, err := Merge(doc(b), doc(test.file), doc(test.running))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := gocmp.Diff(doc(test.want), m.Config, models.SameMeaning); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if kept, lost := fmt.Sprint(m.Kept), fmt.Sprint(m.Lost); kept != test.kept || lost != test.lost {
			t.Errorf("%s: kept %s, lost %s", name, kept, lost)
		}
	}
	// Neither side is wrong, and the two together are.
	m, err := Merge(models.MustParse(t, `<config><service name="web"><listen ip=":80"/></service></config>`),
		models.MustParse(t, "<config><service name=\"web\"><listen ip=\":80\"/></service>\n<admin><metrics listen=\":81\"/></admin></config>"),
		models.MustParse(t, `<config><service name="web"><listen ip=":80"/><listen ip=":81"/></service></config>`))
	if err == nil {
		t.Errorf("merged to %+v", m)
	}
}
