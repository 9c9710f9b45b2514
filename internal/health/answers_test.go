package health

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// serve answers every connection of a listener with talk, and ends with the
// test.
func serve(t *testing.T, talk func(net.Conn)) Probe {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(2 * testkit.Patience))
				talk(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return Probe{Addr: parse(t, ln.Addr().String()), Timeout: testkit.Patience, Path: "/", Status: []Status{{200, 399}}}
}

// check compares a result with what is wanted of it.
func check(t *testing.T, r Result, code Code, text string) {
	t.Helper()
	if r.Code != code || !strings.Contains(r.Text, text) || strings.ContainsAny(r.Text, "\r\n\x00") || len(r.Text) > 400 {
		t.Errorf("got %v, want %v: …%s…", r, code, text)
	}
}

func TestHTTP(t *testing.T) {
	asked, answer := make(chan *http.Request, 1), make(chan string, 1)
	var seen *http.Request
	p := serve(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			t.Error(err)
			return
		}
		asked <- req
		_, _ = io.WriteString(c, <-answer)
	})
	p.Type = HTTP
	ask := func(say string, code Code, text string) {
		t.Helper()
		answer <- say
		check(t, Run(t.Context(), p), code, text)
		seen = <-asked
	}
	ask("HTTP/1.1 200 OK\r\n\r\n", L7OK, "200 OK")
	if seen.Host != p.Addr.String() || seen.URL.Path != "/" || seen.Method != "GET" || !seen.Close || seen.ProtoMinor != 1 {
		t.Errorf("asked %+v", seen)
	}
	p.Host, p.Path = "www.example:81", "/status?x=1"
	ask("HTTP/1.0 302 Found\nLocation: /\n\n", L7OK, "302 Found")
	if seen.Host != "www.example:81" || seen.URL.String() != "/status?x=1" {
		t.Errorf("asked %+v", seen)
	}
	ask("HTTP/1.1 399\r\n", L7OK, "399")
	ask("HTTP/1.1 400 Bad Request\r\n\r\n", L7Sts, "400 Bad Request")
	ask("HTTP/1.1 503 \x1b[2J\r\n\r\n", L7Sts, "503")
	ask("HTTP/1.1 200 "+strings.Repeat("long ", 500)+"\r\n", L7OK, "200 long")
	for _, nonsense := range []string{
		"SSH-2.0-OpenSSH\r\n", "HTTP/2 200 OK\r\n", "HTTP/1.1 2000 OK\r\n", "HTTP/1.1 20 OK\r\n", "HTTP/1.1 abc\r\n", "\r\n", "\x00\xff\n", "HTTP/1.1 +20\r\n",
	} {
		ask(nonsense, L7Rsp, "not an HTTP answer: ")
	}
	ask("HTTP/1.1 200 OK", L7Rsp, `the connection ended; it said "HTTP/1.1 200 OK"`)
	ask("", L7Rsp, "the connection ended")
	ask(strings.Repeat("x", 2*maxStatusLine), L7Rsp, "not what was expected in 4096 bytes")
	// Interim answers come before the one that counts.
	const early = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
	ask("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", L7OK, "200 OK")
	ask(early+early+"HTTP/1.1 100\n\nHTTP/1.1 503 Sick\r\n\r\n", L7Sts, "503 Sick")
	ask(early+"SSH-2.0\r\n", L7Rsp, `not an HTTP answer: "SSH-2.0\r\n"`)
	ask(early, L7Rsp, "the connection ended")
	ask("HTTP/1.1 103 Early Hints\r\nLink: x", L7Rsp, `the connection ended; it said "HTTP/1.1 103 Early Hints\r\n"`)
	ask("HTTP/1.1 103 Early Hints\r\n"+strings.Repeat("x", 2*maxStatusLine), L7Rsp, "not what was expected")
	ask(strings.Repeat(early, maxAnswer/len(early)+1)+"HTTP/1.1 200 OK\r\n", L7Rsp, "not what was expected")
	ask("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", L7Sts, "101 Switching Protocols")
	p.Status = []Status{{200, 200}, {204, 204}}
	ask("HTTP/1.1 204 No Content\r\n", L7OK, "204")
	ask("HTTP/1.1 203 Other\r\n", L7Sts, "203 Other")
}

func TestExpect(t *testing.T) {
	p := serve(t, func(c net.Conn) {
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			return
		}
		for _, part := range strings.SplitAfter(strings.TrimSpace(line), "|") { // in pieces
			_, _ = io.WriteString(c, strings.TrimSuffix(part, "|"))
		}
	})
	p.Type, p.Expect = Expect, "+PONG"
	for say, want := range map[string]struct {
		code Code
		text string
	}{
		"+PONG\n":                           {L7OK, ""},
		"xx+P|ON|G and more\n":              {L7OK, ""},
		"+P+PO+PON+PONG\n":                  {L7OK, ""},
		"-ERR no\n":                         {L7Rsp, `the connection ended; it said "-ERR no"`},
		"\n":                                {L7Rsp, "the connection ended"},
		strings.Repeat("y", 1000):           {L7Tout, "no answer within 200ms"}, // no line, so it waits
		strings.Repeat("+", 600) + "PONG\n": {L7OK, ""},
	} {
		p := p
		p.Send, p.Timeout = say, testkit.Patience
		if want.code == L7Tout {
			p.Timeout = 200 * time.Millisecond
		}
		check(t, Run(t.Context(), p), want.code, want.text)
	}
	endless := serve(t, func(c net.Conn) {
		for {
			if _, err := c.Write(make([]byte, 8192)); err != nil {
				return // the probe's reset ends it
			}
		}
	})
	endless.Type, endless.Expect = Expect, "x"
	check(t, Run(t.Context(), endless), L7Rsp, "not what was expected in 65536 bytes")
	// A server that speaks first needs nothing sent.
	banner := serve(t, func(c net.Conn) { _, _ = io.WriteString(c, "SSH-2.0-x\r\n") })
	banner.Type, banner.Expect = Expect, "SSH-2.0-"
	check(t, Run(t.Context(), banner), L7OK, "")
}

// certificate signs itself: a probe does not care.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "t"}, NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	names := make(chan string, 1)
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate(t)}, // expired, too
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- hello.ServerName
			if hello.ServerName == "refused.example" {
				return nil, fmt.Errorf("no")
			}
			return nil, nil
		},
	}
	p := serve(t, func(c net.Conn) {
		s := tls.Server(c, config)
		_ = s.Handshake()
		_, _ = s.Read(make([]byte, 1))
	})
	p.Type = TLS
	for name, want := range map[string]string{"": "", "www.example": "www.example", "www.example:443": "www.example"} {
		p.Host = name
		check(t, Run(t.Context(), p), L6OK, "")
		if got := <-names; got != want {
			t.Errorf("host %q asks for %q", name, got)
		}
	}
	p.Host = "refused.example"
	check(t, Run(t.Context(), p), L6Rsp, "handshake: the server sent the alert internal_error (80)")
	<-names
	for say, want := range map[string]string{
		"220 hello\r\n":                            `handshake: the answer is not TLS: "220 hello\r\n"`,
		"HTTP/1.1 400 Bad Request\r\n":             `handshake: the answer is not TLS: "HTTP/1.1 400 Bad Request\r\n"`,
		"\x16":                                     "handshake: the connection ended",
		"\x16\x02\x01\x00\x01x":                    `handshake: the answer is not TLS: "\x16\x02`,
		"\x16\x03\x01\x00\x00":                     "handshake: the answer is not TLS: ",
		"\x15\x03\x01\x00\x02\x02\x28":             "handshake: the server sent the alert handshake_failure (40)",
		"\x15\x03\x01\x00\x02\x01\x70":             "handshake: the server sent the alert unrecognized_name (112)", // a warning, and then the end
		"\x15\x03\x01\x00\x02\x01\x00":             "handshake: the server sent the alert close_notify (0)",
		"\x15\x03\x01\x00\x02\x02\xfe":             "handshake: the server sent the alert number 254",
		"\x15\x03\x01\x00\x01\x02":                 "handshake: malformed alert",
		"\x16\x03\x01\x00\x04\x0b\x00\x00\x00":     "handshake: the server began with handshake message 11",
		"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x03": "handshake: malformed ServerHello",
		"": "handshake: the connection ended",
	} {
		other := serve(t, func(c net.Conn) {
			if _, err := io.ReadFull(c, make([]byte, 100)); err == nil {
				_, _ = io.WriteString(c, say)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c) // what is unread would reset the answer
			}
		})
		other.Type = TLS
		check(t, Run(t.Context(), other), L6Rsp, want)
	}
}

// B46: a host that sends a byte now and then, each well within the time-out,
// holds no probe past it.
func TestB46TricklingHostsHoldNoProbe(t *testing.T) {
	const timeout = 300 * time.Millisecond
	p := serve(t, func(c net.Conn) {
		// The beginning of an HTTP answer, and of a TLS record that never ends.
		say := "HTTP/1.1 200 O" + strings.Repeat("O", 1000)
		if first, err := bufio.NewReader(c).Peek(1); err == nil && first[0] == 22 {
			say = "\x16\x03\x03\x3f\xff" + strings.Repeat("\x02", 1000)
		}
		for i := range len(say) {
			if _, err := c.Write([]byte{say[i]}); err != nil {
				return
			}
			time.Sleep(timeout / 30)
		}
	})
	clock := testkit.NewClock(t)
	p.Timeout, p.Send, p.Expect = timeout, "hello", "never"
	for typ, want := range map[Type]Code{HTTP: L7Tout, TLS: L6Tout, Expect: L7Tout} {
		p.Type = typ
		begun, ran := time.Now(), clock.Now()
		r := Run(t.Context(), p)
		if took := time.Since(begun); r.Code != want || took < timeout || clock.Since(ran) > timeout+2*time.Second {
			t.Errorf("type %d: %v after %v", typ, r, took)
		}
	}
	// Nor does one that accepts and says nothing, with a client that gives up.
	silent := serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	silent.Timeout, silent.Expect = timeout, "never"
	for typ, want := range map[Type]Code{HTTP: L7Tout, TLS: L6Tout, Expect: L7Tout} {
		silent.Type = typ
		check(t, Run(t.Context(), silent), want, "within 300ms")
	}
}

// A probe ends by a reset, so that a host that is still sending stops.
func TestProbesEndByAReset(t *testing.T) {
	ended := make(chan error, 1)
	p := serve(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		r := bufio.NewReader(c)
		_, err := io.Copy(io.Discard, r)
		ended <- err
	})
	p.Type = HTTP
	check(t, Run(t.Context(), p), L7OK, "200 OK")
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the host saw %v", err)
	}
}

// What is expected may come in any number of pieces.
func TestExpectedInPieces(t *testing.T) {
	for _, pieces := range [][]string{{"+PONG"}, {"+PO", "NG"}, {"xx+", "P", "O", "N", "G", "yy"}, {"+PON+PON", "G"}, {strings.Repeat("x", 510) + "+P", "ONG"}} {
		ours, theirs := net.Pipe() // one Write is one Read
		go func() {
			for _, p := range pieces {
				_, _ = io.WriteString(theirs, p)
			}
			_ = theirs.Close()
		}()
		if got, err := readUntil(ours, "+PONG", maxExpect); err != nil || !strings.HasSuffix(string(got), "+PONG") {
			t.Errorf("%q: read %q, %v", pieces, got, err)
		}
		_ = ours.Close()
	}
}
