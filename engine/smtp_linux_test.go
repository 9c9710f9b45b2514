package engine_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// mailServer is a server of SMTP with TLS for a name, which it gives as the answer to NOOP.
func mailServer(t *testing.T, name string) (addr sched.Addr, cert string) {
	cert, key := servers.Certify(t, t.TempDir(), name, nil)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		var c net.Conn = p
		_, _ = fmt.Fprintf(c, "220-%s ESMTP\r\n220 hello\r\n", name)
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.ToUpper(verb) {
			case "EHLO":
				_, _ = fmt.Fprintf(c, "250-%s\r\n250-STARTTLS\r\n250 HELP\r\n", name)
			case "STARTTLS":
				_, _ = fmt.Fprint(c, "220 go\r\n")
				c = tls.Server(p.Conn, &tls.Config{Certificates: []tls.Certificate{pair}})
				r = bufio.NewReader(c)
			case "QUIT":
				_, _ = fmt.Fprint(c, "221 bye\r\n")
				_ = c.Close()
				return
			default:
				_, _ = fmt.Fprintf(c, "250 %s\r\n", name)
			}
		}
	}), cert
}

// openssl s_client and the client of package net/smtp are routed by the name that they
// connect to, and verify the certificate of the server that they get.
func TestB85SMTPClientsAreRoutedByName(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl")
	}
	mainAddr, mainCert := mailServer(t, "main.example")
	dbAddr, dbCert := mailServer(t, "db.example")
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, mainAddr)
		serveSMTP(t, r, testkit.Patience, dbAddr)
		for name, cert := range map[string]string{"main.example": mainCert, "db.example": dbCert} {
			cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", r.Addr, "-starttls", "smtp", "-servername", name,
				"-CAfile", cert, "-verify_return_error", "-verify_hostname", name, "-quiet")
			cmd.Stdin = strings.NewReader("NOOP\r\nquit\r\n")
			if out, err := cmd.CombinedOutput(); !strings.Contains(string(out), "250 "+name+"\r\n") {
				t.Errorf("openssl to %s: %v\n%s", name, err, out)
			}

			pem, err := os.ReadFile(cert)
			if err != nil {
				t.Fatal(err)
			}
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(pem)
			c, err := smtp.Dial(r.Addr)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.StartTLS(&tls.Config{ServerName: name, RootCAs: pool}); err != nil {
				t.Fatalf("net/smtp to %s: %v", name, err)
			}
			if err := c.Noop(); err != nil {
				t.Errorf("net/smtp to %s: %v", name, err)
			}
			if err := c.Quit(); err != nil && err != io.EOF {
				t.Errorf("net/smtp to %s: %v", name, err)
			}
		}
		r.Quiet()
	})
}
