package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/txlb/txlb/sched"
)

// show services has the queue of groups whose hosts have a limit, and nothing of it
// otherwise.
func TestServicesShowTheirQueues(t *testing.T) {
	const doc = `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main" enable="yes"><host name="a" ip="127.0.0.1:1"%s/></group><group name="other"/></service></config>`
	show := func(r *rig) (string, ServiceInfo) {
		t.Helper()
		results, err := r.a.Run(t.Context(), boss, "show services")
		if err != nil {
			t.Fatal(err)
		}
		return results[0].Text, results[0].Data.([]ServiceInfo)[0]
	}
	if text, info := show(newRig(t, fmt.Sprintf(doc, ""))); strings.Contains(text, "waiting") || info.Queues != nil {
		t.Errorf("without a limit: %s\n%+v", text, info)
	}
	r := newRig(t, fmt.Sprintf(doc, ` maxSessions="1"`))
	host := r.target("web", "main", "a")
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: host, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var first sched.Tried
	if h, _ := table.Pick(sched.Addr{}, &first); h != host {
		t.Fatalf("%v was picked", h)
	}
	queue := &host.Times().Queue
	w := queue.Join(table, sched.Addr{}, new(sched.Tried), 1, 0, func() {})
	queue.Join(table, sched.Addr{}, new(sched.Tried), 2, 0, func() {})
	w.Leave()
	text, info := show(r)
	if len(info.Queues) != 1 || info.Queues[0] != (QueueInfo{Group: "main", Waiting: 1, Most: 2}) {
		t.Errorf("JSON has %+v", info.Queues)
	}
	lines := strings.Split(text, "\n")
	if got := strings.Fields(lines[1]); !strings.HasSuffix(lines[0], "waiting  most  wait") || strings.Join(got[len(got)-3:], " ") != "1 2 0s" {
		t.Errorf("the text is\n%s", text)
	}
}
