package status

import (
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/sched"
)

// Clients that wait for full hosts are a problem, with what helps.
func TestQueueIsAProblem(t *testing.T) {
	times := new(sched.Times)
	h := sched.NewHostIn(times, "a", sched.UnixAddr("/nowhere"))
	h.SetMaxSessions(1)
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: h, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	g := &Group{Group: &director.Group{Config: &config.Group{Name: "main", Enabled: true}, Times: times}, Hosts: make([]Host, 0), Serving: 1}
	waits := func() bool {
		for _, p := range g.judge("web") {
			if strings.Contains(p.Text, "1 client waits") && p.Level == Critical && p.Clients == Waiting && strings.Contains(p.Remedy, "maxSessions") {
				return true
			}
		}
		return false
	}
	if waits() {
		t.Error("nobody waits")
	}
	var first, second sched.Tried
	table.Pick(sched.Addr{}, &first)
	times.Queue.Join(table, sched.Addr{}, &second, 1, func() {})
	if !waits() {
		t.Error("a client waits, and status does not say so")
	}
	h.Release(0, 0)
	if waits() {
		t.Error("nobody waits any more")
	}
}
