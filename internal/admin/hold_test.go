package admin

import (
	"bufio"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/status"
)

// waits connects a client that says a line, and waits until the group holds n.
func (r *rig) waits(n int) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write([]byte("who\n")); err != nil {
		r.t.Fatal(err)
	}
	g := edits.StateGroup(r.dir.State(), "web", "main")
	eventually(r.t, "the client is held", func() bool { return g.Held() == n })
	return c
}

// answered returns what a client is told.
func answered(t *testing.T, c net.Conn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Errorf("a client that was held: %v", err)
	}
	return strings.TrimSpace(line)
}

// B79: hold makes new clients wait while sessions go on, release lets them out, and status,
// JSON and events tell of it.
func TestB79HoldAndRelease(t *testing.T) {
	a, b := serve(t, "a"), serve(t, "b")
	r := newRig(t, doc(a.addr, b.addr, b.addr))
	inside, _ := r.dial()
	defer func() { _ = inside.Close() }()
	if text := r.do("release web main"); text != `nothing to release: group "main" is not held` {
		t.Error(text)
	}
	if text := r.do("hold web main for=1m --dry-run"); !strings.HasPrefix(text, "would hold: new clients of group ") {
		t.Error(text)
	}
	if g := edits.StateGroup(r.dir.State(), "web", "main"); g.Hold() != nil {
		t.Error("a dry run holds it")
	}
	text := r.do("hold web main for=1h max=3")
	if !strings.HasPrefix(text, "held: new clients of group ") || !strings.Contains(text, "1h0m0s at most") || !strings.Contains(text, "1 session go on") {
		t.Error(text)
	}
	first, second := r.waits(1), r.waits(2)
	if _, err := inside.Write([]byte("who\n")); err != nil {
		t.Error(err)
	}
	if got := answered(t, inside); got == "" {
		t.Error("a session does not go on")
	}
	results, err := r.a.Run(t.Context(), guest, "show services web; status; show sessions")
	if err != nil {
		t.Fatal(err)
	}
	info := results[0].Data.([]ServiceInfo)[0]
	h := info.Holds["main"]
	if h == nil || h.Why != "operator" || h.By != "boss" || h.Max != 3 || h.Held != 2 || h.Until == nil || h.Released != nil {
		t.Errorf("JSON has %+v", h)
	}
	if !strings.Contains(results[0].Text, "main (held)") {
		t.Errorf("show services says\n%s", results[0].Text)
	}
	if !regexp.MustCompile(`New clients of web / main are held until \S+: 2 wait; release`).MatchString(results[1].Text) {
		t.Errorf("status says\n%s", results[1].Text)
	}
	held := 0
	for _, s := range results[2].Data.([]SessionInfo) {
		if s.Held > 0 {
			held++
		}
	}
	if held != 2 {
		t.Errorf("%d of the sessions say that they are held: %s", held, results[2].Text)
	}
	if text := r.do("hold web main"); !strings.HasPrefix(text, "still held: ") {
		t.Error(text)
	}
	if text := r.do("release web main --dry-run"); text != "would release 2 clients" {
		t.Error(text)
	}
	if text := r.do("release web main"); text != "released: 2 clients" {
		t.Error(text)
	}
	for _, c := range []net.Conn{first, second} {
		if got := answered(t, c); got != "a" && got != "b" {
			t.Errorf("the answer is %q", got)
		}
	}
	verbs := ""
	for _, e := range r.dir.Events() {
		if e.Kind == director.OrderEvent {
			verbs += e.Verb + ","
		}
	}
	if !strings.Contains(verbs, "hold web main for=1h max=3,hold web main,release web main,") {
		t.Errorf("the events are %s", verbs)
	}
	r.refused("hold web main for=0", "for: 0s is not between")
	r.refused("hold web main for=25h", "for: 25h0m0s is not between")
	r.refused("hold web main max=0", "max")
	r.refused("hold web no", "no")
	r.refused("release web main over=-1s", "over")
	r.refused("setGroup web main onHold=/bin/true", "onHold")
	r.refused("addGroup web more leastc onHold=/bin/true", "onHold")
}

// B79: with over, clients come to the hosts evenly: none before its part of the time is over.
func TestB79ReleaseOverATime(t *testing.T) {
	a, b := serve(t, "a"), serve(t, "b")
	r := newRig(t, doc(a.addr, b.addr, b.addr))
	r.do("hold web main for=1h")
	const n, over = 40, 2 * time.Second
	var clients []net.Conn
	for i := range n {
		clients = append(clients, r.waits(i+1))
	}
	began := time.Now()
	if text := r.do("release web main over=2s"); text != "released: 40 clients, evenly over 2s" {
		t.Error(text)
	}
	if _, g, _ := r.a.opt.Status.Read().Find("web", "main", ""); g.Hold == nil || g.Hold.Released == nil {
		t.Errorf("it is not being released: %+v", g.Hold)
	}
	var mu sync.Mutex
	var late time.Duration
	var readers sync.WaitGroup
	for i, c := range clients {
		readers.Go(func() {
			answered(t, c)
			took, part := time.Since(began), over*time.Duration(i+1)/n
			if took < part-20*time.Millisecond {
				t.Errorf("client %d is served after %v, before its part of the time", i, took)
			}
			mu.Lock()
			defer mu.Unlock()
			late = max(late, took-part)
		})
	}
	readers.Wait()
	t.Logf("late by %v at most", late)
	eventually(t, "the hold has ended", func() bool { return edits.StateGroup(r.dir.State(), "web", "main").Hold() == nil })
	if err := visit(r.addr, 1); err != nil {
		t.Error(err)
	}
}

// With allDown="hold", status says what becomes of clients while all hosts are down.
func TestAllDownHoldIsShown(t *testing.T) {
	a := serve(t, "a")
	r := newRig(t, doc("127.0.0.1:1", "127.0.0.1:2", a.addr))
	r.do("setGroup web main allDown=hold")
	r.do("setService web queue=1h")
	c := r.waits(1)
	reading := r.a.opt.Status.Read()
	_, g, _ := reading.Find("web", "main", "")
	if h := g.Hold; h == nil || h.Why != "all_down" || h.Held != 1 || h.Max != director.DefaultMostHeld || h.Until != nil {
		t.Errorf("it is held: %+v", h)
	}
	if reading.Fate() != status.Waiting {
		t.Errorf("status says %v: %v", reading.Fate(), reading.Problems)
	}
	r.do("setHost web main b ip=" + a.addr)
	if got := answered(t, c); got != "a" {
		t.Errorf("the answer is %q", got)
	}
}
