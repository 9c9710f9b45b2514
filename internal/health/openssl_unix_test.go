//go:build unix

package health

import (
	"bufio"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// opensslServer runs openssl s_server and returns a TLS probe of it.
func opensslServer(t *testing.T, args ...string) Probe {
	t.Helper()
	cmd := exec.Command(debian.Path("openssl"), append([]string{"s_server", "-accept", "127.0.0.1:0"}, args...)...)
	// It reads what to send from here until the end of the test.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		_ = cmd.Wait()
	})
	in := bufio.NewReader(out)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			close(drained)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("openssl s_server %q: %v\n%s", args, err, errs.String())
		}
		if addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ACCEPT "); ok {
			go func() {
				_, _ = io.Copy(io.Discard, in)
				close(drained)
			}()
			return Probe{Addr: parse(t, addr), Type: TLS, Timeout: testkit.Patience}
		}
	}
}

// opensslCert makes a certificate that signs itself and returns its files.
func opensslCert(t *testing.T, args ...string) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	args = append([]string{"req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=www.example", "-addext", "subjectAltName=DNS:www.example,IP:127.0.0.1", "-out", cert, "-keyout", key}, args...)
	if out, err := exec.Command(debian.Path("openssl"), args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
	return cert, key
}

// A real server passes whatever crypto/tls thinks of it.
func TestTLSOfOpenSSL(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "openssl")
	rsa, rsaKey := opensslCert(t, "-newkey", "rsa:2048")
	negative, negativeKey := opensslCert(t, "-newkey", "rsa:2048", "-set_serial", "-5")
	ed448, ed448Key := opensslCert(t, "-newkey", "ed448")
	ec, ecKey := opensslCert(t, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1")
	dsa := filepath.Join(t.TempDir(), "dsa.pem")
	if out, err := exec.Command(debian.Path("openssl"), "dsaparam", "-out", dsa, "1024").CombinedOutput(); err != nil {
		t.Fatalf("openssl dsaparam: %v\n%s", err, out)
	}
	dss, dssKey := opensslCert(t, "-newkey", "dsa:"+dsa)
	withRSA := []string{"-cert", rsa, "-key", rsaKey}
	for name, args := range map[string][]string{
		"usual":            withRSA,
		"RSA key exchange": append(withRSA, "-tls1_2", "-cipher", "AES128-SHA"),
		"DHE":              append(withRSA, "-tls1_2", "-cipher", "DHE-RSA-AES128-SHA"),
		"DHE with CCM":     append(withRSA, "-tls1_2", "-cipher", "DHE-RSA-AES128-CCM8"),
		"DHE with DSS":     {"-cert", dss, "-key", dssKey, "-tls1_2", "-cipher", "ALL:@SECLEVEL=0"},
		"Camellia":         append(withRSA, "-tls1_2", "-cipher", "ECDHE-RSA-CAMELLIA128-SHA256"),
		"TLS 1.0":          append(withRSA, "-tls1", "-cipher", "ALL:@SECLEVEL=0"),
		"TLS 1.1":          append(withRSA, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
		"TLS 1.3":          append(withRSA, "-tls1_3"),
		"TLS 1.3 CCM":      append(withRSA, "-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_8_SHA256"),
		"retry P-384":      append(withRSA, "-tls1_3", "-groups", "P-384"),
		"retry X448":       append(withRSA, "-tls1_3", "-groups", "X448"),
		"retry ffdhe2048":  append(withRSA, "-tls1_3", "-groups", "ffdhe2048"),
		"no middlebox":     append(withRSA, "-tls1_3", "-no_middlebox"),
		"negative serial":  {"-cert", negative, "-key", negativeKey},
		"Ed448":            {"-cert", ed448, "-key", ed448Key},
		"Brainpool":        {"-cert", ec, "-key", ecKey, "-tls1_2"},
		"client cert 1.2":  append(withRSA, "-tls1_2", "-Verify", "1", "-verify_return_error"),
		"client cert 1.3":  append(withRSA, "-tls1_3", "-Verify", "1", "-verify_return_error"),
	} {
		p := opensslServer(t, args...)
		for _, p.Host = range []string{"", "www.example:443"} {
			if r := Run(t.Context(), p); r.Code != L6OK {
				t.Errorf("%s: %v", name, r)
			}
		}
	}
	psk := opensslServer(t, "-tls1_2", "-nocert", "-psk", "abcd", "-cipher", "PSK-AES128-CBC-SHA")
	check(t, Run(t.Context(), psk), L6Rsp, "handshake: the server sent the alert handshake_failure (40)")
	strict := opensslServer(t, append(withRSA, "-servername", "www.example", "-servername_fatal", "-cert2", rsa, "-key2", rsaKey)...)
	strict.Host = "other.example"
	check(t, Run(t.Context(), strict), L6Rsp, "handshake: the server sent the alert unrecognized_name (112)")
	strict.Host = "www.example"
	check(t, Run(t.Context(), strict), L6OK, "")
}

// With Verify the handshake is whole, and the certificate counts.
func TestTLSVerified(t *testing.T) {
	debian.NeedFor(t, "openssl")
	cert, key := opensslCert(t, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
	other, _ := opensslCert(t, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
	p := opensslServer(t, "-cert", cert, "-key", key)
	p.Verify, p.CA = true, cert
	ask := func(host, ca string, code Code, text string) {
		t.Helper()
		p.Host, p.CA = host, ca
		check(t, Run(t.Context(), p), code, text)
	}
	ask("www.example:443", cert, L6OK, "")
	ask("", cert, L6OK, "") // by the address
	ask("other.example", cert, L6Rsp, "handshake: tls: failed to verify certificate: x509: certificate is valid for www.example, not other.example")
	ask("www.example", other, L6Rsp, "handshake: tls: failed to verify certificate: x509: ")
	ask("www.example", "", L6Rsp, "handshake: tls: failed to verify certificate: x509: certificate signed by unknown authority")
	ask("www.example", cert+".none", SockErr, "<check ca>: open ")
	ask("www.example", key, SockErr, "<check ca>: ")
	rsa, rsaKey := opensslCert(t, "-newkey", "rsa:2048")
	p = opensslServer(t, "-cert", rsa, "-key", rsaKey, "-tls1_2", "-cipher", "AES128-SHA")
	p.Verify = true
	ask("www.example", rsa, L6OK, "")
	p = opensslServer(t, "-cert", rsa, "-key", rsaKey, "-tls1_2", "-Verify", "1", "-verify_return_error")
	p.Verify = true
	ask("www.example", rsa, L6Rsp, "handshake: remote error: tls: ")
}
