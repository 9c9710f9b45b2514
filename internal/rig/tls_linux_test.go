package rig_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// webWithTLS runs a web server that ends TLS itself, with a certificate for a name. It
// answers / with what it is called, and nginx serves what else is in its folder. It can
// speak h2, as well as HTTP/1.1.
func webWithTLS(t *testing.T, program, label, name string) (s *servers.Server, cert string) {
	t.Helper()
	addr, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s, err = servers.New(t.TempDir(), label, addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := servers.Certify(t, s.Dir, name, nil)
	if program == "nginx" {
		err = s.Nginx(fmt.Sprintf(`server { listen %s ssl http2; ssl_certificate %s; ssl_certificate_key %s; root %s;
	location = / { return 200 "%s"; } }`, addr, cert, key, s.Dir, label))
	} else {
		var both []byte
		for _, file := range []string{cert, key} {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, b...)
		}
		pem := filepath.Join(s.Dir, "both.pem")
		if err := os.WriteFile(pem, both, 0o600); err != nil {
			t.Fatal(err)
		}
		err = s.HAProxy(fmt.Sprintf(`defaults
	mode http
	timeout client 60s
frontend f
	bind %s ssl crt %s alpn h2,http/1.1
	http-request return status 200 content-type text/plain string "%s"
`, addr, pem, label))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.RunFor(t)
	return s, cert
}

// TestB85RealTLSIsRouted sends openssl and curl to nginx and HAProxy that end TLS: by
// name, by a name below another, and by protocol. Clients without a name, or with one of
// none, get the active group. Each verifies the certificate of the server that it gets.
func TestB85RealTLSIsRouted(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "openssl", "curl", "nginx", "haproxy")
	active, activeCert := webWithTLS(t, "haproxy", "active", "other.test")
	shop, shopCert := webWithTLS(t, "nginx", "shop", "shop.test")
	fast, fastCert := webWithTLS(t, "haproxy", "fast", "shop.test")
	below, belowCert := webWithTLS(t, "nginx", "below", "*.shop.test")
	certs := map[string]string{"active": activeCert, "shop": shopCert, "fast": fastCert, "below": belowCert}
	subjects := map[string]string{"active": "other.test", "shop": "shop.test", "fast": "shop.test", "below": "*.shop.test"}

	content := make([]byte, 24<<20) // so much that it is spliced
	_, _ = rand.NewChaCha8([32]byte{85}).Read(content)
	for _, s := range []*servers.Server{shop, below} {
		if err := os.WriteFile(filepath.Join(s.Dir, "large"), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	r := rig.Start(t, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/>
	<timeouts hello="1h"/>
	<route sni="SHOP.test" alpn="h2" group="fast"/>
	<route sni="shop.test" group="shop"/>
	<route sni="*.shop.test" group="below"/>
	<group name="active" enable="yes"><host name="h" ip="%s"/></group>
	<group name="fast"><host name="h" ip="%s"/></group>
	<group name="shop"><host name="h" ip="%s"/></group>
	<group name="below"><host name="h" ip="%s"/></group>
	</service></config>`, active.Addr, fast.Addr, shop.Addr, below.Addr))
	addr := r.Addr("web")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}

	curl := func(cert, name, path string, more ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), debian.Path("curl"), append([]string{
			"-q", "--silent", "--show-error", "--noproxy", "*", "--cacert", cert,
			"--resolve", name + ":" + port + ":127.0.0.1", "https://" + name + ":" + port + path,
		}, more...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, servers.Tail(stderr.String()))
		}
		return out, err
	}
	for _, c := range []struct{ name, protocol, want string }{
		{"shop.test", "--http1.1", "shop"},
		{"shop.test", "--http2", "fast"},
		{"a.shop.test", "--http1.1", "below"},
		{"A.Shop.test", "--http2", "below"},
		{"other.test", "--http2", "active"},
	} {
		out, err := curl(certs[c.want], c.name, "/", c.protocol)
		if err != nil || string(out) != c.want {
			t.Errorf("curl %s %s: got %q, %v; want %q", c.protocol, c.name, out, err, c.want)
		}
	}
	// An address is not a name, so curl sends none.
	if out, err := curl(activeCert, "127.0.0.1", "/", "--insecure"); err != nil || string(out) != "active" {
		t.Errorf("curl without a name: got %q, %v; want active", out, err)
	}

	for _, c := range []struct {
		args     string
		want     string
		protocol string
	}{
		{"-servername shop.test -alpn h2,http/1.1 -verify_hostname shop.test", "fast", "h2"},
		{"-servername shop.test -alpn http/1.1 -verify_hostname shop.test", "shop", "http/1.1"},
		{"-servername sHOP.test -verify_hostname shop.test -tls1_2", "shop", ""},
		{"-servername b.shop.test -alpn h2 -verify_hostname b.shop.test", "below", "h2"},
		{"-servername a.b.shop.test", "below", ""},
		{"-servername xshop.test -alpn h2", "active", "h2"},
		{"-noservername -alpn h2 -verify_hostname other.test", "active", "h2"},
		{"-noservername -tls1_2", "active", ""},
	} {
		cmd := exec.CommandContext(t.Context(), debian.Path("openssl"), append([]string{
			"s_client", "-connect", addr, "-CAfile", certs[c.want], "-verify_return_error",
		}, strings.Fields(c.args)...)...) // its input is empty: it ends behind the handshake
		b, err := cmd.CombinedOutput()
		out := string(b)
		protocol := "No ALPN negotiated"
		if c.protocol != "" {
			protocol = "ALPN protocol: " + c.protocol
		}
		if err != nil || !strings.Contains(out, "CN = "+subjects[c.want]+"\n") || !strings.Contains(out, protocol) || !strings.Contains(out, "Verify return code: 0 (ok)") {
			t.Errorf("openssl %s: %v; want the certificate of %s and %q\n%s", c.args, err, c.want, protocol, out)
		}
	}

	// All bytes behind a hello arrive, in order.
	for _, name := range []string{"shop.test", "a.shop.test"} {
		want := map[string]string{"shop.test": "shop", "a.shop.test": "below"}[name]
		out, err := curl(certs[want], name, "/large", "--http1.1")
		if err != nil || sha256.Sum256(out) != sha256.Sum256(content) {
			t.Errorf("%d of %d bytes from %s, %v, or others", len(out), len(content), name, err)
		}
	}
	for reason, n := range r.Engine.Snapshot().Services["web"].Refused {
		if n > 0 {
			t.Errorf("%d clients rejected: %s", n, reason)
		}
	}
}
