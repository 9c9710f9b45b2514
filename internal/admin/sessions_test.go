package admin

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/explain"
	"github.com/txlb/txlb/internal/testkit"
)

// sessions executes a line and returns what it shows.
func (r *rig) sessions(line string) (string, []SessionInfo) {
	r.t.Helper()
	results, err := r.a.Run(r.t.Context(), guest, line)
	if err != nil {
		r.t.Fatalf("%s: %v", line, err)
	}
	return results[0].Text, results[0].Data.([]SessionInfo)
}

func TestShowSessions(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	if text, list := r.sessions("show sessions"); len(list) != 0 || strings.Contains(text, "\n") {
		t.Errorf("without a client: %+v\n%s", list, text)
	}
	hosts := map[string]string{} // by client
	for range 4 {
		one, host := r.dial()
		hosts[one.LocalAddr().String()] = host
	}
	text, list := r.sessions("show sessions")
	if len(list) != 4 || strings.Count(text, "\n") != 4 || !strings.HasPrefix(text, "id ") {
		t.Fatalf("%d sessions:\n%s", len(list), text)
	}
	addresses := map[string]string{"a": a.addr, "b": b.addr}
	for i, s := range list {
		local, err := netip.ParseAddrPort(s.Local)
		if s.Service != "web" || s.Group != "main" || s.Host != hosts[s.Client] || s.Address != addresses[s.Host] || err != nil ||
			local.Addr() != netip.MustParseAddr("127.0.0.1") || s.Age < 0 || s.Idle < 0 || s.Idle > s.Age+1 || s.In != 4 || s.Out != 2 {
			t.Errorf("%+v", s)
		}
		if !strings.Contains(strings.Split(text, "\n")[i+1], s.Client) || !strings.HasPrefix(strings.Split(text, "\n")[i+1], s.ID+" ") {
			t.Errorf("session %+v is not in line %d of\n%s", s, i+1, text)
		}
	}
	for line, want := range map[string]int{
		"show sessions web": 4, "show sessions mail": 0, "show sessions web main": 4, "show sessions web spare": 0,
		"show sessions web main a": 2, "show sessions web main b max=1": 1, "show sessions max=3": 3, "show sessions max=4": 4,
	} {
		text, list := r.sessions(line)
		if len(list) != want {
			t.Errorf("%s: %d sessions, want %d", line, len(list), want)
		}
		if more := strings.Contains(text, "max=N shows more"); more != (line == "show sessions web main b max=1" || line == "show sessions max=3") {
			t.Errorf("%s:\n%s", line, text)
		}
	}
	// An answer is made in memory, so it has its bounds, whatever is asked for.
	r.a.rows = 3
	if text, list := r.sessions("show sessions max=10000000"); len(list) != 3 || !strings.Contains(text, "there are more than these 3 sessions; name a service") {
		t.Errorf("%d sessions:\n%s", len(list), text)
	}
	r.a.rows = mostSessions
	r.refused("show sessions webb", "did you mean")
	r.refused("show sessions web mian", `did you mean`)
	r.refused("show sessions web main z", "unknown host")
	r.refused("show sessions group=main", "SERVICE is missing")
	r.refused("show sessions web name=a", "GROUP is missing")
	r.refused("show sessions max=0", "between 1 and")
	// A host that is configured no more still has its name.
	r.do("delHost web main a")
	if _, list := r.sessions("show sessions"); len(list) != 4 || list[0].Host+list[1].Host+list[2].Host+list[3].Host != "abab" || list[0].Group != "" || list[1].Group != "main" {
		t.Errorf("after delHost: %+v", list)
	}
}

func TestShutdownSession(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	clients := map[string]*client{}
	for range 3 {
		one, _ := r.dial()
		clients[one.LocalAddr().String()] = one
	}
	_, list := r.sessions("show sessions")
	doomed := list[1]
	if text := r.do("shutdownSession 0x" + strings.ToUpper(doomed.ID)); text != "1 session closed" {
		t.Errorf("said %q", text)
	}
	clients[doomed.Client].expectGone(t)
	delete(clients, doomed.Client)
	r.refused("shutdownSession "+doomed.ID, "session "+doomed.ID)
	r.refused("shutdownSession", "ID is missing")
	r.refused("shutdownSession first", `"first" is not a session ID`)
	r.refused("shutdownSession -1", "not a session ID")
	r.refused("shutdownSession 11112222333344445", "not a session ID")
	if _, err := r.a.Run(t.Context(), guest, "shutdownSession "+list[0].ID); err == nil || !strings.Contains(err.Error(), "needs the role full") {
		t.Errorf("a readonly user: %v", err)
	}
	for _, one := range clients {
		if _, err := one.ask(); err != nil {
			t.Errorf("a neighbour: %v", err)
		}
	}
	if !strings.Contains(r.log.String(), `verb="shutdownSession 0x`+strings.ToUpper(doomed.ID)+`" by=boss`) {
		t.Errorf("the log has:\n%s", r.log.String())
	}
}

// nameServer answers every question for an IPv4 address with the one that it
// has then, and fails while it has none.
type nameServer struct {
	conn    net.PacketConn
	address atomic.Pointer[netip.Addr]
	serving sync.WaitGroup
}

func newNameServer(t *testing.T, address string) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn}
	s.set(address)
	s.serving.Go(s.serve)
	t.Cleanup(func() {
		_ = conn.Close()
		s.serving.Wait()
	})
	return s
}

func (s *nameServer) set(address string) {
	a := netip.MustParseAddr(address)
	s.address.Store(&a)
}

func (s *nameServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		// The question ends with the empty label, a type and a class.
		end := 12
		for end < n && buf[end] != 0 {
			end += int(buf[end]) + 1
		}
		if end += 5; end > n {
			continue
		}
		answer := append([]byte(nil), buf[:end]...)
		copy(answer[2:12], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
		address := *s.address.Load()
		switch {
		case address.IsUnspecified():
			answer[3] = 0x82 // SERVFAIL
		case binary.BigEndian.Uint16(answer[end-4:]) == 1:
			answer[7] = 1
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
			answer = append(answer, address.AsSlice()...)
		}
		_, _ = s.conn.WriteTo(answer, from)
	}
}

// Sessions on an address that the host's name has lost belong to the host: they
// are shown, counted, ended and drained with it.
func TestSessionsOfLostAddresses(t *testing.T) {
	testkit.Long(t)
	if runtime.GOOS != "linux" {
		t.Skip("needs a second address on the loopback interface")
	}
	first := serve(t, "first")
	_, port, _ := net.SplitHostPort(first.addr)
	ln, err := net.Listen("tcp4", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal(err)
	}
	second := &backend{name: "second", listener: ln}
	second.conns.Go(second.accept)
	t.Cleanup(second.close)
	spare := serve(t, "spare")
	for _, verb := range []string{
		"shutdownSessions web main n", "shutdownSessions web main", "delHost web main n drain=0 --force",
		"delHost web main n drain=200ms --force", "enableGroup web spare drain=0", "",
	} {
		t.Run(verb, func(t *testing.T) {
			names := newNameServer(t, "127.0.0.1")
			text := strings.NewReplacer(
				`<host name="a" ip="127.0.0.1:1"/><host name="b" ip="127.0.0.1:2"/>`, `<host name="n" ip="host.test:`+port+`" resolve="1s"/>`,
				`<admin>`, `<dns servers="`+names.conn.LocalAddr().String()+`"/><admin>`,
			).Replace(doc("127.0.0.1:1", "127.0.0.1:2", spare.addr))
			r := newRig(t, text)
			eventually(t, "the name resolves", func() bool { return len(edits.StateHost(r.dir.State(), "web", "main", "n").Targets) == 1 })
			old, host := r.dial()
			if host != "first" {
				t.Fatalf("came to %s", host)
			}
			names.set("127.0.0.2")
			eventually(t, "the address leaves", func() bool { return len(edits.StateHost(r.dir.State(), "web", "main", "n").Leaving()) == 1 })
			_, list := r.sessions("show sessions web main n")
			if len(list) != 1 || list[0].Client != old.LocalAddr().String() || list[0].Group != "main" || list[0].Address != "127.0.0.1:"+port {
				t.Errorf("sessions %+v", list)
			}
			results, err := r.a.Run(t.Context(), guest, "show hosts web main")
			if err != nil {
				t.Fatal(err)
			}
			h := results[0].Data.([]HostInfo)[0]
			if h.Counters["sessions"] != 1 || len(h.Targets) != 2 || h.Targets[0].Leaving || !h.Targets[1].Leaving || h.Targets[1].Sessions != 1 {
				t.Errorf("host %+v", h)
			}
			if verb == "" { // the name server fails
				names.set("0.0.0.0")
				eventually(t, "the name has a problem", func() bool { return edits.StateHost(r.dir.State(), "web", "main", "n").Problem != "" })
				if text := r.do("show hosts web main"); !strings.Contains(text, "up, but ") || !strings.Contains(text, "host.test") {
					t.Errorf("hosts:\n%s", text)
				}
				if text := r.do("status"); !strings.Contains(text, `The names of 1 host of web / main do not resolve: n (`) {
					t.Errorf("status:\n%s", text)
				}
				return
			}
			r.do(verb)
			old.expectGone(t)
		})
	}
}

func TestSlowStartAndResolveByVerb(t *testing.T) {
	r := newRig(t, plainDoc())
	if text := r.do("addHost web main n 127.0.0.1:9 slowStart=10s resolve=5m"); !strings.Contains(text, "slowStart 10s, resolve 5m") {
		t.Errorf("said %q", text)
	}
	h := func(name string) *config.Host { return edits.StateHost(r.dir.State(), "web", "main", name).Config }
	if h("n").SlowStart != 10*time.Second || h("n").Resolve != 5*time.Minute {
		t.Errorf("host %+v", h("n"))
	}
	r.do("setHost web main a slowStart=1m resolve=0; setHost web main n slowStart=0 resolve=30s")
	if h("a").SlowStart != time.Minute || h("a").Resolve != 0 || h("n").SlowStart != 0 || h("n").Resolve != 30*time.Second {
		t.Errorf("hosts %+v, %+v", h("a"), h("n"))
	}
	r.refused("setHost web main a slowStart=5", "5s")
	r.refused("setHost web main a resolve=10ms", "resolve: 10ms is not between", "1s")
	r.refused("setHost web main a", "slowStart=DUR", "resolve=DUR")
}

// Verbs know the source of a host, what the kernel keeps for a service, and
// listeners whose address no interface has.
func TestSourceKeepAliveAndFreeBindByVerb(t *testing.T) {
	r := newRig(t, plainDoc())
	h := func() *config.Host { return edits.StateHost(r.dir.State(), "web", "main", "a").Config }
	r.do("setHost web main a source=127.0.0.5")
	if got := r.target("web", "main", "a").Source(); h().Source != "127.0.0.5" || got == nil || got.Addr.String() != "127.0.0.5" {
		t.Errorf("source %q, of the host %v", h().Source, got)
	}
	r.do(`setHost web main a source=""`)
	if h().Source != "" || r.target("web", "main", "a").Source() != nil {
		t.Errorf("source %q", h().Source)
	}
	r.do("setHost web main a source=client interface=lo")
	if got := r.target("web", "main", "a").Source(); got == nil || !got.Client || got.Addr.IsValid() || got.Interface != "lo" {
		t.Errorf("source %v", got)
	}
	r.refused("setHost web main a source=::1", "not both IPv4 or both IPv6")
	r.do("setService web unacked=10s keepAlive=0")
	for _, s := range r.dir.State().Config.Services {
		if s.Name == "web" && (s.Timeouts.Unacked != 10*time.Second || s.Timeouts.KeepAlive != 0) {
			t.Errorf("time-outs %+v", s.Timeouts)
		}
	}
	r.refused("setService web unacked=10ms", "is not between 1s and 24h, nor 0")
	r.refused("addListen web 192.0.2.77:0", "192.0.2.77")
	if runtime.GOOS == "linux" {
		r.do("addListen web 192.0.2.77:0 freeBind=yes")
		r.do("addService free 192.0.2.78:0 freeBind=yes")
	}
}

// A session is explained while it is open and after its end, to users who may only read too.
func TestExplain(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	one, host := r.dial()
	_, list := r.sessions("show sessions")
	id := list[0].ID
	ask := func() (string, *explain.Session) {
		t.Helper()
		results, err := r.a.Run(t.Context(), guest, "explain 0x"+strings.ToUpper(id))
		if err != nil {
			t.Fatal(err)
		}
		return results[0].Text, results[0].Data.(*explain.Session)
	}
	text, s := ask()
	if s.ID != id || s.Host != host || s.Group != "main" || s.Client != one.LocalAddr().String() || s.Stage != "connected" || s.In != 4 || s.Out != 2 {
		t.Errorf("%+v", s)
	}
	r.contains(text, "session "+id+" of service web, host "+host)
	r.contains(text, "Now: it is connected")
	if got := r.a.Complete("explain "); len(got) != 1 || got[0] != id {
		t.Errorf("completed to %q", got)
	}
	r.do("shutdownSession " + id)
	one.expectGone(t)
	text, s = ask()
	if s.Stage != "ended" || s.Termination != "KD" || s.First != "txlb" || s.Group != "main" {
		t.Errorf("%+v", s)
	}
	r.contains(text, "KD: the session was ended by an operator")
	if text, list := r.sessions("show sessions --ended"); len(list) != 1 || list[0].ID != id || list[0].Termination != "KD" || list[0].Client != s.Client || list[0].Ended == nil || !strings.HasPrefix(text, "id ") {
		t.Errorf("%+v\n%s", list, text)
	}
	for line, want := range map[string]int{"web": 1, "web main " + host: 1, "web spare": 0, "mail": 0} {
		if _, list := r.sessions("show sessions " + line + " --ended"); len(list) != want {
			t.Errorf("%s: %+v", line, list)
		}
	}
	if got := r.a.Complete("shutdownSession "); len(got) != 0 {
		t.Errorf("completed to %q", got)
	}
	if got := r.a.Complete("explain " + id[:3]); len(got) != 1 || got[0] != id {
		t.Errorf("completed to %q", got)
	}
	r.refused("explain 77", "session 77 is not open and not among the last that have ended")
	r.refused("explain x", "not a session ID")
}
