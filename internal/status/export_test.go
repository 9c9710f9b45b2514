package status

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/rig"
)

// What the samples have seen goes on in the next process: maxima, downtimes, means, numbers
// of rows and charts.
func TestSamplesGoOn(t *testing.T) {
	s := state(t, web)
	host := s.Services[0].Groups[0].Hosts[0].Targets[0].Host
	c := &clock{facts: Facts{State: s}}
	for i := range 5 {
		s.Services[0].Groups[0].Times.Connected(0, time.Duration(i)*time.Millisecond)
		host.Turned(0, time.Duration(i+1)*time.Millisecond)
		host.Ended(0, time.Second)
		c.serve(engine.ServiceStats{Active: int64(9 - i), Sessions: uint64(100 * i)})
		c.at(float64(i))
	}
	host.MarkDown()
	was := c.at(5)

	var e exported
	c.export(&e)
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var read exported
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	next := &clock{facts: c.facts}
	next.at(5.5) // of the new process itself: nobody has read that
	next.inherit(&read, func() Facts { return next.facts })
	is := next.at(6)
	for name, rows := range map[string][2]Traffic{
		"service": {was.Services[0].Traffic, is.Services[0].Traffic},
		"group":   {was.Services[0].Groups[0].Traffic, is.Services[0].Groups[0].Traffic},
		"host":    {was.Services[0].Groups[0].Hosts[0].Traffic, is.Services[0].Groups[0].Hosts[0].Traffic},
		"all":     {was.All, is.All},
	} {
		a, b := rows[0], rows[1]
		if a.ID != b.ID || a.Max != b.Max || a.MaxRate != b.MaxRate || a.Downs != b.Downs || a.Downtime(is.At) != b.Downtime(is.At) || a.MeanConnect != b.MeanConnect || a.MeanSession != b.MeanSession ||
			a.Turnaround != b.Turnaround || a.WorstTurnaround != b.WorstTurnaround || !a.LastSession.Equal(b.LastSession) {
			t.Errorf("%s: was %+v, is %+v", name, a, b)
		}
	}
	if is.All.Max != 9 || is.All.MaxRate != 100 {
		t.Errorf("all: %+v", is.All)
	}
	if h := is.Services[0].Groups[0].Hosts[0].Traffic; h.Turnaround == 0 || h.WorstTurnaround != 5*time.Millisecond {
		t.Errorf("turnarounds of the host: %+v", h)
	}
	if got := next.history([]Key{{"web", "main", "a"}}).Series[Key{"web", "main", "a"}].Turnaround; len(got) != 7 || got[1] != 2 {
		t.Errorf("the chart of turnarounds is %v", got)
	}
	key := Key{Service: "web"}
	before, after := c.history([]Key{key}).Series[key], next.history([]Key{key}).Series[key]
	if len(after.Sessions) != len(before.Sessions)+1 || after.Sessions[0] != before.Sessions[0] || after.Sessions[0] != 9 {
		t.Errorf("the chart was %v and is %v", before.Sessions, after.Sessions)
	}
}

func source(t *testing.T) *Source {
	return &Source{Director: rig.Hold(t, "<config>"+web+"</config>"), Engine: rig.Idle{}}
}

// Uptime is that of txlb, not of the process.
func TestUptimeGoesOnAtAnUpgrade(t *testing.T) {
	first := &Source{Started: time.Unix(1000, 5), Version: "1"}
	data, err := first.Export()
	if err != nil {
		t.Fatal(err)
	}
	second := source(t)
	second.Started, second.Version = time.Unix(2000, 0), "2"
	if err := second.Inherit(data); err != nil {
		t.Fatal(err)
	}
	if f := second.Facts(); !f.Started.Equal(first.Started) || !f.Upgraded.Equal(second.Started) || f.UpgradedFrom != "1" {
		t.Errorf("started %v, upgraded %v from %q", f.Started, f.Upgraded, f.UpgradedFrom)
	}
	data, _ = second.Export()
	third := source(t)
	if err := third.Inherit(data); err != nil || !third.Origin().Equal(first.Started) {
		t.Errorf("the third process: %v, %v", third.Origin(), err)
	}
	if err := third.Inherit([]byte(`{"format":2}`)); err == nil {
		t.Error("another format is no error")
	}
}

func FuzzInherit(f *testing.F) {
	f.Add([]byte(`{"format":1,"rows":[{"service":"web","history":"AAAA","id":-1}]}`))
	held := rig.Hold(f, "<config>"+web+"</config>").State()
	f.Fuzz(func(t *testing.T, data []byte) {
		var e exported
		if json.Unmarshal(data, &e) != nil {
			return
		}
		c := &clock{facts: Facts{State: held}}
		c.inherit(&e, func() Facts { return c.facts })
		c.at(1)
	})
}
