package engine_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// call runs a program, which says all that it has to say within patience.
func call(t *testing.T, stdin string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("%s: %v", argv[0], err)
	}
	return string(out)
}

// lines is a backend that answers a line and ends.
func lines(t *testing.T, secure func(*enginetest.Peer) *enginetest.Peer) sched.Addr {
	return enginetest.BackendServer(t, func(p *enginetest.Peer) {
		p = secure(p)
		line, err := bufio.NewReader(p).ReadString('\n')
		if err == nil {
			p.Send([]byte("you said " + line))
		}
		p.Fin()
		_, _ = io.Copy(io.Discard, p)
	})
}

func plainly(p *enginetest.Peer) *enginetest.Peer { return p }

// openssl s_client gets through with each version, resumes its session whichever loop takes
// it, and shows a certificate that it is asked for.
func TestB97OpenSSLClient(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "openssl")
	openssl := debian.Path("openssl")
	front, known := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "known.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			opt.Loops = 4
			server := front.Server()
			server.SessionTicketsDisabled = false
			r := frontOf(t, opt, engine.Route{}, engine.ListenOptions{TLS: server}, lines(t, plainly))
			client := func(more ...string) string {
				return call(t, "hello\n", append([]string{
					openssl, "s_client", "-connect", r.Addr, "-servername", "front.test", "-CAfile", front.Cert, "-verify_return_error", "-verify_hostname", "front.test", "-quiet",
				}, more...)...)
			}
			for _, version := range []string{"-tls1_2", "-tls1_3"} {
				session := filepath.Join(t.TempDir(), "session")
				before := r.Stats().TLS
				if out := client(version, "-sess_out", session); !strings.Contains(out, "you said hello\n") {
					t.Errorf("%s: %s", version, out)
				}
				const visits = 6
				for range visits {
					if out := client(version, "-sess_in", session); !strings.Contains(out, "you said hello\n") {
						t.Errorf("%s, resumed: %s", version, out)
					}
				}
				s := r.Stats().TLS
				if full, resumed := s.Full-before.Full, s.Resumed-before.Resumed; full != 1 || resumed != visits {
					t.Errorf("%s: %d full handshakes, %d resumed; want 1 and %d", version, full, resumed, visits)
				}
			}
			for _, version := range []string{"-tls1", "-tls1_1"} {
				if out := client(version, "-cipher", "ALL:@SECLEVEL=0"); strings.Contains(out, "you said") {
					t.Errorf("%s: %s", version, out)
				}
			}
			r.Quiet()

			server = front.Server()
			server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, known.Pool
			r = frontOf(t, opt, engine.Route{}, engine.ListenOptions{TLS: server}, lines(t, plainly))
			if out := client("-cert", known.Cert, "-key", known.Key); !strings.Contains(out, "you said hello\n") {
				t.Errorf("with a certificate: %s", out)
			}
			for _, other := range [][]string{nil, {"-cert", front.Cert, "-key", front.Key}} {
				if out := client(other...); strings.Contains(out, "you said") {
					t.Errorf("with %q: %s", other, out)
				}
			}
			r.Quiet()
			if n := r.Stats().Refused["tls_certificate"]; n != 2 {
				t.Errorf("counted: %+v", r.Stats())
			}
		})
	}
}

// The keys of a session change in the middle of it.
func TestB97KeyUpdate(t *testing.T) {
	debian.NeedFor(t, "openssl")
	front := enginetest.Identify(t, "front.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			r := frontOf(t, opt, engine.Route{}, engine.ListenOptions{TLS: front.Server()}, enginetest.BackendServer(t, enginetest.Echo))
			ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, debian.Path("openssl"), "s_client", "-connect", r.Addr, "-servername", "front.test", "-CAfile", front.Cert, "-tls1_3")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = out.Close() }()
			cmd.Stdout, cmd.Stderr = w, w
			err = cmd.Start()
			_ = w.Close()
			if err != nil {
				t.Fatal(err)
			}
			said := bufio.NewScanner(out)
			say := func(line, answer string) {
				_, _ = fmt.Fprintln(in, line)
				for said.Scan() && said.Text() != answer {
				}
				if said.Text() != answer {
					t.Fatalf("%q is not answered by %q", line, answer)
				}
			}
			say("word", "word")
			for i, command := range []string{"K", "k", "k", "K", "K"} { // with and without an update of ours in return
				say(command, "KEYUPDATE")
				word := fmt.Sprint("word ", i)
				say(word, word)
			}
			_ = in.Close()
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
			r.Quiet()
		})
	}
}

// openssl s_server is a host with TLS, whose certificate is verified.
func TestB97OpenSSLServer(t *testing.T) {
	debian.NeedFor(t, "openssl")
	back := enginetest.Identify(t, "back.test")
	addr, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s, err := servers.New(t.TempDir(), "s_server", addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Argv = []string{debian.Path("openssl"), "s_server", "-accept", addr, "-cert", back.Cert, "-key", back.Key, "-rev", "-quiet"}
	s.RunFor(t)
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				host, err := sched.ParseAddr(addr)
				if err != nil {
					t.Fatal(err)
				}
				r := frontOf(t, opt, engine.Route{Goroutines: true}, engine.ListenOptions{}, host)
				r.Hosts[0].SetTLS(of(back.Client(), version))
				c := r.Dial()
				c.Send([]byte("olleh\n"))
				c.Expect([]byte("hello\n"))
				c.Fin()
				c.ExpectEOF()
				r.Quiet()
			}
		})
	}
}

// curl agrees on HTTP/2 or HTTP/1.1 with us, and so do we with nginx.
func TestB97CurlAndNginx(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "curl", "nginx")
	front, back := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "back.test")
	addr, err := servers.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s, err := servers.New(t.TempDir(), "nginx", addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Nginx(fmt.Sprintf(`server {
listen %s ssl http2; ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.3;
location / { return 200 "$server_protocol $ssl_protocol\n"; }
}`, addr, back.Cert, back.Key)); err != nil {
		t.Fatal(err)
	}
	s.RunFor(t)
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			server := front.Server()
			server.NextProtos = []string{"h2", "http/1.1"}
			host, err := sched.ParseAddr(addr)
			if err != nil {
				t.Fatal(err)
			}
			r := frontOf(t, opt, engine.Route{Goroutines: true}, engine.ListenOptions{TLS: server}, host)
			r.Hosts[0].SetTLS(back.Client())
			_, port, err := net.SplitHostPort(r.Addr)
			if err != nil {
				t.Fatal(err)
			}
			for option, want := range map[string]string{"--http2": "HTTP/2.0 TLSv1.3\n2", "--http1.1": "HTTP/1.1 TLSv1.3\n1.1"} {
				out := call(t, "", debian.Path("curl"), "-sS", "--cacert", front.Cert, "--resolve", "front.test:"+port+":127.0.0.1", option,
					"-w", "%{http_version}", "https://front.test:"+port+"/")
				if out != want {
					t.Errorf("curl %s: %q, want %q", option, out, want)
				}
			}
			r.Quiet()
		})
	}
}

// psql's TLS ends here, and goes on to a PostgreSQL with TLS or without.
func TestB97PsqlToPlainAndTLS(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "psql", servers.Initdb)
	dir, as := servers.Apart(t)
	addr, cert := postgresWithTLS(t, dir, "back.test", as)
	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	front, back := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "back.test")
	back.Pool.AppendCertsFromPEM(pem)
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			for _, hostTLS := range []bool{false, true} {
				r := frontOf(t, opt, engine.Route{Goroutines: true}, engine.ListenOptions{TLS: front.Server(), StartTLS: engine.StartTLSPostgres}, addr)
				want := "f"
				if hostTLS {
					r.Hosts[0].SetTLS(back.Client())
					want = "t"
				}
				_, port, err := net.SplitHostPort(r.Addr)
				if err != nil {
					t.Fatal(err)
				}
				psql := func(mode, query string) string {
					return call(t, "", "env", "HOME="+dir, debian.Path("psql"), "-X", "-A", "-t", "-w", "-c", query,
						"host=front.test hostaddr=127.0.0.1 port="+port+" user=tester dbname=postgres sslmode="+mode+" sslrootcert="+front.Cert)
				}
				for _, mode := range []string{"verify-full", "require", "prefer"} {
					if got := psql(mode, "select ssl from pg_stat_ssl where pid = pg_backend_pid()"); got != want+"\n" {
						t.Errorf("host with TLS: %v, sslmode=%s: %q", hostTLS, mode, got)
					}
				}
				if got, want := psql("require", "select repeat('txlb', 2000000)"), strings.Repeat("txlb", 2000000)+"\n"; got != want {
					t.Errorf("%d bytes of a large answer, want %d", len(got), len(want))
				}
				if got := psql("disable", "select 1"); !strings.Contains(got, "this server requires TLS (sslmode=require)") {
					t.Errorf("without TLS: %q", got)
				}
				r.Quiet()
			}
		})
	}
}

// openssl s_client asks for TLS in the words of SMTP.
func TestB97OpenSSLStartTLS(t *testing.T) {
	debian.NeedFor(t, "openssl")
	front, back := enginetest.Identify(t, "front.test"), enginetest.Identify(t, "back.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			for _, hostTLS := range []bool{false, true} {
				host := enginetest.BackendServer(t, func(p *enginetest.Peer) {
					if hostTLS {
						p.Send([]byte(hostBanner))
						p.Expect([]byte("EHLO txlb\r\n"))
						p.Send([]byte(hostHello))
						p.Expect([]byte("STARTTLS\r\n"))
						p.Send([]byte(hostReady))
						p = p.Secure(back.Server(), false)
					}
					line, _ := bufio.NewReader(p).ReadString('\n')
					p.Send([]byte("250 " + line))
					p.Fin()
					_, _ = io.Copy(io.Discard, p)
				})
				r := frontOf(t, opt, engine.Route{Goroutines: true}, engine.ListenOptions{TLS: front.Server(), StartTLS: engine.StartTLSSMTP}, host)
				if hostTLS {
					r.Hosts[0].SetTLS(back.Client())
				}
				out := call(t, "NOOP\r\n", debian.Path("openssl"), "s_client", "-connect", r.Addr, "-starttls", "smtp", "-servername", "front.test",
					"-CAfile", front.Cert, "-verify_return_error", "-quiet")
				if !strings.Contains(out, "250 NOOP\r\n") {
					t.Errorf("host with TLS: %v: %s", hostTLS, out)
				}
				r.Quiet()
			}
		})
	}
}

// A scanner finds no version of the protocol below 1.2 and no weak cipher, with what Go
// offers by itself.
func TestB97Sslscan(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "sslscan")
	front := enginetest.Identify(t, "front.test")
	for name, opt := range tlsModes {
		t.Run(name, func(t *testing.T) {
			r := frontOf(t, opt, engine.Route{}, engine.ListenOptions{TLS: front.Server()}, enginetest.BackendServer(t, enginetest.Echo))
			out := call(t, "", debian.Path("sslscan"), "--no-colour", "--sni-name=front.test", r.Addr)
			for _, version := range []string{"SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"} {
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(version) + `\s+disabled`).MatchString(out) {
					t.Errorf("%s is not disabled", version)
				}
			}
			for _, version := range []string{"TLSv1.2", "TLSv1.3"} {
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(version) + `\s+enabled`).MatchString(out) {
					t.Errorf("%s is not enabled", version)
				}
			}
			ciphers := regexp.MustCompile(`(?m)^(Preferred|Accepted)\s+(\S+)\s+(\d+) bits\s+(\S+)`).FindAllStringSubmatch(out, -1)
			if len(ciphers) == 0 {
				t.Error("no cipher is found")
			}
			weak := regexp.MustCompile(`NULL|EXP|anon|ADH|AECDH|RC4|RC2|DES|IDEA|SEED|MD5|PSK|SRP`)
			for _, c := range ciphers {
				if weak.MatchString(c[4]) || len(c[3]) < 3 {
					t.Errorf("a weak cipher: %s", c[0])
				}
			}
			for _, bad := range []string{"vulnerable to heartbleed", "Compression enabled", "Insecure session renegotiation"} {
				for _, line := range strings.Split(out, "\n") {
					if strings.Contains(line, bad) && !strings.Contains(line, "not "+bad) {
						t.Error(line)
					}
				}
			}
			if t.Failed() {
				t.Log(out)
			}
			r.Quiet()
		})
	}
}
