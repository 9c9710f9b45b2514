package director

import (
	"maps"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

// A process that has handed over, and has stopped, still takes in what the one before it counts: the
// next one learns of it.
func TestCountsPassThroughAProcessThatHasStopped(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		first, stopFirst := lived(t, w)
		data, err := first.Export()
		if err != nil {
			t.Fatal(err)
		}
		in, err := ReadState(data)
		if err != nil {
			t.Fatal(err)
		}
		like := func() *world {
			other := newWorld()
			other.dead, other.dns = maps.Clone(w.dead), maps.Clone(w.dns)
			return other
		}
		between := like()
		second, err := New(in.Config, between, Options{Log: between.logger(), Resolver: between, Probe: between.probe, Document: in.Document, Inherited: in})
		if err != nil {
			t.Fatal(err)
		}
		stopSecond := runDirector(t, second)
		third := heir(t, like(), second)
		stopSecond()
		target(t, first, "g", "a", 0).Host.AddBytes(1000, 0)
		w.mu.Lock()
		w.counted.Services["web"] = engine.ServiceStats{Sessions: 12}
		w.mu.Unlock()
		stopFirst()
		for _, step := range []struct{ from, to *Director }{{first, second}, {second, third}} {
			data, err := step.from.ExportChanges()
			if err == nil {
				err = step.to.TakeIn(data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := between.before.Services["web"].Sessions; n != 12 {
			t.Errorf("the engine in between goes on from %d sessions", n)
		}
		of := func(d *Director) uint64 { return d.State().Services[0].Groups[0].Hosts[0].Stats().In }
		if was, is := of(first), of(third); was < 1000 || is != was {
			t.Errorf("host a had %d bytes in the first process, and has %d in the last", was, is)
		}
	})
}
