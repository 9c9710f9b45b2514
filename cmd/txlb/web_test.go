//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// operator is the hash of the password wonder.
const operator = `<user name="boss" password="$1$abcdefgh$hqvCbNwzGGtJDzHd8m2pC1" access="full"/>`

// pageOf returns where the page of a process is, counted from 0 in the order of
// its starts.
func (p *process) pageOf(n int) string {
	p.t.Helper()
	re := regexp.MustCompile(`msg="admin listening" part=web addr=(\S+)`)
	var all [][]string
	eventually(p.t, "the page listens", func() bool {
		all = re.FindAllStringSubmatch(p.out.String(), -1)
		return len(all) > n
	})
	return all[n][1]
}

// visit asks the page of a process for a path, from an address of this machine.
func visit(from, scheme, addr, path string) (status int, body string, err error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: d.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	q, err := http.NewRequest("GET", scheme+"://"+addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	q.SetBasicAuth("boss", "wonder")
	a, err := client.Do(q)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	return a.StatusCode, string(text), err
}

// The page comes with <web>, follows what a reload says of it, and keeps its
// certificate in the directory of state.
func TestPageFollowsTheConfiguration(t *testing.T) {
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	a, state := server(t, named("a")), t.TempDir()
	doc := func(web string) string {
		return `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="` + a + `"/></group></service>
<admin>` + web + operator + `</admin></config>`
	}
	path := write(t, doc(`<web listen="127.0.0.1:0"/>`))
	cmd := exec.Command(name, "run", "-c", path)
	cmd.Env = append(os.Environ(), "STATE_DIRECTORY="+state)
	p := start(t, cmd)
	p.expect("msg=ready")
	if status, body, err := visit("127.0.0.1", "https", p.pageOf(0), "/running.txt"); err != nil || status != http.StatusOK || !strings.Contains(body, "host a "+a) {
		t.Errorf("the page: %d %q %v", status, body, err)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/"} {
		if status, _, err := visit("127.0.0.1", "https", p.pageOf(0), path); err != nil || status != http.StatusOK {
			t.Errorf("%s: %d %v", path, status, err)
		}
	}
	if info, err := os.Stat(filepath.Join(state, "web.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the certificate: %v %v", info, err)
	}
	p.reload(path, doc(`<web listen="127.0.0.1:0" secure="false" refresh="3"/>`))
	if status, _, err := visit("127.0.0.1", "http", p.pageOf(1), "/running.txt"); err != nil || status != http.StatusOK {
		t.Errorf("without TLS: %d %v", status, err)
	}
	eventually(t, "the page is not where it was", func() bool {
		c, err := net.Dial("tcp", p.pageOf(0))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	// refresh is no reason to start the page again.
	p.reload(path, doc(`<web listen="127.0.0.1:0" secure="false" refresh="7"/>`))
	eventually(t, "the page renews itself as the file says now", func() bool {
		_, body, err := visit("127.0.0.1", "http", p.pageOf(1), "/")
		return err == nil && strings.Contains(body, `content="7`)
	})
	// Neither are names and proxies.
	p.reload(path, doc(`<web listen="127.0.0.1:0" secure="false" refresh="7" names="ops.example" trustedProxies="127.0.0.1"/>`))
	eventually(t, "a proxy is believed", func() bool {
		q, _ := http.NewRequest("GET", "http://"+p.pageOf(1)+"/api/v1/openapi.json", nil)
		q.Header = http.Header{"X-Forwarded-Host": {"ops.example"}, "X-Forwarded-Prefix": {"/lb"}}
		q.SetBasicAuth("boss", "wonder")
		a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}).Do(q)
		if err != nil {
			return false
		}
		defer func() { _ = a.Body.Close() }()
		body, err := io.ReadAll(a.Body)
		return err == nil && a.StatusCode == http.StatusOK && strings.Contains(string(body), `"url": "/lb"`)
	})
	// Neither are certificates, and wrong ones are refused.
	p.reload(path, doc(`<web listen="127.0.0.1:0"/>`))
	secure := p.pageOf(2)
	p.reloads(path, doc(`<web listen="127.0.0.1:0" certificate="`+path+`" key="`+path+`"/>`), "has no certificate in PEM")
	if status, _, err := visit("127.0.0.1", "https", secure, "/"); err != nil || status != http.StatusOK {
		t.Errorf("after wrong files: %d, %v", status, err)
	}
	made := filepath.Join(state, "web.pem")
	p.reload(path, doc(`<web listen="127.0.0.1:0" certificate="`+made+`" key="`+made+`"/>`))
	eventually(t, "right files are taken", func() bool {
		status, _, err := visit("127.0.0.1", "https", secure, "/")
		return err == nil && status == http.StatusOK && strings.Contains(p.out.String(), "admin certificate reloaded")
	})
	starts := 3
	for _, off := range []string{`<web listen="None"/>`, `<web listen="127.0.0.1:0" enable="no"/>`, ``} {
		p.reload(path, doc(`<web listen="127.0.0.1:0" secure="no"/>`)) // it is so already, but for the first time
		addr := p.pageOf(starts)
		p.reload(path, doc(off))
		eventually(t, off+" ends the page", func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				_ = c.Close()
			}
			return err != nil
		})
		p.reload(path, doc(`<web listen="127.0.0.1:0" secure="no" refresh="1"/>`))
		starts++
		p.pageOf(starts)
	}
}

// Off loopback, a <web> that does not say enable is off.
func TestPageIsNotExposedUnasked(t *testing.T) {
	a := server(t, named("a"))
	doc := `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="` + a + `"/></group></service>
<admin><web listen="0.0.0.0:0" %s/>` + operator + `</admin></config>`
	p := txlb(t, fmt.Sprintf(doc, ""))
	if strings.Contains(p.out.String(), "part=web") {
		t.Error("the page is served on every address without enable")
	}
	p = txlb(t, fmt.Sprintf(doc, `enable="true" secure="false"`))
	if addr := p.pageOf(0); !strings.HasPrefix(addr, "0.0.0.0:") || !strings.Contains(p.out.String(), "without TLS") {
		t.Errorf("the page is at %s; the log does not warn", addr)
	}
}

// What cannot be served at the start is told, with the reason.
func TestPageThatCannotBe(t *testing.T) {
	for web, want := range map[string]string{
		`certificate="/none/cert.pem" key="/none/key.pem"`: `<web certificate=\\"/none/cert.pem\\" key=\\"/none/key.pem\\">`,
		`listen="unix:/tmp/page.sock" enable="true"`:       `served over TCP`,
		`listen="192.0.2.1:7000" enable="true"`:            `<web listen=\\"192.0.2.1:7000\\">`,
	} {
		p := txlb(t, `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="127.0.0.1:1"/></group></service>
<admin><web `+web+`/>`+operator+`</admin></config>`)
		p.expect(`admin interface did not start" part=web err="` + `.*` + want)
	}
}

// /readyz knows of services without a usable host if it is asked to.
func TestReadyzWithoutUsableHost(t *testing.T) {
	t.Parallel()
	a := server(t, named("a"))
	doc := func(readyz, state string) string {
		return `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="` + a + `" state="` + state + `"/></group></service>
<service name="sick"><listen ip="127.0.0.1:0"/><group name="g" start="down"><check/><host name="a" ip="127.0.0.1:1"/></group></service>
<admin><web listen="127.0.0.1:0" secure="no"` + readyz + `/>` + operator + `</admin></config>`
	}
	p, path := txlbFile(t, doc("", "ready"))
	page := p.pageOf(0)
	ask := func(want int, text string) {
		t.Helper()
		status, body, err := visit("127.0.0.1", "http", page, "/readyz")
		if err != nil || status != want || !strings.Contains(body, text) {
			t.Errorf("readyz: %d %q %v, want %d %q", status, body, err, want, text)
		}
	}
	ask(http.StatusOK, "ok")
	p.reload(path, doc(` readyz="all"`, "ready"))
	ask(http.StatusOK, "ok")
	p.reload(path, doc(` readyz="any"`, "ready"))
	ask(http.StatusServiceUnavailable, "1 of 2 services without a usable host")
	p.reload(path, doc(` readyz="all"`, "drain"))
	ask(http.StatusServiceUnavailable, "2 of 2 services without a usable host")
	p.reload(path, doc(` readyz="process"`, "drain"))
	ask(http.StatusOK, "ok")
	// Clients of a service without a usable host are rejected, and the log says so.
	p.expect(`level=ERROR msg="no usable host" service=web group=g hosts=1 down=0 drain=1 maint=0`)
	for range 100 {
		c, err := net.Dial("tcp", p.addr("sick", 0))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	p.expect(`level=WARN msg="clients rejected" service=sick reason=no_host clients=`)
}

// While clients are taken leave of, /readyz says so, and the page goes on.
func TestReadyzWhileDraining(t *testing.T) {
	a := server(t, named("a"))
	p := txlb(t, `<config><engine drain="10m"/><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="`+a+`"/></group></service>
<admin><web listen="127.0.0.1:0"/>`+operator+`</admin></config>`)
	c, _ := greeted(t, p.addr("web", 0))
	p.signal(syscall.SIGTERM)
	p.expect("msg=draining")
	status, body, err := visit("127.0.0.1", "https", p.pageOf(0), "/readyz")
	if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("readyz: %d %q %v", status, body, err)
	}
	for _, path := range []string{"/healthz", "/", "/running.txt"} {
		if status, body, err := visit("127.0.0.1", "https", p.pageOf(0), path); err != nil || status != http.StatusOK {
			t.Errorf("%s: %d %q %v", path, status, body, err)
		}
	}
	_ = c.Close()
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// Somebody attacks the page with slow requests: clients are served, and so are
// other admins.
func TestSlowAttackOnThePage(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	debian.NeedFor(t, "slowhttptest")
	a := server(t, named("a"))
	p := txlb(t, `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="`+a+`"/></group></service>
<admin><web listen="127.0.0.1:0" secure="false"/>`+operator+`</admin></config>`)
	page, service := p.pageOf(0), p.addr("web", 0)
	var stop atomic.Bool
	var clients sync.WaitGroup
	var served, failed atomic.Int64
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				if err := once(service); err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				served.Add(1)
			}
		})
	}
	for _, attack := range []string{"-H", "-B", "-X"} { // headers, bodies, answers
		before := served.Load()
		attacker := run(t, debian.Path("slowhttptest"), attack, "-c", "300", "-r", "300", "-l", "4", "-i", "1", "-p", "3",
			"-u", "http://"+page+"/running.txt")
		visits := 0
		for during := true; during; visits++ {
			if status, body, err := visit("127.0.0.2", "http", page, "/running.txt"); err != nil || status != http.StatusOK {
				t.Errorf("another admin during %s: %d %q %v", attack, status, body, err)
			}
			select {
			case <-attacker.done:
				during = false
			case <-time.After(50 * time.Millisecond):
			}
		}
		if status := attacker.wait(); status != 0 || visits < 2 {
			t.Errorf("slowhttptest %s ended with %d, the page was visited %d times meanwhile", attack, status, visits)
		}
		if served.Load() == before {
			t.Errorf("no client was served during %s", attack)
		}
	}
	stop.Store(true)
	clients.Wait()
	if !strings.Contains(p.out.String(), "admin connections rejected") {
		t.Error("the page had room for all; the attack was none")
	}
	t.Logf("%d clients were served, %d not", served.Load(), failed.Load())
}

// once is one client of a service that greets and echoes.
func once(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, len("ahello"))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ahello" {
		return fmt.Errorf("%q, %w", got, err)
	}
	return nil
}

// TestPulse asks loops that answer, and one that hangs.
func TestPulse(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		var asks atomic.Int64
		hang := make(chan struct{})
		var hangs atomic.Bool
		p := &pulse{ask: func() {
			asks.Add(1)
			if hangs.Load() {
				<-hang
			}
		}}
		for range 10 {
			if err := p.check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := asks.Load(); n != 1 {
			t.Errorf("within a moment they are asked %d times", n)
		}
		time.Sleep(2 * askAgain)
		hangs.Store(true)
		began := time.Now()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := p.check(t.Context()); err == nil || errors.Is(err, t.Context().Err()) {
					t.Errorf("a loop hangs: %v", err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took != aLoopTicks {
			t.Errorf("it took %v", took)
		}
		if err := p.check(t.Context()); err == nil {
			t.Error("it hangs still, and all is well")
		}
		if n := asks.Load(); n != 2 {
			t.Errorf("a loop that hangs is asked %d times", n-1)
		}
		close(hang)
		synctest.Wait()
		if err := p.check(t.Context()); err != nil {
			t.Errorf("it goes on: %v", err)
		}
	})
}
