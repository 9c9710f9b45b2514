package engine_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/acl"
	"github.com/txlb/txlb/internal/testkit"
)

// rejected tells whether a client from one address that connects to another is reset;
// else it has an answer.
func rejected(t *testing.T, from, to string) bool {
	t.Helper()
	network, d := "tcp", net.Dialer{Timeout: testkit.Patience}
	if path, ok := cutUnix(to); ok {
		network, to = "unix", path
	} else {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial(network, to)
	if err == nil {
		defer func() { _ = c.Close() }()
		_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
		_, err = io.ReadAll(c)
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("from %s: %v, want an answer or a reset", from, err)
	}
	return err != nil
}

func cutUnix(address string) (path string, ok bool) {
	if len(address) > 5 && address[:5] == "unix:" {
		return address[5:], true
	}
	return "", false
}

// The first rule that matches decides, for IPv4, IPv6 and IPv4 that comes to a socket
// of both. A rejected client costs no host, and is counted; new rules are for new
// clients.
func TestB89AccessRules(t *testing.T) {
	probe, err := net.Listen("tcp", "[::1]:0")
	ipv6 := err == nil // a machine may be without
	if ipv6 {
		_ = probe.Close()
	}
	eachMode(t, func(t *testing.T, opt setup) {
		rules := acl.New([]acl.Rule{
			{Nets: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
			{Deny: true, Nets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
		})
		r := newRig(t, opt, engine.Route{Denied: rules.Denied}, enginetest.BackendServer(t, func(p *enginetest.Peer) { p.Send([]byte("a")) }))
		listen := []string{"127.0.0.1:0", "*:0", "unix:" + filepath.Join(t.TempDir(), "s")}
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: r.Route})
		var denied, served uint64
		for _, l := range r.E.Listeners() {
			_, port, _ := net.SplitHostPort(l.Addr)
			if _, unix := cutUnix(l.Addr); unix {
				if rejected(t, "", l.Addr) {
					t.Error("a client of the UNIX socket is rejected: it has no address")
				}
				served++
				continue
			}
			for _, c := range []struct {
				from, to string
				want     bool
			}{{"127.0.0.1", "127.0.0.1", false}, {"127.0.0.2", "127.0.0.1", true}, {"::1", "::1", true}} {
				if c.from == "::1" && (l.Listen != "*:0" || !ipv6) {
					continue
				}
				if got := rejected(t, c.from, net.JoinHostPort(c.to, port)); got != c.want {
					t.Errorf("%s: a client from %s: rejected is %v", l.Listen, c.from, got)
				}
				if c.want {
					denied++
				} else {
					served++
				}
			}
		}
		r.Quiet()
		s := r.Stats()
		if s.Refused["access"] != denied || s.Ended["PR"] != denied || s.Sessions != denied+served || r.Hosts[0].Stats().Picks != served {
			t.Errorf("%d denied, %d served; counted: %+v, host: %d", denied, served, s, r.Hosts[0].Stats().Picks)
		}

		open := r.Dial() // from 127.0.0.1
		open.Expect([]byte("a"))
		none := *r.Route
		none.Denied = acl.New([]acl.Rule{{Deny: true, Nets: acl.Every()}}).Denied
		r.Apply(engine.Service{Name: "web", Listen: listen, Route: &none})
		if !rejected(t, "127.0.0.1", r.Addr) {
			t.Error("the new rules let a client in")
		}
		open.ExpectEOF()
	})
}
