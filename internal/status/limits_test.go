package status

import (
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/sched"
)

// Clients that wait for full hosts are a problem once samples have found some for three
// seconds, with the hosts that are full and with what helps.
func TestQueueIsAProblem(t *testing.T) {
	s := state(t, `<service name="web"><listen ip=":1"/><group name="main" enable="yes">
		<host name="a" ip="10.0.0.1:80" maxSessions="1"/><host name="b" ip="10.0.0.2:80" state="maint"/></group></service>`)
	g := s.Services[0].Groups[0]
	host := g.Hosts[0].Targets[0].Host
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: host, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{facts: Facts{State: s}}
	expect := func(seconds float64, want bool) *Reading {
		t.Helper()
		r, found := c.at(seconds), false
		for _, p := range r.Problems {
			text := p.String()
			found = found || strings.Contains(text, "1 client waits for a host of web / main: 1 of 1 that take clients are full") &&
				strings.HasSuffix(text, ": a") && p.Level == Critical && p.Clients == Waiting && strings.Contains(p.Remedy, "maxSessions")
		}
		if found != want {
			t.Errorf("after %v s: %v; the queue is a problem: %v", seconds, r.Problems, found)
		}
		return r
	}
	join := func() *sched.Waiter {
		return g.Times.Queue.Join(table, sched.Addr{}, new(sched.Tried), 1, 0, func() {})
	}
	var first sched.Tried
	table.Pick(sched.Addr{}, &first)
	expect(0, false)
	w := join()
	expect(1, false) // it has just come
	expect(3, false)
	expect(4, true)
	w.Leave()
	expect(5, false)
	join()
	g.Times.Queued(0, 40*time.Millisecond)
	g.Times.Queued(1, 20*time.Millisecond)
	r := expect(6, false) // another one
	group := &r.Services[0].Groups[0]
	if group.Waiting != 1 || group.MostWaiting != 1 || group.Traffic.MeanWait != 30*time.Millisecond || !r.Services[0].Queues() {
		t.Errorf("%d clients wait, at most %d, on average %v", group.Waiting, group.MostWaiting, group.Traffic.MeanWait)
	}
	expect(9, true)
	host.Release(0, 0)
	expect(10, false)
}

// What has no limit has no queue to show.
func TestNoLimitNoQueue(t *testing.T) {
	if r := Read(Facts{State: state(t, web)}); r.Services[0].Queues() {
		t.Error("a service without limits has a queue")
	}
}
