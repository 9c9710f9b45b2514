package testkit

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
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Authority is a certificate authority for tests.
type Authority struct {
	PEM  []byte // its certificate
	Cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{key: newKey(t, false)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * 365 * 24 * time.Hour), NotAfter: time.Now().Add(2 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.Cert, a.PEM = sign(t, template, template, a.key.Public(), a.key)
	return a
}

// Leaf is what a certificate is to be.
type Leaf struct {
	Names    []string // DNS names and IP addresses; none: it is for the common name "client"
	RSA      bool     // its key, ECDSA otherwise
	From, To time.Time
}

// Issue returns a certificate and its key, both in PEM. It is for servers and clients, and
// valid for a year if l does not say otherwise.
func (a *Authority) Issue(t testing.TB, l Leaf) (cert, key []byte) {
	t.Helper()
	k := newKey(t, l.RSA)
	template := &x509.Certificate{
		SerialNumber: serial(t), NotBefore: l.From, NotAfter: l.To, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if l.From.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if l.To.IsZero() {
		template.NotAfter = time.Now().Add(365 * 24 * time.Hour)
	}
	for _, n := range l.Names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	if len(l.Names) == 0 {
		template.Subject.CommonName = "client"
	}
	_, cert = sign(t, template, a.Cert, k.Public(), a.key)
	return cert, KeyPEM(t, k)
}

// Pair is Issue for package tls.
func (a *Authority) Pair(t testing.TB, l Leaf) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.Issue(t, l))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Pool returns a pool with the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// KeyPEM is a key in PKCS #8.
func KeyPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Put writes a file as people should replace one that is in use: whole, by a rename.
func Put(t testing.TB, path string, text []byte) {
	t.Helper()
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
}

// TLSServer returns the address of a server that makes handshakes with a certificate and
// then answers each byte with the same, until the test ends.
func TLSServer(t testing.TB, certificate tls.Certificate) string {
	t.Helper()
	return serve(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})
		_, _ = io.Copy(s, s)
	})
}

// Listener returns the address of a server that accepts, says that it speaks no TLS once
// it has heard something, and closes.
func Listener(t testing.TB) string {
	t.Helper()
	return serve(t, func(c net.Conn) {
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			_, _ = io.WriteString(c, "plain\r\n")
		}
	})
}

// serve runs a server until the test ends.
func serve(t testing.TB, answer func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				answer(c)
				stop()
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		cancel()
		wg.Wait()
	})
	return ln.Addr().String()
}

func newKey(t testing.TB, ofRSA bool) (key crypto.Signer) {
	t.Helper()
	var err error
	if ofRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) (*x509.Certificate, []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
