package health

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// A real web server, with TLS and without, on UNIX sockets so that no port can
// be taken.
func TestNginx(t *testing.T) {
	debian.NeedFor(t, "nginx")
	s, err := servers.New(t.TempDir(), "n", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(s.Dir, name) }
	cert := certificate(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cert": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(in(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Nginx(fmt.Sprintf(`server { listen unix:%[1]s/http; listen unix:%[1]s/tls ssl; ssl_certificate %[1]s/cert; ssl_certificate_key %[1]s/key;
		location / { return 200 "fine\n"; } location /sick { return 503; }
		if ($host = "other.example") { return 404; } }`, s.Dir)); err != nil {
		t.Fatal(err)
	}
	probe := func(socket string, p Probe) Result {
		p.Addr, p.Timeout, p.Status = sched.UnixAddr(in(socket)), testkit.Patience, []Status{{200, 399}}
		return Run(t.Context(), p)
	}
	s.Probe = func(string) error {
		if r := probe("tls", Probe{}); r.Code != L4OK {
			return errors.New(r.Text)
		}
		return nil
	}
	s.RunFor(t)
	check(t, probe("http", Probe{Type: HTTP, Path: "/"}), L7OK, "200 OK")
	check(t, probe("http", Probe{Type: HTTP, Path: "/sick"}), L7Sts, "503 Service Temporarily Unavailable")
	check(t, probe("http", Probe{Type: HTTP, Path: "/", Host: "other.example"}), L7Sts, "404 Not Found")
	check(t, probe("tls", Probe{Type: TLS, Host: "www.example"}), L6OK, "")
	check(t, probe("tls", Probe{Type: HTTP, Path: "/"}), L7Sts, "400 Bad Request")
	check(t, probe("http", Probe{Type: TLS}), L6Rsp, "handshake: ")
	check(t, probe("http", Probe{Type: Expect, Send: "GET / HTTP/1.0\r\n\r\n", Expect: "\r\n\r\nfine\n"}), L7OK, "")
	check(t, probe("none", Probe{Type: HTTP, Path: "/"}), L4Con, "no such file")
}
