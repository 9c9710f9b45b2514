//go:build linux

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Every program that speaks TLS here speaks the same: version 1.3, X25519 and
// AES-128-GCM. The load asks for nothing else and ends with an error where it gets
// something else.
const (
	tlsName  = "bench.test"             // what certificates are for
	tlsSuite = "TLS_AES_128_GCM_SHA256" // as OpenSSL names it
)

// The kinds of certificates, by their keys.
const (
	noKey    = ""
	ecdsaKey = "ecdsa" // P-256
	rsaKey   = "rsa"   // 2048 bits
)

// secured says on which sides of a peer TLS is spoken.
type secured struct {
	front string // kind of the certificate that it shows its clients; noKey: they speak plain
	back  bool   // the host speaks TLS
}

// clientTLS returns how load and probes speak TLS. They do not check whom they speak
// to; the signature of a handshake is checked none the less.
func clientTLS() *tls.Config {
	return &tls.Config{
		ServerName: tlsName, InsecureSkipVerify: true,
		MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
				return fmt.Errorf("the cipher is %s, want %s as for every program", tls.CipherSuiteName(s.CipherSuite), tlsSuite)
			}
			return nil
		},
	}
}

// client returns how clients of a peer speak: nil for plain.
func (s secured) client() *tls.Config {
	if s.front == noKey {
		return nil
	}
	return clientTLS()
}

// dialer opens connections to an address.
type dialer struct {
	address string
	tls     *tls.Config // nil: plain
}

// dial returns a connection that is ready within limit.
func (d dialer) dial(limit time.Duration) (net.Conn, error) {
	within := &net.Dialer{Timeout: limit}
	if d.tls == nil {
		return within.Dial("tcp", d.address)
	}
	return tls.DialWithDialer(within, "tcp", d.address, d.tls)
}

// certificate is where one lies, in PEM.
type certificate struct {
	cert, key string
	both      string // certificate and key in one file, as HAProxy wants it
}

// certificate returns one with a key of that kind, which is made at the first call;
// nil for no key. It signs itself, so that it is also what verifies it.
func (r *rig) certificate(kind string) (*certificate, error) {
	if kind == noKey {
		return nil, nil
	}
	at := func(name string) string { return filepath.Join(r.dir, kind+"-"+name+".pem") }
	c := &certificate{at("cert"), at("key"), at("both")}
	if _, err := os.Stat(c.both); err == nil {
		return c, nil
	}
	cert, key, err := selfSigned(kind)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	for path, text := range map[string][]byte{c.cert: cert, c.key: key, c.both: append(cert, key...)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func selfSigned(kind string) (cert, key []byte, err error) {
	var signer crypto.Signer
	if kind == rsaKey {
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tlsName}, DNSNames: []string{tlsName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, nil, err
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8), nil
}

// Where a peer speaks TLS, its configuration says so with these. The certificate of
// a host is checked, with its name, by every peer.

func (p place) haproxyBind() string {
	if p.front == nil {
		return ""
	}
	return fmt.Sprintf(" ssl crt %s ssl-min-ver TLSv1.3 ciphersuites %s", p.front.both, tlsSuite)
}

func (p place) haproxyServer() string {
	if p.back == nil {
		return ""
	}
	return fmt.Sprintf(" ssl verify required ca-file %s sni str(%s) verifyhost %[2]s", p.back.cert, tlsName)
}

// nginxFront is the option of listen, and the lines beside it with an indent.
func (p place) nginxFront(indent string) (option, lines string) {
	if p.front == nil {
		return "", ""
	}
	return " ssl", fmt.Sprintf("%[1]sssl_certificate %[2]s;\n%[1]sssl_certificate_key %[3]s;\n%[1]sssl_protocols TLSv1.3;\n%[1]sssl_conf_command Ciphersuites %[4]s;\n",
		indent, p.front.cert, p.front.key, tlsSuite)
}

func (p place) nginxBack(indent string) string {
	if p.back == nil {
		return ""
	}
	return fmt.Sprintf("%[1]sproxy_ssl on;\n%[1]sproxy_ssl_protocols TLSv1.3;\n%[1]sproxy_ssl_verify on;\n%[1]sproxy_ssl_trusted_certificate %[2]s;\n%[1]sproxy_ssl_name %[3]s;\n%[1]sproxy_ssl_server_name on;\n",
		indent, p.back.cert, tlsName)
}

func (p place) txlbListen() string {
	if p.front == nil {
		return ""
	}
	return fmt.Sprintf(" tls=\"%s %s\"", p.front.cert, p.front.key)
}

func (p place) txlbHost() string {
	if p.back == nil {
		return ""
	}
	return fmt.Sprintf(" tls=\"yes\" ca=%q sni=%q", p.back.cert, tlsName)
}

// handshakeLanes is how many connections a load of handshakes has at a time: enough
// for two cores, and few enough that the end of a slice, when they run out, is short.
const handshakeLanes = 16

// fewIdle is idle with fewer sessions: the load has the other ends of TLS, with buffers of
// its own, and a program with package txlb takes no more than its limit of files allows.
func fewIdle(ctx context.Context, t *trial) error {
	t.sessions = min(t.sessions, 3000)
	return idle(ctx, t)
}

// tlsWorkloads are the workloads over TLS. All have two threads: txlb does TLS on
// goroutines, which run on every core that the process has, however many loops there are.
func tlsWorkloads() []workload {
	const fixed = "TLS 1.3, X25519, AES-128-GCM"
	over := func(sides secured, g group, w workload) workload {
		w.sides, w.group, w.suite, w.once, w.proxied, w.with, w.controls = sides, g, tlsWork, true, true, nil, nil
		return w
	}
	requests := func(name, title, how, page, unit string, g group, sides secured, o order) workload {
		w := workload{name: name, title: title, unit: unit, how: how, backend: web, figures: tlsFigures(unit)}
		if sides.back {
			w.backend = secureWeb
		}
		w.run = func(ctx context.Context, t *trial) error {
			o := o
			o.Address, o.Page, o.TLS = t.addr, page, sides.front != noKey
			got, err := runLoad(ctx, t, o)
			t.note("p50", micros(got.P50))
			t.note(p99, micros(got.P99))
			return err
		}
		return over(sides, g, w)
	}
	handshakes := fmt.Sprintf("%d connections at a time, a new one for each request; %s", handshakeLanes, fixed)
	shakes := order{Lanes: handshakeLanes, Closing: true}
	again := shakes
	again.Resume = true
	kept := order{Lanes: lanes}
	plainShakes := order{Lanes: handshakeLanes, Threads: 2, Closing: true}
	streamed := func(name, title string, count int) workload {
		w := bulkLoad(count)
		w.name, w.title, w.how = name, title, w.how+"; "+fixed
		return over(secured{front: ecdsaKey}, tlsBulks, w)
	}
	toHosts := fileLoad(4)
	toHosts.name, toHosts.title, toHosts.how = "tls-host-file4", "To hosts: 4 files that nginx encrypts", toHosts.how+"; "+fixed
	toHosts.backend = secureWeb
	held := idleLoad()
	held.name, held.title, held.run = "tls-idle", "Idle sessions over TLS", fewIdle
	all := []workload{
		requests("tls-ecdsa", "Full handshakes, ECDSA P-256", handshakes, "empty", "connection", tlsShakes, secured{front: ecdsaKey}, shakes),
		requests("tls-rsa", "Full handshakes, RSA 2048", handshakes, "empty", "connection", tlsShakes, secured{front: rsaKey}, shakes),
		requests("tls-resumed", "Resumed handshakes, ECDSA P-256", handshakes, "empty", "connection", tlsShakes, secured{front: ecdsaKey}, again),
		requests("tls-keep64", "64 kept-alive connections, reply of 100 bytes", "as fast as they are answered; "+fixed, "small", "request", tlsFlows, secured{front: ecdsaKey}, kept),
		streamed("tls-bulk1", "1 stream, encrypted for the client", 1),
		streamed("tls-bulk4", "4 streams, encrypted for the client", 4),
		requests("tls-host-short", "To hosts: a connection to a TLS host for each plain client", handshakes, "empty", "connection", tlsShakes, secured{back: true}, plainShakes),
		over(secured{back: true}, tlsBulks, toHosts),
		over(secured{front: ecdsaKey}, tlsHeld, held),
	}
	for i := range all {
		switch all[i].name {
		case "tls-ecdsa", "tls-keep64", "tls-bulk4":
			all[i].quick = true
		}
	}
	return all
}

// tlsFigures are those of requests as fast as they go, with their latency and what the
// load itself takes.
func tlsFigures(unit string) []figure {
	return append(figures(unit, unit+"s"),
		figure{name: "p50", title: "p50, µs", compared: true, of: noted("p50")},
		figure{name: p99, title: "p99, µs", compared: true, of: noted(p99)},
		figure{name: loadCPU, title: "CPU of the load, µs per " + unit, of: noted(loadCPU)},
	)
}

// loadCPU is the figure of what a load program takes itself.
const loadCPU = "load"
