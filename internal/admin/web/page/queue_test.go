package page

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// A group whose hosts have limits shows its queue, and events have its figures. Others
// show nothing.
func TestQueuesAreShown(t *testing.T) {
	d := world(t, `<config><service name="web"><listen ip="127.0.0.1:0"/>
		<group name="blue" enable="yes"><host name="a" ip="127.0.0.1:1" maxSessions="1"/></group>
		<group name="green"><host name="d" ip="127.0.0.1:4"/></group></service></config>`)
	p := New()
	g := d.State().Services[0].Groups[0]
	host := g.Hosts[0].Targets[0].Host
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: host, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	from, begin := &status.Source{Director: d, Engine: still{}}, time.Now()
	read := func() Source {
		src := source(d)
		src.Reading = from.Read()
		return src
	}
	var first sched.Tried
	if h, _ := table.Pick(sched.Addr{}, &first); h != host {
		t.Fatalf("%v was picked", h)
	}
	g.Times.Queued(0, 30*time.Millisecond)
	w := g.Times.Queue.Join(table, sched.Addr{}, new(sched.Tried), 1, 0, func() {})
	g.Times.Queue.Join(table, sched.Addr{}, new(sched.Tried), 2, 0, func() {})
	w.Leave()
	from.Sample()
	src := read()
	var b bytes.Buffer
	if err := p.Running(&b, NewView(src)); err != nil {
		t.Fatal(err)
	}
	blue := groupID("web", "blue")
	want := `<span class="queue" data-queue="` + blue + `"><span data-q="waiting">1</span> waiting, at most <span data-q="most">2</span>, mean wait <span data-q="wait_ms">30 ms</span></span>`
	if html := b.String(); !strings.Contains(html, want) || strings.Count(html, `data-queue=`) != 1 {
		t.Errorf("the page has no %s, or another queue:\n%s", want, html)
	}
	queues := new(Feed).Full(&src).Services[serviceID("web")].Queues
	if q, ok := queues[blue]; !ok || len(queues) != 1 || q.Waiting != 1 || q.Most != 2 || q.WaitMS == nil || *q.WaitMS != 30 {
		t.Errorf("the figures have %+v", queues)
	}
	// A wait that lasts is a problem, so that pages fetch themselves again.
	src = read()
	src.At = begin
	before := revision(&src)
	src.At = begin.Add(time.Hour)
	if after := revision(&src); after == before {
		t.Error("pages are not told of clients that wait long")
	}
}
