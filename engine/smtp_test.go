package engine_test

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// What the engine says to clients of SMTP.
const (
	smtpBanner = "220 txlb ESMTP\r\n"
	smtpEHLO   = "250-txlb\r\n250 STARTTLS\r\n"
	smtpOK     = "250 2.0.0 Ok\r\n"
	smtpFirst  = "530 5.7.0 Must issue a STARTTLS command first\r\n"
	smtpReady  = "220 2.0.0 Ready to start TLS\r\n"
)

// smtpServer is a backend that says three replies, in pieces of so many bytes, and then a
// word and all that it is sent.
func smtpServer(t *testing.T, word string, piece int, banner, hello, ready string) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		say := func(reply string) {
			for len(reply) > 0 {
				n := min(piece, len(reply))
				p.Send([]byte(reply[:n]))
				reply = reply[n:]
			}
		}
		say(banner)
		// A host that is not as it should be is left at once.
		if !hears(p, "EHLO txlb\r\n") {
			return
		}
		say(hello)
		if !hears(p, "STARTTLS\r\n") {
			return
		}
		say(ready)
		b := make([]byte, 1)
		if n, _ := p.Read(b); n == 0 {
			return
		}
		p.Send([]byte(word + string(b)))
		enginetest.Echo(p)
	})
}

// hears tells whether the peer says a word.
func hears(p *enginetest.Peer, word string) bool {
	b := make([]byte, len(word))
	_, err := io.ReadFull(p, b)
	return err == nil && string(b) == word
}

// The replies of hosts that have TLS.
const (
	hostBanner = "220-mail.example ESMTP\r\n220-No unsolicited mail.\r\n220 \r\n"
	hostHello  = "250-mail.example\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 HELP\r\n"
	hostReady  = "220 go\r\n"
)

// serveSMTP makes a rig whose group for db.example has the backends.
func serveSMTP(t *testing.T, r *enginetest.Rig, hello time.Duration, backends ...sched.Addr) {
	route := named(r, hello, backends[0])
	route.Groups[1] = r.Table(sched.Policy{Scheduler: "roundr"}, backends...)
	listen := []string{"127.0.0.1:0"}
	r.Apply(engine.Service{Name: "web", Listen: listen, Route: route, ListenOptions: map[string]engine.ListenOptions{listen[0]: {StartTLS: engine.StartTLSSMTP}}})
}

// Where clients ask for TLS in the words of SMTP, the engine is their server until they
// do, and asks the host of the name in their hello in the same words.
func TestB85StartTLSSMTP(t *testing.T) {
	hello := string(testkit.ClientHello(t, &tls.Config{ServerName: "db.example"}))
	other := string(testkit.ClientHello(t, &tls.Config{ServerName: "other.example"}))
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, piece := range []int{1, 1000} {
			r := newRig(t, opt, engine.Route{}, smtpServer(t, "main", piece, "220 x\n", "250 STARTTLS\n", "220\n"))
			serveSMTP(t, r, testkit.Patience, smtpServer(t, "db", piece, hostBanner, hostHello, hostReady))
			for what, dialogue := range map[string][]string{ // what the client is told and says in turn
				"TLS":         {smtpBanner, "EHLO a\r\n", smtpEHLO, "STARTTLS\r\n", smtpReady, hello, "db" + hello},
				"at once":     {smtpBanner, "STARTTLS\r\n", smtpReady, hello, "db" + hello},
				"each way":    {smtpBanner, "helo a\r\n", "250 txlb\r\n", "NOOP\r\n", smtpOK, "rset\r\n", smtpOK, "starttls\n", smtpReady, hello, "db" + hello},
				"others":      {smtpBanner, "MAIL FROM:<a>\r\n", smtpFirst, "STARTTLS a\r\n", "501 5.5.4 STARTTLS takes no parameters\r\n", "\r\n", smtpFirst, "STARTTLS\r\n", smtpReady, hello, "db" + hello},
				"pipelined":   {smtpBanner, "EHLO a\r\nNOOP\r\nSTARTTLS\r\n", smtpEHLO + smtpOK + smtpReady, hello, "db" + hello},
				"other name":  {smtpBanner, "EHLO a\r\n", smtpEHLO, "STARTTLS\r\n", smtpReady, other, "main" + other},
				"before that": {"", "EHLO a\r\n", smtpBanner + smtpEHLO, "STARTTLS\r\n", smtpReady, hello, "db" + hello},
			} {
				for _, size := range []int{1, 1000} {
					p := r.Dial()
					for i, word := range dialogue {
						if i%2 == 0 {
							p.Expect([]byte(word))
							continue
						}
						for ; len(word) > 0; word = word[min(size, len(word)):] {
							p.Send([]byte(word[:min(size, len(word))]))
						}
					}
					p.Fin()
					p.ExpectEOF()
					if t.Failed() {
						t.Fatalf("%s, %d bytes at once", what, size)
					}
				}
			}
			r.Quiet()
			if s := r.Stats(); s.Sessions != 14 || s.Ended["--"] != 14 || s.In == 0 {
				t.Errorf("counted: %+v", s)
			}
		}
	})
}

// A client that does not ask for TLS as it should is rejected with a word, and nothing
// that it says in plain comes to a host.
func TestB85ClientWithoutSTARTTLS(t *testing.T) {
	hello := string(testkit.ClientHello(t, &tls.Config{ServerName: "db.example"}))
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		backend := enginetest.BackendServer(t, func(*enginetest.Peer) { t.Error("a host is asked") })
		r := newRig(t, opt, engine.Route{}, backend)
		serveSMTP(t, r, testkit.Patience, backend)
		const behind, late = "503 5.5.1 Nothing may follow STARTTLS before its reply\r\n", "421 4.4.2 No STARTTLS in time\r\n"
		n := uint64(0)
		for _, c := range []struct{ says, want string }{
			{"QUIT\r\n", "221 2.0.0 Bye\r\n"},
			{"EHLO a\r\nQUIT\r\n", smtpEHLO + "221 2.0.0 Bye\r\n"},
			{"STARTTLS\r\nEHLO a\r\n", behind},
			{"STARTTLS\r\n\n", behind},
			{"EHLO a\r\nSTARTTLS\r\nMAIL FROM:<a>\r\n", smtpEHLO + behind},
			{"STARTTLS\r\n" + hello, behind},
			{strings.Repeat("NOOP\r\n", 11), strings.Repeat(smtpOK, 10) + "421 4.7.0 Too many commands before STARTTLS\r\n"},
			{"EHLO " + strings.Repeat("a", 507), "500 5.5.2 Line too long\r\n"},
		} {
			p := r.Dial()
			p.Expect([]byte(smtpBanner))
			p.Send([]byte(c.says))
			p.Expect([]byte(c.want))
			p.ExpectEOF()
			n++
			if t.Failed() {
				t.Fatalf("%q", c.says)
			}
		}
		for _, says := range []string{"", "EHLO"} { // and ends
			p := r.Dial()
			p.Send([]byte(says))
			p.Expect([]byte(smtpBanner))
			p.Fin()
			p.ExpectEOF()
			n++
		}
		// What comes behind the reply has to be TLS.
		p := r.Dial()
		p.Send([]byte("STARTTLS\r\n"))
		p.Expect([]byte(smtpBanner + smtpReady))
		p.Send([]byte("EHLO a\r\n"))
		p.ExpectEOF()
		n++
		r.Quiet()
		if s := r.Stats(); s.Refused["starttls_client"] != n || s.Ended["PR"] != n {
			t.Errorf("counted: %+v; want %d", s, n)
		}
		serveSMTP(t, r, 10*time.Millisecond, backend)
		p = r.Dial()
		p.Expect([]byte(smtpBanner + late))
		p.ExpectEOF()
	})
}

// A host that does not say that it has TLS, or says more, resets the client. One that ends
// before is left for another.
func TestB85SMTPHostWithoutTLS(t *testing.T) {
	hello := testkit.ClientHello(t, &tls.Config{ServerName: "db.example"})
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		dial := func() *enginetest.Peer {
			p := r.Dial()
			p.Expect([]byte(smtpBanner))
			p.Send([]byte("STARTTLS\r\n"))
			p.Expect([]byte(smtpReady))
			p.Send(hello)
			return p
		}
		for i, says := range [][3]string{
			{"554 no\r\n"},
			{"220-a\r\n554 no\r\n"},
			{"220 a\r\n250 too early\r\n"},
			{"SSH-2.0-x\r\n"},
			{"220 " + strings.Repeat("a", 600) + "\r\n"},
			{strings.Repeat("220-aaaaaaaaaa\r\n", 300)},
			{hostBanner, "502 no\r\n"},
			{hostBanner, "250-mail\r\n250 XSTARTTLS\r\n"},
			{hostBanner, "250-mail\r\n250 SIZE\r\n"},
			{hostBanner, hostHello, "454 not now\r\n"},
			{hostBanner, hostHello, "220 go\r\n250 injected\r\n"},
		} {
			serveSMTP(t, r, testkit.Patience, smtpServer(t, "db", 10_000, says[0], says[1], says[2]))
			dial().ExpectGone()
			testkit.Eventually(t, "it is counted", func() bool { return r.Stats().Refused["starttls"] == uint64(i+1) })
			if t.Failed() {
				t.Fatalf("%q", says)
			}
		}
		for _, until := range []string{"", "220 a", "220-a\r\n"} {
			gone := enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Send([]byte(until)) })
			serveSMTP(t, r, testkit.Patience, gone, smtpServer(t, "db", 1000, hostBanner, hostHello, hostReady))
			goesOn(t, r, hello, dial)
		}
	})
}

// The PROXY header comes before the host's greeting. Behind a header of the client's the
// engine greets.
func TestB85SMTPAndPROXYHeaders(t *testing.T) {
	hello := testkit.ClientHello(t, &tls.Config{ServerName: "db.example"})
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mirror(t, "main"))
		backend := enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Expect([]byte(header))
			p.Send([]byte(hostBanner))
			p.Expect([]byte("EHLO txlb\r\n"))
			p.Send([]byte(hostHello))
			p.Expect([]byte("STARTTLS\r\n"))
			p.Send([]byte(hostReady))
			enginetest.Echo(p)
		})
		route := named(r, testkit.Patience, backend)
		host := sched.NewHost("proxied", backend)
		host.SetProxyProtocol(1)
		table, err := sched.NewTable(sched.Policy{Scheduler: "roundr"}, []sched.Member{{Host: host, Weight: 1}})
		if err != nil {
			t.Fatal(err)
		}
		route.Groups[1] = table
		listen := []string{"127.0.0.1:0"}
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: route, ListenOptions: map[string]engine.ListenOptions{
			listen[0]: {StartTLS: engine.StartTLSSMTP, Proxy: engine.ProxyRequire},
		}})
		for _, say := range []string{"", "EHLO a\r\n"} { // with the header
			p := r.Dial()
			p.Send([]byte(header + say))
			p.Expect([]byte(smtpBanner))
			if say != "" {
				p.Expect([]byte(smtpEHLO))
			}
			p.Send([]byte("STARTTLS\r\n"))
			p.Expect([]byte(smtpReady))
			p.Send(hello)
			p.Expect(hello)
			p.Fin()
			p.ExpectEOF()
		}
		r.Quiet()
	})
}

// Without a route that wants to know the name, hosts greet their clients themselves.
func TestB85SMTPWithoutARoute(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, says(t, hostBanner))
		listen := []string{"127.0.0.1:0"}
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{listen[0]: {StartTLS: engine.StartTLSSMTP}}})
		if got := heard(t, "127.0.0.1", r.Addr); got != hostBanner {
			t.Errorf("%q", got)
		}
	})
}
