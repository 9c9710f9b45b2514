package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/internal/words"
)

// world is a configuration that a director holds: hosts are up or down as a test
// marks them.
var world = rig.Hold

// many writes that many hosts, 250 to a service.
func many(hosts int) string {
	var b strings.Builder
	b.WriteString(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main">`)
	for i := range hosts {
		if i > 0 && i%250 == 0 {
			fmt.Fprintf(&b, `</group></service><service name="web%d"><listen ip="127.0.0.1:0"/><group name="main">`, i)
		}
		fmt.Fprintf(&b, `<host name="host%d" ip="10.%d.%d.%d:80"/>`, i, i>>16, i>>8&255, i&255)
	}
	b.WriteString(`</group></service></config>`)
	return b.String()
}

// twoGroups has hosts a, b and c in the group that is enabled, and d in another.
const twoGroups = `<config><service name="web"><listen ip="127.0.0.1:0"/>
	<group name="blue" enable="yes"><host name="a" ip="127.0.0.1:1" weight="3"/><host name="b" ip="127.0.0.1:2"/><host name="c" ip="127.0.0.1:3"/></group>
	<group name="green" scheduler="roundr"><host name="d" ip="127.0.0.1:4"/></group></service></config>`

// source is what a page shows of a director. change edits the facts.
func source(d *director.Director, change ...func(*status.Facts)) Source {
	f := status.Facts{At: time.Now(), State: d.State(), Version: "1.2.3", Started: time.Now().Add(-time.Hour), HasFile: true}
	for _, c := range change {
		c(&f)
	}
	return Source{
		Reading: status.Read(f), Boot: "boot", User: "boss", CanChange: true, Refresh: 10 * time.Second,
	}
}

func unsaved(f *status.Facts) { f.Unsaved = make([]changes.Edit, 1) }

// mark makes hosts look down.
func mark(t testing.TB, d *director.Director, names ...string) {
	t.Helper()
	for _, s := range d.State().Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if slices.Contains(names, h.Config.Name) {
					h.Targets[0].Host.MarkDown()
				}
			}
		}
	}
}

// set changes the model of the world as it stands: what a page shows is what
// the models say.
func set(d *director.Director, change func(*config.Service)) {
	for _, s := range d.State().Services {
		change(s.Config)
	}
}

func TestMain(m *testing.M) { testkit.Main(m) }

// A host that is ejected says why and until when, and can be kept in.
func TestEjectedHost(t *testing.T) {
	v := NewView(source(world(t, twoGroups)))
	row := &v.Services[0].Groups[0].Rows[0]
	row.Ejected = &EjectedView{"slow: <b>9</b> times the group", time.Now().Add(time.Minute)}
	v.Services[0].Groups[0].Rows[1].Pinned = true
	for _, may := range []bool{true, false} {
		v.CanChange = may
		var b bytes.Buffer
		if err := New().Running(&b, v); err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]bool{
			"</span> ejected</span>": true, "slow: &lt;b&gt;9&lt;/b&gt; times the group</span>, until <time": true, ">never ejected</span>": true,
			`<input type="hidden" name="eject" value="never">`: may, "<button>Never eject</button>": may,
		} {
			if strings.Contains(b.String(), text) != want {
				t.Errorf("with changes allowed %v, %q is there: %v", may, text, !want)
			}
		}
	}
}

func TestTheFirstGlance(t *testing.T) {
	for _, tc := range []struct {
		what    string
		down    []string
		change  func(*config.Service)
		level   Level
		summary string
		problem string // the first
	}{
		{"all is well", nil, nil, Fine, "Healthy", ""},
		{"one is down", []string{"b"}, nil, Warning, "1 problem; clients are served", "1 of 3 hosts of web / blue is down"},
		{"two are down", []string{"a", "b"}, nil, Warning, "1 problem; clients are served", "2 of 3 hosts of web / blue are down"},
		{"all are down", []string{"a", "b", "c"}, nil, Critical, "1 problem: clients are tried on hosts that are down", "Every host of web / blue is down: clients are tried on them as a last resort"},
		{"one in standby is down", []string{"d"}, nil, Notice, "Healthy", "1 of 1 host of web / green is down"},
		{"one is drained", nil, func(s *config.Service) { s.Groups[0].Hosts[1].State = "drain" }, Notice, "Healthy", "Draining: 1 host of web / blue"},
		{
			"all are out on purpose", nil, func(s *config.Service) {
				s.Groups[0].Hosts[0].State, s.Groups[0].Hosts[1].State, s.Groups[0].Hosts[2].Weight = "drain", "maint", 0
			}, Critical, "1 problem: clients are being rejected", "No host of web / blue takes clients: all are in drain, maintenance or have weight 0",
		},
		{
			"the last that serves is down", []string{"c"}, func(s *config.Service) {
				s.Groups[0].Hosts[0].State, s.Groups[0].Hosts[1].State, s.Groups[0].AllDown = "drain", "maint", "refuse"
			}, Critical, "1 problem: clients are being rejected", "Every host of web / blue that should take clients is down: clients are rejected",
		},
	} {
		t.Run(tc.what, func(t *testing.T) {
			d := world(t, twoGroups)
			mark(t, d, tc.down...)
			if tc.change != nil {
				set(d, tc.change)
			}
			v := NewView(source(d))
			first := ""
			if len(v.Problems) > 0 {
				first = v.Problems[0].Text
			}
			if v.Overall != tc.level || v.Summary != tc.summary || first != tc.problem {
				t.Errorf("the page says %v, %q, %q; want %v, %q, %q", v.Overall, v.Summary, first, tc.level, tc.summary, tc.problem)
			}
		})
	}
	d := world(t, twoGroups)
	mark(t, d, "a", "b", "c")
	if fixes := NewView(source(d)).Problems[0].Fixes; len(fixes) != 1 || fixes[0].Text != "Make green active (1 of 1 up)…" {
		t.Errorf("with another group that is up the page offers %v", fixes)
	}
	d = world(t, twoGroups)
	src := source(d, func(f *status.Facts) { f.ReloadFailed = true })
	if v := NewView(src); v.Overall != Warning || !strings.Contains(v.Problems[0].Text, "reload failed") {
		t.Errorf("after a reload that failed the page says %v %v", v.Overall, v.Problems)
	}
	mark(t, d, "b")
	if p := NewView(source(d)).Problems[0]; len(p.Details) != 1 || !strings.HasPrefix(p.Details[0], "b: a client's connect failed") {
		t.Errorf("the problem has the details %q; want the host with the reason", p.Details)
	}
}

// TestRevision makes sure that a page learns of everything it shows that is no
// figure, and of nothing else.
func TestRevision(t *testing.T) {
	d := world(t, twoGroups)
	var feed Feed
	var changes []func(*status.Facts)
	now := func() Source { return source(d, changes...) }
	revision := func() string {
		src := now()
		return feed.Next(&src).Revision
	}
	first := revision()
	if v := NewView(now()); v.Revision != first {
		t.Errorf("the page has revision %s, the figures have %s", v.Revision, first)
	}
	if revision() != first {
		t.Error("the revision changes though nothing did")
	}
	d.State().Services[0].Groups[0].Hosts[0].Targets[0].Host.AddBytes(1, 2)
	if revision() != first {
		t.Error("the revision changes with the figures")
	}
	seen := map[string]bool{first: true}
	for what, change := range map[string]func(){
		"a host that is down":        func() { mark(t, d, "b") },
		"a change that is not saved": func() { changes = append(changes, unsaved) },
		"a failed reload":            func() { changes = append(changes, func(f *status.Facts) { f.ReloadFailed = true }) },
	} {
		change()
		r := revision()
		if seen[r] {
			t.Errorf("%s does not change the revision", what)
		}
		seen[r] = true
	}
	for what, change := range map[string]func(*Source){
		"an order":                               func(src *Source) { src.LastEvent++ },
		"clients that are closed without a host": func(src *Source) { src.Services[0].Traffic.RefusedNow = 1 },
	} {
		src := now()
		change(&src)
		r := feed.Next(&src).Revision
		if seen[r] {
			t.Errorf("%s does not change the revision", what)
		}
		seen[r] = true
	}
}

// The page says in words how sessions ended that did not end as they should.
func TestEndings(t *testing.T) {
	d := world(t, twoGroups)
	src := source(d, func(f *status.Facts) {
		f.Snapshot.Services = map[string]engine.ServiceStats{"web": {Ended: map[string]uint64{"--": 9, "SD": 2, "KD": 3, "cD": 1, "CC": 0}}}
	})
	v := NewView(src)
	var got []string
	for _, e := range v.Services[0].Endings {
		known, _ := engine.TerminationOf(e.Code)
		if e.Meaning != known.Meaning {
			t.Errorf("%s means %q", e.Code, e.Meaning)
		}
		got = append(got, fmt.Sprint(e.Code, " ", e.Sessions))
	}
	if want := []string{"SD 2", "cD 1"}; !slices.Equal(got, want) {
		t.Errorf("endings %q, want %q", got, want)
	}
}

func TestFigures(t *testing.T) {
	d := world(t, twoGroups)
	d.State().Services[0].Groups[0].Hosts[0].Targets[0].Host.AddBytes(6000, 30_000)
	src := source(d, func(f *status.Facts) {
		f.Snapshot.Services = map[string]engine.ServiceStats{"web": {Active: 7, Sessions: 50, Refused: map[string]uint64{"no_host": 5}}}
	})
	web := &src.Services[0]
	web.Traffic = status.Traffic{Rate: 10, RefusedNow: 5, ConnectTime: 4 * time.Millisecond}
	web.Groups[0].Hosts[0].Traffic = status.Traffic{InRate: 1000, OutRate: 5000, ConnectTime: 1_234_567}
	web.Groups[0].Hosts[1].Checked, web.Groups[0].Hosts[1].CheckTook = time.UnixMilli(99), 2*time.Millisecond
	src.All = status.Traffic{Rate: 11}
	a, b := hostID("web", "blue", "a"), hostID("web", "blue", "b")
	var feed Feed
	f := feed.Next(&src)
	if got := f.Hosts[a]; got.InRate != 1000 || got.OutRate != 5000 || got.In != 6000 || got.ConnectMS == nil || *got.ConnectMS != 1.23 || got.CheckMS != nil || got.Checked != 0 {
		t.Errorf("the figures of a host: %+v", got)
	}
	if got := f.Hosts[b]; got.ConnectMS != nil || got.CheckMS == nil || *got.CheckMS != 2 || got.Checked != 99 {
		t.Errorf("the figures of a host that was checked: %+v", got)
	}
	if got := f.Services[serviceID("web")]; got.Rate != 10 || got.Sessions != 7 || got.Total != 50 || got.Refused != 5 || got.RefusedNow != 5 || *got.ConnectMS != 4 {
		t.Errorf("the figures of a service: %+v", got)
	}
	if f.Sessions != 7 || f.Rate != 11 || f.Boot != "boot" || f.Time != src.At.UnixMilli() || f.Generation != 1 {
		t.Errorf("the figures of the whole: %+v", f)
	}
	web.Groups[0].Hosts[0].Traffic.InRate = 0
	if f = feed.Next(&src); len(f.Hosts) != 1 || f.Hosts[a].InRate != 0 {
		t.Errorf("after one has changed these are sent: %v", f.Hosts)
	}
	if full := feed.Full(&src); len(full.Hosts) != 4 {
		t.Errorf("the full figures have %d hosts; want all 4", len(full.Hosts))
	}
}

// still is an engine that does nothing.
type still struct{}

func (still) Snapshot() engine.Snapshot    { return engine.Snapshot{} }
func (still) Listeners() []engine.Listener { return nil }

func TestHistory(t *testing.T) {
	d := world(t, twoGroups)
	from := &status.Source{Director: d, Engine: still{}}
	from.Sample()
	from.Sample()
	web, host := serviceID("web"), hostID("web", "blue", "a")
	h := NewHistory(from, d.State(), []string{web, host, "nothing"})
	if len(h.Series) != 2 || h.Time == 0 || h.Step != 1000 || len(h.Series[web].Rate) != 2 || h.Series[web].CheckMS != nil {
		t.Errorf("the history: %+v", h)
	}
	if text, err := json.Marshal(h.Series[host]); err != nil || !strings.Contains(string(text), `"check_ms":[null,null]`) {
		t.Errorf("what was not measured is not null: %v %s", err, text)
	}
}

// TestFiguresOfMany makes sure that an event stays small, and that every host
// has its turn.
func TestFiguresOfMany(t *testing.T) {
	d := world(t, many(1000))
	var feed Feed
	src := source(d)
	seen := map[string]bool{}
	for range 3 {
		f := feed.Next(&src)
		if len(f.Hosts) > maxSent {
			t.Fatalf("an event has %d hosts; want at most %d", len(f.Hosts), maxSent)
		}
		for id := range f.Hosts {
			seen[id] = true
		}
	}
	if len(seen) != 1000 {
		t.Errorf("three events had %d hosts of 1000", len(seen))
	}
	if n := len(feed.Next(&src).Hosts); n != 0 {
		t.Errorf("%d hosts are sent again though nothing has changed", n)
	}
}

func TestQueries(t *testing.T) {
	d := world(t, twoGroups)
	mark(t, d, "b")
	set(d, func(s *config.Service) { s.Groups[0].Hosts[2].State = "drain" })
	for query, want := range map[string]string{
		"":                          "b c a d",
		"q=B":                       "b c a d", // group blue, and the name
		"q=127.0.0.1:4":             "d",
		"q=green+d":                 "d",
		"q=nothing":                 "",
		"only=problems":             "b",
		"only=up":                   "c a d",
		"only=down":                 "b",
		"only=drain":                "c",
		"only=ready&sort=name":      "a b d",
		"sort=name":                 "a b c d",
		"sort=-name":                "c b a d",
		"sort=weight":               "a b c d",
		"only=<script>&sort=drop":   "b c a d",
		"from=9&q=a&only=up&sort=x": "c a",
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		src := source(d)
		src.Query = ParseQuery(v)
		var names []string
		for _, s := range NewView(src).Services {
			for _, g := range s.Groups {
				for _, r := range g.Rows {
					names = append(names, r.Name)
				}
			}
		}
		if got := strings.Join(names, " "); got != want && query != "from=9&q=a&only=up&sort=x" {
			t.Errorf("%q shows %q; want %q", query, got, want)
		}
		back, err := url.Parse(src.Query.Address())
		if err != nil || ParseQuery(back.Query()) != src.Query {
			t.Errorf("%q has the address %q, which says %+v; want %+v", query, src.Query.Address(), ParseQuery(back.Query()), src.Query)
		}
	}
}

// TestPaging walks through a group that is larger than a page: every host is
// on one page, and the other groups keep their share.
func TestPaging(t *testing.T) {
	d := world(t, many(1000)+"")
	src := source(d)
	v := NewView(src)
	if v.Shown > maxRows || v.Hosts != 1000 || v.Matching != 1000 {
		t.Fatalf("%d of %d hosts are shown; want at most %d", v.Shown, v.Hosts, maxRows)
	}
	seen := map[string]bool{}
	g := v.Services[0].Groups[0]
	for pages := 0; ; pages++ {
		for _, r := range g.Rows {
			if seen[r.ID] {
				t.Errorf("host %s is shown twice", r.Name)
			}
			seen[r.ID] = true
		}
		if g.Next < 0 {
			break
		}
		next, err := url.Parse(v.Query.With("more", g.ID+" "+strconv.Itoa(g.Next)))
		if err != nil || pages > 20 {
			t.Fatal(err, pages)
		}
		src.Query = ParseQuery(next.Query())
		v = NewView(src)
		g = v.Services[0].Groups[0]
	}
	if len(seen) != g.Total {
		t.Errorf("%d of %d hosts are on the pages", len(seen), g.Total)
	}
}

// TestUndo makes sure that each way back leads back.
func TestUndo(t *testing.T) {
	for _, tc := range []struct {
		verb, params, want string
	}{
		{"setHost", "service=web&group=blue&name=a&state=drain", "setHost state=ready"},
		{"setHost", "service=web&group=blue&name=a&weight=9", "setHost weight=3"},
		{"hostAdminDown", "service=web&group=blue&host=a", "setHost state=ready"},
		{"enableGroup", "service=web&group=green", "enableGroup group=blue"},
		{"changeScheduler", "service=web&group=green&scheduler=rand", "changeScheduler scheduler=roundr"},
		{"delHost", "service=web&group=blue&name=a", "rollback generation=2"},
		{"setHost", "service=web&group=blue&name=a&source=127.0.0.9", "rollback generation=2"}, // no form takes it away
	} {
		d := world(t, twoGroups)
		params, err := url.ParseQuery(tc.params)
		if err != nil {
			t.Fatal(err)
		}
		m := Answer(d.State(), verbOf(admin.Verbs(), tc.verb), params, admin.Result{Text: "done", Generation: 2}, nil)
		verb, param, _ := strings.Cut(tc.want, " ")
		name, value, _ := strings.Cut(param, "=")
		if m.Undo == nil || m.Undo.Verb != verb || !slices.Contains(m.Undo.Params, Param{name, value}) {
			t.Errorf("%s %s is undone by %+v; want %s", tc.verb, tc.params, m.Undo, tc.want)
		}
		if m := Answer(d.State(), verbOf(admin.Verbs(), tc.verb), params, admin.Result{Text: "done", Generation: 1}, nil); m.Undo != nil {
			t.Errorf("%s that changed nothing has a way back", tc.verb)
		}
		if m := Answer(d.State(), verbOf(admin.Verbs(), tc.verb), params, admin.Result{}, director.ErrStopped); m.Level != Critical || m.Undo != nil {
			t.Errorf("a refusal is shown as %v with %v", m.Level, m.Undo)
		}
	}
}

// TestQuestions asks everything that can be asked, by the addresses that the
// pages themselves have.
func TestQuestions(t *testing.T) {
	d := world(t, strings.NewReplacer(`name="blue"`, `name="blue" scheduler="leastc,sticky"`, "</config>", `<service name="other"><listen ip="127.0.0.1:0"/></service><admin><user name="boss" password="$1$abcdefgh$hqvCbNwzGGtJDzHd8m2pC1" access="full"/></admin></config>`).Replace(twoGroups))
	set(d, func(s *config.Service) {
		s.Listen = append(s.Listen, config.Listen{Address: "127.0.0.1:9"})
		if g := s.Enabled(); g != nil {
			s.Routes = []config.Route{{Percent: 5, Group: g.Name}}
			g.Mirrors = []config.Mirror{{Address: "127.0.0.1:10", Percent: 100}}
			s.Access = []config.AccessRule{{Nets: "*"}}
		}
	})
	p := New()
	address := regexp.MustCompile(`href="((?:ask|manage)(?:\?[^"]*)?)"`)
	asked, todo := map[string]bool{}, []string{}
	follow := func(html string) {
		for _, a := range address.FindAllStringSubmatch(html, -1) {
			if to := strings.ReplaceAll(a[1], "&amp;", "&"); !asked[to] {
				asked[to] = true
				todo = append(todo, to)
			}
		}
	}
	var b bytes.Buffer
	if err := p.Running(&b, NewView(source(d))); err != nil {
		t.Fatal(err)
	}
	follow(b.String())
	b.Reset()
	if err := p.Sessions(&b, NewView(source(d)), SessionList{List: []Session{{ID: 7}}}); err != nil {
		t.Fatal(err)
	}
	follow(b.String())
	verbs := map[string]bool{}
	for len(todo) > 0 {
		u, err := url.Parse(todo[0])
		if err != nil {
			t.Fatal(err)
		}
		todo = todo[1:]
		q := u.Query()
		b.Reset()
		if u.Path == "manage" {
			err = p.Manage(&b, NewView(source(d)), Where{q.Get("service"), q.Get("group"), q.Get("name")})
		} else {
			err = p.Ask(&b, NewView(source(d)), q.Get("verb"), q)
		}
		if err != nil {
			t.Errorf("%s: %v", u, err)
		}
		if left := regexp.MustCompile(`\{\w+\}`).FindString(b.String()); left != "" {
			t.Errorf("%s: the word %s is left", u, left)
		}
		follow(b.String())
		for _, f := range regexp.MustCompile(`<form[^>]* action="(\w+)"`).FindAllStringSubmatch(b.String(), -1) {
			verbs[f[1]] = true
		}
		if u.Path == "ask" {
			look := source(d)
			look.CanChange = false
			b.Reset()
			if err := p.Ask(&b, NewView(look), q.Get("verb"), q); err != ErrReadonly || strings.Contains(b.String(), "<form") {
				t.Errorf("a user who may only look is asked %s: %v", u, err)
			}
		}
	}
	// Everything can be reached. Some are offered where there is something to save or
	// to undo, a change that waits, a host that is down, or one that is drained: see below.
	elsewhere := []string{"hostAdminUp", "saveConfig", "retryHost", "rollback", "confirm", "release"}
	for _, v := range admin.Verbs() {
		if v.Changes && !verbs[v.Name] && !slices.Contains(elsewhere, v.Name) {
			t.Errorf("%s cannot be reached from the page; the page has %v", v.Name, slices.Sorted(mapKeys(verbs)))
		}
	}
	for _, missing := range []string{"service=none", "service=web&group=none", "service=web&group=blue&name=none"} {
		q, _ := url.ParseQuery(missing)
		b.Reset()
		if err := p.Manage(&b, NewView(source(d)), Where{q.Get("service"), q.Get("group"), q.Get("name")}); err != ErrNotFound || !strings.Contains(b.String(), "may have been deleted") {
			t.Errorf("%s: %v", missing, err)
		}
	}
	// Where it is the last that serves, the question says so.
	mark(t, d, "b", "c")
	b.Reset()
	if err := p.Ask(&b, NewView(source(d)), "setHost", url.Values{"service": {"web"}, "group": {"blue"}, "name": {"a"}, "state": {"drain"}}); err != nil || !strings.Contains(b.String(), "without it, clients are tried on hosts that are down") ||
		strings.Contains(b.String(), "can finish") {
		t.Errorf("the question before the last host is drained: %v: %s", err, b.String())
	}
	// Undo is offered when there is something to undo.
	undo := func(generation uint64) bool {
		at := func(f *status.Facts) {
			state := *f.State
			state.Generation = generation
			f.State = &state
		}
		b.Reset()
		if err := p.Running(&b, NewView(source(d, at))); err != nil {
			t.Fatal(err)
		}
		page := strings.Contains(b.String(), "verb=rollback")
		b.Reset()
		if err := p.Manage(&b, NewView(source(d, at)), Where{}); err != nil || page != strings.Contains(b.String(), "verb=rollback") {
			t.Errorf("the pages differ in what they offer: %v", err)
		}
		return page
	}
	if undo(1) {
		t.Error("undo is offered at generation 1")
	}
	if !undo(2) {
		t.Error("undo is not offered after a change")
	}
	b.Reset()
	empty := source(d)
	empty.Events = nil
	if err := p.Events(&b, NewView(empty)); err != nil || strings.Contains(b.String(), "eventlist long") || !strings.Contains(b.String(), "No events yet") {
		t.Errorf("without events: %v", err)
	}
}

// TestNewVerb makes sure that a row of the table is all that the page needs of a
// verb: to offer it, to ask before it with what follows, and to undo it.
func TestNewVerb(t *testing.T) {
	d := world(t, twoGroups)
	src := source(d)
	inverse := func(s *admin.Scene) (words.Command, string) {
		return words.Command{Verb: "wakeHost", Words: s.Place()}, "awake"
	}
	src.Verbs = append(admin.Verbs(), admin.Verb{
		Name: "doze", Role: users.Full, Changes: true,
		Params: []admin.Param{
			{Name: "service", Kind: admin.Service, Required: true}, {Name: "group", Kind: admin.Group, Required: true},
			{Name: "name", Kind: admin.Host, Required: true}, {Name: "dreamFor", Kind: admin.Duration, Option: true, Help: "until it wakes"},
			{Name: "generation", Kind: admin.Number, Option: true},
		},
		Offers: []admin.Offer{
			{Label: "Send to sleep", Note: "It sleeps.", Title: "Send {name} to sleep?", Lines: []string{"Dreams follow on {place}."},
				Warn: func(*admin.Scene) ([]string, bool) { return []string{"It snores."}, false }},
			{Label: "Nap", Note: "A short one.", Set: []words.Word{{Key: "dreamFor", Value: "1m"}}},
		},
		Inverse: inverse,
	})
	p := New()
	v := NewView(src)
	host := Where{"web", "blue", "a"}
	page := func(write func(*bytes.Buffer) error) string {
		t.Helper()
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	has := func(html string, all ...string) {
		t.Helper()
		for _, want := range all {
			if !strings.Contains(html, want) {
				t.Errorf("the page has no %q:\n%s", want, html)
			}
		}
	}
	html := page(func(b *bytes.Buffer) error { return p.Manage(b, v, host) })
	has(html, `href="ask?group=blue&amp;name=a&amp;service=web&amp;verb=doze"`, "Send to sleep…", "It sleeps.",
		`action="doze"`, `name="dreamFor" value="1m"`, ">Nap<", "A short one.")
	if html := page(func(b *bytes.Buffer) error { return p.Manage(b, v, Where{"web", "blue", ""}) }); strings.Contains(html, "doze") {
		t.Error("a verb about a host is offered for a group")
	}
	words := url.Values{"service": {"web"}, "group": {"blue"}, "name": {"a"}}
	html = page(func(b *bytes.Buffer) error { return p.Ask(b, v, "doze", words) })
	has(html, "Send a to sleep?", "Dreams follow on host a.", "It snores.", `action="doze"`, `name="generation" value="1"`)
	m := Answer(d.State(), &src.Verbs[len(src.Verbs)-1], words, admin.Result{Text: "done", Generation: 2}, nil)
	if m.Undo == nil || m.Undo.Label != "Undo: back to awake" || m.Undo.Verb != "wakeHost" || !slices.Contains(m.Undo.Params, Param{"name", "a"}) {
		t.Errorf("it is undone by %+v", m.Undo)
	}
	src.Verbs[len(src.Verbs)-1].Inverse = nil
	m = Answer(d.State(), &src.Verbs[len(src.Verbs)-1], words, admin.Result{Text: "done", Generation: 2}, nil)
	if m.Undo == nil || m.Undo.Verb != "rollback" || !slices.Contains(m.Undo.Params, Param{"generation", "2"}) {
		t.Errorf("without an inverse it is undone by %+v; want a rollback", m.Undo)
	}
}

// TestEveryAttributeHasAField makes sure that the page offers what verbs can
// change, and shows the value that it has.
func TestEveryAttributeHasAField(t *testing.T) {
	d := world(t, strings.Replace(twoGroups, `weight="3"`, `weight="3" slowStart="17s"`, 1))
	set(d, func(s *config.Service) { s.Groups[0].Hosts[0].State, s.Limits.Tries = "drain", 11 })
	mark(t, d, "a")
	src := source(d, unsaved)
	fields, verbs := map[string]string{}, map[string]bool{}
	for _, at := range []Where{{}, {"web", "", ""}, {"web", "blue", ""}, {"web", "green", ""}, {"web", "blue", "a"}} {
		m, err := NewView(src).manage(at)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Forms {
			verbs[f.Verb] = true
			for _, field := range f.Fields {
				fields[f.Verb+" "+field.Name] = field.Value
				if !f.Danger && field.Required && field.Value == "" && field.Kind == "text" && strings.HasPrefix(f.Verb, "set") {
					t.Errorf("the form %s of %+v cannot be sent without %s", f.Label, at, field.Name)
				}
			}
		}
	}
	for verb, elements := range map[string][]string{
		"setHost": {"host"}, "addHost": {"host"}, "setGroup": {"group"}, "addGroup": {"group"}, "setService": {"timeouts", "limits"},
	} {
		for _, e := range elements {
			for _, a := range config.Attributes(e) {
				if _, has := fields[verb+" "+a.Name]; a.Runtime && !has && verb+a.Name != "setHoststate" { // three buttons
					t.Errorf("%s has no field for %s", verb, a.Name)
				}
			}
		}
	}
	for field, want := range map[string]string{
		"setHost weight": "3", "setHost slowStart": "17s", "addHost weight": "1", "setService tries": "11", "changeScheduler scheduler": "roundr",
	} {
		if fields[field] != want {
			t.Errorf("%s is %q; want %q", field, fields[field], want)
		}
	}
	for _, verb := range []string{"hostAdminUp", "saveConfig", "retryHost"} {
		if !verbs[verb] {
			t.Errorf("%s is not offered; there are %v", verb, slices.Sorted(mapKeys(verbs)))
		}
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestEveryTextIsEscaped writes all pages with names and texts that are no
// help: not one of them becomes a tag, and none makes a page large.
func TestEveryTextIsEscaped(t *testing.T) {
	const evil = `<script>alert(1)</script>"'><b onclick=x>&lt;`
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace
	long := strings.Repeat("x", 10_000)
	d := world(t, fmt.Sprintf(`<config><service name="%[1]s"><listen ip="127.0.0.1:0"/><group name="%[1]s" enable="yes">
		<host name="%[1]s" ip="127.0.0.1:1"/><host name="%[2]s" ip="127.0.0.1:1"/></group><group name="%[2]s"/></service></config>`, escape(evil), long))
	set(d, func(s *config.Service) {
		s.Groups[0].Hosts[0].Name, s.Groups[0].Hosts[0].Address = evil+"\r\n\u2028", evil
	})
	mark(t, d, long)
	src := source(d, func(f *status.Facts) {
		f.Version, f.Listeners = evil, []engine.Listener{{Service: evil, Listen: "127.0.0.1:0", Addr: evil}}
	})
	src.User, src.Boot = evil, evil
	src.Message = &Message{Level: Warning, Text: evil + "\n" + evil, Undo: &Action{evil, "setHost", []Param{{evil, evil}}}}
	src.Events = []Event{{Time: time.Now(), Kind: evil, By: evil, From: evil, What: evil, Details: []string{evil, long}}}
	src.Query = Query{Filter: "", Sort: "name", Only: "", More: evil}
	p := New()
	host := Where{evil, evil, evil + "\r\n\u2028"}
	pages := map[string]func(*bytes.Buffer, *View) error{
		"running":  func(b *bytes.Buffer, v *View) error { return p.Running(b, v) },
		"done":     func(b *bytes.Buffer, v *View) error { return p.Done(b, v) },
		"host":     func(b *bytes.Buffer, v *View) error { return p.Manage(b, v, host) },
		"group":    func(b *bytes.Buffer, v *View) error { return p.Manage(b, v, Where{evil, evil, ""}) },
		"service":  func(b *bytes.Buffer, v *View) error { return p.Manage(b, v, Where{evil, "", ""}) },
		"rollback": func(b *bytes.Buffer, v *View) error { return p.Ask(b, v, "rollback", nil) },
		"drain": func(b *bytes.Buffer, v *View) error {
			return p.Ask(b, v, "setHost", url.Values{"service": {evil}, "group": {evil}, "name": {host.Name}, "state": {"drain"}})
		},
		"configs": func(b *bytes.Buffer, v *View) error {
			return p.Configs(b, v, Configs{Running: evil, Stored: "x" + evil, Path: evil, Verbs: []string{evil}})
		},
		"events": func(b *bytes.Buffer, v *View) error { return p.Events(b, v) },
		"sessions": func(b *bytes.Buffer, v *View) error {
			return p.Sessions(b, v, SessionList{List: []Session{{Service: evil, Group: evil, Host: evil, Client: evil}}, Filter: evil, Sort: evil})
		},
		"clients": func(b *bytes.Buffer, v *View) error { return p.Clients(b, v, []admin.ClientInfo{{Client: evil}}) },
		"missing": func(b *bytes.Buffer, v *View) error { return p.Missing(b, v, "/"+evil) },
	}
	for name, write := range pages {
		for _, part := range []bool{false, true} {
			src.Part = part
			var b bytes.Buffer
			if err := write(&b, NewView(src)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			html := b.String()
			if strings.Contains(html, "<script>") || strings.Contains(html, "<b onclick") || strings.Contains(html, "ZgotmplZ") {
				t.Errorf("%s (part %v): a text is not escaped", name, part)
			}
			if regexp.MustCompile(`(?i)\son\w+\s*=|\sstyle\s*=|javascript:`).MatchString(regexp.MustCompile(`<[^>]*>`).FindString(html)) {
				t.Errorf("%s (part %v) has a script or a style in a tag, which the policy forbids", name, part)
			}
			if len(html) > 200_000 {
				t.Errorf("%s (part %v) has %d bytes", name, part, len(html))
			}
		}
	}
}

// TestNoControlsWithoutTheRole looks for anything that could be pressed.
func TestNoControlsWithoutTheRole(t *testing.T) {
	d := world(t, twoGroups)
	set(d, func(s *config.Service) { s.Groups[0].Hosts[0].State = "drain" })
	src := source(d, unsaved)
	src.CanChange = false
	p := New()
	for _, at := range []Where{{}, {"web", "", ""}, {"web", "blue", ""}, {"web", "blue", "a"}} {
		var b bytes.Buffer
		err := p.Running(&b, NewView(src))
		if at.Service != "" {
			b.Reset()
			err = p.Manage(&b, NewView(src), at)
		}
		if err != nil {
			t.Fatal(err)
		}
		if html := b.String(); strings.Contains(html, `method="post"`) || strings.Contains(html, `"ask?`) {
			t.Errorf("a user who may only look is offered a change on the page of %+v", at)
		}
	}
}

// TestVendored compares what others wrote with the list of its checksums.
func TestVendored(t *testing.T) {
	list, err := os.ReadFile("static/vendored/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.ReadDir("static/vendored")
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) == 2 {
			sums[f[1]] = f[0]
		}
	}
	for _, f := range dir {
		if f.Name() == "SHA256SUMS" || f.Name() == "README" {
			continue
		}
		data, err := os.ReadFile("static/vendored/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		if sums[f.Name()] != hex.EncodeToString(sum[:]) {
			t.Errorf("%s has not the checksum that the list has", f.Name())
		}
		delete(sums, f.Name())
	}
	for name := range sums {
		t.Errorf("%s of the list is not there", name)
	}
	p := New()
	for _, name := range []string{"page.js", "page.css", "htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css", "htmx.LICENSE", "uPlot.LICENSE", "fine.svg"} {
		address, err := p.Address(name)
		if err != nil {
			t.Error(err)
			continue
		}
		data, mediaType, ok := p.Static(strings.TrimPrefix(address, "static/"))
		if !ok || len(data) == 0 || mediaType == "" || address == "static/"+name {
			t.Errorf("%s is served at %s as %q with %d bytes", name, address, mediaType, len(data))
		}
	}
}

// TestContrast works out the contrast of every pair of colours that the style
// puts on each other, in both schemes, as WCAG 2 defines it.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("static/page.css")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	if len(blocks) != 2 {
		t.Fatalf("the style has %d lists of colours; want one for light and one for dark", len(blocks))
	}
	pairs := []struct {
		on    string
		least float64
		what  []string
	}{
		{"bg", 4.5, []string{"text", "muted", "link"}},
		{"surface", 4.5, []string{"text", "muted", "link", "fine", "notice", "warning", "critical"}},
		{"raised", 4.5, []string{"text", "muted"}},
		{"button", 4.5, []string{"button-text", "critical"}},
		{"main", 4.5, []string{"main-text"}},
		{"banner", 4.5, []string{"banner-text"}},
		{"fine-bg", 4.5, []string{"fine", "text"}},
		{"notice-bg", 4.5, []string{"notice"}},
		{"warning-bg", 4.5, []string{"warning", "text", "muted", "critical"}},
		{"critical-bg", 4.5, []string{"critical", "text", "muted"}},
		{"added-bg", 4.5, []string{"text"}},
		{"removed-bg", 4.5, []string{"text"}},
		{"surface", 3, []string{"focus", "chart-rate", "chart-sessions", "chart-in", "chart-out", "chart-connect"}},
		{"bg", 3, []string{"focus"}},
	}
	for i, block := range blocks {
		colours := map[string]float64{}
		for _, c := range regexp.MustCompile(`--([\w-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(block[1], -1) {
			colours[c[1]] = luminance(t, c[2])
		}
		for _, p := range pairs {
			for _, what := range p.what {
				a, known := colours[what]
				b, known2 := colours[p.on]
				if !known || !known2 {
					t.Fatalf("there is no colour %s or %s", what, p.on)
				}
				if ratio := (max(a, b) + .05) / (min(a, b) + .05); ratio < p.least {
					t.Errorf("%s: %s on %s has a contrast of %.2f; want %.1f", [...]string{"light", "dark"}[i], what, p.on, ratio, p.least)
				}
			}
		}
	}
}

func luminance(t *testing.T, colour string) float64 {
	n, err := strconv.ParseUint(colour, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(c uint64) float64 {
		f := float64(c&255) / 255
		if f <= .04045 {
			return f / 12.92
		}
		return math.Pow((f+.055)/1.055, 2.4)
	}
	return .2126*linear(n>>16) + .7152*linear(n>>8) + .0722*linear(n)
}

func TestSideBySide(t *testing.T) {
	write := func(lines []sideLine) string {
		var b strings.Builder
		for _, l := range lines {
			fmt.Fprintf(&b, "%s|%s|%s\n", l.Kind, l.Running, l.Stored)
		}
		return b.String()
	}
	got := write(sideBySide("a\nb\nx\nc\n", "a\ny\nz\nc\nd\n"))
	want := "same|a|a\nboth|b|y\nboth|x|z\nsame|c|c\nonly-stored||d\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	// Large ones are compared too, and only what differs is shown.
	var running, stored strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&running, "line %d\n", i)
		if i%1000 == 500 {
			fmt.Fprintf(&stored, "other %d\n", i)
		} else {
			fmt.Fprintf(&stored, "line %d\n", i)
		}
	}
	lines := sideBySide(running.String(), stored.String())
	differ := 0
	for _, l := range lines {
		if l.Kind == "both" {
			differ++
		}
	}
	if differ != 20 || len(lines) > 20*(2*foldAround+2)+1 {
		t.Errorf("of two large configurations %d lines are shown, of which %d differ; want 20", len(lines), differ)
	}
}

// BenchmarkRunning writes the whole page. With 1,000 hosts (200 of them shown,
// all of them worked out) it takes about 10 ms here, with 10,000 about 60; on
// an idle machine less.
func BenchmarkRunning(b *testing.B) {
	for _, hosts := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			d := world(b, many(hosts))
			p := New()
			var out bytes.Buffer
			for b.Loop() {
				out.Reset()
				if err := p.Running(&out, NewView(source(d))); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(out.Len()), "bytes")
		})
	}
}

// BenchmarkFeed makes the event of 10,000 hosts.
func BenchmarkFeed(b *testing.B) {
	src := source(world(b, many(10_000)))
	var feed Feed
	for b.Loop() {
		feed.Next(&src)
	}
}
