package status

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
)

func state(t *testing.T, services string) *director.State {
	t.Helper()
	return rig.Hold(t, "<config>"+services+"</config>").State()
}

const web = `<service name="web"><listen ip=":1"/>
	<group name="main" enable="yes"><host name="a" ip="10.0.0.1:1"/><host name="b" ip="10.0.0.2:1" state="drain"/><host name="c" ip="10.0.0.3:1" weight="0"/></group>
	<group name="spare"><host name="d" ip="10.0.0.4:1" state="maint"/></group></service>`

// A group counts what its hosts count, and a service what the engine says.
func TestSums(t *testing.T) {
	s := state(t, web)
	for i, h := range s.Services[0].Groups[0].Hosts {
		h.Targets[0].Host.AddBytes(uint64(i+1), 10)
		h.Targets[0].Host.Fail()
		h.Targets[0].Host.MarkUp()
	}
	r := Read(Facts{State: s, Listeners: []engine.Listener{
		{Service: "web", Addr: "127.0.0.1:2", MPTCP: true}, {Service: "web", Addr: "127.0.0.1:1"},
	}, Snapshot: engine.Snapshot{Services: map[string]engine.ServiceStats{
		"web": {Active: 7, Refused: map[string]uint64{"no_host": 2, "resource": 3}, ConnectFailures: map[string]uint64{"refused": 4}},
	}}})
	svc, g, h := r.Find("web", "main", "c")
	if g == nil || h == nil || g.Stats.In != 6 || g.Stats.Out != 30 || g.Stats.Failures != 3 || h.Stats.In != 3 {
		t.Fatalf("group %+v, host %+v", g, h)
	}
	if g.Up != 3 || g.Serving != 1 || svc.Enabled() != g || svc.Refused != 5 || svc.Failures != 4 || r.Sessions != 7 {
		t.Errorf("up %d, serving %d, refused %d, failures %d, sessions %d", g.Up, g.Serving, svc.Refused, svc.Failures, r.Sessions)
	}
	if !slices.Equal(svc.Listeners, []string{"127.0.0.1:1", "127.0.0.1:2"}) || !slices.Equal(svc.Multipath, svc.Listeners[1:]) {
		t.Errorf("listeners %v, for MPTCP %v", svc.Listeners, svc.Multipath)
	}
	if svc, g, h := r.Find("web", "none", ""); svc == nil || g != nil || h != nil {
		t.Errorf("found %v, %v, %v", svc, g, h)
	}
}

// What is wrong is said once, the worst first, with what would help.
func TestProblems(t *testing.T) {
	down := func(names string) func(*director.State) {
		return func(s *director.State) {
			for _, g := range s.Services[0].Groups {
				for _, h := range g.Hosts {
					if strings.Contains(names, h.Config.Name) {
						h.Targets[0].Host.MarkDown()
					}
				}
			}
		}
	}
	for name, test := range map[string]struct {
		doc    string
		change func(*director.State)
		facts  Facts
		level  Level
		want   string // of the first problem
		remedy string
	}{
		"healthy":          {web, nil, Facts{}, Notice, "Draining: 1 host of web / main: b", ""},
		"no group":         {`<service name="web"><listen ip=":1"/></service>`, nil, Facts{}, Critical, "Service web has no group: clients are rejected", "addGroup"},
		"an empty group":   {`<service name="web"><listen ip=":1"/><group name="g"/></service>`, nil, Facts{}, Critical, "Group g of service web is empty", "addHost"},
		"the last is down": {web, down("a"), Facts{}, Critical, "Every host of web / main that should take clients is down: clients are tried on them as a last resort: a (a client's connect failed)", ""},
		"refused": {
			strings.ReplaceAll(web, `name="main"`, `name="main" allDown="refuse"`), down("a"), Facts{}, Critical,
			"Every host of web / main that should take clients is down: clients are rejected", "",
		},
		"in standby":      {strings.NewReplacer(`state="maint"`, ``, `state="drain"`, ``, `weight="0"`, ``).Replace(web), down("d"), Facts{}, Notice, "1 of 1 host of web / spare is down: d (", ""},
		"draining":        {web, nil, Facts{Draining: true}, Critical, "txlb is draining: no new clients are accepted", ""},
		"at the limit":    {web, nil, Facts{SessionsLimit: 7, Snapshot: engine.Snapshot{Services: map[string]engine.ServiceStats{"web": {Active: 7}}}}, Critical, "The limit of 7 sessions is reached: new clients wait", "raise <engine maxSessions>"},
		"below the limit": {web, nil, Facts{SessionsLimit: 8, Snapshot: engine.Snapshot{Services: map[string]engine.ServiceStats{"web": {Active: 7}}}}, Notice, "Draining: 1 host", ""},
		"no header":       {web, nil, Facts{Rejections: []director.Rejection{{Service: "web", Reason: "proxy_signature", Clients: 1}}}, Warning, "Service web rejected 1 client in the last seconds: they sent no PROXY header", "switch the PROXY protocol on at the proxy"},
		"no descriptors":  {web, nil, Facts{Rejections: []director.Rejection{{Service: "web", Reason: "resource", Clients: 3}}}, Critical, "Service web rejected 3 clients in the last seconds: no descriptor, memory or local port was free", "raise the limit of open files"},
		"a bad file":      {web, nil, Facts{HasFile: true, ReloadFailed: true}, Warning, "The last reload failed: the previous configuration is still running", "run txlb check"},
	} {
		s := state(t, test.doc)
		if test.change != nil {
			test.change(s)
		}
		test.facts.State = s
		r := Read(test.facts)
		if len(r.Problems) == 0 {
			t.Errorf("%s: no problem", name)
			continue
		}
		if p := r.Problems[0]; p.Level != test.level || !strings.HasPrefix(p.String(), test.want) || !strings.HasPrefix(p.Remedy, test.remedy) {
			t.Errorf("%s: %v %q, remedy %q; want %v %q, %q", name, p.Level, p, p.Remedy, test.level, test.want, test.remedy)
		}
		for i := 1; i < len(r.Problems); i++ {
			if r.Problems[i].Level > r.Problems[i-1].Level {
				t.Errorf("%s: %v stands before %v", name, r.Problems[i-1], r.Problems[i])
			}
		}
	}
	if r := Read(Facts{State: state(t, web), HasFile: true, Unsaved: make([]changes.Edit, 2)}); !strings.HasPrefix(r.Problems[len(r.Problems)-1].Text, "2 changes are not saved") {
		t.Errorf("unsaved changes: %v", r.Problems)
	}
}

// Each counter has one name for each reader, and no two share one.
func TestCountersHaveNames(t *testing.T) {
	seen := map[string]string{}
	for _, c := range HostCounters {
		for kind, name := range map[string]string{"metric": c.Metric, "column": c.Column, "key": c.Key, "label": c.Label} {
			if other, twice := seen[kind+name]; twice || name == "" {
				t.Errorf("%s: %s %q; %s has it too", c.Metric, kind, name, other)
			}
			seen[kind+name] = c.Metric
		}
		if c.Help == "" || strings.HasSuffix(c.Metric, "_total") == c.Gauge {
			t.Errorf("%s: help %q, gauge %v", c.Metric, c.Help, c.Gauge)
		}
	}
	r := Reading{Facts: Facts{At: time.Unix(100, 0), Started: time.Unix(40, 0)}}
	if r.Uptime() != time.Minute {
		t.Errorf("up %v", r.Uptime())
	}
}

// Each problem says of which kind it is, and each kind is known.
func TestProblemsHaveKinds(t *testing.T) {
	var text []byte
	for _, name := range []string{"problems.go", "fleet.go"} {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, file...)
	}
	for _, m := range regexp.MustCompile(`Problem\{([^}]{0,30})`).FindAllStringSubmatch(string(text), -1) {
		if !strings.HasPrefix(strings.TrimSpace(m[1]), "Kind: ") {
			t.Errorf("a problem has no kind: Problem{%s", m[1])
		}
	}
	named := regexp.MustCompile(`(?m)^\t(\w+) +Kind = "(\w+)"$`).FindAllStringSubmatch(string(text), -1)
	for _, m := range named {
		if _, ok := Kinds[Kind(m[2])]; !ok {
			t.Errorf("%s is not in Kinds", m[1])
		}
		if strings.Count(string(text), m[1]) < 3 {
			t.Errorf("no problem is of the kind %s", m[1])
		}
	}
	if len(named) < 20 || len(named) != len(Kinds) {
		t.Errorf("%d kinds are named, %d are in Kinds", len(named), len(Kinds))
	}
}
