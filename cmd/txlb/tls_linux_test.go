//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// certified writes a certificate and its key, and returns them as <listen tls> has them.
func certified(t *testing.T, dir, file string, a *testkit.Authority, l testkit.Leaf) (pair string) {
	t.Helper()
	cert, key := a.Issue(t, l)
	names := [2]string{filepath.Join(dir, file+".pem"), filepath.Join(dir, file+".key")}
	testkit.Put(t, names[0], cert)
	testkit.Put(t, names[1], key)
	return names[0] + " " + names[1]
}

// openssl returns the names of the certificate that openssl is shown, after it has
// verified it.
func opensslShown(t *testing.T, addr, name, ca string) (names string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, debian.Path("openssl"), "s_client", "-connect", addr, "-servername", name, "-CAfile", ca,
		"-verify_return_error", "-verify_hostname", name).CombinedOutput()
	block, _ := pem.Decode(out)
	if err != nil || block == nil {
		t.Fatalf("openssl s_client for %s: %v\n%s", name, err, out)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(cert.DNSNames, " ")
}

// greetedTLS returns the first line that a client reads.
func greetedTLS(addr string, c *tls.Config) (string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, c)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// Two certificates of one listener, which openssl verifies, are replaced while txlb runs.
// Nobody tells it to look.
func TestB98CertificatesInTheProgram(t *testing.T) {
	t.Parallel()
	debian.NeedFor(t, "openssl")
	dir, a := t.TempDir(), testkit.NewAuthority(t, "ca")
	ca := filepath.Join(dir, "ca.pem")
	testkit.Put(t, ca, a.PEM)
	one := certified(t, dir, "one", a, testkit.Leaf{Names: []string{"one.example"}})
	two := certified(t, dir, "two", a, testkit.Leaf{Names: []string{"two.example"}, RSA: true})
	p := txlb(t, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0" tls="%s
		%s"/><group name="g"><host name="a" ip="%s"/></group></service></config>`, one, two, server(t, named("a\n"))))
	addr := p.addr("web", 0)
	for _, name := range []string{"one.example", "two.example"} {
		if got := opensslShown(t, addr, name, ca); got != name {
			t.Errorf("for %s: %s", name, got)
		}
	}
	if line, err := greetedTLS(addr, &tls.Config{RootCAs: a.Pool(), ServerName: "two.example"}); line != "a" || err != nil {
		t.Errorf("the host says %q, %v", line, err)
	}
	certified(t, dir, "one", a, testkit.Leaf{Names: []string{"one.example", "new.example"}})
	p.expect("certificate reloaded")
	eventually(t, "the new certificate is served", func() bool { return opensslShown(t, addr, "one.example", ca) == "one.example new.example" })
	if got := opensslShown(t, addr, "two.example", ca); got != "two.example" {
		t.Errorf("the other one: %s", got)
	}
}

// A client without a certificate of the authority is rejected, and its host does not see it.
func TestB99ClientCertificatesInTheProgram(t *testing.T) {
	t.Parallel()
	dir, a, b := t.TempDir(), testkit.NewAuthority(t, "a"), testkit.NewAuthority(t, "b")
	clients := filepath.Join(dir, "clients.pem")
	testkit.Put(t, clients, b.PEM)
	p := txlb(t, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0" tls="%s" clientCA="%s"/>
		<group name="g"><host name="a" ip="%s"/></group></service></config>`,
		certified(t, dir, "one", a, testkit.Leaf{Names: []string{"one.example"}}), clients, server(t, named("a\n"))))
	mine := b.Pair(t, testkit.Leaf{})
	for what, test := range map[string]struct {
		certs []tls.Certificate
		ok    bool
	}{"none": {nil, false}, "of another authority": {[]tls.Certificate{a.Pair(t, testkit.Leaf{})}, false}, "right": {[]tls.Certificate{mine}, true}} {
		line, err := greetedTLS(p.addr("web", 0), &tls.Config{RootCAs: a.Pool(), ServerName: "one.example", Certificates: test.certs})
		if (err == nil) != test.ok || test.ok && line != "a" {
			t.Errorf("%s: %q, %v", what, line, err)
		}
	}
}

// Connections to a host are encrypted and verified, and so are its checks.
func TestB99HostsWithTLSInTheProgram(t *testing.T) {
	t.Parallel()
	dir, a, b := t.TempDir(), testkit.NewAuthority(t, "a"), testkit.NewAuthority(t, "b")
	ca, other := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "other.pem")
	testkit.Put(t, ca, a.PEM)
	testkit.Put(t, other, b.PEM)
	host := testkit.TLSServer(t, a.Pair(t, testkit.Leaf{Names: []string{"db.example"}}))
	metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := txlb(t, fmt.Sprintf(`<config><service name="good"><listen ip="127.0.0.1:0"/><group name="g"><check interval="100ms"/><host name="a" ip="%[1]s" tls="yes" ca="%[2]s" sni="db.example"/></group></service>
		<service name="bad"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="%[1]s" tls="yes" ca="%[3]s" sni="db.example"/></group></service>
		<admin><metrics listen="%[4]s"/></admin></config>`, host, ca, other, metrics))
	talk := func(service string) (string, error) {
		c, err := net.DialTimeout("tcp", p.addr(service, 0), patience)
		if err != nil {
			return "", err
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte("hello\n")); err != nil {
			return "", err
		}
		return bufio.NewReader(c).ReadString('\n')
	}
	if line, err := talk("good"); line != "hello\n" || err != nil {
		t.Errorf("good: %q, %v", line, err)
	}
	if line, err := talk("bad"); line != "" || err == nil {
		t.Errorf("an authority that is not trusted: %q, %v", line, err)
	}
	eventually(t, "a check has passed", func() bool {
		return metric(t, metrics, `txlb_checks_total{service="good",group="g",host="a",result="L6OK"}`) > 0
	})
	if n := metric(t, metrics, `txlb_connect_failures_total{service="bad",reason="tls"}`); n < 1 {
		t.Errorf("%v failures are counted", n)
	}
	if n := metric(t, metrics, `txlb_tls_handshakes_total{service="good",side="host",result="full"}`); n < 1 {
		t.Errorf("%v handshakes are counted", n)
	}
}

// What is wrong with a certificate is told with its line and with what would be right.
func TestB98CheckTellsOfCertificates(t *testing.T) {
	t.Parallel()
	dir, a, now := t.TempDir(), testkit.NewAuthority(t, "ca"), time.Now()
	file := func(name string, text []byte) string {
		testkit.Put(t, filepath.Join(dir, name), text)
		return filepath.Join(dir, name)
	}
	cert, key := a.Issue(t, testkit.Leaf{Names: []string{"one.example"}})
	_, otherKey := a.Issue(t, testkit.Leaf{Names: []string{"one.example"}})
	block, _ := pem.Decode(key)
	c, k := file("cert.pem", cert), file("key.pem", key)
	for _, test := range []struct{ listen, host, want string }{
		{c + " " + k, "", ""},
		{c + " " + dir + "/none", "", ":2: <listen tls> of service \"web\": cannot read DIR/none: no such file or directory"},
		{c + " " + file("other.pem", otherKey), "", ":2: <listen tls> of service \"web\": the key in DIR/other.pem does not belong to the certificate in DIR/cert.pem (one.example); give the key that the certificate was made with"},
		{certified(t, dir, "old", a, testkit.Leaf{Names: []string{"old.example"}, From: now.Add(-48 * time.Hour), To: now.Add(-24 * time.Hour)}), "", ":2: warning: <listen tls> of service \"web\": the certificate in DIR/old.pem (old.example) expired on "},
		{certified(t, dir, "future", a, testkit.Leaf{Names: []string{"new.example"}, From: now.Add(24 * time.Hour), To: now.Add(48 * time.Hour)}), "", ":2: warning: <listen tls> of service \"web\": the certificate in DIR/future.pem (new.example) is not valid before "},
		{file("noleaf.pem", append(a.PEM[:len(a.PEM):len(a.PEM)], cert...)) + " " + k, "", ":2: <listen tls> of service \"web\": DIR/noleaf.pem begins with another certificate than that of the key: it is number 2; put it first, and its issuers behind it"},
		{c + " " + file("encrypted.pem", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: block.Bytes})), "", ":2: <listen tls> of service \"web\": the key in DIR/encrypted.pem is encrypted, and nobody could type its passphrase; decrypt it with: openssl pkey -in DIR/encrypted.pem -out NEW"},
		{c + " " + k + `" clientCA="` + k, "", ":2: <listen clientCA> of service \"web\": DIR/key.pem has no certificate, but PRIVATE KEY; want -----BEGIN CERTIFICATE-----"},
		{c + " " + k, ` tls="yes" ca="` + dir + `/none"`, ":4: <host ca> of host \"a\": cannot read DIR/none: no such file or directory"},
	} {
		path := write(t, fmt.Sprintf("<config><service name=\"web\">\n<listen ip=\"127.0.0.1:0\" tls=\"%s\"/>\n<group name=\"g\">\n<host name=\"a\" ip=\"127.0.0.1:1\"%s/></group></service></config>", test.listen, test.host))
		status, out := call(t, "check", "-c", path)
		out = strings.ReplaceAll(strings.ReplaceAll(out, path, "FILE"), dir, "DIR")
		want := "FILE" + test.want
		if fails := test.want != "" && !strings.Contains(test.want, "warning"); fails != (status == exitUsage) || !strings.HasPrefix(out, want) {
			t.Errorf("status %d: %s\nwant %s", status, out, want)
		}
	}
}
