package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// shown returns the certificate that the server shows.
func (r *rig) shown(config *tls.Config) (*x509.Certificate, error) {
	if config == nil {
		config = &tls.Config{}
	}
	config.InsecureSkipVerify = true
	c, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: config}).DialContext(context.Background(), "tcp", r.addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// TestOwnCertificateIsMadeAndKept starts twice.
func TestOwnCertificateIsMadeAndKept(t *testing.T) {
	dir := t.TempDir()
	secure := func(o *Options) { o.Secure, o.StateDir, o.Listen = true, dir, "lb.example:7000" }
	first := newRig(t, twoHosts, secure)
	cert, err := first.shown(nil)
	if err != nil {
		t.Fatal(err)
	}
	machine, _ := os.Hostname()
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "lb.example", machine} {
		if config.IsDNSName(machine) && cert.VerifyHostname(name) != nil {
			t.Errorf("it is not for %s: %v", name, cert.VerifyHostname(name))
		}
	}
	if cert.VerifyHostname("other.example") == nil || cert.IsCA || time.Until(cert.NotAfter) > ownLife || cert.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("it is %v until %v", cert.Subject, cert.NotAfter)
	}
	info, err := os.Stat(filepath.Join(dir, ownFile))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if !strings.Contains(first.log.String(), "sha256=") || strings.Contains(first.log.String(), "PRIVATE") {
		t.Error("the log does not tell its fingerprint, or too much")
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	a, err := trusting.Get(first.url + "/healthz")
	if err != nil {
		t.Fatalf("who trusts it: %v", err)
	}
	_ = a.Body.Close()
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	again, err := newRig(t, twoHosts, secure).shown(nil)
	if err != nil || !again.Equal(cert) {
		t.Errorf("the second start shows another one: %v", err)
	}
	// For another name it is made again, and so is one that others could read.
	other, err := newRig(t, twoHosts, secure, func(o *Options) { o.Listen = "lb2.example:7000" }).shown(nil)
	if err != nil || other.Equal(cert) || other.VerifyHostname("lb2.example") != nil {
		t.Errorf("for another name: %v", err)
	}
	if runtime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(filepath.Join(dir, ownFile), 0o640); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, twoHosts, secure, func(o *Options) { o.Listen = "lb2.example:7000" })
	if safe, err := r.shown(nil); err != nil || safe.Equal(other) || !strings.Contains(r.log.String(), "others can read") {
		t.Errorf("one that others can read: %v", err)
	}
}

// TestOwnCertificateIsRenewed looks at one before its end, at one that is no
// certificate, and keeps going where nothing can be kept.
func TestOwnCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ownFile)
	log := slog.New(slog.DiscardHandler)
	old, err := makeCertificate([]string{"localhost"}, time.Now().Add(-ownLife+renewBefore-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range [][]byte{old, []byte("rubbish"), nil} {
		if err := os.WriteFile(path, kept, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := newCertificates(&Options{StateDir: dir}, []string{"localhost"}, log)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(c.now.Leaf.NotAfter); left < ownLife-2*time.Hour {
			t.Errorf("it is good for %v more", left)
		}
		if text, err := os.ReadFile(path); err != nil || bytes.Equal(text, kept) {
			t.Errorf("it is not kept: %v", err)
		}
	}
	pair, err := tls.X509KeyPair(old, old)
	if err != nil {
		t.Fatal(err)
	}
	running := &certificates{log: log, dir: dir, names: []string{"localhost"}, now: &pair, files: func() (string, string) { return "", "" }}
	renewed, err := running.get(nil)
	if err != nil || renewed == &pair {
		t.Errorf("while running it is not renewed: %v", err)
	}
	nowhere, err := newCertificates(&Options{StateDir: filepath.Join(dir, "none")}, []string{"localhost"}, log)
	if err != nil || nowhere.now == nil {
		t.Errorf("where it cannot be kept: %v", err)
	}
}

// TestCertificateFilesAreReadAgain replaces certificate and key, one after the
// other.
func TestCertificateFilesAreReadAgain(t *testing.T) {
	testkit.Long(t)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	give := func(file string, text []byte) {
		t.Helper()
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	pair := func(name string) []byte {
		t.Helper()
		text, err := makeCertificate([]string{name}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	old := pair("old.example")
	give(cert, old)
	give(key, old)
	r := newRig(t, twoHosts, func(o *Options) { o.Secure, o.Files = true, func() (string, string) { return cert, key } })
	shows := func(name string) bool {
		c, err := r.shown(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.VerifyHostname(name) == nil
	}
	if !shows("old.example") {
		t.Error("it is not shown")
	}
	if a := r.do("boss", "GET", "/status.txt", "", "Host", "old.example"); a.StatusCode != http.StatusOK {
		t.Errorf("by the name of the certificate: %s", a.Status)
	}
	next := pair("new.example")
	give(cert, next)
	eventually(t, "half a pair is noticed", func() bool { return shows("old.example") && strings.Contains(r.log.String(), "new admin certificate") })
	if a := r.do("boss", "GET", "/status.txt", ""); a.StatusCode != http.StatusOK {
		t.Errorf("meanwhile: %s", a.Status)
	}
	give(key, next)
	eventually(t, "the new one is shown", func() bool { return shows("new.example") })
	if a := r.do("boss", "GET", "/status.txt", "", "Host", "new.example"); a.StatusCode != http.StatusOK {
		t.Errorf("by its new name: %s", a.Status)
	}
	if a := r.do("boss", "GET", "/status.txt", "", "Host", "old.example"); a.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("by its old name: %s", a.Status)
	}
	// A file that has gone takes nothing away.
	c, err := newCertificates(&r.opt, nil, r.opt.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	was := c.now
	if is, err := c.get(nil); err != nil || is != was {
		t.Errorf("without its file: %v", err)
	}
}

// TestWrongCertificateIsAnError starts with files that cannot be used.
func TestWrongCertificateIsAnError(t *testing.T) {
	dir := t.TempDir()
	rubbish := filepath.Join(dir, "rubbish.pem")
	if err := os.WriteFile(rubbish, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, twoHosts)
	for _, o := range [][2]string{{filepath.Join(dir, "none"), rubbish}, {rubbish, rubbish}, {"", rubbish}} {
		opt := r.opt
		opt.Secure, opt.Files = true, func() (string, string) { return o[0], o[1] }
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ln, opt); err == nil || !strings.Contains(err.Error(), "<web") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", o, err)
		}
		if _, err := net.Dial("tcp4", ln.Addr().String()); err == nil {
			t.Error("it listens on")
		}
	}
}

// TestTLSIsNewAndPlainIsTold tries an old TLS and plain HTTP.
func TestTLSIsNewAndPlainIsTold(t *testing.T) {
	r := newRig(t, twoHosts, func(o *Options) { o.Secure = true })
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		if _, err := r.shown(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version}); (err == nil) != want {
			t.Errorf("TLS %#x: %v", version, err)
		}
	}
	// TLS 1.2 without forward secrecy or with CBC, which Go's client would still take.
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			continue
		}
		_, err := r.shown(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}})
		if old := !strings.HasPrefix(suite.Name, "TLS_ECDHE_ECDSA_") || strings.Contains(suite.Name, "_CBC_") || strings.Contains(suite.Name, "RC4"); (err == nil) == old {
			t.Errorf("%s: %v", suite.Name, err)
		}
	}
	c := r.dialFrom("127.0.0.1")
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(bufio.NewReader(c))
	if err != nil || !strings.Contains(string(got), "400 Bad Request") || !strings.Contains(string(got), "HTTPS") {
		t.Errorf("plain HTTP is told %q, %v", got, err)
	}
	if a := r.do("boss", "GET", "/status.txt", ""); a.ProtoMajor != 1 {
		t.Errorf("the protocol is %s", a.Proto)
	}
}

// Browsers are told to use TLS for the name, but not for the names of this machine,
// on which other things run without it, and not without TLS.
func TestStrictTransportSecurity(t *testing.T) {
	r := newRig(t, twoHosts, func(o *Options) { o.Secure = true })
	for host, want := range map[string]bool{
		"localhost:7000": false, "127.0.0.1:7000": false, "[::1]:7000": false, "192.0.2.7:7000": true, "other.example": true,
	} {
		a := r.do("boss", "GET", "/healthz", "", "Host", host) // also where the name is refused
		if got := a.Header.Get("Strict-Transport-Security"); (got != "") != want {
			t.Errorf("%s: %s, %q", host, a.Status, got)
		}
	}
	r = newRig(t, twoHosts)
	if a := r.do("boss", "GET", "/healthz", "", "Host", "192.0.2.7:7000"); a.Header.Get("Strict-Transport-Security") != "" {
		t.Error("said without TLS")
	}
}
