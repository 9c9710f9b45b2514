package director

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/testkit"
)

// sourceOf asks the servers of the test, and nobody else.
func sourceOf(all ...*dnsServer) *source {
	dns := &config.DNS{}
	for _, s := range all {
		dns.Servers = append(dns.Servers, s.addr)
	}
	return newSource(dns, nil)
}

func TestServersAreAskedInTurn(t *testing.T) {
	first, second := startDNS(t), startDNS(t)
	s := sourceOf(first, second)
	first.period = 1500 * time.Millisecond
	for _, server := range []*dnsServer{first, second} {
		server.resolves("cut.test.", "10.0.0.3")
		server.answers("cut.test.", cut)
		server.resolves("both.test.", "2001:db8::1", "10.0.0.5", "10.0.0.4")
		server.resolves("six.test.", "2001:db8::6")
		server.resolves("silent.test.", "10.0.0.9")
		server.answers("silent.test.", silently)
		server.resolves("lame.test.", "10.0.0.9")
		server.answers("lame.test.", fails)
		server.resolves("half.test.", "10.0.0.9", "2001:db8::9")
		server.answers("TypeA half.test.", fails)
		server.resolves("strange.test.", "10.0.0.7")
		server.answers("strange.test.", strangely)
	}
	second.resolves("gone.test.", "10.0.0.9")
	for _, name := range []string{"lost.test.", "failed.test.", "refused.test.", "odd.test."} {
		first.resolves(name, "10.0.0.8")
		second.resolves(name, "10.0.0.2")
	}
	first.answers("lost.test.", silently)
	first.answers("failed.test.", fails)
	first.answers("refused.test.", refuses)
	first.answers("odd.test.", rubbish)
	first.resolves("slow.test.", "10.0.0.1")
	first.answers("slow.test.", slowly)
	second.answers("slow.test.", fails)
	first.resolves("well.test.", "10.0.0.1")
	second.resolves("well.test.", "10.0.0.2")

	for _, test := range []struct {
		name, want string // addresses, or the end of the error
		second     bool   // whether the second server has to be asked
		atLeast    time.Duration
		atMost     time.Duration
	}{
		{"well.test.", "10.0.0.1", false, 0, firstWait},
		{"lost.test.", "10.0.0.2", true, firstWait, 2 * firstWait},
		{"failed.test.", "10.0.0.2", true, 0, firstWait},
		{"refused.test.", "10.0.0.2", true, 0, firstWait},
		{"odd.test.", "10.0.0.2", true, firstWait, 2 * firstWait},
		{"gone.test.", "no such host", false, 0, firstWait},
		{"cut.test.", "10.0.0.3", false, 0, firstWait},
		{"both.test.", "10.0.0.4 10.0.0.5", false, 0, firstWait},
		{"six.test.", "2001:db8::6", false, 0, firstWait},
		{"strange.test.", "10.0.0.7", false, 0, firstWait},
		{"lame.test.", "lookup lame.test. on " + second.addr + ": server misbehaving", true, 0, firstWait},
		// Where IPv4 cannot be told, the sessions do not go to IPv6.
		{"half.test.", "lookup half.test. on " + second.addr + ": server misbehaving", true, 0, firstWait},
		// The first server has more time in the second round.
		{"slow.test.", "10.0.0.1", true, firstWait + 1500*time.Millisecond, lookupTimeout},
		{"silent.test.", "lookup silent.test. on " + second.addr + ": no answer in time", true, lookupTimeout - 10*time.Millisecond, lookupTimeout + time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.atLeast > firstWait {
				testkit.Long(t)
			}
			t.Parallel()
			clock := testkit.NewClock(t)
			testkit.BestOf(t, 5, func() error { // an answer can come too late on a busy machine
				one, two := first.questions(test.name), second.questions(test.name)
				begun, ran := time.Now(), clock.Now()
				ends, err := s.look(t.Context(), test.name, nil)
				took, ran := time.Since(begun), clock.Since(ran)
				one, two = first.questions(test.name)-one, second.questions(test.name)-two
				var got []string
				for _, e := range ends {
					got = append(got, e.ip.String())
				}
				if err != nil {
					got = append(got, err.Error())
				}
				text := strings.Join(got, " ")
				if !strings.HasSuffix(text, test.want) || text == "" || took < test.atLeast || ran > test.atMost || one == 0 || two > 0 != test.second {
					return fmt.Errorf("%s\nwant %s; took %v, want %v to %v; %d questions to the first server, %d to the second",
						text, test.want, took, test.atLeast, test.atMost, one, two)
				}
				return nil
			})
		})
	}
}

// A large answer comes over TCP, whole.
func TestTruncatedAnswerComesOverTCP(t *testing.T) {
	server := startDNS(t)
	var addrs []string
	for i := range 200 {
		addrs = append(addrs, fmt.Sprintf("10.0.1.%d", i))
	}
	server.resolves("large.test.", addrs...)
	server.answers("large.test.", cut)
	ends, err := sourceOf(server).look(t.Context(), "large.test.", nil)
	if err != nil || len(ends) != len(addrs) {
		t.Errorf("%d addresses: %v", len(ends), err)
	}
	if server.byTCP == 0 {
		t.Error("nothing was asked over TCP")
	}
}

func TestSRVFromServers(t *testing.T) {
	server := startDNS(t)
	name := func(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }
	server.srv["_pg._tcp.test."] = []dnsmessage.SRVResource{
		{Priority: 2, Weight: 5, Port: 5432, Target: name("b.test.")},
		{Priority: 1, Weight: 7, Port: 5433, Target: name("a.test.")},
		{Priority: 1, Weight: 9, Port: 5434, Target: name("gone.test.")},
	}
	server.resolves("a.test.", "10.0.0.1", "10.0.0.2")
	server.resolves("b.test.", "2001:db8::1")
	s := sourceOf(server)
	want := []endpoint{
		{netip.MustParseAddr("10.0.0.1"), "a.test.", 5433, 1, 7},
		{netip.MustParseAddr("10.0.0.2"), "a.test.", 5433, 1, 7},
		{netip.MustParseAddr("2001:db8::1"), "b.test.", 5432, 2, 5},
	}
	ends, err := s.look(t.Context(), "_pg._tcp.test.", nil)
	if !slices.Equal(ends, want) || err == nil || err.Error() != "_pg._tcp.test.: lookup gone.test. on "+server.addr+": no such host" {
		t.Errorf("%v, %v", ends, err)
	}
	// What is known of the host that does not resolve stays, with the record's
	// new weight.
	before := append(ends, endpoint{netip.MustParseAddr("10.0.0.9"), "gone.test.", 5434, 1, 1})
	ends, err = s.look(t.Context(), "_pg._tcp.test.", before)
	if len(ends) != 4 || ends[2] != (endpoint{netip.MustParseAddr("10.0.0.9"), "gone.test.", 5434, 1, 9}) || err == nil {
		t.Errorf("%v, %v", ends, err)
	}
	server.answers("_pg._tcp.test.", fails)
	if ends, err = s.look(t.Context(), "_pg._tcp.test.", before); ends != nil || err == nil || denied(err) {
		t.Errorf("%v, %v", ends, err)
	}
	if ends, err = s.look(t.Context(), "_none._tcp.test.", nil); ends != nil || !denied(err) {
		t.Errorf("%v, %v", ends, err)
	}
}

// A look-up that is given up ends at once, with all that it began.
func TestLookupGivenUp(t *testing.T) {
	server := startDNS(t)
	server.answers("silent.test.", silently)
	testkit.BestOf(t, 5, func() error { return giveUp(t, server) }) // a busy machine takes longer
}

func giveUp(t *testing.T, server *dnsServer) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan struct{})
	before := server.questions("silent.test.")
	go func() {
		for server.questions("silent.test.") == before {
			time.Sleep(time.Millisecond) // between two looks
		}
		cancel()
		close(asked)
	}()
	clock := testkit.NewClock(t)
	if _, err := sourceOf(server).look(ctx, "silent.test.", nil); err == nil {
		t.Error("no error")
	}
	<-asked
	if took := clock.Now(); took > firstWait/2 {
		return fmt.Errorf("took %v", took)
	}
	return nil
}

// await waits until something holds that comes by itself.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	testkit.Eventually(t, what, holds)
}

// backend answers each connection with its name, and then sends back what
// comes.
func backend(t *testing.T, name, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("no second address of loopback: %v", err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(2 * testkit.Patience))
				if _, err := io.WriteString(c, name); err == nil {
					// Without ReadFrom, which would splice through pipes that
					// stay open for later.
					_, _ = io.Copy(struct{ io.Writer }{c}, c)
				}
			}()
		}
	}()
	return ln
}

// balance runs a configuration, whole, until the test ends.
func balance(t *testing.T, doc string) (d *Director, client string, log *testkit.Log) {
	t.Helper()
	cfg, problems := config.Parse("c.xml", []byte(doc))
	if cfg == nil {
		t.Fatal(problems)
	}
	log = &testkit.Log{}
	eng, err := native.New(engine.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = eng.Close() })
	d, err = New(cfg, eng, Options{Log: log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return d, eng.Listeners()[0].Addr, log
}

// connect opens a session and returns the name of the backend that has it.
func connect(t *testing.T, addr string) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * testkit.Patience))
	name := make([]byte, 1)
	if _, err := io.ReadFull(c, name); err != nil {
		t.Fatal(err)
	}
	return c, string(name)
}

// A changed address moves new sessions and no other: one that runs goes on with
// every byte, and its target is forgotten when it ends.
func TestChangedAddressMovesNewSessionsOnly(t *testing.T) {
	testkit.Long(t)
	one := backend(t, "1", testkit.Nobody(t)) // a port that nobody gets at the second address either
	port := one.Addr().(*net.TCPAddr).Port
	backend(t, "2", fmt.Sprintf("127.0.0.2:%d", port))
	server := startDNS(t)
	server.resolves("web.test.", "127.0.0.1")
	d, addr, log := balance(t, fmt.Sprintf(`<config><dns servers="%s"/>
		<service name="web"><listen ip="127.0.0.1:0"/><group name="g">
			<host name="a" ip="web.test.:%d" resolve="1s"/></group></service></config>`, server.addr, port))

	old, name := connect(t, addr)
	if name != "1" {
		t.Fatalf("the first session is on %s", name)
	}
	// Bytes run through it from before the change until after it.
	const size = 8 << 20
	sent := make([]byte, size)
	chacha := rand.NewChaCha8([32]byte{49})
	_, _ = chacha.Read(sent)
	changed := make(chan struct{})
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(old, bytes.NewReader(sent[:size/2]))
		<-changed
		if err == nil {
			_, err = io.Copy(old, bytes.NewReader(sent[size/2:]))
		}
		_ = old.(*net.TCPConn).CloseWrite()
		written <- err
	}()
	sum := sha256.New()
	if _, err := io.CopyN(sum, old, size/4); err != nil {
		t.Fatal(err)
	}
	target := only(d, 0).Targets[0]

	server.resolves("web.test.", "127.0.0.2")
	await(t, "the address changes", func() bool { return only(d, 0).Targets[0].key.addr.IP().Addr().String() == "127.0.0.2" })
	for range 10 {
		if _, name := connect(t, addr); name != "2" {
			t.Errorf("a new session is on %s", name)
		}
	}
	if h := only(d, 0); len(h.Leaving()) != 1 || h.Leaving()[0] != target || target.Host.Stats().Active != 1 {
		t.Errorf("%d targets leave with %d sessions", len(h.Leaving()), target.Host.Stats().Active)
	}
	// B49 on the way: the servers fail, and nothing moves.
	server.answers("web.test.", fails)
	await(t, "the problem shows", func() bool { return strings.Contains(only(d, 0).Problem, "server misbehaving") })
	if _, name := connect(t, addr); name != "2" {
		t.Errorf("a new session is on %s", name)
	}
	close(changed)
	if _, err := io.Copy(sum, old); err != nil {
		t.Error(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if want := sha256.Sum256(sent); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("bytes of the session were lost or changed")
	}
	await(t, "the old target is forgotten", func() bool { return len(only(d, 0).Leaving()) == 0 })
	if n := target.Host.Stats(); n.Picks != 1 || n.In != size {
		t.Errorf("the old target counts %+v", n)
	}
	server.answers("web.test.", well)
	await(t, "the problem is over", func() bool { return only(d, 0).Problem == "" })
	if s := log.String(); strings.Count(s, "keeping its last addresses") != 1 || strings.Count(s, "name resolves again") != 1 || strings.Count(s, "name resolved") != 1 {
		t.Errorf("log:\n%s", s)
	}
}

// A change of <dns servers> asks the new ones, at once, for all names.
func TestServersChange(t *testing.T) {
	first, second := startDNS(t), startDNS(t)
	first.resolves("a.test.", "127.0.0.1")
	second.resolves("a.test.", "127.0.0.9")
	second.resolves("b.test.", "127.0.0.8")
	d, _, _ := balance(t, fmt.Sprintf(`<config><dns servers="%s"/>
		<service name="web"><listen ip="127.0.0.1:0"/><group name="g">
			<host name="a" ip="a.test.:80" resolve="1h"/></group></service></config>`, first.addr))
	if got := shown(only(d, 0)); got != "127.0.0.1:80*1" {
		t.Fatalf("targets %s", got)
	}
	if _, err := d.Do(t.Context(), Change{Apply: func(c *config.Config) error {
		c.DNS.Servers[0] = second.addr
		g := c.Services[0].Groups[0]
		g.Hosts = append(g.Hosts, config.NewHost("b", "b.test.:80"))
		return nil
	}}); err != nil {
		t.Fatal(err)
	}
	if got := shown(only(d, 1)); got != "127.0.0.8:80*1" || first.questions("b.test.") != 0 {
		t.Errorf("targets %s, %d questions to the server of before", got, first.questions("b.test."))
	}
	await(t, "the name has the address of the new server", func() bool { return shown(only(d, 0)) == "127.0.0.9:80*1" })
}
