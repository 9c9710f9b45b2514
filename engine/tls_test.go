package engine_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// placement is on which sides a session has TLS, and of which version; 0: none.
type placement struct{ client, host uint16 }

func (p placement) String() string {
	name := func(version uint16) string {
		if version == 0 {
			return "plain"
		}
		return strings.ReplaceAll(tls.VersionName(version), " ", "")
	}
	return name(p.client) + "-" + name(p.host)
}

// placements are those that tests try.
var placements = []placement{{tls.VersionTLS13, 0}, {0, tls.VersionTLS12}, {tls.VersionTLS12, tls.VersionTLS13}}

// eachPlacement runs a test with TLS on either side and on both, in a mode of each engine.
func eachPlacement(t *testing.T, test func(t *testing.T, opt setup, p placement)) {
	for name, opt := range tlsModes {
		for _, p := range placements {
			t.Run(name+" "+p.String(), func(t *testing.T) {
				t.Parallel()
				test(t, opt, p)
			})
		}
	}
}

// tlsModes yields a mode of each engine: the modes of the loops differ in what TLS does
// not use.
func tlsModes(yield func(name string, opt setup) bool) {
	for name, opt := range modesToTest {
		if (name == "portable" || name == "auto") && !yield(name, opt) {
			return
		}
	}
}

// rig starts an engine with a backend, and returns how clients connect to it.
func (p placement) rig(t *testing.T, opt setup, route engine.Route, backend func(*enginetest.Peer)) (r *enginetest.Rig, dial func() *enginetest.Peer) {
	t.Helper()
	front, back := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "back.test")
	serve := backend
	if p.host != 0 {
		config := of(back.Server(), p.host)
		serve = func(peer *enginetest.Peer) { backend(peer.Secure(config, false).Shake()) }
		route.Goroutines = true
	}
	var options map[string]engine.ListenOptions
	if p.client != 0 {
		options = map[string]engine.ListenOptions{"127.0.0.1:0": {TLS: of(front.Server(), p.client)}}
	}
	e, err := opt.start(opt.Options)
	if err != nil {
		t.Fatal(err)
	}
	r = enginetest.StartWith(t, e, route, options, enginetest.BackendServer(t, serve))
	if p.host != 0 {
		r.Hosts[0].SetTLS(of(back.Client(), p.host))
	}
	dial = r.Dial
	if p.client != 0 {
		config := of(front.Client(), p.client)
		dial = func() *enginetest.Peer { return r.Dial().Secure(config, true).Shake() }
	}
	return r, dial
}

// of is a configuration of one version.
func of(c *tls.Config, version uint16) *tls.Config {
	c.MinVersion, c.MaxVersion = version, version
	return c
}

// Streams with TLS end as all others do.
func TestB94StreamsOverTLS(t *testing.T) {
	testkit.Long(t)
	half := enginetest.TestTimeouts
	half.HalfClosed = 300 * time.Millisecond
	halfClosed := []scene{
		{name: "the backend stays silent", client: "send 1 | fin | reset | tell done", backend: "expect 1 | eof | wait done", route: engine.Route{Timeouts: half}, ended: "sD"},
		{name: "the client stays silent", client: "expect 1 | eof | wait done", backend: "send 1 | fin | reset | tell done", route: engine.Route{Timeouts: half}, ended: "cD"},
	}
	bothWays := []scene{{client: "[send 64M, fin] | expect 64M | eof", backend: "[send 64M, fin] | expect 64M | eof"}}
	bulk := strings.NewReplacer("64M", "20M", "50M", "20M") // which is more than all buffers hold
	less := strings.NewReplacer("64M", "8M", "50M", "20M")
	nothing := []scene{
		{name: "the client ends", client: "fin | eof", backend: "eof"},
		{name: "the backend ends", client: "eof", backend: "fin | eof"},
	}
	groups := map[string][]scene{
		"B03": clientEndsFirst, "B04": backendEndsFirst, "B05": backendCloses(), "B06": clientCloses(), "B07B08": stalledReaders,
		"B11": bothWays, "B13": halfClosed, "B17": dataBeforeResets(), "B18": backendResets, "B19": clientResets, "nothing": nothing,
	}
	for name, scenes := range groups {
		t.Run(name, func(t *testing.T) {
			eachPlacement(t, func(t *testing.T, opt setup, p placement) {
				for _, sc := range scenes {
					sc.tls = p
					size := bulk // both sides carry the most
					if p.client == 0 || p.host == 0 {
						size = less
					}
					sc.client, sc.backend = size.Replace(sc.client), size.Replace(sc.backend)
					t.Run(sc.name, func(t *testing.T) { sc.play(t, opt) })
				}
			})
		})
	}
}

// Pieces of every size, and none, come through, one after the other and at once.
func TestB94PiecesOverTLS(t *testing.T) {
	eachPlacement(t, func(t *testing.T, opt setup, p placement) {
		r, dial := p.rig(t, opt, engine.Route{}, enginetest.Echo)
		c := dial()
		sum, want := sha256.New(), sha256.New()
		for i, n := range []int{0, 1, 0, 2, 1199, 1200, 16383, 16384, 16385, 65535, 65536, 65537, 300_000, 0, 7} {
			b := enginetest.Payload(n, uint64(i))
			want.Write(b)
			var wg sync.WaitGroup
			wg.Go(func() { c.Send(b) })
			got := make([]byte, n)
			if _, err := io.ReadFull(c, got); err != nil {
				t.Error(err)
			}
			sum.Write(got)
			wg.Wait()
		}
		if !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
			t.Error("other bytes came")
		}
		if _, err := c.Write(nil); err != nil {
			t.Error(err)
		}
		c.Fin()
		c.ExpectEOF()
		r.Quiet()
		s := r.Stats()
		if p.client != 0 != (s.TLS.Full == 1) || p.host != 0 != (s.TLS.HostFull == 1) || s.Ended["--"] != 1 || s.In != s.Out {
			t.Errorf("counted: %+v", s)
		}
	})
}

// A stream that breaks off in the middle of a record is no stream that has ended.
func TestB94TruncatedStreamIsAReset(t *testing.T) {
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			for _, whole := range []bool{false, true} {
				p := placement{client: tls.VersionTLS13}
				saw := make(chan error, 1)
				r, dial := p.rig(t, opt, engine.Route{}, func(p *enginetest.Peer) {
					p.Expect([]byte("hello"))
					p.Send([]byte("!"))
					_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
					_, err := p.Read(make([]byte, 1))
					saw <- err
				})
				c := dial()
				c.Send([]byte("hello"))
				c.Expect([]byte("!"))
				tcp := c.Conn.(*enginetest.OverTLS).TCP
				if !whole { // a header, and one byte of the record
					if _, err := tcp.Write([]byte{23, 3, 3, 0, 100, 1}); err != nil {
						t.Fatal(err)
					}
				}
				if err := tcp.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				want, ended := io.EOF, "--"
				if !whole {
					want, ended = nil, "CD"
				}
				switch err := <-saw; {
				case whole && err != want:
					t.Errorf("the backend sees %v", err)
				case !whole && (err == nil || err == io.EOF):
					t.Errorf("the backend sees %v", err)
				}
				_ = c.Close()
				r.Quiet()
				if s := r.Stats(); s.Ended[ended] != 1 {
					t.Errorf("whole: %v; the session ended with %v, want %s", whole, s.Ended, ended)
				}
			}
			// The same of a host.
			p := placement{host: tls.VersionTLS12}
			r, dial := p.rig(t, opt, engine.Route{}, func(p *enginetest.Peer) {
				p.Send([]byte("hello"))
				p.Expect([]byte("!"))
				tcp := p.Conn.(*enginetest.OverTLS).TCP
				_, _ = tcp.Write([]byte{23, 3, 3, 0})
				_ = tcp.CloseWrite()
				_, _ = io.Copy(io.Discard, tcp)
			})
			c := dial()
			c.Expect([]byte("hello"))
			c.Send([]byte("!"))
			c.ExpectReset()
			r.Quiet()
			if s := r.Stats(); s.Ended["SD"] != 1 {
				t.Errorf("the session ended with %v", s.Ended)
			}
		})
	}
}

// A session that is cut with nothing on the way ends its TLS, and one that is cut in the
// middle of a record is reset. What keeps a session alive is bytes of the application.
func TestB94CutSessionsOverTLS(t *testing.T) {
	eachPlacement(t, func(t *testing.T, opt setup, p placement) {
		r, dial := p.rig(t, opt, engine.Route{}, enginetest.Echo)
		c := dial()
		settles(r, c)
		if n := r.E.EndSessions(engine.ByOperator, all); n != 1 {
			t.Errorf("%d sessions ended", n)
		}
		c.ExpectEOF() // which TLS has announced
		r.Quiet()
		if p.client == 0 {
			return
		}
		ended := make(chan error, 1)
		r, dial = p.rig(t, opt, engine.Route{}, func(p *enginetest.Peer) {
			p.Expect([]byte("x"))
			p.Send([]byte("x"))
			_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
			_, err := p.Read(make([]byte, 1))
			ended <- err
		})
		c = dial()
		settles(r, c)
		if _, err := c.Conn.(*enginetest.OverTLS).TCP.Write([]byte{23, 3, 3, 1, 0, 7, 7}); err != nil {
			t.Fatal(err)
		}
		// When it is read is not known; unread in the kernel it counts as well.
		r.E.EndSessions(engine.ByOperator, all)
		if err := <-ended; err == nil || err == io.EOF {
			t.Errorf("the backend sees %v", err)
		}
		r.Quiet()
	})
}

// What comes under TLS without a byte of the application does not keep a session alive.
func TestB94RecordsAreNoBytes(t *testing.T) {
	times := enginetest.TestTimeouts
	times.Idle = 300 * time.Millisecond
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, dial := placement{client: tls.VersionTLS13}.rig(t, opt, engine.Route{Timeouts: times}, enginetest.Echo)
			c := dial()
			settles(r, c)
			tcp := c.Conn.(*enginetest.OverTLS).TCP
			// Half a record, byte by byte, for as long as the session lives.
			if _, err := tcp.Write([]byte{23, 3, 3, 64, 0}); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				c.ExpectGone()
			}()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-tick.C:
					_, _ = tcp.Write([]byte{1})
					continue
				case <-ended:
				}
				break
			}
			r.Quiet()
			if s := r.Stats(); s.Ended["cD"] != 1 {
				t.Errorf("the session ended with %v", s.Ended)
			}
		})
	}
}

// frontOf starts an engine whose listener has a TLS configuration.
func frontOf(t *testing.T, opt setup, route engine.Route, o engine.ListenOptions, backends ...sched.Addr) *enginetest.Rig {
	t.Helper()
	e, err := opt.start(opt.Options)
	if err != nil {
		t.Fatal(err)
	}
	return enginetest.StartWith(t, e, route, map[string]engine.ListenOptions{"127.0.0.1:0": o}, backends...)
}

// A client whose handshake fails is rejected with a reason, and reaches no host.
func TestB95ClientsWithoutAHandshake(t *testing.T) {
	front, stranger := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "stranger.test")
	hello := testkit.ClientHello(t, front.Client())
	trusting := front.Client()
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			times := enginetest.TestTimeouts
			times.Hello = testkit.Patience
			backend := enginetest.BackendServer(t, func(*enginetest.Peer) { t.Error("a host is asked") })
			server := front.Server()
			server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, front.Pool
			r := frontOf(t, opt, engine.Route{Timeouts: times}, engine.ListenOptions{TLS: server}, backend)
			// What a client of TLS 1.3 learns comes with its first read.
			shake := func(c *tls.Config) error {
				p := r.Dial().Secure(c, true)
				_ = p.SetDeadline(time.Now().Add(testkit.Patience))
				_, err := p.Read(make([]byte, 1))
				_ = p.Close()
				return err
			}
			n := map[string]uint64{}
			rejected := func(why, how string) {
				t.Helper()
				n[why]++
				testkit.Eventually(t, why, func() bool { return r.Stats().Refused[why] == n[why] })
				r.Quiet()
				if s := r.Stats(); s.Ended[how] == 0 {
					t.Errorf("%s: ended with %v", why, s.Ended)
				}
			}
			p := r.Dial()
			p.Send([]byte("GET / HTTP/1.1\r\n\r\n"))
			_ = p.Rest() // an alert, and then the end
			rejected("tls_plain", "PR")

			p = r.Dial()
			p.Send(hello[:40])
			p.Fin()
			_ = p.Rest()
			rejected("tls_end", "CR")

			p = r.Dial()
			p.Send(hello[:40])
			p.Rst()
			rejected("tls_end", "CR")

			old := of(front.Client(), tls.VersionTLS11)
			if err := shake(old); err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("TLS 1.1: %v", err)
			}
			rejected("tls_version", "PR")

			if err := shake(trusting.Clone()); err == nil || !strings.Contains(err.Error(), "certificate required") {
				t.Errorf("without a certificate: %v", err)
			}
			rejected("tls_certificate", "PR")

			other := front.Client()
			other.Certificates = []tls.Certificate{stranger.Pair}
			// The certificate of somebody else: the client offers it all the same.
			other.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger.Pair, nil }
			if err := shake(other); err == nil {
				t.Error("the certificate of a stranger is taken")
			}
			rejected("tls_certificate", "PR")

			doubting := stranger.Client()
			if err := shake(doubting); err == nil {
				t.Error("the client trusts the certificate")
			}
			rejected("tls_alert", "PR")

			bad := bytes.Clone(hello)
			bad[5] = 99 // no hello
			p = r.Dial()
			p.Send(bad)
			_ = p.Rest()
			rejected("tls_protocol", "PR")

			if s := r.Stats(); s.TLS.Full+s.TLS.Resumed != 0 || s.In+s.Out != 0 {
				t.Errorf("counted: %+v", s)
			}
		})
	}
}

// Strangers cannot make us keep more of a handshake than one has: a client that sends a
// longer hello, or a longer certificate, is rejected before its time is up.
func TestB95LongHandshakesAreRejected(t *testing.T) {
	front := enginetest.Identify(t, "front.test")
	hello := testkit.ClientHello(t, of(front.Client(), tls.VersionTLS12))
	// message is one of a handshake, without its end.
	message := func(kind byte, size, sent int) (records []byte) {
		body := append([]byte{kind, byte(size >> 16), byte(size >> 8), byte(size)}, make([]byte, sent)...)
		for piece := range slices.Chunk(body, 16<<10) {
			records = append(records, 22, 3, 3, byte(len(piece)>>8), byte(len(piece)))
			records = append(records, piece...)
		}
		return records
	}
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			times := enginetest.TestTimeouts
			times.Hello = 0
			backend := enginetest.BackendServer(t, enginetest.Echo)
			server := front.Server()
			server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, front.Pool
			r := frontOf(t, opt, engine.Route{Timeouts: times}, engine.ListenOptions{TLS: server}, backend)
			rejected := func(n uint64) {
				t.Helper()
				testkit.Eventually(t, "rejected", func() bool { return r.Stats().Refused["tls_protocol"] == n })
				r.Quiet()
			}
			p := r.Dial()
			_, _ = p.Write(message(1, 60<<10, 40<<10)) // it may be reset before all of it is sent
			p.ExpectEnd()
			rejected(1)

			p = r.Dial()
			p.Send(hello)
			if _, err := p.Read(make([]byte, 1)); err != nil {
				t.Fatalf("no answer to the hello: %v", err)
			}
			_, _ = p.Write(message(11, 250<<10, 120<<10))
			p.ExpectEnd()
			rejected(2)

			// A chain may be long.
			long := front.Pair
			for len(long.Certificate)*len(long.Certificate[0]) < 40<<10 {
				long.Certificate = append(slices.Clip(long.Certificate), long.Certificate[0])
			}
			c := front.Client()
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &long, nil }
			p = r.Dial().Secure(c, true).Shake()
			p.Send([]byte("hello"))
			p.Expect([]byte("hello"))
			_ = p.Close()
		})
	}
}

// A handshake has its time, whether the client is silent or sends byte by byte; a new time
// holds at once. An operator ends it.
func TestB95HandshakesHaveTheirTime(t *testing.T) {
	front := enginetest.Identify(t, "front.test")
	hello := testkit.ClientHello(t, front.Client())
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			times := enginetest.TestTimeouts
			times.Hello = testkit.Patience
			options := engine.ListenOptions{TLS: front.Server()}
			r := frontOf(t, opt, engine.Route{Timeouts: times}, options, enginetest.BackendServer(t, enginetest.Echo))
			silent, slow := r.Dial(), r.Dial()
			slow.Send(hello[:1])
			testkit.Eventually(t, "both are there", func() bool { return r.Stats().Active == 2 })
			over := make(chan struct{})
			go func() {
				defer close(over)
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for _, b := range hello[1 : len(hello)-1] {
					<-tick.C
					if _, err := slow.Write([]byte{b}); err != nil {
						return
					}
				}
			}()
			soon := *r.Route
			soon.Timeouts.Hello = 100 * time.Millisecond
			r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &soon, ListenOptions: map[string]engine.ListenOptions{"127.0.0.1:0": options}})
			silent.ExpectGone()
			slow.ExpectGone()
			_ = slow.Close()
			<-over
			r.Quiet()
			if s := r.Stats(); s.Refused["tls_timeout"] != 2 || s.Ended["cR"] != 2 {
				t.Errorf("counted: %+v", s)
			}
			r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{"127.0.0.1:0": options}})
			killed := r.Dial()
			killed.Send(hello[:100])
			testkit.Eventually(t, "it is there", func() bool { return r.E.EndSessions(engine.ByOperator, all) == 1 })
			killed.ExpectGone()
			r.Quiet()
			if s := r.Stats(); s.Ended["KR"] != 1 {
				t.Errorf("ended with %v", s.Ended)
			}
		})
	}
}

// A host without the TLS that it should have is left for the next, as one that refuses the
// connection, and goes down.
func TestB95HostsWithoutAHandshake(t *testing.T) {
	testkit.Long(t)
	back, stranger := enginetest.Identify(t, "back.test"), enginetest.Identify(t, "stranger.test")
	secured := func(config *tls.Config) func(*enginetest.Peer) {
		return func(p *enginetest.Peer) {
			p = p.Secure(config, false)
			if one := make([]byte, 1); one[0] == 0 {
				_, _ = io.ReadFull(p, one) // no failure: the handshake may be none
				if one[0] == '?' {
					p.Send([]byte("right"))
				}
			}
		}
	}
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for what, bad := range map[string]func(*enginetest.Peer){
				"plain":        func(p *enginetest.Peer) { _, _ = p.Write([]byte("220 hello\r\n")); _, _ = io.Copy(io.Discard, p.Conn) },
				"ends":         func(*enginetest.Peer) {},
				"reset":        func(p *enginetest.Peer) { _, _ = p.Read(make([]byte, 1)); p.Rst() },
				"other name":   secured(stranger.Server()),
				"old":          secured(of(back.Server(), tls.VersionTLS11)),
				"not in time":  func(p *enginetest.Peer) { _, _ = io.Copy(io.Discard, p.Conn) },
				"client certs": secured(&tls.Config{Certificates: []tls.Certificate{back.Pair}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}),
			} {
				times := enginetest.TestTimeouts
				if what == "not in time" {
					times.Connect = 100 * time.Millisecond
				}
				r := frontOf(t, opt, engine.Route{Timeouts: times, Goroutines: true}, engine.ListenOptions{},
					enginetest.BackendServer(t, bad), enginetest.BackendServer(t, secured(back.Server())))
				for _, h := range r.Hosts {
					h.SetTLS(back.Client())
				}
				for end := time.Now().Add(testkit.Patience); ; { // a slow machine can make the second late, too
					p := r.Dial()
					p.Send([]byte("?"))
					got := ""
					_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
					if b, err := io.ReadAll(p); err == nil {
						got = string(b)
					}
					_ = p.Close()
					if got == "right" {
						break
					}
					if what != "not in time" || time.Now().After(end) {
						t.Fatalf("%s: the client gets %q", what, got)
					}
					r.Hosts[1].MarkUp()
				}
				r.Quiet()
				s := r.Stats()
				why := "tls"
				if what == "not in time" {
					why = "timeout"
				}
				if s.ConnectFailures[why] == 0 || s.TLS.HostFull == 0 || r.Hosts[0].Stats().Failures == 0 || r.Hosts[0].Up() {
					t.Errorf("%s: counted %+v, host %+v", what, s, r.Hosts[0].Stats())
				}
				if err := r.Reported(r.Hosts[0]); err == nil || !strings.Contains(err.Error(), "TLS with 127.0.0.1:") {
					t.Errorf("%s: reported %v", what, err)
				}
			}
		})
	}
}

// Access rules and limits come before the key exchange, and the PROXY header before them.
func TestB95NoKeyExchangeForTheRejected(t *testing.T) {
	front := enginetest.Identify(t, "front.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var signed atomic.Int64
			server := front.Server()
			server.Certificates = nil
			server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				signed.Add(1)
				return &front.Pair, nil
			}
			options := engine.ListenOptions{TLS: server, Proxy: engine.ProxyRequire}
			times := enginetest.TestTimeouts
			times.Hello = testkit.Patience
			r := frontOf(t, opt, engine.Route{
				Timeouts: times, Denied: func(a netip.Addr) bool { return a.String() == "192.0.2.1" }, Limits: &engine.Limits{PerClient: 1},
			}, options, enginetest.BackendServer(t, enginetest.Echo))
			dial := func(from string) *enginetest.Peer {
				p := r.Dial()
				p.Send([]byte("PROXY TCP4 " + from + " 192.0.2.9 1000 2000\r\n"))
				return p
			}
			try := func(from, why string) {
				t.Helper()
				p := dial(from)
				_ = p.SetDeadline(time.Now().Add(testkit.Patience))
				if err := p.Secure(front.Client(), true).Conn.(*enginetest.OverTLS).Handshake(); err == nil {
					t.Errorf("%s: it is let in", from)
				}
				testkit.Eventually(t, why, func() bool { return r.Stats().Refused[why] == 1 })
			}
			try("192.0.2.1", "access")
			if n := signed.Load(); n != 0 {
				t.Errorf("%d key exchanges for a client that is denied", n)
			}
			p := dial("192.0.2.2").Secure(front.Client(), true)
			settles(r, p)
			try("192.0.2.2", "limit_client")
			if n := signed.Load(); n != 1 {
				t.Errorf("%d key exchanges, want 1", n)
			}
			p.Fin()
			p.ExpectEOF()
			r.Quiet()
		})
	}
}

// The name and the protocol of the handshake pick the group, whether the route asks for the
// hello or not, and the host is offered the protocol. The record has the name.
func TestB95NamesOfHandshakesRoute(t *testing.T) {
	front, back := enginetest.Identify(t, "*.front.test"), enginetest.Identify(t, "back.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := func(word string) sched.Addr {
				server := back.Server()
				server.NextProtos = []string{"h2", "http/1.1"}
				return enginetest.BackendServer(t, func(p *enginetest.Peer) {
					p = p.Secure(server, false)
					over := p.Conn.(*enginetest.OverTLS)
					if err := over.Handshake(); err != nil {
						t.Error(err)
						return
					}
					p.Send([]byte(word + " " + over.ConnectionState().NegotiatedProtocol))
				})
			}
			server := front.Server()
			server.NextProtos = []string{"h2", "http/1.1"}
			rec := engine.NewRecorder()
			rec.Switch(true)
			opt.Recorder = rec
			r := frontOf(t, opt, engine.Route{Goroutines: true}, engine.ListenOptions{TLS: server}, backend("main"))
			route := *r.Route
			route.Groups = map[engine.GroupID]*sched.Table{1: r.Table(sched.Policy{}, backend("named")), 2: r.Table(sched.Policy{}, backend("h2"))}
			for _, h := range r.Hosts {
				h.SetTLS(back.Client())
			}
			route.Choose = func(a engine.Asking) engine.GroupID {
				switch {
				case string(a.Name) == "db.front.test":
					return 1
				case string(a.ALPN) == "\x02h2":
					return 2
				}
				return engine.Default
			}
			for _, byHello := range []bool{true, false} {
				route := route
				route.ByHello = byHello
				r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route, ListenOptions: map[string]engine.ListenOptions{"127.0.0.1:0": {TLS: server}}})
				for _, c := range []struct {
					name, want string
					protos     []string
				}{
					{"DB.front.test", "named ", nil},
					{"db.front.test", "named http/1.1", []string{"http/1.1"}},
					{"a.front.test", "h2 h2", []string{"http/1.1", "h2"}},
					{"a.front.test", "main http/1.1", []string{"http/1.1"}},
					{"a.front.test", "main ", nil},
				} {
					client := front.Client()
					client.ServerName, client.NextProtos = c.name, c.protos
					p := r.Dial().Secure(client, true)
					if got := string(p.Rest()); got != c.want {
						t.Errorf("by hello: %v, %s %q: %q, want %q", byHello, c.name, c.protos, got, c.want)
					}
					_ = p.Close()
				}
				r.Quiet()
			}
			var names []string
			testkit.Eventually(t, "all are recorded", func() bool {
				rec.Take(func(one *engine.Record) { names = append(names, string(one.ServerName.Bytes())) })
				return len(names) == 10
			})
			slices.Sort(names)
			if names[0] != "a.front.test" || names[9] != "db.front.test" {
				t.Errorf("recorded names: %q", names)
			}
		})
	}
}

// TLS comes and goes at a listener while it listens; sessions stay as they are.
func TestB95TLSOfAListenerChanges(t *testing.T) {
	one, two := enginetest.Identify(t, "one.test"), enginetest.Identify(t, "two.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := frontOf(t, opt, engine.Route{}, engine.ListenOptions{}, enginetest.BackendServer(t, enginetest.Echo))
			var sessions []*enginetest.Peer
			dials := map[string]func() *enginetest.Peer{
				"plain": r.Dial,
				"one":   func() *enginetest.Peer { return r.Dial().Secure(one.Client(), true) },
				"two":   func() *enginetest.Peer { return r.Dial().Secure(two.Client(), true) },
			}
			for _, is := range []string{"plain", "one", "two", "plain"} {
				o := engine.ListenOptions{}
				switch is {
				case "one":
					o.TLS = one.Server()
				case "two":
					o.TLS = two.Server()
				}
				r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{"127.0.0.1:0": o}})
				c := dials[is]()
				settles(r, c)
				sessions = append(sessions, c)
			}
			if addr := r.E.Listeners()[0].Addr; addr != r.Addr {
				t.Errorf("the listener has moved from %s to %s", r.Addr, addr)
			}
			for _, c := range sessions {
				settles(r, c)
				c.Fin()
				c.ExpectEOF()
			}
			r.Quiet()
		})
	}
}

// A session is resumed whichever loop accepts the client, and a host resumes ours.
func TestB97SessionsAreResumed(t *testing.T) {
	front, back := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "back.test")
	for name, opt := range tlsModes {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				opt := opt
				opt.Loops = 4
				server, host := of(front.Server(), version), of(back.Server(), version)
				server.SessionTicketsDisabled, host.SessionTicketsDisabled = false, false
				r := frontOf(t, opt, engine.Route{Goroutines: true}, engine.ListenOptions{TLS: server}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
					enginetest.Echo(p.Secure(host, false))
				}))
				toHost := of(back.Client(), version)
				toHost.ClientSessionCache = tls.NewLRUClientSessionCache(8)
				r.Hosts[0].SetTLS(toHost)
				client := of(front.Client(), version)
				client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
				const visits = 40
				for i := range visits {
					p := r.Dial().Secure(client, true)
					settles(r, p) // by then the ticket has come
					p.Fin()
					p.ExpectEOF()
					if resumed := p.Conn.(*enginetest.OverTLS).ConnectionState().DidResume; resumed != (i > 0) {
						t.Fatalf("visit %d: resumed: %v", i, resumed)
					}
					_ = p.Close()
				}
				r.Quiet()
				if s := r.Stats().TLS; s.Full != 1 || s.Resumed != visits-1 || s.HostFull != 1 || s.HostResumed != visits-1 {
					t.Errorf("counted: %+v", s)
				}
			})
		}
	}
}

// turnstile is a private key that counts how many use it at once.
type turnstile struct {
	crypto.Signer
	now, most, all atomic.Int64
}

func (k *turnstile) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	n := k.now.Add(1)
	defer k.now.Add(-1)
	for was := k.most.Load(); n > was && !k.most.CompareAndSwap(was, n); was = k.most.Load() {
	}
	k.all.Add(1)
	runtime.Gosched() // others get the processor in the middle of the work
	return k.Signer.Sign(r, digest, o)
}

// However many clients come at once, few key exchanges are computed at a time, and none
// waits for a client that is silent in the middle of its own.
func TestB96FewKeyExchangesAtATime(t *testing.T) {
	front := enginetest.Identify(t, "front.test")
	hello := testkit.ClientHello(t, front.Client())
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			key := &turnstile{Signer: front.Pair.PrivateKey.(crypto.Signer)}
			pair := front.Pair
			pair.PrivateKey = key
			server := front.Server()
			server.Certificates = []tls.Certificate{pair}
			r := frontOf(t, opt, engine.Route{}, engine.ListenOptions{TLS: server}, enginetest.BackendServer(t, enginetest.Echo))
			var silent []*enginetest.Peer
			for range 40 { // half a hello, and a whole one without an answer to ours
				a, b := r.Dial(), r.Dial()
				a.Send(hello[:len(hello)/2])
				b.Send(hello)
				silent = append(silent, a, b)
			}
			const clients = 64
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					p := r.Dial().Secure(front.Client(), true)
					p.Send([]byte("x"))
					p.Expect([]byte("x"))
					_ = p.Close()
				})
			}
			wg.Wait()
			most, places := key.most.Load(), int64(max(1, runtime.GOMAXPROCS(0)/2))
			t.Logf("%d signatures, %d at once at most", key.all.Load(), most)
			if most > places || key.all.Load() < clients {
				t.Errorf("%d signatures, %d at once; want %d at once at most", key.all.Load(), most, places)
			}
			for _, p := range silent {
				p.Rst()
			}
			r.Quiet()
		})
	}
}

// A function of the configuration that panics fails the handshake of that client alone.
func TestB95PanicInAConfiguration(t *testing.T) {
	front := enginetest.Identify(t, "front.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			server := front.Server()
			server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				if h.ServerName == "bad.test" {
					panic("on purpose")
				}
				return nil, nil
			}
			r := frontOf(t, opt, engine.Route{}, engine.ListenOptions{TLS: server}, enginetest.BackendServer(t, enginetest.Echo))
			bad := front.Client()
			bad.ServerName = "bad.test"
			if err := r.Dial().Secure(bad, true).Conn.(*enginetest.OverTLS).Handshake(); err == nil {
				t.Error("the handshake succeeds")
			}
			settles(r, r.Dial().Secure(front.Client(), true))
			testkit.Eventually(t, "it is counted", func() bool { return r.Stats().Refused["tls_protocol"] == 1 })
			if n := r.Stats().TLS.Full; n != 1 {
				t.Errorf("%d handshakes", n)
			}
		})
	}
}

// Clients that have to ask for TLS first, and do, have it end here. Those that do not are
// told, or rejected; nothing in plain comes to a host.
func TestB97StartTLSEndsHere(t *testing.T) {
	front, back := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "back.test")
	const (
		ask, gss = "\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x08\x04\xd2\x16\x30"
	)
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			times := enginetest.TestTimeouts
			times.Hello = testkit.Patience
			for _, hostTLS := range []bool{false, true} {
				postgres := enginetest.BackendServer(t, func(p *enginetest.Peer) {
					if hostTLS {
						p.Expect([]byte(ask))
						p.Send([]byte("S"))
						p = p.Secure(back.Server(), false)
					}
					p.Expect([]byte("startup"))
					p.Send([]byte("welcome"))
				})
				r := frontOf(t, opt, engine.Route{Timeouts: times, Goroutines: true}, engine.ListenOptions{TLS: front.Server(), StartTLS: engine.StartTLSPostgres}, postgres)
				if hostTLS {
					r.Hosts[0].SetTLS(back.Client())
				}
				for _, words := range [][]string{{ask, "S"}, {gss, "N", ask, "S"}, {}} {
					p := r.Dial()
					for i, w := range words {
						if i%2 == 0 {
							p.Send([]byte(w))
						} else {
							p.Expect([]byte(w))
						}
					}
					p = p.Secure(front.Client(), true)
					p.Send([]byte("startup"))
					if got := string(p.Rest()); got != "welcome" {
						t.Errorf("after %q: %q", words, got)
					}
					_ = p.Close()
				}
				r.Quiet()
				// Without TLS, or with more behind the request than TLS may have.
				for _, plain := range []string{"\x00\x00\x00\x10\x00\x03\x00\x00user\x00u\x00\x00", ask + "\x00\x00\x00\x10\x00\x03\x00\x00user\x00u\x00\x00"} {
					p := r.Dial()
					p.Send([]byte(plain))
					got := string(p.Rest())
					if plain[:8] != ask && !strings.Contains(got, "requires TLS") {
						t.Errorf("a client without TLS is told %q", got)
					}
				}
				r.Quiet()
				if s := r.Stats(); s.Refused["starttls_client"]+s.Refused["tls_plain"] != 2 || s.TLS.Full != 3 {
					t.Errorf("counted: %+v", s)
				}

				mail := smtpBehind(t, hostTLS, back)
				r = frontOf(t, opt, engine.Route{Timeouts: times, Goroutines: true}, engine.ListenOptions{TLS: front.Server(), StartTLS: engine.StartTLSSMTP}, mail)
				if hostTLS {
					r.Hosts[0].SetTLS(back.Client())
				}
				p := r.Dial()
				p.Expect([]byte(smtpBanner))
				p.Send([]byte("EHLO a\r\n"))
				p.Expect([]byte(smtpEHLO))
				p.Send([]byte("STARTTLS\r\n"))
				p.Expect([]byte(smtpReady))
				p = p.Secure(front.Client(), true)
				p.Send([]byte("EHLO b\r\n"))
				if got := string(p.Rest()); got != "250 hello\r\n" {
					t.Errorf("host with TLS: %v: %q", hostTLS, got)
				}
				_ = p.Close()
				p = r.Dial()
				p.Expect([]byte(smtpBanner))
				p.Send([]byte("STARTTLS\r\nMAIL FROM:<a>\r\n"))
				if got := string(p.Rest()); !strings.HasPrefix(got, "503 ") && got != smtpReady {
					t.Errorf("bytes behind STARTTLS: %q", got)
				}
				r.Quiet()
				if s := r.Stats(); s.Refused["starttls_client"]+s.Refused["tls_plain"] != 1 {
					t.Errorf("counted: %+v", s)
				}
			}
			// A host that does not agree is left for one that does.
			r := frontOf(t, opt, engine.Route{Timeouts: times, Goroutines: true}, engine.ListenOptions{TLS: front.Server(), StartTLS: engine.StartTLSPostgres},
				enginetest.BackendServer(t, func(p *enginetest.Peer) {
					p.Expect([]byte(ask))
					p.Send([]byte("N"))
					p.ExpectGone()
				}),
				enginetest.BackendServer(t, func(p *enginetest.Peer) {
					p.Expect([]byte(ask))
					p.Send([]byte("S"))
					p.Secure(back.Server(), false).Send([]byte("welcome"))
				}))
			for _, h := range r.Hosts {
				h.SetTLS(back.Client())
			}
			p := r.Dial().Secure(front.Client(), true)
			if got := string(p.Rest()); got != "welcome" {
				t.Errorf("the client gets %q", got)
			}
			_ = p.Close()
			r.Quiet()
			if s := r.Stats(); s.ConnectFailures["tls"] != 1 || r.Hosts[0].Up() {
				t.Errorf("counted: %+v", s)
			}
		})
	}
}

// smtpBehind is a server of SMTP that greets, and then speaks TLS or not.
func smtpBehind(t *testing.T, secure bool, as *enginetest.Identity) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		if secure {
			p.Send([]byte("220 ready\r\n"))
			p.Expect([]byte("EHLO txlb\r\n"))
			p.Send([]byte("250-a\r\n250 STARTTLS\r\n"))
			p.Expect([]byte("STARTTLS\r\n"))
			p.Send([]byte("220 go\r\n"))
			p = p.Secure(as.Server(), false)
		}
		p.Expect([]byte("EHLO b\r\n"))
		p.Send([]byte("250 hello\r\n"))
	})
}

// The PROXY header comes before the host's TLS, in plain, as hosts expect it.
func TestB95PROXYHeaderBeforeTheTLSOfTheHost(t *testing.T) {
	front, back := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "back.test")
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			for _, clientTLS := range []bool{true, false} {
				o := engine.ListenOptions{Proxy: engine.ProxyRequire}
				if clientTLS {
					o.TLS = front.Server()
				}
				times := enginetest.TestTimeouts
				times.Hello = testkit.Patience
				r := frontOf(t, opt, engine.Route{Timeouts: times, Goroutines: true}, o, enginetest.BackendServer(t, func(p *enginetest.Peer) {
					p.Expect([]byte(header))
					enginetest.Echo(p.Secure(back.Server(), false))
				}))
				r.Hosts[0].SetTLS(back.Client())
				r.Hosts[0].SetProxyProtocol(1)
				p := r.Dial()
				p.Send([]byte(header))
				if clientTLS {
					p = p.Secure(front.Client(), true)
				}
				p.Send([]byte("hello"))
				p.Expect([]byte("hello"))
				p.Fin()
				p.ExpectEOF()
				r.Quiet()
			}
		})
	}
}

// A client certificate that is asked for is verified.
func TestB97ClientCertificates(t *testing.T) {
	front, known := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "known.test")
	for name, opt := range tlsModes {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				server := of(front.Server(), version)
				server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, known.Pool
				seen := make(chan *x509.Certificate, 1)
				server.VerifyConnection = func(s tls.ConnectionState) error {
					seen <- s.PeerCertificates[0]
					return nil
				}
				r := frontOf(t, opt, engine.Route{}, engine.ListenOptions{TLS: server}, enginetest.BackendServer(t, enginetest.Echo))
				client := front.Client()
				client.Certificates = []tls.Certificate{known.Pair}
				p := r.Dial().Secure(client, true)
				settles(r, p)
				if name := (<-seen).Subject.CommonName; name != "known.test" {
					t.Errorf("the client is %q", name)
				}
				p.Fin()
				p.ExpectEOF()
				r.Quiet()
			})
		}
	}
}
