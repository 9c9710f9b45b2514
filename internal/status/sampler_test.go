package status

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/sched"
)

// clock is a sampler whose time a test sets.
type clock struct {
	sampler
	facts Facts
}

// at takes a sample so many seconds after the start, and returns what is read then.
func (c *clock) at(seconds float64) *Reading {
	c.facts.At = time.Unix(1_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
	now := func() Facts { return c.facts }
	c.sample(now)
	return c.read(now)
}

// serve sets what the engine says of service web.
func (c *clock) serve(s engine.ServiceStats) {
	c.facts.Snapshot.Services = map[string]engine.ServiceStats{"web": s}
}

func TestRates(t *testing.T) {
	s := state(t, web)
	host := s.Services[0].Groups[0].Hosts[0].Targets[0].Host
	c := &clock{facts: Facts{State: s}}
	var r *Reading
	for i := range 6 {
		host.AddBytes(1000, 5000)
		host.Fail()
		host.Connected(i, time.Duration(i)*time.Millisecond)
		s.Services[0].Groups[0].Times.Connected(i, time.Duration(i)*time.Millisecond)
		c.serve(engine.ServiceStats{Active: 7, Sessions: uint64(10 * i), In: uint64(1000 * i), Refused: map[string]uint64{"no_host": uint64(i)}})
		r = c.at(float64(i))
		if i == 0 && (r.All.Rate != 0 || r.Busy >= 0) {
			t.Errorf("one sample tells a rate: %+v", r.All)
		}
	}
	svc, g, h := r.Find("web", "main", "a")
	for what, row := range map[string]*Traffic{"host": &h.Traffic, "group": &g.Traffic} {
		if row.InRate != 1000 || row.OutRate != 5000 || row.FailRate != 1 || row.ConnectTime != 4*time.Millisecond {
			t.Errorf("%s: %+v; want 1000 bytes a second in and 5000 out, one failure, connects of 4 ms", what, row)
		}
	}
	for what, row := range map[string]*Traffic{"service": &svc.Traffic, "all": &r.All} {
		if row.Rate != 10 || row.LastSecond != 10 || row.MaxRate != 10 || row.InRate != 1000 || row.Max != 7 {
			t.Errorf("%s: %+v; want 10 new sessions a second, 1000 bytes a second in, at most 7 sessions", what, row)
		}
	}
	if svc.Traffic.RefusedNow != 5 || svc.Traffic.ConnectTime != 4*time.Millisecond || svc.Traffic.LastSession != r.At {
		t.Errorf("the service: %+v; want 5 rejected lately, connects of 4 ms, a session just now", svc.Traffic)
	}
	// Two seconds between samples.
	c.serve(engine.ServiceStats{Sessions: 90})
	if r = c.at(7); r.All.LastSecond != 20 || r.All.MaxRate != 20 || r.All.Rate != 15 || r.All.Max != 7 {
		t.Errorf("after two seconds with 40 sessions: %+v", r.All)
	}
	// A counter that has fallen is that of another service with the name.
	c.serve(engine.ServiceStats{Sessions: 3})
	if r = c.at(8); r.All.LastSecond != 0 || r.All.Rate != 0 || r.All.MaxRate != 20 || r.Services[0].Traffic.LastSession == r.At {
		t.Errorf("after the service was replaced: %+v", r.All)
	}
	for i := range 12 {
		r = c.at(float64(9 + i))
	}
	if svc := r.Services[0].Traffic; svc.RefusedNow != 0 || svc.Rate != 0 || svc.ConnectTime != 0 {
		t.Errorf("after ten quiet seconds: %+v", svc)
	}
}

// Most sessions at once and downtime are seen between samples too.
func TestReadingSees(t *testing.T) {
	s := state(t, web)
	c := &clock{facts: Facts{State: s}}
	c.at(0)
	c.serve(engine.ServiceStats{Active: 9})
	c.read(func() Facts { return c.facts })
	c.serve(engine.ServiceStats{Active: 1})
	if r := c.at(1); r.All.Max != 9 || r.Services[0].Traffic.Max != 9 {
		t.Errorf("most sessions at once: %d", r.All.Max)
	}
	s.Services[0].Groups[0].Hosts[0].Targets[0].Host.MarkDown()
	if g := &c.at(10).Services[0].Groups[0]; g.Traffic.Up || g.Traffic.Downs != 1 || g.Traffic.Downtime(c.facts.At.Add(2*time.Second)) != 2*time.Second {
		t.Errorf("a group without a host that serves: %+v", g.Traffic)
	}
	s.Services[0].Groups[0].Hosts[0].Targets[0].Host.MarkUp()
	if g := &c.at(15).Services[0].Groups[0]; !g.Traffic.Up || g.Traffic.Downtime(c.facts.At.Add(time.Hour)) != 5*time.Second || g.Traffic.Changed != c.facts.At {
		t.Errorf("a group that is up again: %+v", g.Traffic)
	}
}

// What runs on keeps its number, its first weight and what was seen of it, while
// others come and go.
func TestRowsStay(t *testing.T) {
	d := rig.Hold(t, "<config>"+web+"</config>")
	c := &clock{facts: Facts{State: d.State()}}
	before := c.at(0)
	after := *d.State()
	svc := *after.Services[0]
	main := *svc.Groups[0]
	b := *main.Hosts[1].Config
	b.Weight = 77
	moved := *main.Hosts[1]
	moved.Config = &b
	main.Hosts = []*director.Host{&moved, main.Hosts[2]}
	svc.Groups = []*director.Group{svc.Groups[1], &main}
	after.Services = []*director.Service{&svc}
	c.facts.State = &after
	r := c.at(1)
	for _, names := range [][2]string{{"main", ""}, {"main", "b"}, {"main", "c"}, {"spare", "d"}} {
		_, g, h := before.Find("web", names[0], names[1])
		_, g2, h2 := r.Find("web", names[0], names[1])
		if g.Traffic.ID != g2.Traffic.ID || h != nil && (h.Traffic.ID != h2.Traffic.ID || h.Traffic.FirstWeight != h2.Traffic.FirstWeight) {
			t.Errorf("%v: %+v became %+v", names, g.Traffic, g2.Traffic)
		}
	}
	c.facts.State = d.State()
	if _, _, a := c.at(2).Find("web", "main", "a"); a.Traffic.ID != 4 {
		t.Errorf("a host that was deleted and added has the ID %d; want a new one", a.Traffic.ID)
	}
}

func TestHistory(t *testing.T) {
	s := state(t, web)
	c := &clock{facts: Facts{State: s}}
	service, host := Key{Service: "web"}, Key{"web", "main", "a"}
	for i := range 6 {
		c.serve(engine.ServiceStats{Active: int64(i), Sessions: uint64(10 * i)})
		c.at(float64(i))
	}
	h := c.history([]Key{service, host, {"web", "main", ""}, {Service: "nothing"}})
	if len(h.Series) != 2 || h.Time != c.facts.At || h.Step != time.Second {
		t.Errorf("the history has %d series until %v by %v", len(h.Series), h.Time, h.Step)
	}
	if got := h.Series[service]; !slices.Equal(got.Rate, []float32{0, 10, 10, 10, 10, 10}) || !slices.Equal(got.Sessions, []float32{0, 1, 2, 3, 4, 5}) {
		t.Errorf("the last seconds: %+v", got)
	}
	if got := h.Series[host]; len(got.Check) != 6 || !math.IsNaN(float64(got.Check[5])) || !math.IsNaN(float64(got.Connect[0])) {
		t.Errorf("what was not measured: %+v", got)
	}
	for i := range historyLength * 2 {
		c.serve(engine.ServiceStats{Active: int64(i)})
		c.at(float64(10 + i))
	}
	got := c.history([]Key{service}).Series[service].Sessions
	if len(got) != historyLength || got[0] != historyLength || got[historyLength-1] != 2*historyLength-1 {
		t.Errorf("the history has %d values, %v to %v; want the last %d", len(got), got[0], got[len(got)-1], historyLength)
	}
}

// many is a state of n hosts in groups of 250.
func many(t testing.TB, n int) *director.State {
	var b strings.Builder
	b.WriteString(`<config><service name="web"><listen ip=":1"/>`)
	for i := range n {
		if i%250 == 0 {
			fmt.Fprintf(&b, `<group name="g%d" enable="%v">`, i, i == 0)
		}
		fmt.Fprintf(&b, `<host name="h%d" ip="10.%d.%d.%d:1"/>`, i, i>>16, i>>8&255, i&255)
		if i%250 == 249 {
			b.WriteString(`</group>`)
		}
	}
	b.WriteString(`</service></config>`)
	return rig.Hold(t, b.String()).State()
}

func TestManyHostsHaveNoHistory(t *testing.T) {
	c := &clock{facts: Facts{State: many(t, 500)}}
	c.at(0)
	if n := len(c.history([]Key{{"web", "g0", "h0"}}).Series); n != 0 {
		t.Error("each of five hundred hosts has a history")
	}
}

func TestMeanIsOfTheLastTimes(t *testing.T) {
	var m mean
	var times sched.Times
	look := func(n int, each time.Duration) time.Duration {
		for range n {
			times.Connected(0, each)
		}
		m.of(times.Connects())
		return m.value.Round(time.Millisecond)
	}
	for i, c := range []struct {
		n          int
		each, want time.Duration
	}{
		{0, 0, 0}, {1, 40 * time.Millisecond, 40 * time.Millisecond}, {3, 80 * time.Millisecond, 70 * time.Millisecond}, {0, 0, 70 * time.Millisecond},
		{2000, 10 * time.Millisecond, 10 * time.Millisecond}, {512, 30 * time.Millisecond, 20 * time.Millisecond},
	} {
		if got := look(c.n, c.each); got != c.want {
			t.Errorf("look %d: %v, want %v", i, got, c.want)
		}
	}
}

// Fewer times than before are those of another one that has the name now.
func TestMeanBeginsAgain(t *testing.T) {
	var m mean
	m.take(10, 10*time.Second)
	m.take(2, 4*time.Second)
	if m.value != 2*time.Second {
		t.Errorf("%v, want 2s", m.value)
	}
	if m.take(0, 0); m.value != 0 {
		t.Errorf("%v of nothing", m.value)
	}
}

// Turnarounds have a mean and a worst of the last minute: of a host, its group and service.
func TestTurnaroundsAreSampled(t *testing.T) {
	s := state(t, web)
	hosts := s.Services[0].Groups[0].Hosts
	turned := func(host int, d time.Duration) { hosts[host].Targets[0].Host.Turned(0, d) }
	c := &clock{facts: Facts{State: s}}
	if r := c.at(0); r.Services[0].Traffic.Turnaround != 0 || r.Services[0].Traffic.WorstTurnaround != 0 {
		t.Errorf("without one: %+v", r.Services[0].Traffic)
	}
	turned(0, 10*time.Millisecond)
	turned(0, 30*time.Millisecond)
	turned(1, 80*time.Millisecond)
	r := c.at(1)
	check := func(what string, t2 *Traffic, mean, lately, worst time.Duration) {
		t.Helper()
		if t2.Turnaround != mean || t2.TurnTime != lately || t2.WorstTurnaround != worst {
			t.Errorf("%s: a mean of %v, lately %v, the worst %v; want %v, %v, %v", what, t2.Turnaround, t2.TurnTime, t2.WorstTurnaround, mean, lately, worst)
		}
	}
	const ms = time.Millisecond
	check("a", &r.Services[0].Groups[0].Hosts[0].Traffic, 20*ms, 20*ms, 30*ms)
	check("b", &r.Services[0].Groups[0].Hosts[1].Traffic, 80*ms, 80*ms, 80*ms)
	check("c", &r.Services[0].Groups[0].Hosts[2].Traffic, 0, 0, 0)
	check("main", &r.Services[0].Groups[0].Traffic, 40*ms, 40*ms, 80*ms)
	check("spare", &r.Services[0].Groups[1].Traffic, 0, 0, 0)
	check("web", &r.Services[0].Traffic, 40*ms, 40*ms, 80*ms)
	if got := c.history([]Key{{"web", "main", "b"}}).Series[Key{"web", "main", "b"}].Turnaround; len(got) != 2 || !math.IsNaN(float64(got[0])) || got[1] != 80 {
		t.Errorf("the chart of b: %v", got)
	}
	for i := range 58 { // the worst stays for a minute, to five seconds
		turned(1, 20*ms)
		if r = c.at(float64(2 + i)); i < 52 && r.Services[0].Traffic.WorstTurnaround != 80*ms {
			t.Fatalf("after %d seconds the worst is %v", 1+i, r.Services[0].Traffic.WorstTurnaround)
		}
	}
	for i := range 5 {
		turned(1, 20*ms)
		r = c.at(float64(60 + i))
	}
	if w := r.Services[0].Groups[0].Traffic.WorstTurnaround; w != 30*ms && w != 20*ms {
		t.Errorf("after a minute the worst is %v", w)
	}
	for i := range 4 {
		c.at(float64(500 + i))
	}
	if w := c.at(504).Services[0].Traffic; w.WorstTurnaround != 0 || w.TurnTime != 0 || w.Turnaround == 0 {
		t.Errorf("after a long silence: %+v", w)
	}
}

// Sessions of a host have a mean, as those of its group.
func TestSessionsOfHostsHaveAMean(t *testing.T) {
	s := state(t, web)
	host := s.Services[0].Groups[0].Hosts[0].Targets[0].Host
	c := &clock{facts: Facts{State: s}}
	c.at(0)
	host.Ended(0, time.Second)
	host.Ended(0, 3*time.Second)
	r := c.at(1)
	if a, b := r.Services[0].Groups[0].Hosts[0].Traffic.MeanSession, r.Services[0].Groups[0].Hosts[1].Traffic.MeanSession; a != 2*time.Second || b != 0 {
		t.Errorf("means of %v and %v, want 2s and 0", a, b)
	}
}

// BenchmarkSample and BenchmarkRead are of 10,000 hosts.
func BenchmarkSample(b *testing.B) {
	c := &clock{facts: Facts{State: many(b, 10_000)}}
	b.ReportAllocs()
	for b.Loop() {
		c.facts.At = c.facts.At.Add(time.Second)
		c.sample(func() Facts { return c.facts })
	}
}

func BenchmarkRead(b *testing.B) {
	c := &clock{facts: Facts{State: many(b, 10_000)}}
	b.ReportAllocs()
	for b.Loop() {
		c.read(func() Facts { return c.facts })
	}
}
