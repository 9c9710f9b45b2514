package engine_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// The client and what it has connected to, as headers of these tests say.
var (
	aClient  = netip.MustParseAddrPort("192.0.2.1:54321")
	aClient6 = netip.MustParseAddrPort("[2001:db8::1]:54321")
	itsGoal  = netip.MustParseAddrPort("198.51.100.2:443")
)

// proxied is a rig whose listener asks for headers.
func proxied(t *testing.T, opt setup, how engine.ListenOptions, route engine.Route, backends ...sched.Addr) *enginetest.Rig {
	t.Helper()
	r := newRig(t, opt, route, backends...)
	listenAs(r, how)
	return r
}

// listenAs gives the rig's listener options.
func listenAs(r *enginetest.Rig, how engine.ListenOptions) {
	r.T.Helper()
	r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{"127.0.0.1:0": how}})
}

var required = engine.ListenOptions{Proxy: engine.ProxyRequire}

// clientOf returns who the engine says is the client of its one session.
func clientOf(r *enginetest.Rig) (client netip.AddrPort) {
	r.T.Helper()
	testkit.Eventually(r.T, "a session has a host", func() bool {
		list := r.E.Sessions(0, func(_ string, h *sched.Host) bool { return h != nil })
		if len(list) == 1 {
			client = list[0].Client
		}
		return len(list) == 1
	})
	return client
}

// Every header is taken off the stream, wherever it is split, and the stream behind it
// comes whole. The header says who the client is, unless it says nothing.
func TestB62HeadersSplitAtEveryByte(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := proxied(t, opt, required, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		tlvs := func(b []byte) []byte { // 4,000 bytes of them
			b = append(b, proxyproto.TypeSSL, 4000>>8, 4000&255)
			b = append(b, make([]byte, 4000)...)
			b[14], b[15] = byte((len(b)-16)>>8), byte(len(b)-16)
			return b
		}
		unix := append(proxyproto.AppendLocal(nil), make([]byte, 216)...)
		unix[12], unix[13], unix[15] = 0x21, 0x31, 216
		for name, c := range map[string]struct {
			header []byte
			client netip.AddrPort // not valid: the one that has connected
			splits bool
		}{
			"v1 IPv4":      {proxyproto.Append(nil, proxyproto.V1, aClient, itsGoal), aClient, true},
			"v1 IPv6":      {proxyproto.Append(nil, proxyproto.V1, aClient6, aClient6), aClient6, false},
			"v1 unknown":   {[]byte("PROXY UNKNOWN\r\n"), netip.AddrPort{}, true},
			"v2 IPv4":      {proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal), aClient, true},
			"v2 IPv6":      {proxyproto.Append(nil, proxyproto.V2, aClient6, aClient6), aClient6, false},
			"v2 with TLVs": {tlvs(proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal)), aClient, false},
			"v2 local":     {proxyproto.AppendLocal(nil), netip.AddrPort{}, true},
			"v2 UNIX":      {unix, netip.AddrPort{}, false},
		} {
			payload := enginetest.Payload(300<<10, 62)
			splits := []int{0, 1, 16, len(c.header) - 1, len(c.header), len(c.header) + 1}
			if c.splits && !testing.Short() {
				splits = nil
				for at := range len(c.header) + 1 {
					splits = append(splits, at)
				}
			}
			for _, at := range splits {
				p := r.Dial()
				both := append(slices.Clone(c.header), payload[:1000]...)
				p.Send(both[:at])
				p.Send(both[at:])
				p.Expect(payload[:1000])
				want := c.client
				if !want.IsValid() {
					want = p.LocalAddr().(*net.TCPAddr).AddrPort()
				}
				if got := clientOf(r); got != want {
					t.Errorf("%s: the client is %v, want %v", name, got, want)
				}
				if at == splits[0] {
					go func() {
						_, _ = p.Write(payload[1000:])
						_ = p.Conn.(*net.TCPConn).CloseWrite()
					}()
					p.Expect(payload[1000:])
				} else {
					p.Fin()
				}
				p.ExpectEOF()
				_ = p.Close()
				r.Quiet()
				if t.Failed() {
					t.Fatalf("%s, split at %d", name, at)
				}
			}
			// One byte at a time, and the end with the last.
			p := r.Dial()
			for i := range c.header {
				if len(c.header) < 300 {
					p.Send(c.header[i : i+1])
				} else if i == 0 {
					p.Send(c.header)
				}
			}
			p.Fin()
			p.ExpectEOF()
			_ = p.Close()
			r.Quiet()
		}
		s := r.Stats()
		if s.ProxyHeaders != s.Sessions || s.Ended["--"] != s.Sessions || s.In != s.Out {
			t.Errorf("counted %+v", s)
		}
	})
}

// What is not a right header is rejected and counted with its reason, and no host
// hears of it.
func TestB62MalformedHeadersAreRejected(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		var served atomic.Int64
		r := proxied(t, opt, required, engine.Route{}, enginetest.BackendServer(t, func(*enginetest.Peer) { served.Add(1) }))
		good := proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal)
		change := func(at int, to byte) []byte {
			b := slices.Clone(good)
			b[at] = to
			return b
		}
		sum := append(change(15, 12+7), 3, 0, 4, 0, 0, 0, 0)
		for reason, b := range map[string][]byte{
			"proxy_signature": []byte("GET / HTTP/1.1\r\n\r\n"),
			"proxy_version":   change(12, 0x31),
			"proxy_family":    change(13, 0x51),
			"proxy_address":   []byte("PROXY TCP4 192.0.2.1 198.51.100.256 1 2\r\n"),
			"proxy_length":    change(15, 11),
			"proxy_tlv":       append(change(15, 14), 5, 0),
			"proxy_checksum":  sum,
		} {
			for n := range uint64(2) {
				p := r.Dial()
				p.Send(b)
				p.ExpectGone()
				_ = p.Close()
				r.Quiet()
				if s := r.Stats(); s.Refused[reason] != n+1 {
					t.Errorf("%s: counted %v", reason, s.Refused)
				}
			}
		}
		s := r.Stats()
		if s.Ended["PR"] != s.Sessions || s.Sessions != 14 || s.ProxyHeaders != 0 || served.Load() != 0 || r.Hosts[0].Stats().Picks != 0 {
			t.Errorf("%d served, counted %+v", served.Load(), s)
		}
	})
}

// A header that never comes, or not as a whole, costs the client its connection when its
// time is over and not before. One that comes late is as good as another.
func TestB62HeadersHaveTheirTime(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.Hello = 300 * time.Millisecond
		r := proxied(t, opt, required, engine.Route{Timeouts: times}, enginetest.BackendServer(t, enginetest.Echo))
		header := proxyproto.Append(nil, proxyproto.V1, aClient, itsGoal)
		for i, said := range [][]byte{nil, header[:1], header[:len(header)-1]} {
			begun := time.Now()
			p := r.Dial()
			_, _ = p.Write(said) // on a busy machine its time may be over by now
			p.ExpectGone()
			if took := time.Since(begun); took < times.Hello {
				t.Errorf("closed after %v", took)
			}
			r.Quiet()
			if s := r.Stats(); s.Refused["proxy_timeout"] != uint64(i+1) || s.Ended["cR"] != uint64(i+1) {
				t.Errorf("counted %+v", s)
			}
		}
		// The time is that of the route, and it may change while the client waits.
		times.Hello = 0
		r.Route = &engine.Route{Table: r.Route.Table, Timeouts: times}
		listenAs(r, required)
		p := r.Dial()
		p.Send(header[:len(header)-1])
		select { // longer than the time before the change
		case <-time.After(400 * time.Millisecond):
		case <-t.Context().Done():
		}
		p.Send(append(header[len(header)-1:], "hello"...))
		p.Expect([]byte("hello"))
		q := r.Dial()
		testkit.Eventually(t, "the client is there", func() bool { return r.Stats().Active == 2 })
		times.Hello = time.Millisecond
		r.Route = &engine.Route{Table: r.Route.Table, Timeouts: times}
		listenAs(r, required)
		q.ExpectGone()
		_ = p.Close()
		r.Quiet()
	})
}

// A client that ends or resets the connection in the middle of its header is gone.
func TestB62EndsAmidAHeader(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := proxied(t, opt, required, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		header := proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal)
		for i, at := range []int{0, 1, 12, len(header) - 1} {
			p := r.Dial()
			p.Send(header[:at])
			p.Fin()
			p.ExpectGone()
			r.Quiet()
			if s := r.Stats(); s.Refused["proxy_end"] != uint64(i+1) || s.Ended["CR"] != uint64(i+1) {
				t.Errorf("after %d bytes: counted %+v", at, s)
			}
		}
		for _, at := range []int{0, 5} {
			p := r.Dial()
			testkit.Eventually(t, "the client is there", func() bool { return r.Stats().Active == 1 })
			p.Send(header[:at])
			p.Rst()
			r.Quiet()
		}
		if s := r.Stats(); s.Ended["CR"] != s.Sessions || s.Sessions != 6 {
			t.Errorf("counted %+v", s)
		}
	})
}

// dialFrom connects a client from a loopback address.
func dialFrom(t *testing.T, ip, addr string) *enginetest.Peer {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: testkit.Patience}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Skipf("no connection from %s: %v", ip, err) // only Linux has all of 127.0.0.0/8
	}
	t.Cleanup(func() { _ = c.Close() })
	return &enginetest.Peer{T: t, Conn: c}
}

// With accept, the proxies alone are asked for a header. All others are served as if
// nobody were: also those that wait for the server to speak. With require they are
// closed. A change of this is for the next client.
func TestB62OnlyProxiesAreAsked(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.Hello = testkit.Patience
		greeting := []byte("220 ready\r\n")
		how := engine.ListenOptions{Proxy: engine.ProxyAccept, ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.1.0/24"), netip.MustParsePrefix("2001:db8::/32")}}
		r := proxied(t, opt, how, engine.Route{Timeouts: times}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			p.Send(greeting)
			enginetest.Echo(p)
		}))
		serve := func(p *enginetest.Peer, header []byte, want netip.AddrPort) {
			t.Helper()
			p.Send(header)
			p.Expect(greeting)
			if got := clientOf(r); got != want {
				t.Errorf("the client is %v, want %v", got, want)
			}
			_ = p.Close()
			r.Quiet()
		}
		header := proxyproto.Append(nil, proxyproto.V1, aClient, itsGoal)
		proxy := dialFrom(t, "127.0.1.9", r.Addr)
		serve(proxy, header, aClient)
		p := r.Dial()
		serve(p, nil, p.LocalAddr().(*net.TCPAddr).AddrPort())
		// What looks like a header is a stranger's own.
		p = r.Dial()
		p.Send(header)
		p.Expect(append(slices.Clone(greeting), header...))
		_ = p.Close()
		r.Quiet()
		proxy = dialFrom(t, "127.0.1.9", r.Addr)
		proxy.Send([]byte("EHLO\r\n"))
		proxy.ExpectGone()
		r.Quiet()

		how.Proxy = engine.ProxyRequire
		listenAs(r, how)
		serve(dialFrom(t, "127.0.1.9", r.Addr), header, aClient)
		r.Dial().ExpectGone()
		r.Quiet()
		if s := r.Stats(); s.Refused["proxy_source"] != 1 || s.Refused["proxy_signature"] != 1 || s.ProxyHeaders != 2 || s.Ended["PR"] != 2 {
			t.Errorf("counted %+v", s)
		}
		listenAs(r, engine.ListenOptions{})
		p = r.Dial()
		serve(p, nil, p.LocalAddr().(*net.TCPAddr).AddrPort())
	})
}

// Hosts get the header that they expect, ahead of every byte of the client, also where
// they speak first. It says what the engine knows of the client.
func TestB62HostsGetAHeader(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for version := proxyproto.Off; version <= proxyproto.V2; version++ {
			for _, network := range []string{"tcp4", "unix"} {
				for _, in := range []bool{false, true} {
					t.Run(fmt.Sprint(network, " v", version, " ", in), func(t *testing.T) {
						expect := make(chan [2]netip.AddrPort, 1)
						address := "127.0.0.1:0"
						if network == "unix" {
							address = filepath.Join(t.TempDir(), "s")
						}
						backend := enginetest.ServeOn(t, enginetest.ListenOn(t, network, address), func(p *enginetest.Peer) {
							is := <-expect
							p.Expect(proxyproto.Append(nil, version, is[0], is[1]))
							p.Send([]byte("220 ready"))
							enginetest.Echo(p)
						})
						how := engine.ListenOptions{}
						if in {
							how = required
						}
						r := proxied(t, opt, how, engine.Route{}, backend)
						r.Hosts[0].SetProxyProtocol(int(version))
						payload := enginetest.Payload(200<<10, uint64(version))
						for first := range 2 {
							p := r.Dial()
							if !in {
								expect <- [2]netip.AddrPort{p.LocalAddr().(*net.TCPAddr).AddrPort(), netip.MustParseAddrPort(r.Addr)}
							} else {
								expect <- [2]netip.AddrPort{aClient, itsGoal}
								p.Send(proxyproto.Append(nil, 1+proxyproto.Version(first), aClient, itsGoal))
							}
							if first == 0 {
								p.Expect([]byte("220 ready"))
							}
							go func() {
								_, _ = p.Write(payload)
								_ = p.Conn.(*net.TCPConn).CloseWrite()
							}()
							if first == 1 {
								p.Expect([]byte("220 ready"))
							}
							p.Expect(payload)
							p.ExpectEOF()
							_ = p.Close()
							r.Quiet()
						}
						if s := r.Stats(); s.In != 2*uint64(len(payload)) || s.Out != 2*uint64(len(payload)+9) || s.Ended["--"] != 2 {
							t.Errorf("counted %+v", s)
						}
					})
				}
			}
		}
	})
}

// A client of a UNIX socket has no address: hosts are told so. Such a listener can ask
// for a header too.
func TestB62ClientsOfUnixSockets(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for version, local := range map[int]string{1: "PROXY UNKNOWN\r\n", 2: string(proxyproto.AppendLocal(nil))} {
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			r.Hosts[0].SetProxyProtocol(version)
			listen := "unix:" + filepath.Join(t.TempDir(), "s")
			for _, c := range []struct {
				how         engine.ListenOptions
				says, wants string
			}{
				{engine.ListenOptions{}, "hello", local + "hello"},
				{required, string(proxyproto.Append(nil, proxyproto.V1, aClient, itsGoal)) + "hello", string(proxyproto.Append(nil, proxyproto.Version(version), aClient, itsGoal)) + "hello"},
			} {
				r.Apply(engine.Service{Name: "web", Listen: []string{listen}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{listen: c.how}})
				p := enginetest.Dial(t, listen)
				p.Send([]byte(c.says))
				p.Expect([]byte(c.wants))
				_ = p.Close()
				r.Quiet()
			}
		}
	})
}

// Each host that a session goes to gets a header of its own, of its own version.
func TestB62EachHostGetsItsOwnHeader(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		echo := enginetest.BackendServer(t, enginetest.Echo)
		r := proxied(t, opt, required, engine.Route{}, enginetest.DeadAddr(t), echo)
		r.Hosts[0].SetProxyProtocol(1)
		r.Hosts[1].SetProxyProtocol(2)
		for range 4 {
			r.Hosts[0].MarkUp()
			p := r.Dial()
			p.Send(append(proxyproto.Append(nil, proxyproto.V1, aClient, itsGoal), "hello"...))
			p.Expect(append(proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal), "hello"...))
			_ = p.Close()
			r.Quiet()
		}
		if n := r.Stats().ConnectFailures["refused"]; n == 0 {
			t.Error("no connect failed")
		}
	})
}

// A host that has had nothing but the header can still be left for another: the client
// loses nothing, and the next host gets its own header.
func TestB62HostsThatResetAfterTheHeader(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		var resets atomic.Int64
		resetsAfter := func(version proxyproto.Version) sched.Addr {
			return enginetest.BackendServer(t, func(p *enginetest.Peer) {
				p.Expect(proxyproto.Append(nil, version, aClient, itsGoal))
				resets.Add(1)
				p.Rst()
			})
		}
		echo := enginetest.BackendServer(t, enginetest.Echo)
		r := proxied(t, opt, required, engine.Route{}, resetsAfter(proxyproto.V1), resetsAfter(proxyproto.V2), echo)
		for i, version := range []int{1, 2, 1} {
			r.Hosts[i].SetProxyProtocol(version)
		}
		for range 10 {
			r.Hosts[0].MarkUp()
			r.Hosts[1].MarkUp()
			p := r.Dial()
			p.Send(proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal))
			// What is sent to a host before it resets is lost with it, and so is the
			// right to another: send when the resets have been.
			testkit.Eventually(t, "the session is with the last host", func() bool { return r.Hosts[2].Stats().Active == 1 })
			p.Send([]byte("hello"))
			p.Expect(append(proxyproto.Append(nil, proxyproto.V1, aClient, itsGoal), "hello"...))
			_ = p.Close()
			r.Quiet()
		}
		if s := r.Stats(); s.ConnectFailures["dropped"] == 0 || resets.Load() == 0 {
			t.Errorf("%d resets, counted %+v", resets.Load(), s)
		}
	})
}

// The header shares its segment with what the client has sent by then.
func TestB62HeaderAndFirstBytesInOneSegment(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		if strings.HasSuffix(t.Name(), "/always") {
			t.Skip("what is spliced is a segment of its own")
		}
		first := make(chan []byte, 1)
		r := proxied(t, opt, required, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			b := make([]byte, 1000)
			_ = p.SetReadDeadline(time.Now().Add(testkit.Patience))
			n, err := p.Read(b)
			if err != nil && err != io.EOF {
				t.Error(err)
			}
			first <- b[:n]
			enginetest.Echo(p)
		}))
		for version := proxyproto.V1; version <= proxyproto.V2; version++ {
			r.Hosts[0].SetProxyProtocol(int(version))
			p := r.Dial()
			p.Send(append(proxyproto.Append(nil, proxyproto.V2, aClient, itsGoal), "hello"...))
			if got, want := <-first, append(proxyproto.Append(nil, version, aClient, itsGoal), "hello"...); !bytes.Equal(got, want) {
				t.Errorf("the first segment is %q, want %q", got, want)
			}
			_ = p.Close()
			r.Quiet()
		}
	})
}
