//go:build unix

package health

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/sched"
)

// A real web server, with TLS and without, on UNIX sockets so that no port can
// be taken.
func TestNginx(t *testing.T) {
	debian.NeedFor(t, "nginx")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // its workers run as another user
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	cert := certificate(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cert": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"conf": fmt.Appendf(nil, `daemon off; master_process off; error_log stderr; pid %[1]s/pid; events {}
			http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
			server { listen unix:%[1]s/http; listen unix:%[1]s/tls ssl; ssl_certificate %[1]s/cert; ssl_certificate_key %[1]s/key;
				location / { return 200 "fine\n"; } location /sick { return 503; }
				if ($host = "other.example") { return 404; } } }`, dir),
	} {
		if err := os.WriteFile(in(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(debian.Path("nginx"), "-p", dir, "-c", in("conf"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	probe := func(socket string, p Probe) Result {
		p.Addr, p.Timeout, p.Status = sched.UnixAddr(in(socket)), 10*time.Second, []Status{{200, 399}}
		return Run(t.Context(), p)
	}
	for deadline := time.Now().Add(20 * time.Second); probe("tls", Probe{}).Code != L4OK; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nginx does not start")
		}
	}
	check(t, probe("http", Probe{Type: HTTP, Path: "/"}), L7OK, "200 OK")
	check(t, probe("http", Probe{Type: HTTP, Path: "/sick"}), L7Sts, "503 Service Temporarily Unavailable")
	check(t, probe("http", Probe{Type: HTTP, Path: "/", Host: "other.example"}), L7Sts, "404 Not Found")
	check(t, probe("tls", Probe{Type: TLS, Host: "www.example"}), L6OK, "")
	check(t, probe("tls", Probe{Type: HTTP, Path: "/"}), L7Sts, "400 Bad Request")
	check(t, probe("http", Probe{Type: TLS}), L6Rsp, "handshake: ")
	check(t, probe("http", Probe{Type: Expect, Send: "GET / HTTP/1.0\r\n\r\n", Expect: "\r\n\r\nfine\n"}), L7OK, "")
	check(t, probe("none", Probe{Type: HTTP, Path: "/"}), L4Con, "no such file")
}
