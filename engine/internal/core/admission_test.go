package core

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/sched"
)

// B23, B30: whatever happens to admissions in whatever order, a pick is released
// once, no host is asked twice, the bound of tries holds, nothing follows the end,
// and the counters add up.
func TestB23AndB30RandomAdmissions(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 500
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
	script   []byte
	now      int64
	gate     Gate
	svc      *Service
	entries  []*Entry
	hosts    []*sched.Host
	sticky   *sched.Sticky
	tables   []*sched.Table // the first has all hosts, the last is none
	held     *sched.Table   // all hosts, and a gate
	awaits   *sched.Table   // all hosts, and clients wait while none is up
	bar      *sched.Gate    // of held
	guests   []*guest       // all sessions that there were
	refused  [refusals]uint64
	ended    [terminations]uint64
	failed   uint64 // failed connects
	headers  uint64
	chose    int // how often a group was chosen
	free     Attempts
	woken    []*guest // that were called, and have not been told
	reported int
	log      []string
	wrong    string
}

// guest is a session with what the desk knows of it.
type guest struct {
	Admission
	id    int
	step  Step
	from  sched.Addr
	says  []byte // ahead of all else, and how much of it has come
	said  int
	size  int            // of the header in it, -1 where it is malformed or cut off
	is    netip.AddrPort // whom the header names
	asked map[*sched.Host]bool
	tries int  // hosts asked
	heard bool // one that was asked has failed by its own fault
	ends  bool // its TLS ends here
	shook bool // the handshake of that has been made
	safe  bool // that of its host has
	lost  bool // it could not be watched
	gone  bool

	opened int64 // when the gate was opened behind which it has waited last
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
	d := &desk{script: script, now: 1, svc: newService("web", 1), sticky: sched.NewSticky(1000, time.Minute)}
	group := new(sched.Times)
	d.gate.Report, d.gate.Past, d.gate.Free = func(engine.Failure) { d.reported++ }, new(Past), &d.free
	d.gate.TLS = len(script) == 0 || script[0]%8 != 0
	var members []sched.Member
	for i := range 6 {
		addr, err := sched.ParseAddr(fmt.Sprint("127.0.0.1:", 1000+i))
		if i == 2 {
			addr = sched.UnixAddr("/nowhere")
		}
		if err != nil {
			panic(err)
		}
		d.hosts = append(d.hosts, sched.NewHostIn(group, fmt.Sprint("h", i), addr))
		if i%3 == 1 {
			d.hosts[i].SetTLS(&tls.Config{ServerName: "h"})
		}
		members = append(members, sched.Member{Host: d.hosts[i], Weight: 1, Backup: i == 5})
	}
	for i, m := range [][]sched.Member{members, members[:2], members[3:]} {
		p := sched.Policy{Scheduler: "roundr", Seed: 1}
		if i != 1 {
			p.Scheduler, p.Sticky = "roundr,sticky", d.sticky
		}
		table, err := sched.NewTable(p, m)
		if err != nil {
			panic(err)
		}
		d.tables = append(d.tables, table)
	}
	d.tables = append(d.tables, nil)
	d.bar = sched.NewGate()
	for to, p := range map[**sched.Table]sched.Policy{&d.held: {Gate: d.bar}, &d.awaits: {Await: true}} {
		p.Scheduler, p.Seed, p.MostHeld, p.Times = "roundr", 1, 5, group
		table, err := sched.NewTable(p, members)
		if err != nil {
			panic(err)
		}
		*to = table
	}
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, o := range []engine.ListenOptions{
		{}, {}, {Proxy: engine.ProxyAccept, ProxyFrom: trusted}, {Proxy: engine.ProxyRequire, ProxyFrom: trusted}, {Proxy: engine.ProxyRequire},
		{StartTLS: engine.StartTLSPostgres}, {StartTLS: engine.StartTLSPostgres, Proxy: engine.ProxyRequire},
		{TLS: deskTLS}, {TLS: deskTLS, Proxy: engine.ProxyRequire}, {TLS: deskTLS, StartTLS: engine.StartTLSPostgres},
	} {
		d.entries = append(d.entries, newEntry(d.svc, o))
	}
	d.reroute(d.next())
	for len(d.script) > 0 && d.wrong == "" {
		d.do(d.next())
		d.callAll()
		d.check()
	}
	d.close()
	for range 61 { // clients that have no session are forgotten, and none has
		d.sticky.Tick(time.Now().Add(time.Hour))
	}
	if n := d.sticky.Len(); n != 0 {
		d.fail("%d clients are still held", n)
	}
	if d.wrong != "" {
		return d.wrong + "\nafter:\n" + strings.Join(d.log, "\n")
	}
	return ""
}

// reroute changes the route.
func (d *desk) reroute(how int) {
	r := &engine.Route{Table: d.tables[how%4], Tries: how >> 2 % 4}
	if how&16 != 0 {
		r.Timeouts.Connect = 2 * time.Second
	}
	if how&32 != 0 {
		r.Timeouts.Total = 5 * time.Second
	}
	if how&64 != 0 {
		r.Timeouts.Hello = time.Second
		r.Timeouts.Queue = 4 * time.Second
	}
	if how < 128 { // mostly all hosts
		r.Table = d.tables[0]
	}
	if how%8 == 1 || how%8 == 2 {
		r.ByHello, r.Groups = true, map[engine.GroupID]*sched.Table{1: d.tables[1]}
		r.Choose = func(a engine.Asking) engine.GroupID {
			if d.chose++; string(a.Name) == "db.example" {
				return 1
			}
			return engine.Default
		}
	}
	if how%8 > 2 {
		r.Limits = &engine.Limits{Sessions: how % 5, PerClient: how / 8 % 4, Rate: how / 16 % 6, PerClientRate: how / 32 % 4}
	}
	if r.Choose == nil && r.Table == d.tables[0] {
		switch what := d.next(); what % 4 {
		case 1:
			r.Table = d.held
			d.bar.Keep([]int64{math.MaxInt64, math.MaxInt64, 3, 1}[what>>2%4])
		case 2:
			r.Table = d.awaits
		}
	}
	d.say("route: %d hosts, tries %d, %+v, limits %+v, held %v, awaits %v", how%4, r.Tries, r.Timeouts, r.Limits, r.Table.Held(), r.Table == d.awaits)
	if d.svc.count(modeOf(r.Limits)) {
		for _, g := range d.guests {
			g.Recount(g.from.IP)
		}
	}
	before := d.svc.Route.Swap(r)
	d.svc.countNoMore(r.Limits)
	if before != nil && before.Table.Held() && !r.Table.Held() {
		for _, g := range d.guests {
			if g.waits() {
				g.opened = d.now
			}
		}
	}
	requeue(before, r)
	for _, g := range d.guests {
		if step := g.Retimed(d.now); step.Do != Nothing {
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
		if g.step.Do == Hear || g.step.Do == Wait || g.step.Do == Rest || g.step.Do == Queued || g.step.Do == Handshake || g.step.Do == Pledge || g.step.Do == Secure {
			if op >= 128 && g.step.Until != Never {
				d.now = max(d.now, g.step.Until)
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
		if op&32 != 0 {
			n := d.next() % 4
			d.say("%s may have %d sessions", h.Name(), n)
			h.SetMaxSessions(n)
			return
		}
		d.say("%s up: %v", h.Name(), op&64 != 0)
		if op&64 != 0 {
			h.MarkUp()
		} else {
			h.MarkDown()
		}
	case 5: // reset by the host, before the first byte or after it
		before := g.state == admitted && g.attempt != nil
		if op < 128 && before {
			g.Settle(&d.free)
		}
		was := g.Host
		switch step := g.Dropped(d.now); {
		case (step.Do == Connect || step.Do == Queue) && (!before || op < 128):
			d.fail("session %d went to another host, though bytes had moved", g.id)
		case step.Do == Connect || step.Do == Queue:
			d.failed++
			g.heard = true
			d.say("session %d: dropped by %s", g.id, was.Name())
			d.follow(g, step)
		case g.state == admitted:
			g.ResetEarly(sched.Addr{})
			d.end(g, ServerAborted)
		}
	case 6:
		d.end(g, []Termination{ClientGone, Killed, Normal}[op>>4%3])
	case 7: // not watched, or no socket
		if g.step.Do == Connect {
			d.tell(g, op)
			return
		}
		if g.step.Do != Nothing {
			g.lost = true
			d.follow(g, g.NoRoom(d.now))
		}
	}
}

// expire lets the timer of a session go off.
func (d *desk) expire(g *guest) {
	before, hadTime := g.state, false
	if limit := d.svc.Route.Load().Timeouts.Connect; limit > 0 {
		hadTime = d.now >= g.attempt.began+int64(limit)
	}
	step := g.Deadline(d.now)
	if step.Do == Retry && before != looking {
		d.failed++
		g.heard = true
		if !hadTime {
			d.fail("session %d: a host is blamed that has not had its time", g.id)
		}
	}
	if (step.Do == Hear || step.Do == Wait || step.Do == Queued || step.Do == Handshake) && step.Until <= d.now {
		d.fail("session %d: waits until %d, it is %d", g.id, step.Until, d.now)
	}
	d.follow(g, step)
}

// tell says that there was no socket for a connect.
func (d *desk) tell(g *guest, how int) {
	errno := []syscall.Errno{syscall.EMFILE, syscall.ENOBUFS, syscall.EAFNOSUPPORT}[how>>4%3]
	if errno != syscall.EAFNOSUPPORT { // the host was not asked
		delete(g.asked, g.Host)
		g.tries--
	} else {
		g.heard = true
	}
	d.failed++
	d.follow(g, g.NoSocket(d.now, errno))
}

// The addresses that clients of the desk come from, and those that headers name.
var (
	deskClients = [...]string{"10.1.2.3:1", "192.0.2.1:2", ""}
	deskNames   = [...]string{"198.51.100.7:7", "[2001:db8::7]:7"}
)

func (d *desk) arrive() {
	g := &guest{id: len(d.guests), asked: map[*sched.Host]bool{}}
	d.guests = append(d.guests, g)
	if from := deskClients[d.next()%len(deskClients)]; from != "" {
		g.from = sched.TCPAddr(netip.MustParseAddrPort(from))
	}
	how := d.next()
	g.is = netip.MustParseAddrPort(deskNames[how%2])
	if how&2 != 0 {
		g.is = netip.AddrPort{}
	}
	g.says = proxyproto.Append(nil, proxyproto.Version(1+how>>2%2), g.is, netip.MustParseAddrPort(deskNames[how%2]))
	switch g.size = len(g.says); how >> 3 % 8 {
	case 0:
		g.says, g.size = g.says[:g.size/2], -1
	case 1:
		g.says, g.size = []byte("GET / HTTP/1.1\r\n"), -1
	case 2, 3, 4:
		g.says = append(g.says, deskHello...)
	case 5:
		g.says = append(g.says, deskHello[:len(deskHello)/2]...)
	default:
		g.says = append(g.says, "behind it"...)
	}
	entry := d.entries[d.next()%len(d.entries)]
	g.ends = entry.TLS != nil
	if entry.startTLS == postgres {
		words := []string{"", sslRequest, gssRequest + sslRequest, gssRequest + gssRequest, "\x00\x00\x00\x10\x04\xd2\x16\x2ecancel.."}[(how>>6+how%2)%5]
		at := 0
		if entry.proxy == engine.ProxyOff {
			g.says, g.size = nil, 0
		} else if g.size > 0 {
			at = g.size
		}
		if g.size >= 0 {
			g.says = slices.Concat(g.says[:at], []byte(words), []byte(deskHello))
		}
	}
	d.say("session %d from %v says %q, entry %+v", g.id, g.from, g.says, entry)
	g.Begin(&d.gate, entry, new(Attempt), g.from, d.now)
	d.follow(g, g.Admission.Next(d.now))
}

// proceed does what the last step of a session asks for.
func (d *desk) proceed(g *guest) {
	switch g.step.Do {
	case Hear:
		g.said = min(g.said+1+d.next()%30, len(g.says))
		d.hear(g, g.said == len(g.says) && d.next()%2 == 0)
	case Connect, Again, Wait:
		errno := errnos[d.next()%len(errnos)]
		if g.step.Do == Wait && (g.state == queueFull || errno == syscall.EINPROGRESS || errno == syscall.EAGAIN) {
			return // it has not answered yet
		}
		switch errno {
		case 0, syscall.EINPROGRESS, syscall.EADDRNOTAVAIL, syscall.EAGAIN, syscall.ENOMEM:
		default:
			g.heard = true
		}
		full := errno == syscall.EAGAIN && g.Host.Addr().Path() != ""
		bare := errno == 0 && g.Host.TLS() != nil && !d.gate.TLS && (g.ends || !g.attempt.startTLS.isPromise())
		if bare || errno != 0 && errno != syscall.EINPROGRESS && !full {
			d.failed++
		}
		d.say("session %d: %s answers %d", g.id, g.Host.Name(), errno)
		step := g.Answered(d.now, errno)
		if bare && step.Do != Retry {
			d.fail("session %d: a host with TLS is to have it without: %+v", g.id, step)
		}
		d.follow(g, step)
	case Handshake:
		d.shake(g, d.next())
	case Secure:
		err := []error{nil, nil, io.EOF, errors.New("no")}[d.next()%4]
		d.say("session %d: handshake with %s: %v", g.id, g.Host.Name(), err)
		if err != nil {
			d.failed++
			g.heard = true
		} else {
			g.safe = true
		}
		step := g.Secured(d.now, false, err)
		if err == nil != (step.Do == Relay) || err != nil != (step.Do == Retry) {
			d.fail("session %d: %+v after a handshake with the host: %v", g.id, step, err)
		}
		d.follow(g, step)
	case Pledge:
		if step := g.step; step.Say != sslRequest || g.Host == nil {
			d.fail("session %d: %+v to %v", g.id, step, g.Host)
		}
		answer, ended := []byte([]string{"", "S", "S", "N", "E"}[d.next()%5]), d.next()%4 == 0
		before, ours := g.Host, g.attempt.secure != nil
		take, step := g.HostSaid(d.now, answer, ended)
		d.say("session %d: %s says %q, ended: %v", g.id, before.Name(), answer, ended)
		switch {
		case string(answer) == "S":
			want := Relay
			if ours {
				want = Secure
			}
			if take != 1 || step.Do != want {
				d.fail("session %d: the host agrees, and %d bytes are taken for %+v", g.id, take, step)
			}
		case len(answer) > 0 && ours:
			d.failed++
			g.heard = true
			if take != 0 || step.Do != Retry {
				d.fail("session %d: the host does not agree, and %d bytes are taken for %+v", g.id, take, step)
			}
		case len(answer) > 0:
			if take != 0 || step.Do != Refuse || step.Why != noTLS {
				d.fail("session %d: the host does not agree, and %d bytes are taken for %+v", g.id, take, step)
			}
		case ended:
			d.failed++
			g.heard = true
			if step.Do != Retry {
				d.fail("session %d: the host has gone, and %+v", g.id, step)
			}
		case step.Do != Wait || g.state != pledging:
			d.fail("session %d: the host has said nothing, and %+v", g.id, step)
		default:
			return // it goes on to wait
		}
		d.follow(g, step)
	case Retry:
		d.follow(g, g.Admission.Next(d.now))
	}
}

// deskTLS is that of listeners.
var deskTLS = new(tls.Config)

// shake makes a client's handshake, or not.
func (d *desk) shake(g *guest, how int) {
	err := []error{nil, nil, nil, io.EOF, errors.New("tls: no")}[how%5]
	agreed := tls.ConnectionState{ServerName: []string{"DB.example", "other.example", ""}[how/8%3], NegotiatedProtocol: []string{"", "h2"}[how/32%2]}
	d.say("session %d: handshake %v, %q", g.id, err, agreed.ServerName)
	chose := d.chose
	step := g.Shook(d.now, agreed, err)
	if err == nil {
		g.shook = true
	}
	switch r := d.svc.Route.Load(); {
	case err != nil && (step.Do != Refuse || !step.Why.OfTLS()):
		d.fail("session %d: %+v after a handshake that failed", g.id, step)
	case err == nil && r.Choose != nil && (d.chose != chose+1 || (g.attempt.group.id == 1) != (agreed.ServerName == "DB.example")):
		d.fail("session %d: group %d for %q, chosen %d times", g.id, g.attempt.group.id, agreed.ServerName, d.chose-chose)
	}
	d.follow(g, step)
}

// hear tells what a client has said so far.
func (d *desk) hear(g *guest, ended bool) {
	d.say("session %d has said %d bytes, ended: %v", g.id, g.said, ended)
	before, chose := g.state, d.chose
	size, step := g.Heard(d.now, g.says[:g.said], ended, &d.free)
	if before == untold {
		d.heardHello(g, step, ended, size, d.chose-chose)
		return
	}
	client := netip.AddrPort{}
	if o := g.Origin(); o != nil {
		client = o.Client
	}
	switch {
	case g.state == unheard:
		if step.Need <= g.said || size != 0 || ended || g.said == len(g.says) && g.size >= 0 || g.size >= 0 && step.Need > g.size {
			d.fail("session %d: %d bytes of %q have come and it waits for %d", g.id, g.said, g.says, step.Need)
		}
	case step.Do == Refuse && step.Why.OfHeader():
		if size != 0 || g.size >= 0 && (!ended || g.said >= g.size) || client.IsValid() {
			d.fail("session %d: refused for %v, ended: %v", g.id, step.Why, ended)
		}
	default:
		d.headers++
		if size != g.size || g.said < size || client != g.is {
			d.fail("session %d: a header of %d bytes from %v, want %d from %v", g.id, size, client, g.size, g.is)
		}
		if g.is.IsValid() {
			g.from = sched.TCPAddr(g.is)
		}
		g.says, g.said = g.says[size:], g.said-size
	}
	d.follow(g, step)
}

// heardHello looks at what came of the beginning of a stream.
func (d *desk) heardHello(g *guest, step Step, ended bool, take, chose int) {
	if step.Say != "" {
		words := string(g.says[:min(take, g.said)])
		right := step.Do == Hear && (step.Say == "S" && words == sslRequest || step.Say == "N" && words == gssRequest)
		if g.ends {
			right = step.Do == Handshake && step.Say == "S" && words == sslRequest && g.said == take || step.Do == Hear && step.Say == "N" && words == gssRequest ||
				step.Do == Refuse && step.Why == notAsked && take == 0
		}
		if !right {
			d.fail("session %d: it is told %q for %q", g.id, step.Say, words)
		}
		g.says, g.said = g.says[take:], g.said-take
		d.follow(g, step)
		return
	}
	if g.state == untold && (g.attempt.startTLS == postgres || g.attempt.startTLS == postgresAgain) && (g.said == 0 || g.says[0] == 0) {
		if g.said >= 8 || ended || take != 0 {
			d.fail("session %d: waits after %q, ended: %v", g.id, g.says[:g.said], ended)
		}
		d.follow(g, step)
		return
	}
	if g.ends {
		hello := g.said > 0 && g.says[0] == tlsRecord
		if take != 0 || hello != (step.Do == Handshake) || !hello && step.Do != Refuse {
			d.fail("session %d: %q is heard, ended: %v, and %+v", g.id, g.says[:g.said], ended, step)
		}
		d.follow(g, step)
		return
	}
	whole := g.said >= len(deskHello) && string(g.says[:len(deskHello)]) == deskHello
	short := strings.HasPrefix(deskHello, string(g.says[:g.said])) && !whole && !ended
	waits := g.state == untold
	switch {
	case take != 0:
		d.fail("session %d: %d bytes of its stream are taken", g.id, take)
	case waits != short || waits && (step.Need <= g.said || step.Need > len(deskHello)):
		d.fail("session %d: %d bytes of its stream have come, ended: %v, and it waits: %v, for %d", g.id, g.said, ended, waits, step.Need)
	case chose > 1 || waits && chose > 0:
		d.fail("session %d: chosen %d times", g.id, chose)
	case !waits && chose == 1 && (g.attempt.group.id == 1) != whole:
		d.fail("session %d: group %d after %d bytes", g.id, g.attempt.group.id, g.said)
	}
	d.follow(g, step)
}

// deskHello asks for db.example.
var deskHello = func() string {
	name := "db.example"
	list := "\x00\x00" + string(rune(len(name))) + name
	ext := "\x00\x00\x00" + string(rune(len(list)+2)) + "\x00" + string(rune(len(list))) + list
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00" + "\x00" + string(rune(len(ext))) + ext
	message := "\x01\x00\x00" + string(rune(len(body))) + body
	return "\x16\x03\x01\x00" + string(rune(len(message)-9)) + message[:len(message)-9] + "\x16\x03\x01\x00\x09" + message[len(message)-9:]
}()

// follow takes in a step and looks whether it may come now.
func (d *desk) follow(g *guest, step Step) {
	if step.Do == Nothing {
		return
	}
	d.say("session %d: step %+v", g.id, step)
	before := g.step.Do
	if step.Do == Wait && (g.state == pledging || g.state == securing) { // with another time
		g.step.Until = step.Until
		return
	}
	g.step = step
	if g.gone {
		d.fail("session %d: step %d after the end", g.id, step.Do)
	}
	if before == Refuse {
		d.fail("session %d: step %d after the refusal", g.id, step.Do)
	}
	route := d.svc.Route.Load()
	switch step.Do {
	case Queue:
		if g.attempt.wait.parked {
			d.forget(g)
		}
		d.follow(g, g.Join(d.now, func() { d.woken = append(d.woken, g) }))
	case Handshake:
		if !g.ends || g.shook || g.tries > 0 || step.TLS != deskTLS || route.Limits != nil && !g.counted {
			d.fail("session %d: a handshake, its TLS ends here: %v, made: %v, hosts asked: %d, counted: %v", g.id, g.ends, g.shook, g.tries, g.counted)
		}
	case Secure:
		if g.Host == nil || g.Host.TLS() == nil || step.TLS.ServerName != "h" || !d.gate.TLS {
			d.fail("session %d: a handshake with %v: %+v", g.id, g.Host, step)
		}
	case Relay:
		through := !g.ends && g.attempt.startTLS.isPromise() // the client's own TLS
		if g.ends && !g.shook || g.Host.TLS() != nil && !g.safe && !through {
			d.fail("session %d: it has %s without the handshakes that there should be", g.id, g.Host.Name())
		}
	case Connect:
		d.judgeFull(g)
		g.safe = false
		if g.Host == nil {
			d.fail("session %d: connect to no host", g.id)
			return
		}
		if g.asked[g.Host] {
			d.fail("session %d: %s is asked twice", g.id, g.Host.Name())
		}
		if g.attempt.from != g.from {
			d.fail("session %d: the client is %v, want %v", g.id, g.attempt.from, g.from)
		}
		g.asked[g.Host] = true
		g.tries++
		if route.Tries > 0 && g.tries > route.Tries {
			d.fail("session %d: %d tries of %d", g.id, g.tries, route.Tries)
		}
		if total := int64(route.Timeouts.Total); total > 0 && d.now-g.attempt.since >= total {
			d.fail("session %d: a connect begins after the time for all", g.id)
		}
	case Retry:
		if g.Host != nil {
			d.fail("session %d: has given up %s, and still has it", g.id, g.Host.Name())
		}
	case Refuse:
		d.refused[step.Why]++
		d.judgeHold(g, step.Why)
		d.judgeLimit(g, step.Why, route.Limits)
		if late := int64(route.Timeouts.Hello); step.Why == proxyTimeout && (late == 0 || d.now-g.Started < late) {
			d.fail("session %d: it has not had its time to say who it is", g.id)
		}
		if g.tries > 0 && step.Why == noHost && !g.heard || g.heard && step.Why == OutOfResource && !g.lost {
			d.fail("session %d: refused for %v, heard of a host: %v", g.id, step.Why, g.heard)
		}
		if g.Host != nil {
			d.fail("session %d: refused with host %s", g.id, g.Host.Name())
		}
		if step.Why == noHost && route.Table != nil && route.Tries == 0 {
			for _, h := range d.hosts[:3] { // hosts that are up and were not asked, if the route has them all
				if route.Table == d.tables[0] && g.attempt.group.id == engine.Default && h.Up() && !g.asked[h] && g.attempt.tried.LastResorts() < lastResorts {
					d.fail("session %d: no host, though %s is up and was not asked", g.id, h.Name())
				}
			}
		}
	}
}

func (d *desk) end(g *guest, how Termination) {
	if !g.gone {
		how = g.endingOf(how)
		d.say("session %d ends: %v", g.id, how)
		d.ended[how]++
	}
	g.Admission.End(d.now, how, Last{ID: uint64(g.id) + 1})
	g.gone, g.step = true, Step{}
}

// check looks whether the counters say what has happened.
func (d *desk) check() {
	holds := map[*sched.Host]int64{}
	active := int64(0)
	for _, g := range d.guests {
		if g.Host != nil {
			holds[g.Host]++
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
	d.checkLimits()
	c := &d.svc.Counts[0]
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
	if n := c.proxied.Load(); n != d.headers {
		d.fail("%d headers are counted, there were %d", n, d.headers)
	}
	if n := c.sessions.Load(); n != uint64(len(d.guests)) || c.active.Load() != active || n != ended+uint64(active) {
		d.fail("%d sessions counted, %d active and %d ended; there were %d, %d are there", n, c.active.Load(), ended, len(d.guests), active)
	}
}

// checkStories looks whether each session has a story, with its end and each connect that has
// failed.
func (d *desk) checkStories() {
	if len(d.guests) > pastSessions {
		return
	}
	failed := uint64(0)
	for _, g := range d.guests {
		s, ok := d.gate.Past.Find(uint64(g.id)+1, time.Time{})
		switch {
		case !ok:
			d.fail("session %d has no story", g.id)
		case s.Untold > 0:
			return
		case s.Connected >= 0 && (s.Host == nil || s.Asked < 0 || s.Asked > s.Connected), s.Connected > s.Age, s.Heard > s.Age, s.Waited > s.Age:
			d.fail("session %d: the story does not fit together: %+v", g.id, s)
		}
		for _, t := range s.Tries {
			if t.Took < 0 || t.Host == nil || t.At > s.Age {
				d.fail("session %d: %+v", g.id, t)
			}
			if t.Result != engine.TryAbandoned && t.Result != engine.TryNoTLS {
				failed += uint64(t.Times)
			}
		}
	}
	if failed != d.failed {
		d.fail("the stories have %d failed connects, there were %d", failed, d.failed)
	}
}

// close lets every host refuse until no session looks for one, then ends them all.
func (d *desk) close() {
	d.say("close")
	d.reroute(0) // no script is left: nobody is held any more
	for _, h := range d.hosts {
		h.SetMaxSessions(0)
	}
	d.callAll()
	for _, g := range d.guests {
		for range 4*len(d.hosts) + 10 {
			switch g.step.Do {
			case Hear:
				d.hear(g, true)
			case Handshake:
				d.shake(g, 3)
			case Secure:
				d.failed++
				g.heard = true
				d.follow(g, g.Secured(d.now, false, io.EOF))
			case Connect, Again:
				d.failed++
				g.heard = true
				d.follow(g, g.Answered(d.now, syscall.ECONNREFUSED))
			case Pledge:
				d.failed++
				g.heard = true
				_, step := g.HostSaid(d.now, nil, true)
				d.follow(g, step)
			case Wait, Rest:
				if g.state == asked {
					d.failed++
					g.heard = true
					d.follow(g, g.Answered(d.now, syscall.ECONNREFUSED))
					break
				}
				d.now = max(d.now, g.step.Until)
				d.expire(g)
			case Retry:
				d.follow(g, g.Admission.Next(d.now))
			}
			d.callAll()
		}
		if !g.gone && g.step.Do != Relay && g.step.Do != Refuse {
			d.fail("session %d finds no end: step %d, state %d", g.id, g.step.Do, g.state)
		}
		d.end(g, Normal)
		d.end(g, Killed) // the first end counts
	}
	d.check()
	d.checkStories()
	for _, g := range d.guests {
		_, heard := g.Heard(d.now, g.says, true, &d.free)
		for _, step := range []Step{
			heard, g.Shook(d.now, tls.ConnectionState{}, nil), g.Secured(d.now, false, nil),
			g.Admission.Next(d.now), g.Answered(d.now, 0), g.NoSocket(d.now, syscall.EMFILE), g.NoRoom(d.now),
			g.Deadline(d.now), g.Retimed(d.now), g.Dropped(d.now), g.Join(d.now, nil), g.Called(d.now),
		} {
			if step.Do != Nothing {
				d.fail("session %d: step %d after the end", g.id, step.Do)
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
	d.svc.Route.Store(&engine.Route{Table: table, Timeouts: engine.Timeouts{Connect: time.Second, Total: time.Minute}})
	header := proxyproto.Append(nil, proxyproto.V2, netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2"))
	for i := range 4 {
		proxied, recorded := i%2 == 1, i/2 == 1
		if recorded {
			rec := engine.NewRecorder()
			rec.Switch(true)
			d.gate.Log, d.gate.Active = rec.Attach(1, time.Now())[0], func() int64 { return 1 }
		}
		entry := newEntry(d.svc, engine.ListenOptions{})
		if proxied {
			entry = newEntry(d.svc, engine.ListenOptions{Proxy: engine.ProxyRequire})
		}
		var a Admission
		var free Attempts
		if n := testing.AllocsPerRun(100, func() {
			a.Begin(&d.gate, entry, free.Get(), sched.Addr{}, d.now)
			if recorded {
				a.Record(&free, netip.AddrPort{})
			}
			step := a.Next(d.now)
			if proxied {
				_, step = a.Heard(d.now, header, false, &free)
			}
			if step.Do != Connect || a.Answered(d.now, syscall.EINPROGRESS).Do != Wait || a.Answered(d.now, 0).Do != Relay {
				t.Fatal("the steps are others")
			}
			a.Settle(&free)
			a.End(d.now, Normal, Last{})
			free.PutNotes(&a)
		}); n != 0 {
			t.Errorf("%v allocations, with a header: %v, recorded: %v", n, proxied, recorded)
		}
	}
}

func BenchmarkAdmission(b *testing.B) {
	for name, recorded := range map[string]bool{"plain": false, "recorded": true} {
		b.Run(name, func(b *testing.B) { benchmarkAdmission(b, recorded) })
	}
}

func benchmarkAdmission(b *testing.B, recorded bool) {
	svc := newService("web", 1)
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("h", sched.UnixAddr("/nowhere")), Weight: 1}})
	if err != nil {
		b.Fatal(err)
	}
	svc.Route.Store(&engine.Route{Table: table, Timeouts: engine.Timeouts{Connect: time.Second, Total: time.Minute}})
	var a Admission
	var g Gate
	rec := engine.NewRecorder()
	if recorded {
		rec.Switch(true)
		g.Log, g.Active = rec.Attach(1, time.Now())[0], func() int64 { return 1 }
	}
	entry := newEntry(svc, engine.ListenOptions{})
	var free Attempts
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		a.Begin(&g, entry, free.Get(), sched.Addr{}, 1)
		if recorded {
			a.Record(&free, netip.AddrPort{})
		}
		a.Next(1)
		a.Answered(1, syscall.EINPROGRESS)
		a.Answered(1, 0)
		a.Settle(&free)
		a.End(2, Normal, Last{})
		free.PutNotes(&a)
		if n%1000 == 999 {
			rec.Take(func(*engine.Record) {})
		}
	}
}
