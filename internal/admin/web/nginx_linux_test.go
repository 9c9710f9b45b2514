package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	entities "html"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
)

// behindNginx puts an nginx with TLS in front of the page, which serves it as
// https://ops.example/lb/, and returns where that is. headers are what it says
// of its clients.
func (r *rig) behindNginx(headers string) (addr string) {
	r.t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	addr = ln.Addr().String()
	_ = ln.Close()
	s, err := servers.New(r.t.TempDir(), "nginx", addr, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	pem, err := makeCertificate([]string{"ops.example"}, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "pem"), pem, 0o600); err != nil {
		r.t.Fatal(err)
	}
	err = s.Nginx(fmt.Sprintf(`server { listen %[1]s ssl; ssl_certificate %[2]s/pem; ssl_certificate_key %[2]s/pem;
		location /lb/ { proxy_pass %[3]s/; %[4]s } location / { return 410 "outside\n"; } }`, addr, s.Dir, r.url, headers))
	if err != nil {
		r.t.Fatal(err)
	}
	s.RunFor(r.t.(servers.Test))
	return addr
}

// asInTheDocs are the headers of docs/admin-page.md, without the client's
// address: its port tells the requests of a test from others.
const asInTheDocs = `proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Prefix /lb;
	proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;`

var links = regexp.MustCompile(` (?:href|src|action|hx-post|data-address|data-fine|data-critical)="([^"]*)"`)

// TestB88BehindNginx follows every link of the pages through nginx, whether it
// says what the client sees or not.
func TestB88BehindNginx(t *testing.T) {
	debian.NeedFor(t, "nginx")
	for name, headers := range map[string]string{"documented": asInTheDocs, "silent": "proxy_set_header Host localhost;"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, twoHosts, trusts("127.0.0.1/32"))
			testBehindNginx(t, r, r.behindNginx(headers), name == "documented")
		})
	}
}

func testBehindNginx(t *testing.T, r *rig, addr string, documented bool) {
	client := r.client()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	transport := client.Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, ServerName: "ops.example"}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, addr)
	}
	client.Jar, _ = cookiejar.New(nil)
	r.http, r.url = client, "https://ops.example/lb"

	base, _ := url.Parse(r.url + "/")
	seen, toVisit := map[string]bool{}, []string{r.url + "/", r.url + "/?q=a", r.url + "/running", r.url + "/configs", r.url + "/events", r.url + "/sessions", r.url + "/no/such/page"}
	for len(toVisit) > 0 {
		at := toVisit[0]
		toVisit = toVisit[1:]
		if seen[at] {
			continue
		}
		seen[at] = true
		if !strings.HasPrefix(at, base.String()) {
			t.Fatalf("a link leads to %s", at)
		}
		a := r.do("boss", "GET", strings.TrimPrefix(at, r.url), "")
		if a.StatusCode >= 400 && !strings.Contains(at, "/no/such") {
			t.Errorf("GET %s: %s: %.200s", at, a.Status, a.body)
		}
		if !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
			continue
		}
		from, _ := url.Parse(at)
		for _, m := range links.FindAllStringSubmatch(a.body, -1) {
			to, err := from.Parse(entities.UnescapeString(m[1]))
			if err != nil {
				t.Fatalf("%s: %s: %v", at, m[1], err)
			}
			to.Fragment = ""
			if strings.Contains(m[0], "action=") || strings.Contains(m[0], "hx-post=") {
				if !strings.HasPrefix(to.String(), base.String()) || strings.Count(to.Path, "/") != 2 {
					t.Errorf("%s: a form is sent to %s", at, to)
				}
				continue
			}
			toVisit = append(toVisit, to.String())
		}
	}
	if len(seen) < 30 {
		t.Errorf("only %d links: %v", len(seen), seen)
	}

	// A form leads back to where it was, and its answer is shown there.
	a := r.do("boss", "POST", "/setHost", form("service", "web", "group", "main", "name", "a", "weight", "7"), "Content-Type", "application/x-www-form-urlencoded",
		"Accept", "text/html", "Referer", r.url+"/?q=a", "Sec-Fetch-Site", "same-origin", "X-Forwarded-For", "203.0.113.9")
	to, err := a.Location()
	want := r.url + "/"
	if documented {
		want += "?q=a" // else the page does not know its own name
	}
	if err != nil || a.StatusCode != http.StatusSeeOther || to.String() != want {
		t.Fatalf("a form: %s, to %v: %s", a.Status, to, a.body)
	}
	if a = r.do("boss", "GET", strings.TrimPrefix(to.String(), r.url), ""); !strings.Contains(a.body, "generation 2: ") {
		t.Error("the answer to a form is not shown")
	}
	from := "127.0.0.1:"
	if documented {
		from = "127.0.0.9" // not what the client has said of itself
	}
	if e := r.dir.Events(); len(e) != 1 || !strings.HasPrefix(e[0].From, from) && documented {
		t.Errorf("the events are %+v", e)
	}

	var doc struct{ Servers []struct{ URL string } }
	if err := json.Unmarshal([]byte(r.get("/api/v1/openapi.json")), &doc); err != nil || documented && doc.Servers[0].URL != "/lb" {
		t.Errorf("the API is at %+v, %v", doc, err)
	}
	// The first events come at once, without more to fill a buffer.
	stream, err := client.Do(r.request("boss", "GET", "/api/v1/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Body.Close() }()
	for lines := bufio.NewScanner(stream.Body); ; {
		if !lines.Scan() {
			t.Fatalf("the stream has ended: %v", lines.Err())
		}
		if lines.Text() == "event: figures" {
			break
		}
	}
}

// testProxy uses the page behind nginx.
func testProxy(t *testing.T, b *browser) {
	debian.NeedFor(t, "nginx")
	r := newRig(t, incident(t), trusts("127.0.0.1/32"))
	r.url = "https://" + r.behindNginx(asInTheDocs) + "/lb"
	p := b.open(t, r, "boss", "/", size(1300, 900, "light"))
	p.until("the charts", "document.querySelectorAll('.service .charts canvas').length > 3")
	p.click("tr .button[aria-label='Drain web-1']", "Drain")
	p.says("dialog h1", "Drain host web-1?")
	p.click("dialog button", "Drain")
	p.until("the host drains", row("web-1", "r.querySelector('.health.drain')"))
	p.click(".message button", "Undo: back to state ready")
	p.until("the host is ready", row("web-1", "!r.querySelector('.health.drain')"))
	p.fill("#filter-q", "web-2")
	p.until("the filter is in the address", "location.pathname === '/lb/' && location.search === '?q=web-2'")
	p.until("other hosts are not shown", "!document.querySelector('[id$=\"web-1\"]')")
}
