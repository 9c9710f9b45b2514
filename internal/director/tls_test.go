package director

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
)

// withTLS is a document whose listener has attributes, and whose host b has others. The
// listener is in line 2.
func withTLS(listen, host string) string {
	return strings.NewReplacer(`<listen ip="127.0.0.1:8080"/>`, "\n<listen ip=\"127.0.0.1:8080\" "+listen+"/>", `ip="10.0.0.2:80"`, `ip="10.0.0.2:80" `+host).Replace(with(""))
}

// Certificates reach the engine under a pointer that stays. A reload takes up what the
// attributes and the files have become. Files that are wrong change nothing.
func TestB98CertificatesFollowReloads(t *testing.T) { testkit.Bubble(t, certificatesFollowReloads) }

func certificatesFollowReloads(t *testing.T) {
	w, dir, a := newWorld(), t.TempDir(), testkit.NewAuthority(t, "ca")
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	put := func(names ...string) {
		t.Helper()
		c, k := a.Issue(t, testkit.Leaf{Names: names})
		testkit.Put(t, cert, c)
		testkit.Put(t, key, k)
	}
	put("one.example")
	pair := fmt.Sprintf(`tls="%s %s"`, cert, key)
	d, path := startFile(t, w, withTLS(pair, ""))
	reload := func(doc string) (Reloaded, error) {
		t.Helper()
		writeFile(t, path, doc)
		return d.Reload(t.Context(), ReloadRequest{By: "tester"})
	}
	served := func() string { return strings.Join(d.State().Certificates()[0].Names, " ") }
	service := func() (plan string) {
		s := w.lastPlan().Services[0]
		return fmt.Sprintf("%p %v", s.ListenOptions["127.0.0.1:8080"].TLS, s.Route.Goroutines)
	}
	first := service()
	if strings.Contains(first, "0x0") || strings.Contains(first, "nil") || strings.HasSuffix(first, "true") || served() != "one.example" {
		t.Errorf("at the start: %s, %s", first, served())
	}
	if r, err := reload(withTLS(pair, "")); err != nil || !strings.Contains(r.String(), "nothing has changed") {
		t.Errorf("the same again: %v, %v", r, err)
	}
	if _, err := reload(withTLS(pair+` startTLS="postgres"`, "")); err != nil || service() != first {
		t.Errorf("with another attribute: %v, %s", err, service())
	}
	put("two.example")
	if r, err := reload(withTLS(pair, "")); err != nil || len(r.TLS) != 1 || served() != "two.example" || service() != first {
		t.Errorf("with other files: %+v, %v, %s", r.TLS, err, served())
	}
	put("three.example")
	time.Sleep(2 * scanEvery)
	synctest.Wait()
	if served() != "three.example" || service() != first {
		t.Errorf("without a reload: %s", served())
	}

	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	generation := d.State().Generation
	_, err := reload(withTLS(pair, ` weight="7"`))
	if want := fmt.Sprintf("%s:2: <listen tls> of service %q: cannot read %s: no such file or directory", path, "web", key); err == nil || err.Error() != want {
		t.Errorf("a broken pair: %v, want %s", err, want)
	}
	if d.State().Generation != generation || service() != first || served() != "three.example" {
		t.Errorf("a broken pair changes something: %s, %s", service(), served())
	}
	put("three.example")
	if _, err := reload(withTLS(pair+` alpn="h2"`, "")); err != nil || service() == first {
		t.Errorf("with another protocol: %v, %s", err, service())
	}
	if _, err := reload(with("")); err != nil || len(d.State().Certificates()) != 0 || w.lastPlan().Services[0].ListenOptions["127.0.0.1:8080"].TLS != nil {
		t.Errorf("without TLS: %v, %+v", err, w.lastPlan().Services[0].ListenOptions)
	}
}

// A command that names a file which cannot be used changes nothing.
func TestB98CommandsReadCertificates(t *testing.T) { testkit.Bubble(t, commandsReadCertificates) }

func commandsReadCertificates(t *testing.T) {
	w := newWorld()
	d := start(t, w, with(""))
	_, err := d.Do(t.Context(), Change{By: "tester", Verb: "x", Apply: func(c *config.Config) error {
		c.Services[0].Listen[0].TLS = "/none/c.pem /none/k.pem"
		return nil
	}})
	if err == nil || !strings.Contains(err.Error(), "cannot read /none/c.pem") || d.State().Generation != 1 {
		t.Errorf("%v", err)
	}
	if _, err := New(d.State().Config, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe}); err != nil {
		t.Error(err)
	}
}

// Hosts get their TLS, their services know of it, and so do their checks, but for those of
// another port.
func TestB99HostsGetTLS(t *testing.T) { testkit.Bubble(t, hostsGetTLS) }

func hostsGetTLS(t *testing.T) {
	w, a := newWorld(), testkit.NewAuthority(t, "ca")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	testkit.Put(t, ca, a.PEM)
	d := start(t, w, withTLS("", fmt.Sprintf(`tls="yes" ca="%s" sni="db.example"`, ca)))
	plain, secure := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0)
	was := secure.Host.TLS()
	if plain.Host.TLS() != nil || was == nil || was.ServerName != "db.example" || !w.lastPlan().Services[0].Route.Goroutines {
		t.Fatalf("plain %v, secure %v", plain.Host.TLS(), was)
	}
	if p := secure.rule.of(secure.Host, secure.key.addr, true, false); p.Secure != was {
		t.Error("the check has other TLS than the host")
	}
	set := func(change func(*config.Host)) {
		t.Helper()
		if _, err := d.Do(t.Context(), Change{By: "tester", Verb: "x", Apply: func(c *config.Config) error {
			change(c.Services[0].Groups[0].Hosts[1])
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
	}
	set(func(h *config.Host) { h.Weight = 7 })
	if secure.Host.TLS() != was {
		t.Error("another weight makes other TLS")
	}
	set(func(h *config.Host) { h.TLS, h.CA, h.SNI = "unverified", "", "" })
	if is := secure.Host.TLS(); is == was || !is.InsecureSkipVerify || is.ServerName != "10.0.0.2" {
		t.Errorf("unverified: %+v", is)
	}
	set(func(h *config.Host) { h.TLS = "" })
	if secure.Host.TLS() != nil || w.lastPlan().Services[0].Route.Goroutines {
		t.Error("it is encrypted still")
	}
	other := newRule(&d.State().Config.Manager, &config.Group{Check: &config.HealthCheck{Type: "tcp", Port: 81, Status: "200"}})
	secure.Host.SetTLS(was)
	if p := other.of(secure.Host, secure.key.addr, true, false); p.Secure != nil {
		t.Error("the check of another port has TLS")
	}
}

// A plain host is checked together with others, one with TLS by itself.
func TestB99ChecksOfHostsWithTLS(t *testing.T) {
	certificate := testkit.NewAuthority(t, "ca").Pair(t, testkit.Leaf{Names: []string{"127.0.0.1"}})
	server := testkit.TLSServer(t, certificate)
	plain := testkit.Listener(t)
	doc := fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:8080"/><group name="g"><check interval="10ms" fastInterval="10ms" timeout="20s"/>
		<host name="plain" ip="%s"/><host name="secure" ip="%s" tls="unverified"/><host name="wrong" ip="%s" tls="unverified"/></group></service></config>`,
		plain, server, plain)
	c, problems := config.Parse("c.xml", []byte(doc))
	if c == nil {
		t.Fatal(problems)
	}
	w := newWorld()
	d, err := New(c, w, Options{Log: w.logger(), Resolver: w})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for host, want := range map[string]health.Code{"plain": health.L4OK, "secure": health.L6OK, "wrong": health.L6Rsp} {
		testkit.Eventually(t, host+" ends with "+want.String(), func() bool { return target(t, d, "g", host, 0).Status().Check.Code == want })
	}
}
