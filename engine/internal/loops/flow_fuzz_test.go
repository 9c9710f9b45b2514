//go:build linux

package loops

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/sched"
)

// B65: in every order of events, with every fault that a call can have, no byte is lost,
// doubled or reordered, no end is passed on over bytes that are still on the way, every pick
// is released once, no host has more sessions than it may, no session is forgotten in the
// queue, and no flow sleeps while it could move. The sessions are real; the kernel under
// them is simulated.
func TestB65RandomEventOrders(t *testing.T) {
	rounds := 1200
	if testing.Short() {
		rounds = 300
	}
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(65, seed))
		script := make([]byte, 40+r.IntN(1200))
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		if playScript(script) != "" {
			t.Fatalf("seed %d: %s", seed, playScript(shrink(script)))
		}
	}
}

// shrink leaves out of a script that fails what it fails without.
func shrink(script []byte) []byte {
	for size := len(script) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(script); {
			less := append(append([]byte(nil), script[:at]...), script[at+size:]...)
			if playScript(less) != "" {
				script = less
			} else {
				at += size
			}
		}
	}
	return script
}

func FuzzSessions(f *testing.F) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(1, seed))
		script := make([]byte, 200)
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if wrong := playScript(script); wrong != "" {
			t.Fatal(wrong)
		}
	})
}

// theatre is a loop on a simulated kernel, and the log of what was done to it.
type theatre struct {
	k       *sim
	l       *loop
	e       *Engine
	svc     *core.Service
	entries [2]*core.Entry // without a PROXY header, and with one
	hosts   []*sched.Host
	script  []byte
	patient bool // no session may be ended by a time-out
	bell    *poller
	mirrors []*sched.Mirror
	limited bool // hosts have limits, so that sessions queue
	log     []string
}

// playScript does what the script says and returns what was wrong.
func playScript(script []byte) (wrong string) {
	g := newTheatre(script)
	defer func() {
		if r := recover(); r != nil {
			wrong = fmt.Sprintf("panic: %v\n%s", r, strings.Join(g.log, "\n"))
		}
	}()
	for len(g.script) > 0 && len(g.k.wrong) == 0 {
		g.step()
	}
	if len(g.k.wrong) == 0 {
		g.finish()
	}
	if len(g.k.wrong) == 0 {
		g.audit()
	}
	if len(g.k.wrong) > 0 {
		return strings.Join(g.k.wrong, "\n") + "\nafter:\n" + strings.Join(g.log, "\n")
	}
	return ""
}

func newTheatre(script []byte) *theatre {
	k := &sim{sessions: map[[2]int32]*simSession{}, wants: map[sched.Addr]int{}}
	e := &Engine{epoch: time.Now(), sustained: readSize, tuning: Tuning{Pace: 64 << 10}, census: newCensus(0)}
	l := assemble(e, 0, nil, k)
	k.loop = l
	l.now = 1
	g := &theatre{k: k, l: l, e: e, script: script, svc: &core.Service{Name: "web", Counts: make([]core.Counters, 1)}}
	how := g.next()
	switch how % 4 {
	case 0:
		e.opt.Splice, e.sustained = engine.SpliceAlways, 1
	case 1:
		e.opt.Splice, e.sustained = engine.SpliceNever, math.MaxInt
	}
	g.patient = how&4 == 0
	var members []sched.Member
	g.bell = &poller{ep: -1, bell: -1, clock: -1} // it notes that it rings, and wakes nobody
	l.inbox.poll = g.bell
	most := how >> 6
	g.limited = most > 0
	times := new(sched.Times)
	for i := range 3 {
		h := sched.NewHostIn(times, fmt.Sprint("h", i), simAddr(i))
		h.SetMaxSessions(most)
		if how&8 != 0 { // versions 0 to 2, each host another
			v := (i + how>>4) % 3
			h.SetProxyProtocol(v)
			k.wants[h.Addr()] = v
		}
		g.hosts = append(g.hosts, h)
		members = append(members, sched.Member{Host: h, Weight: 1})
	}
	policy := sched.Policy{Scheduler: "roundr", Seed: 1}
	if how&32 != 0 {
		k.mirrors = map[sched.Addr]bool{}
		for i := range 2 {
			m := sched.NewMirror("m")
			m.SetAddr(simAddr(10 + i))
			k.mirrors[m.Addr()] = true
			g.mirrors = append(g.mirrors, m)
			policy.Mirrors = append(policy.Mirrors, sched.MirrorShare{Mirror: m, Percent: 100})
		}
	}
	table, err := sched.NewTable(policy, members)
	if err != nil {
		panic(err)
	}
	route := &engine.Route{Table: table}
	if !g.patient {
		route.Timeouts = engine.Timeouts{Connect: 2 * time.Second, Total: 5 * time.Second, Idle: 8 * time.Second, HalfClosed: 4 * time.Second, Hello: time.Second, Queue: 3 * time.Second}
	}
	g.svc.Route.Store(route)
	serving := core.Serving[int]{Services: map[string]*core.Service{"web": g.svc}}
	for i := range g.entries {
		g.entries[i] = serving.Entry(nil, &engine.Service{Name: "web", ListenOptions: map[string]engine.ListenOptions{"": {Proxy: engine.ProxyHeaders(2 * i)}}}, core.ListenKey{})
	}
	return g
}

// next takes a byte of the script, 0 at its end.
func (g *theatre) next() int {
	if len(g.script) == 0 {
		return 0
	}
	b := g.script[0]
	g.script = g.script[1:]
	return int(b)
}

func (g *theatre) say(format string, args ...any) {
	g.log = append(g.log, fmt.Sprintf(format, args...))
}

var sizes = [...]int{1, 7, 1000, 18 << 10, 64 << 10, 100 << 10, 300 << 10}

// step does one thing to the world.
func (g *theatre) step() {
	k := g.k
	op := g.next()
	if len(k.sockets) == 0 || op < 12 && len(k.sockets) < 60 {
		g.accept()
		return
	}
	s := k.sockets[g.next()%len(k.sockets)]
	size := sizes[op>>2%len(sizes)]
	switch op % 16 {
	case 0, 1, 2:
		g.say("socket %d: far end sends %d", s.id, size)
		s.farSend(size)
	case 3, 4, 5:
		g.say("socket %d: far end reads %d", s.id, size)
		s.farRead(size)
	case 6:
		g.say("socket %d: far end FIN", s.id)
		s.farFin()
	case 7:
		switch {
		case op > 128:
			g.say("socket %d: far end RST", s.id)
			s.farReset()
		case op > 64:
			g.move(s)
		default:
			g.move(nil)
		}
	case 8:
		g.say("socket %d: urgent, or a descriptor with %d", s.id, size)
		if s.unix {
			s.farPass(size)
			break
		}
		s.farUrgent()
	case 9, 10:
		g.answerConnects(op)
	case 11:
		k.fault, k.strikes = fault(op>>4)%faults, 1+g.next()%4
		g.say("fault %d, %d times", k.fault, k.strikes)
	case 12:
		if h := g.hosts[op>>4%3]; g.limited && op > 192 {
			g.say("%s may have one session more", h.Name())
			h.SetMaxSessions(h.MaxSessions() + 1)
		}
		g.settle()
	case 13:
		d := [...]int64{1e6, 50e6, 1e9, 3e9}[op>>4%4]
		g.say("%v pass", time.Duration(d))
		g.l.now += d
		g.turn(nil)
	case 14:
		g.say("all far ends send %d", size)
		for _, s := range k.sockets {
			s.farSend(size)
		}
		g.turn(g.due(256))
	default:
		// What happens after the events were taken is met without one.
		events := g.due(1 + op>>4)
		for range op >> 4 & 3 {
			late := k.sockets[g.next()%len(k.sockets)]
			g.say("socket %d: meanwhile, reset %v", late.id, op > 128)
			switch {
			case op > 128:
				late.farReset()
			case op > 100:
				late.farUrgent()
			default:
				late.farSend(size)
			}
		}
		g.turn(events)
	}
}

func (g *theatre) accept() {
	k := g.k
	s := k.newSocket()
	k.backends = g.next()
	s.unix = k.backends >= 192
	s.inline = !s.unix // handed down by the listener
	from := simPort(s.id)
	if s.unix {
		from = sched.Addr{}
	}
	entry := g.entries[0]
	if how := k.backends; how%3 == 1 {
		entry = g.entries[1]
		is := simPort(500 + s.id).IP()
		if how&16 != 0 {
			is = netip.AddrPort{}
		}
		s.intro = proxyproto.Append(nil, proxyproto.Version(1+how>>5%2), is, simPort(600+s.id).IP())
		switch s.whole = how>>2%4 > 0; {
		case s.whole:
		case how&64 == 0:
			s.intro = []byte("PROXY WHO\r\n")
		default:
			s.intro = append(s.intro[:len(s.intro)/2], '!')
		}
	}
	g.say("socket %d: a client, UNIX %v, connects go by %d, says %q", s.id, s.unix, k.backends, s.intro)
	for _, h := range g.hosts {
		h.MarkUp()
	}
	g.e.census.sessions.Add(1)
	g.l.open(int32(s.id+fdBase), from, entry)
	g.l.sweep()
}

func (g *theatre) answerConnects(how int) {
	for _, s := range g.k.sockets {
		if !s.connecting || s.closed {
			continue
		}
		errno := [...]syscall.Errno{0, 0, 0, unix.ECONNREFUSED, unix.EADDRNOTAVAIL}[how>>4%5]
		g.say("socket %d: connect answered: %d", s.id, errno)
		s.answer(errno)
		how += 16
	}
}

// due takes out at most n events, in an order that the script says.
func (g *theatre) due(n int) (events []unix.EpollEvent) {
	k := g.k
	from := g.next()
	if g.bell.rung.Load() {
		events = append(events, unix.EpollEvent{Fd: keyBell, Events: unix.EPOLLIN})
	}
	for i := range k.sockets {
		if len(events) == n {
			break
		}
		s := k.sockets[(from+i)%len(k.sockets)]
		if ev := s.due(); ev != nil {
			events = append(events, *ev)
		}
	}
	return events
}

// turn lets the loop do a batch.
func (g *theatre) turn(events []unix.EpollEvent) {
	if len(events) > 0 {
		var list []string
		for _, ev := range events {
			list = append(list, fmt.Sprintf("%d/%d:%#x", ev.Fd>>1, ev.Fd&1, ev.Events))
		}
		g.say("turn: %s", strings.Join(list, " "))
	}
	g.l.turn(events)
	for _, h := range g.hosts {
		if n, most := h.Sessions(), h.MaxSessions(); g.limited && n > int64(most) {
			g.k.fail("%s has %d sessions, and may have %d", h.Name(), n, most)
		}
	}
	g.l.table.each(g.compareTurns)
}

// compareTurns compares the turnarounds of a session with those that its sockets have seen.
func (g *theatre) compareTurns(s *session) {
	if s.phase != established {
		return
	}
	is := g.socket(s, client).session
	if is == nil {
		return
	}
	if sum := s.turning.Sum(); int(sum.Count) != is.turns || int64(sum.Total) != is.turned || s.turning.Waits() != (is.asked != 0) {
		g.k.fail("session %d has turnarounds %+v and waits: %v; its sockets have %d in %d, and were asked at %d", s.slot, sum, s.turning.Waits(), is.turns, is.turned, is.asked)
	}
}

// settle delivers every event and lets the loop work until it would sleep, and
// looks whether it may.
func (g *theatre) settle() {
	g.say("settle")
	for range 2000 {
		events := g.due(256)
		if len(events) == 0 && g.l.idle() {
			g.asleep()
			return
		}
		g.turn(events)
	}
	g.k.fail("the loop spins")
}

// asleep looks for work that a sleeping loop has left.
func (g *theatre) asleep() {
	g.l.table.each(func(s *session) {
		if c := g.socket(s, client); s.Hears() && (c.said == len(c.intro) && c.whole || c.fin || c.dead) {
			g.k.fail("asleep: socket %d has said who it is", c.id)
		}
		if s.phase == refusing || s.ends[backend].fd < 0 {
			return // refused, or waiting for a descriptor
		}
		if s.phase == connecting && s.WaitsForRoom() {
			return // waits for room in the queue of the host
		}
		for i := range s.flows {
			src, dst := g.socket(s, i), g.socket(s, 1-i)
			switch {
			case s.phase == connecting && i == client && src.dead:
				g.k.fail("asleep: the client of session %d is gone", s.slot)
			case s.phase == connecting && i == backend && !src.connecting:
				g.k.fail("asleep: socket %d has its answer", src.id)
			}
			if dst.corked && !dst.dead {
				g.k.fail("asleep: bytes wait in socket %d for an end that does not follow", dst.id)
			}
			if s.phase == lingering {
				continue
			}
			f := &s.flows[i]
			switch {
			case s.phase != established:
				continue
			case f.done:
				if src.finRead && !src.dead && !dst.shut && !dst.dead && !dst.hurt && !s.flows[1-i].done {
					g.k.fail("asleep: the end of socket %d was not passed on to %d", src.id, dst.id)
				}
				continue
			}
			waits := src.arrived > src.taken || src.fin || src.dead
			switch {
			case dst.dead:
				g.k.fail("asleep: socket %d is dead and flow %d of session %d goes on", dst.id, i, s.slot)
			case dst.room > 0 && (f.pending() || waits):
				g.k.fail("asleep with work: session %d, flow %d, from socket %d to %d: %+v, %+v, %+v", s.slot, i, src.id, dst.id, *f, s.ends[i], s.ends[1-i])
			}
		}
	})
	for _, c := range g.l.copies.slots {
		if c.fd < 0 {
			continue
		}
		s := g.k.sockets[c.fd-fdBase]
		switch {
		case s.dead:
			g.k.fail("asleep: the mirror of copy %d is gone", c.slot)
		case s.arrived > s.taken:
			g.k.fail("asleep: the answer of a mirror, socket %d, is not dropped", s.id)
		case c.connected && s.room > 0 && len(c.pieces) > 0:
			g.k.fail("asleep: copy %d could go on to socket %d: %+v", c.slot, s.id, *c)
		case c.connected && len(c.pieces) == 0 && c.rest == cleanEnd && !c.shut:
			g.k.fail("asleep: the end of copy %d was not passed on to socket %d", c.slot, s.id)
		}
	}
	if g.l.timers.count > 0 && g.l.timers.alarmAt == 0 {
		g.k.fail("asleep: timers are set and the clock is not")
	}
}

func (g *theatre) socket(s *session, side int) *simSocket {
	return g.k.sockets[s.ends[side].fd-fdBase]
}

// move makes sessions depart and arrive again: that of a socket, or all.
func (g *theatre) move(of *simSocket) {
	var list []*session
	g.l.table.each(func(s *session) {
		if of == nil || g.socket(s, client) == of || s.ends[backend].fd >= 0 && g.socket(s, backend) == of {
			list = append(list, s)
		}
	})
	for _, s := range list {
		is := g.socket(s, client).session
		before := *s
		var d departed
		if !g.l.depart(s, &d, func(*core.Service, *sched.Host) string { return "" }) {
			g.say("session %d stays", s.slot)
			continue
		}
		g.say("session %d moves, phase %d", s.slot, before.phase)
		if before.ends[backend].fd >= 0 && d.fds[backend] < 0 {
			g.socket(&before, backend).failed = true // nobody waits for its answer any more
		}
		pass, err := core.ParsePassport(d.pass.Append(nil))
		if err != nil {
			g.k.fail("%v: %+v", err, d.pass)
			continue
		}
		a := &adoption{pass: pass, fds: d.fds}
		for _, fd := range d.fds {
			if fd >= 0 {
				g.k.open(fd, "move").shared = true
			}
		}
		a.to = core.Destination{Svc: g.svc, Table: g.svc.Route.Load().Table}
		for _, h := range g.hosts {
			if h.Name() == pass.Host.Name {
				a.to.Host = h
			}
		}
		for _, name := range tried(pass) {
			for _, h := range g.hosts {
				if h.Name() == name.Name {
					a.to.Tried = append(a.to.Tried, h)
				}
			}
		}
		g.e.census.adopt(1)
		g.l.adopt(a)
		g.l.table.each(func(s *session) {
			if s.ends[client].fd == d.fds[client] {
				g.k.sessions[[2]int32{s.slot, s.generation}] = is
			}
		})
	}
	g.turn(nil)
}

func tried(p *core.Passport) []core.PassHost {
	if p.Try == nil {
		return nil
	}
	return p.Try.Tried
}

// finish ends what the script has begun: the far ends read all and end.
func (g *theatre) finish() {
	g.say("finish")
	g.k.fault, g.k.roomy = noFault, true
	for round := range 200 {
		live := 0
		g.l.table.each(func(*session) { live++ })
		for _, c := range g.l.copies.slots {
			if c.fd >= 0 {
				live++
			}
		}
		if live == 0 {
			return
		}
		for _, s := range g.k.sockets {
			s.answer(0)
			s.farRead(1 << 30)
			if round > 0 {
				s.farFin()
			}
		}
		g.settle()
		g.l.now += 200e6
		g.turn(nil)
	}
	g.k.fail("sessions do not end: %s", g.alive())
}

func (g *theatre) alive() string {
	var list []string
	g.l.table.each(func(s *session) {
		list = append(list, fmt.Sprintf("session %d, phase %d, ends %+v, flows %+v", s.slot, s.phase, s.ends, s.flows))
	})
	return strings.Join(list, "; ")
}

// audit looks at what is left.
func (g *theatre) audit() {
	k := g.k
	for _, s := range k.sockets {
		s.farRead(1 << 30)
		if !s.closed {
			k.fail("socket %d is open", s.id)
		}
	}
	if k.lent != 0 {
		k.fail("%d pipes are lent", k.lent)
	}
	if n := g.e.census.copies.Load(); n != 0 || g.l.copies.held != 0 {
		k.fail("%d copies are counted, and %d bytes are held", n, g.l.copies.held)
	}
	for _, m := range g.mirrors {
		if n := m.Stats().Active; n != 0 {
			k.fail("%d copies of a mirror are counted", n)
		}
	}
	for _, s := range k.sockets {
		if s.of != nil && g.patient && s.ended && !s.dead && !s.gotReset && (s.put != s.of.arrived || !s.of.fin) {
			k.fail("a mirror, socket %d, got a clean end after %d bytes; socket %d sent %d, FIN %v", s.id, s.put, s.of.id, s.of.arrived, s.of.fin)
		}
	}
	if n := g.hosts[0].Times().Queue.Len(); n != 0 {
		k.fail("%d sessions are in the queue", n)
	}
	failures := 0
	for _, h := range g.hosts {
		if n := h.Stats().Active; n != 0 {
			k.fail("host %s: %d picks were not released", h.Name(), n)
		}
		failures += int(h.Stats().Failures)
	}
	// B30: what is our own fault counts against no host.
	if g.patient && failures != k.blame {
		k.fail("%d failed connects are counted against hosts, %d were theirs", failures, k.blame)
	}
	if n := g.e.census.sessions.Load(); n != 0 {
		k.fail("%d sessions are counted", n)
	}
	for _, ss := range k.sessions {
		g.auditSession(ss)
	}
}

func (g *theatre) auditSession(ss *simSession) {
	k := g.k
	if ss.client == nil {
		return
	}
	served := 0 // backends that got bytes
	var last *simSocket
	for _, b := range ss.backends {
		if b.put > 0 {
			served++
		}
		if !b.failed {
			last = b
		}
	}
	if served > 1 {
		k.fail("%d backends got bytes of client %d", served, ss.client.id)
	}
	if last == nil || !g.patient || ss.unwatched {
		return // refused, or ended by a time-out
	}
	for _, pair := range [][2]*simSocket{{ss.client, last}, {last, ss.client}} {
		src, dst := pair[0], pair[1]
		// What came before a reset is delivered, but for that of a client which
		// takes back its connection while a backend is looked for.
		cancelled := src == ss.client && dst.got == 0
		if src.dead && !src.hurt && !dst.dead && !dst.hurt && !cancelled && g.l.now < int64(core.MaxLinger) && dst.got != src.arrived {
			k.fail("socket %d sent %d bytes before its reset, socket %d got %d", src.id, src.arrived, dst.id, dst.got)
		}
		if !dst.ended || dst.dead || dst.gotReset {
			continue
		}
		// A clean end says that this is all there was. Only a client that no
		// backend ever served may get one without.
		if (last.dead || last.gotReset) && last.taken == 0 && last.put == 0 {
			continue
		}
		if !src.fin || src.dead && !src.finRead || dst.put != src.arrived {
			k.fail("socket %d got a clean end after %d bytes; socket %d sent %d, FIN %v, reset %v", dst.id, dst.put, src.id, src.arrived, src.fin, src.dead)
		}
	}
}

// However many sessions meet however many hosts that refuse at once, a turn
// makes a bounded number of connects, and sessions are served in their order.
func TestB71RetriesOfATurnAreBounded(t *testing.T) {
	g := newTheatre(nil)
	var members []sched.Member
	for i := range 500 {
		members = append(members, sched.Member{Host: sched.NewHost(fmt.Sprint("h", i), simAddr(i)), Weight: 1})
		members[i].Host.SetFailLimit(0, time.Second) // each session tries them all
	}
	table, err := sched.NewTable(sched.Policy{}, members)
	if err != nil {
		t.Fatal(err)
	}
	g.svc.Route.Store(&engine.Route{Table: table})
	const clients = 3
	g.k.deaf = true
	g.l.retries = 0 // as at the end of a turn
	for range clients {
		g.accept()
	}
	turns := 0
	for ; len(g.l.agenda.ready) > 0; turns++ {
		before := len(g.k.sockets)
		g.turn(nil)
		if made := len(g.k.sockets) - before; made > retriesPerTurn {
			t.Fatalf("a turn made %d connects, want at most %d", made, retriesPerTurn)
		}
	}
	if want := clients * len(members) / retriesPerTurn; turns < want || turns > want+clients+1 {
		t.Errorf("%d turns, want about %d", turns, want)
	}
	for _, m := range members {
		if n := m.Host.Stats().Picks; n != clients {
			t.Fatalf("host %s was picked %d times by %d clients", m.Host.Name(), n, clients)
		}
	}
	if len(g.k.wrong) > 0 {
		t.Error(g.k.wrong)
	}
}

// The last bytes of a stream and its end are one read if one event tells of both. With an
// urgent byte among them, or a reset behind them, the loop reads on.
func TestOneReadForTheLastBytesAndTheEnd(t *testing.T) {
	for name, test := range map[string]struct {
		last  func(b *simSocket)
		reads int
	}{
		"a FIN":           {func(b *simSocket) { b.farSend(100); b.farFin() }, 1},
		"a FIN alone":     {func(b *simSocket) { b.farFin() }, 1},
		"urgent":          {func(b *simSocket) { b.farSend(100); b.farUrgent(); b.farFin() }, 3},
		"a reset":         {func(b *simSocket) { b.farSend(100); b.farReset() }, 2},
		"a FIN and reset": {func(b *simSocket) { b.farSend(100); b.farFin(); b.farReset() }, 2},
	} {
		g := newTheatre([]byte{2, 3}) // bytes are copied, and connects wait for an answer
		g.accept()
		c, b := g.k.sockets[0], g.k.sockets[1]
		b.answer(0)
		g.turn(g.due(2))
		c.farSend(10)
		g.turn(g.due(2))
		before := b.reads
		test.last(b)
		g.turn(g.due(2))
		if got := b.reads - before; got != test.reads {
			t.Errorf("%s: %d reads, want %d", name, got, test.reads)
		}
		if c.put != b.taken || c.shut == b.dead {
			t.Errorf("%s: the client got %d of %d bytes, and an end: %v", name, c.put, b.taken, c.shut)
		}
		if len(g.k.wrong) > 0 {
			t.Error(name, g.k.wrong)
		}
	}
}

// A send that fails has the rest read without an event that could have told of an urgent
// byte in it.
func TestB65UrgentByteBeforeAFailedSend(t *testing.T) {
	g := newTheatre([]byte{2, 3})
	g.accept()
	c, b := g.k.sockets[0], g.k.sockets[1]
	b.answer(0)
	g.turn(g.due(2))
	c.farSend(10)
	events := g.due(2)
	b.farUrgent()
	g.k.fault, g.k.strikes = lateReset, 1
	g.turn(events)
	g.turn(nil)
	if b.taken != 1 || len(g.k.wrong) > 0 {
		t.Errorf("%d bytes were read of the backend, want 1: %v", b.taken, g.k.wrong)
	}
}

// A session whose hosts have all failed does not wait behind others in the queue of the
// group: there is nothing that it could wait for.
func TestB86NobodyQueuesForNothing(t *testing.T) {
	g := newTheatre([]byte{64 | 2, 3, 3, 3}) // hosts may have one session, and connects wait for an answer
	host := g.hosts[0]
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: host, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	g.svc.Route.Store(&engine.Route{Table: table})
	for range 3 {
		g.l.now++
		g.accept()
	}
	queue := table.Queue()
	if n := queue.Len(); n != 2 {
		t.Fatalf("%d sessions wait, want 2", n)
	}
	g.k.sockets[1].answer(unix.ECONNREFUSED)
	g.settle()
	if len(g.k.wrong) > 0 {
		t.Fatal(g.k.wrong)
	}
	if host.Sessions() != 1 || queue.Len() != 1 {
		t.Errorf("the host has %d sessions, %d wait; want the second client to have it, and the third to wait", host.Sessions(), queue.Len())
	}
}
