package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/sched"
)

// B23, B30: whatever happens to admissions in whatever order, a pick is released
// once, no host is asked twice, the bound of tries holds, nothing follows the end,
// and the counters add up.
func TestB23AndB30RandomAdmissions(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 1000
	}
	for seed := range uint64(rounds) {
		if wrong := playAdmissions(randomBytes(23, seed, 400)); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
	}
}

func FuzzAdmission(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(randomBytes(30, seed, 200))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if wrong := playAdmissions(script); wrong != "" {
			t.Fatal(wrong)
		}
	})
}

func randomBytes(seed1, seed2 uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed1, seed2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// desk is an engine that carries out steps in name only: a script says what comes of
// them.
type desk struct {
	script    []byte
	now       int64
	gate      gate
	svc       *service
	hosts     []*sched.Host
	tables    []*sched.Table // the first has all hosts, the last is none
	guests    []*guest       // all sessions that there were
	refused   [refusals]uint64
	ended     [terminations]uint64
	failed    uint64 // failed connects
	connected uint64
	reported  int
	log       []string
	wrong     string
}

// guest is a session with what the desk knows of it.
type guest struct {
	admission
	id    int
	step  admissionStep
	asked map[*sched.Host]bool
	tries int  // hosts asked
	heard bool // one that was asked has failed by its own fault
	lost  bool // it could not be watched
	gone  bool
}

func (d *desk) fail(format string, args ...any) {
	if d.wrong == "" {
		d.wrong = fmt.Sprintf(format, args...)
	}
}

func (d *desk) say(format string, args ...any) { d.log = append(d.log, fmt.Sprintf(format, args...)) }

func (d *desk) next() int {
	if len(d.script) == 0 {
		return 0
	}
	b := d.script[0]
	d.script = d.script[1:]
	return int(b)
}

// playAdmissions does what the script says and returns what was wrong.
func playAdmissions(script []byte) string {
	d := &desk{script: script, now: 1, svc: newService("web", 1)}
	d.gate.report = func(Failure) { d.reported++ }
	var members []sched.Member
	for i := range 6 {
		addr, err := sched.ParseAddr(fmt.Sprint("127.0.0.1:", 1000+i))
		if i == 2 {
			addr = sched.UnixAddr("/nowhere")
		}
		if err != nil {
			panic(err)
		}
		d.hosts = append(d.hosts, sched.NewHost(fmt.Sprint("h", i), addr))
		members = append(members, sched.Member{Host: d.hosts[i], Weight: 1, Backup: i == 5})
	}
	for _, m := range [][]sched.Member{members, members[:2], members[3:]} {
		table, err := sched.NewTable(sched.Policy{Scheduler: "roundr", Seed: 1}, m)
		if err != nil {
			panic(err)
		}
		d.tables = append(d.tables, table)
	}
	d.tables = append(d.tables, nil)
	d.reroute(d.next())
	for len(d.script) > 0 && d.wrong == "" {
		d.do(d.next())
		d.check()
	}
	d.close()
	if d.wrong != "" {
		return d.wrong + "\nafter:\n" + strings.Join(d.log, "\n")
	}
	return ""
}

// reroute changes the route.
func (d *desk) reroute(how int) {
	r := &Route{Table: d.tables[how%4], Tries: how >> 2 % 4}
	if how&16 != 0 {
		r.Timeouts.Connect = 2 * time.Second
	}
	if how&32 != 0 {
		r.Timeouts.Total = 5 * time.Second
	}
	if how < 128 { // mostly all hosts
		r.Table = d.tables[0]
	}
	d.say("route: %d hosts, tries %d, %+v", how%4, r.Tries, r.Timeouts)
	d.svc.route.Store(r)
	for _, g := range d.guests {
		if step := g.retimed(); step.do != doNothing {
			d.follow(g, step)
		}
	}
}

// errnos are answers of connect(2).
var errnos = [...]syscall.Errno{
	0, 0, syscall.EINPROGRESS, syscall.EINPROGRESS, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.EACCES,
	syscall.EADDRNOTAVAIL, syscall.EAGAIN, syscall.ENOMEM, syscall.ETIMEDOUT,
}

func (d *desk) do(op int) {
	if len(d.guests) == 0 || op < 40 {
		d.arrive()
		return
	}
	g := d.guests[d.next()%len(d.guests)]
	switch op % 8 {
	case 0, 1:
		d.proceed(g)
	case 2: // the timer, perhaps early
		if g.step.do == doWait || g.step.do == doRest {
			if op >= 128 && g.step.until != never {
				d.now = max(d.now, g.step.until)
			}
			d.expire(g)
		}
	case 3:
		d.now += [...]int64{1e6, 100e6, 1e9, 3e9}[op>>4%4]
	case 4:
		if op >= 128 {
			d.reroute(d.next())
			return
		}
		h := d.hosts[op>>4%len(d.hosts)]
		if op&64 != 0 {
			h.MarkUp()
		} else {
			h.MarkDown()
		}
	case 5: // reset by the host, before the first byte or after it
		before := g.state == admitted && g.attempt != nil
		if op < 128 && before {
			g.settle()
		}
		was := g.host
		switch step := g.dropped(d.now); {
		case step.do == doConnect && (!before || op < 128):
			d.fail("session %d went to another host, though bytes had moved", g.id)
		case step.do == doConnect:
			d.failed++
			g.heard = true
			d.say("session %d: dropped by %s", g.id, was.Name())
			d.follow(g, step)
		case g.state == admitted:
			g.resetEarly(sched.Addr{})
			d.end(g, serverAborted)
		}
	case 6:
		d.end(g, []termination{clientGone, killed, normal}[op>>4%3])
	case 7: // not watched, or no socket
		if g.step.do == doConnect {
			d.tell(g, op)
			return
		}
		if g.step.do != doNothing {
			g.lost = true
			d.follow(g, g.noRoom())
		}
	}
}

// expire lets the timer of a session go off.
func (d *desk) expire(g *guest) {
	before, hadTime := g.state, false
	if limit := d.svc.route.Load().Timeouts.Connect; limit > 0 {
		hadTime = d.now >= g.attempt.began+int64(limit)
	}
	step := g.deadline(d.now)
	if step.do == doRetry && before != looking {
		d.failed++
		g.heard = true
		if !hadTime {
			d.fail("session %d: a host is blamed that has not had its time", g.id)
		}
	}
	if step.do == doWait && step.until <= d.now {
		d.fail("session %d: waits until %d, it is %d", g.id, step.until, d.now)
	}
	d.follow(g, step)
}

// tell says that there was no socket for a connect.
func (d *desk) tell(g *guest, how int) {
	errno := []syscall.Errno{syscall.EMFILE, syscall.ENOBUFS, syscall.EAFNOSUPPORT}[how>>4%3]
	if errno != syscall.EAFNOSUPPORT { // the host was not asked
		delete(g.asked, g.host)
		g.tries--
	} else {
		g.heard = true
	}
	d.failed++
	d.follow(g, g.noSocket(d.now, errno))
}

func (d *desk) arrive() {
	g := &guest{id: len(d.guests), asked: map[*sched.Host]bool{}}
	d.guests = append(d.guests, g)
	d.say("session %d", g.id)
	g.begin(&d.gate, d.svc, new(attempt), sched.Addr{}, d.now)
	d.follow(g, g.admission.next(d.now))
}

// proceed does what the last step of a session asks for.
func (d *desk) proceed(g *guest) {
	switch g.step.do {
	case doConnect, doAgain, doWait:
		errno := errnos[d.next()%len(errnos)]
		if g.step.do == doWait && (g.state == queueFull || errno == syscall.EINPROGRESS || errno == syscall.EAGAIN) {
			return // it has not answered yet
		}
		switch errno {
		case 0, syscall.EINPROGRESS, syscall.EADDRNOTAVAIL, syscall.EAGAIN, syscall.ENOMEM:
		default:
			g.heard = true
		}
		full := errno == syscall.EAGAIN && g.host.Addr().Path() != ""
		switch {
		case errno == 0:
			d.connected++
		case errno != syscall.EINPROGRESS && !full:
			d.failed++
		}
		d.say("session %d: %s answers %d", g.id, g.host.Name(), errno)
		d.follow(g, g.answered(d.now, errno))
	case doRetry:
		d.follow(g, g.admission.next(d.now))
	}
}

// follow takes in a step and looks whether it may come now.
func (d *desk) follow(g *guest, step admissionStep) {
	if step.do == doNothing {
		return
	}
	d.say("session %d: step %+v", g.id, step)
	before := g.step.do
	g.step = step
	if g.gone {
		d.fail("session %d: step %d after the end", g.id, step.do)
	}
	if before == doRefuse {
		d.fail("session %d: step %d after the refusal", g.id, step.do)
	}
	route := d.svc.route.Load()
	switch step.do {
	case doConnect:
		if g.host == nil {
			d.fail("session %d: connect to no host", g.id)
			return
		}
		if g.asked[g.host] {
			d.fail("session %d: %s is asked twice", g.id, g.host.Name())
		}
		g.asked[g.host] = true
		g.tries++
		if route.Tries > 0 && g.tries > route.Tries {
			d.fail("session %d: %d tries of %d", g.id, g.tries, route.Tries)
		}
		if total := int64(route.Timeouts.Total); total > 0 && d.now-g.started >= total {
			d.fail("session %d: a connect begins after the time for all", g.id)
		}
	case doRetry:
		if g.host != nil {
			d.fail("session %d: has given up %s, and still has it", g.id, g.host.Name())
		}
	case doRefuse:
		d.refused[step.why]++
		if g.tries > 0 && step.why == noHost && !g.heard || g.heard && step.why == outOfResource && !g.lost {
			d.fail("session %d: refused for %v, heard of a host: %v", g.id, step.why, g.heard)
		}
		if g.host != nil {
			d.fail("session %d: refused with host %s", g.id, g.host.Name())
		}
		if step.why == noHost && route.Table != nil && route.Tries == 0 {
			for _, h := range d.hosts[:3] { // hosts that are up and were not asked, if the route has them all
				if route.Table == d.tables[0] && h.Up() && !g.asked[h] && g.attempt.tried.LastResorts() < lastResorts {
					d.fail("session %d: no host, though %s is up and was not asked", g.id, h.Name())
				}
			}
		}
	}
}

func (d *desk) end(g *guest, how termination) {
	if !g.gone {
		d.say("session %d ends: %v", g.id, how)
		d.ended[how]++
	}
	g.admission.end(d.now, how)
	g.gone, g.step = true, admissionStep{}
}

// check looks whether the counters say what has happened.
func (d *desk) check() {
	holds := map[*sched.Host]int64{}
	active := int64(0)
	for _, g := range d.guests {
		if g.host != nil {
			holds[g.host]++
		}
		if !g.gone {
			active++
		}
	}
	for _, h := range d.hosts {
		if n := h.Stats().Active; n != holds[h] {
			d.fail("host %s counts %d sessions, %d have it", h.Name(), n, holds[h])
		}
	}
	c := &d.svc.counts[0]
	ended := uint64(0)
	for how := range terminations {
		if n := c.ended[how].Load(); n != d.ended[how] {
			d.fail("%d sessions are counted as ended by %v, want %d", n, how, d.ended[how])
		}
		ended += d.ended[how]
	}
	for why := range refusals {
		if n := c.refused[why].Load(); n != d.refused[why] {
			d.fail("%d sessions are counted as refused for %v, want %d", n, why, d.refused[why])
		}
	}
	failed := uint64(0)
	for why := range connectFailures {
		failed += c.failed[why].Load()
	}
	if failed != d.failed {
		d.fail("%d failed connects are counted, there were %d", failed, d.failed)
	}
	if n := c.sessions.Load(); n != uint64(len(d.guests)) || c.active.Load() != active || n != ended+uint64(active) {
		d.fail("%d sessions counted, %d active and %d ended; there were %d, %d are there", n, c.active.Load(), ended, len(d.guests), active)
	}
}

// close lets every host refuse until no session looks for one, then ends them all.
func (d *desk) close() {
	d.say("close")
	for _, g := range d.guests {
		for range 4*len(d.hosts) + 10 {
			switch g.step.do {
			case doConnect, doAgain:
				d.failed++
				g.heard = true
				d.follow(g, g.answered(d.now, syscall.ECONNREFUSED))
			case doWait, doRest:
				if g.state == asked {
					d.failed++
					g.heard = true
					d.follow(g, g.answered(d.now, syscall.ECONNREFUSED))
					break
				}
				d.now = max(d.now, g.step.until)
				d.expire(g)
			case doRetry:
				d.follow(g, g.admission.next(d.now))
			}
		}
		if !g.gone && g.step.do != doRelay && g.step.do != doRefuse {
			d.fail("session %d finds no end: step %d, state %d", g.id, g.step.do, g.state)
		}
		d.end(g, normal)
		d.end(g, killed) // the first end counts
	}
	d.check()
	for _, g := range d.guests {
		for _, step := range []admissionStep{
			g.admission.next(d.now), g.answered(d.now, 0), g.noSocket(d.now, syscall.EMFILE), g.noRoom(),
			g.deadline(d.now), g.retimed(), g.dropped(d.now),
		} {
			if step.do != doNothing {
				d.fail("session %d: step %d after the end", g.id, step.do)
			}
		}
	}
}

// An admission of a host that answers costs no allocation.
func TestAdmissionAllocatesNothing(t *testing.T) {
	d := &desk{svc: newService("web", 1), now: 1}
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("h", sched.UnixAddr("/nowhere")), Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	d.svc.route.Store(&Route{Table: table, Timeouts: testTimeouts})
	var a admission
	free := new(attempt)
	if n := testing.AllocsPerRun(100, func() {
		a.begin(&d.gate, d.svc, free, sched.Addr{}, d.now)
		if a.next(d.now).do != doConnect || a.answered(d.now, syscall.EINPROGRESS).do != doWait || a.answered(d.now, 0).do != doRelay {
			t.Fatal("the steps are others")
		}
		free = a.settle()
		free.reset()
		a.end(d.now, normal)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdmission(b *testing.B) {
	svc := newService("web", 1)
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("h", sched.UnixAddr("/nowhere")), Weight: 1}})
	if err != nil {
		b.Fatal(err)
	}
	svc.route.Store(&Route{Table: table, Timeouts: testTimeouts})
	var a admission
	var g gate
	free := new(attempt)
	b.ReportAllocs()
	for b.Loop() {
		a.begin(&g, svc, free, sched.Addr{}, 1)
		a.next(1)
		a.answered(1, syscall.EINPROGRESS)
		a.answered(1, 0)
		free = a.settle()
		free.reset()
		a.end(2, normal)
	}
}
