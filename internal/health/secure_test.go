package health

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
)

// Probes of a host with TLS go through it: TCP is a whole handshake, and HTTP and Expect
// ask inside. The certificate counts as the host says. A TLS probe makes its own.
func TestB99ProbesGoThroughTLS(t *testing.T) {
	a, b := testkit.NewAuthority(t, "a"), testkit.NewAuthority(t, "b")
	server := &tls.Config{Certificates: []tls.Certificate{a.Pair(t, testkit.Leaf{Names: []string{"db.example"}})}}
	good := &tls.Config{RootCAs: a.Pool(), ServerName: "db.example"}
	for name, test := range map[string]struct {
		probe  Probe
		header int
		want   Code
		text   string
	}{
		"tcp":             {Probe{Type: TCP, Secure: good}, 0, L6OK, ""},
		"http":            {Probe{Type: HTTP, Path: "/", Status: []Status{{200, 200}}, Secure: good}, 0, L7OK, "200 OK"},
		"expect":          {Probe{Type: Expect, Send: "GET / HTTP/1.0\r\n\r\n", Expect: "200", Secure: good}, 0, L7OK, ""},
		"tls":             {Probe{Type: TLS, Secure: &tls.Config{RootCAs: b.Pool(), ServerName: "other.example"}}, 0, L6OK, ""},
		"v2":              {Probe{Type: HTTP, Path: "/", Status: []Status{{200, 200}}, Secure: good, Proxy: 2}, len(proxyproto.AppendLocal(nil)), L7OK, "200 OK"},
		"wrong name":      {Probe{Type: TCP, Secure: &tls.Config{RootCAs: a.Pool(), ServerName: "other.example"}}, 0, L6Rsp, "handshake: tls: failed to verify certificate: x509: "},
		"wrong authority": {Probe{Type: HTTP, Path: "/", Secure: &tls.Config{RootCAs: b.Pool(), ServerName: "db.example"}}, 0, L6Rsp, "handshake: tls: failed to verify certificate: x509: "},
		"unverified":      {Probe{Type: TCP, Secure: &tls.Config{InsecureSkipVerify: true}}, 0, L6OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(testkit.Patience))
				if _, err := io.ReadFull(c, make([]byte, test.header)); err != nil {
					return
				}
				s := tls.Server(c, server)
				if n, _ := s.Read(make([]byte, 1)); n > 0 {
					_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\n\r\n")
				}
			}()
			p := test.probe
			p.Addr, p.Timeout = parse(t, ln.Addr().String()), testkit.Patience
			r := Run(t.Context(), p)
			_ = ln.Close()
			<-done
			if r.Code != test.want || !strings.HasPrefix(r.Text, test.text) {
				t.Errorf("%v, want %v %s", r, test.want, test.text)
			}
		})
	}
	silent, err := net.Listen("tcp4", "127.0.0.1:0") // whose queue takes the connection
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	p := Probe{Type: TCP, Secure: good, Addr: parse(t, silent.Addr().String()), Timeout: 50 * time.Millisecond}
	if r := Run(t.Context(), p); r.Code != L6Tout && r.Code != L4Tout {
		t.Errorf("a silent host: %v", r)
	}
	plain := Probe{Type: TCP, Secure: good, Addr: parse(t, testkit.Listener(t)), Timeout: testkit.Patience}
	if r := Run(t.Context(), plain); r.Code != L6Rsp {
		t.Errorf("a host without TLS: %v", r)
	}
}
