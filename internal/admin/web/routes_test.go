package web

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
)

// TestEveryRouteHasARole walks the table: what takes no login is listed here,
// what changes something takes the role full and is no GET.
func TestEveryRouteHasARole(t *testing.T) {
	r := newRig(t, twoHosts)
	open := []string{"/healthz", "/readyz"}
	seen := map[string]bool{}
	for _, route := range r.walk() {
		at := route.method + " " + route.path
		if seen[at] {
			t.Errorf("%s is in the table twice", at)
		}
		seen[at] = true
		switch {
		case route.open != slices.Contains(open, route.path):
			t.Errorf("%s: open is %v", at, route.open)
		case !route.open && route.role != users.Readonly && route.role != users.Full:
			t.Errorf("%s has no role", at)
		case route.method == http.MethodPost && (route.role != users.Full || route.verb == nil):
			t.Errorf("%s changes something for the role %v", at, route.role)
		case route.method != http.MethodPost && (route.method != http.MethodGet || route.verb != nil && route.verb.Changes):
			t.Errorf("%s changes something, and not by POST", at)
		case route.verb != nil && route.verb.Role != route.role:
			t.Errorf("%s takes the role %v, its verb %v", at, route.role, route.verb.Role)
		case (route.serve == nil) == (route.stream == nil) || route.about == "":
			t.Errorf("%s has not one handler and a description", at)
		}
	}
	verbs := admin.Verbs()
	for _, v := range verbs {
		paths := []string{"GET /api/v1/" + strings.ReplaceAll(v.Name, " ", "/")}
		if v.Changes {
			paths = []string{"POST /" + v.Name, "POST /api/v1/" + v.Name}
			for _, a := range v.Aliases {
				paths = append(paths, "POST /"+a, "POST /api/v1/"+a)
			}
		}
		for _, p := range paths {
			if !seen[p] && r.adm.Served(&v) {
				t.Errorf("%s is not in the table", p)
			}
		}
	}
}

// TestRoutesTakeTheirRole asks for everything as nobody, with a wrong password,
// and as one who may only look.
func TestRoutesTakeTheirRole(t *testing.T) {
	r := newRig(t, twoHosts)
	before := r.dir.State()
	for _, route := range r.walk() {
		path := route.path
		if path == "/static/" {
			path += "nothing"
		}
		if a := r.do("", route.method, path, ""); route.open && a.StatusCode != http.StatusOK || !route.open && a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s %s as nobody: %s", route.method, path, a.Status)
		} else if !route.open && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), `Basic realm="txlb"`) {
			t.Errorf("%s %s as nobody asks for no login", route.method, path)
		}
		if route.role == users.Full {
			if a := r.do("guest", route.method, path, ""); a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "role full") {
				t.Errorf("%s %s as guest: %s %s", route.method, path, a.Status, a.body)
			}
		}
	}
	if a := r.do("", "GET", "/nothing", ""); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("what is not there, as nobody: %s", a.Status)
	}
	q := r.request("", "GET", "/", nil)
	q.SetBasicAuth("boss", "look")
	if a := r.send(q); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("with another's password: %s", a.Status)
	}
	if r.dir.State() != before {
		t.Error("something has changed")
	}
}

// TestReadonlySeesNoSecret reads everything that a readonly user may, with and
// without the parameters that errors could show.
func TestReadonlySeesNoSecret(t *testing.T) {
	r := newRig(t, twoHosts)
	if a := r.post("/addUser", "name", "third", "password", bossHash, "access", "full"); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status, a.body)
	}
	if s, a := r.api("addUser", map[string]any{"name": bossHash, "hash": bossHash, "access": guestHash}); s == http.StatusOK {
		t.Fatal(a)
	}
	if got := r.get("/rawConfig.xml"); !strings.Contains(got, bossHash) {
		t.Error("a full user does not see the hashes")
	}
	secrets := []string{bossHash, guestHash, "hqvCbNwzGGtJDzHd8m2pC1", "FBJBJnT84vt"}
	for _, route := range r.walk() {
		if route.role != users.Readonly || route.stream != nil {
			continue
		}
		a := r.do("guest", route.method, route.path, "")
		for _, s := range secrets {
			if strings.Contains(a.body, s) {
				t.Errorf("%s %s shows a password hash", route.method, route.path)
			}
		}
	}
	for _, s := range append(secrets, "wonder", "look\"") {
		if strings.Contains(r.log.String(), s) {
			t.Errorf("the log shows %s", s)
		}
	}
}

// TestGetChangesNothing asks for every verb with GET and HEAD.
func TestGetChangesNothing(t *testing.T) {
	r := newRig(t, twoHosts)
	before := r.dir.State()
	for _, route := range r.walk() {
		if route.method != http.MethodPost {
			continue
		}
		query := "?service=web&group=main&name=c&ip=127.0.0.1:9&state=drain&force=yes"
		a := r.do("boss", "GET", route.path+query, "")
		if a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "POST" || !strings.Contains(a.body, "send a POST") {
			t.Errorf("GET %s: %s, Allow %q: %s", route.path, a.Status, a.Header.Get("Allow"), a.body)
		}
		for _, method := range []string{"HEAD", "PUT", "DELETE", "OPTIONS", "addHost"} {
			if a := r.do("boss", method, route.path+query, ""); a.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %s", method, route.path, a.Status)
			}
		}
	}
	if a := r.do("boss", "POST", "/running.txt", ""); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST /running.txt: %s, Allow %q", a.Status, a.Header.Get("Allow"))
	}
	if r.dir.State() != before || len(r.dir.Events()) != 0 {
		t.Error("something has changed")
	}
}

// TestEveryAnswerIsGuarded looks at the headers of answers of all kinds.
func TestEveryAnswerIsGuarded(t *testing.T) {
	r := newRig(t, twoHosts)
	for _, path := range []string{"/", "/running.xml", "/api/v1/status", "/healthz", "/nothing", "/addHost", "/api/v1/nothing", "/metrics"} {
		for _, user := range []string{"boss", ""} {
			h := r.do(user, "GET", path, "").Header
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store", "Referrer-Policy": "same-origin",
				"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
			} {
				if h.Get(name) != want {
					t.Errorf("%s: %s is %q", path, name, h.Get(name))
				}
			}
			csp := h.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
				if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
					t.Errorf("%s: the content security policy is %q", path, csp)
				}
			}
		}
	}
}

// TestOtherSitesChangeNothing sends what a browser would for a page elsewhere.
func TestOtherSitesChangeNothing(t *testing.T) {
	r := newRig(t, twoHosts)
	path := "/setHost?service=web&group=main&name=a&weight=7"
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
		{"Origin", "http://localhost:1"}, {"Host", "evil.example"}, {"Host", "evil.example:7000"}, {"Host", "localhost.evil.example"},
	} {
		a := r.do("boss", "POST", path, "", header...)
		want := http.StatusForbidden
		if header[0] == "Host" {
			want = http.StatusMisdirectedRequest
		}
		if a.StatusCode != want {
			t.Errorf("%v: %s", header, a.Status)
		}
	}
	if g := r.dir.State().Generation; g != 1 {
		t.Fatalf("something has changed: generation %d", g)
	}
	// What reads is refused but for a link that is followed.
	if a := r.do("boss", "GET", "/running.txt", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"); a.StatusCode != http.StatusForbidden {
		t.Errorf("a script elsewhere: %s", a.Status)
	}
	if a := r.do("boss", "GET", "/", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"); a.StatusCode != http.StatusOK {
		t.Errorf("a link elsewhere: %s", a.Status)
	}
	for _, host := range []string{"localhost", "localhost:99", "127.0.0.1", "[::1]:7000", "192.0.2.7:7000", "LOCALHOST."} {
		if a := r.do("boss", "GET", "/status.txt", "", "Host", host); a.StatusCode != http.StatusOK {
			t.Errorf("as %s: %s", host, a.Status)
		}
	}
	if a := r.do("boss", "POST", path, "", "Sec-Fetch-Site", "same-origin"); a.StatusCode != http.StatusOK {
		t.Errorf("from its own page: %s %s", a.Status, a.body)
	}
	if a := r.do("boss", "GET", "/", "", "Host", "evil.example"); !strings.Contains(a.body, "localhost") {
		t.Errorf("what it is called by is not told: %s", a.body)
	}
}

// TestAncestorsPaths uses the paths and the names of parameters that scripts of
// the ancestors have.
func TestAncestorsPaths(t *testing.T) {
	r := newRig(t, twoHosts)
	for _, path := range []string{"/", "/all", "/running", "/index.html", "/configs", "/config.xml", "/stored.xml", "/config.obj", "/?refresh=30&ignore=x", "/running?resultMessage=" + "hacked-by-query"} {
		a := r.do("guest", "GET", path, "")
		if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != html || !strings.Contains(a.body, "</html>") {
			t.Errorf("GET %s: %s %s", path, a.Status, a.Header.Get("Content-Type"))
		}
		if strings.Contains(a.body, "hacked-by-query") {
			t.Errorf("GET %s: what stands in the address is in the page", path)
		}
	}
	for _, path := range []string{"/txlb.css", "/pydirector.css"} {
		if a := r.do("guest", "GET", path, ""); a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/css") {
			t.Errorf("GET %s: %s %s", path, a.Status, a.Header.Get("Content-Type"))
		}
	}
	for _, path := range []string{"/running.xml", "/rawConfig.xml", "/rawStored.xml"} {
		d := xml.NewDecoder(strings.NewReader(r.get(path)))
		roots := 0
		for depth := 0; ; {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s is no XML: %v", path, err)
			}
			switch tok.(type) {
			case xml.StartElement:
				if depth == 0 {
					roots++
				}
				depth++
			case xml.EndElement:
				depth--
			}
		}
		if roots != 1 {
			t.Errorf("%s has %d roots", path, roots)
		}
	}
	if got := r.get("/rawConfig.obj"); !strings.Contains(got, `config.Services[0].Groups[0].Hosts[1].Name = "b"`) || !strings.Contains(got, `Password = "***"`) {
		t.Errorf("rawConfig.obj:\n%s", got)
	}
	if strings.Contains(r.get("/rawConfig.obj"), bossHash) {
		t.Error("rawConfig.obj shows a hash")
	}
	if got := r.get("/status.txt"); !strings.Contains(got, "generation 1, 1 service, 3 hosts") {
		t.Errorf("status.txt: %s", got)
	}
	do := func(path, body string) {
		t.Helper()
		if a := r.do("boss", "POST", path, body, "Content-Type", "application/x-www-form-urlencoded"); a.StatusCode != http.StatusOK {
			t.Fatalf("POST %s %s: %s %s", path, body, a.Status, a.body)
		}
	}
	do("/addHost?service=web&group=main&name=c&ip=127.0.0.1:4", "")
	do("/addHost", "SERVICE=web&Group=main&host=d&IP=127.0.0.1:5")
	do("/delHost?service=web&group=main", "ip=127.0.0.1:4")
	do("/delHost?service=web&group=main&name=b", "")
	do("/newGroup?service=web&group=third&scheduler=leastc", "")
	do("/changeScheduler?service=web&group=main&scheduler=rand", "")
	do("/enableGroup?service=web&group=spare", "")
	do("/delAllHosts?service=web&group=main", "")
	do("/newService?service=mail&listen=127.0.0.1:0", "")
	do("/saveConfig", "")
	port := strings.Fields(r.get("/running.txt"))[2]
	want := `service web ` + port + ` spare
group main inactive
group spare enabled
host s 127.0.0.1:3 0 -
group third inactive
service mail `
	if got := r.get("/running.txt"); !strings.HasPrefix(got, want) {
		t.Errorf("running.txt:\n%s\nwant\n%s", got, want)
	}
	do("/hostAdminDown?service=web&group=spare", "host=s")
	if got := r.get("/running.txt"); !strings.Contains(got, "disabled s 127.0.0.1:3 maint -\n") {
		t.Errorf("running.txt:\n%s", got)
	}
	r.dir.State().Services[0].Groups[1].Hosts[0].Targets[0].Host.Fail()
	do("/save", "")
	if got := r.get("/rawStored.xml"); !strings.Contains(got, `name="mail"`) {
		t.Errorf("the stored configuration:\n%s", got)
	}
}

// TestNothingThere asks for paths that there are not, as browser, script and
// program do.
func TestNothingThere(t *testing.T) {
	r := newRig(t, twoHosts)
	a := r.do("guest", "GET", "/no/such/page", "", "Accept", "text/html,*/*")
	if a.StatusCode != http.StatusNotFound || a.Header.Get("Content-Type") != html || !strings.Contains(a.body, "There is nothing at /no/such/page.") ||
		!strings.Contains(a.body, `href="./../../" class="button"`) || !strings.Contains(a.body, `src="./../../static/page-`) {
		t.Errorf("a browser: %s %s", a.Status, a.body)
	}
	if a := r.do("guest", "GET", "/no", ""); a.StatusCode != http.StatusNotFound || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") || strings.Count(a.body, "\n") != 1 {
		t.Errorf("a script: %s %s", a.Status, a.body)
	}
	if a := r.do("guest", "GET", "/api/v1/no", "", "Accept", "text/html"); a.StatusCode != http.StatusNotFound || a.Header.Get("Content-Type") != "application/json" || !strings.Contains(a.body, `"kind":"unknown_path"`) {
		t.Errorf("the API: %s %s", a.Status, a.body)
	}
	if a := r.do("", "GET", "/no", "", "Accept", "text/html"); a.StatusCode != http.StatusUnauthorized || strings.Contains(a.body, "</") {
		t.Errorf("without a login: %s %s", a.Status, a.body)
	}
}

// TestConfigsPage compares both configurations, the stored one first.
func TestConfigsPage(t *testing.T) {
	r := newRig(t, twoHosts)
	r.post("/addUser", "name", "third", "password", guestHash, "access", "readonly")
	for _, user := range []string{"boss", "guest"} {
		body := r.do(user, "GET", "/configs", "").body
		stored, running := strings.Index(body, ">Stored<"), strings.Index(body, ">Running</th>")
		if stored < 0 || running < stored || strings.Contains(body, "$1$") || !strings.Contains(body, `addUser third *** readonly`) || !strings.Contains(body, `class="only-running"`) {
			t.Errorf("%s sees:\n%s", user, body)
		}
	}
}

// TestDownHostHasItsReason reads the raw formats of a host that is down.
func TestDownHostHasItsReason(t *testing.T) {
	r := newRig(t, strings.Replace(twoHosts, `<group name="spare">`, `<group name="spare"><check type="tcp" interval="10ms" fall="1"/>`, 1))
	eventually(t, "the host is down in running.txt, with its reason", func() bool {
		got := r.get("/running.txt")
		return strings.Contains(got, "disabled s 127.0.0.1:3 \"") && strings.Contains(got, "refused")
	})
	if got := r.get("/running.xml"); !strings.Contains(got, `<host name="s" ip="127.0.0.1:3" weight="1" state="ready" health="down" reason="`) {
		t.Errorf("running.xml:\n%s", got)
	}
	if got := r.get("/"); !strings.Contains(got, "refused") {
		t.Error("the page does not say why")
	}
}

// TestBrowserIsLedBack posts forms as a browser does, and finds the answer on
// the page, once.
func TestBrowserIsLedBack(t *testing.T) {
	r := newRig(t, twoHosts)
	post := func(referer string, params ...string) (location, cookie string) {
		t.Helper()
		a := r.do("boss", "POST", "/setHost", form(params...), "Content-Type", "application/x-www-form-urlencoded",
			"Accept", "text/html,application/xhtml+xml", "Referer", referer)
		if a.StatusCode != http.StatusSeeOther || len(a.Cookies()) != 1 {
			t.Fatalf("%s: %s, cookies %v: %s", referer, a.Status, a.Cookies(), a.body)
		}
		c := a.Cookies()[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.MaxAge > 60 {
			t.Errorf("the cookie is %v", c)
		}
		return a.Header.Get("Location"), c.Name + "=" + c.Value
	}
	params := []string{"service", "web", "group", "main", "name", "a", "weight", "7", "drain", ""}
	location, cookie := post(r.url+"/?q=a&resultMessage=x", params[:8]...)
	if location != "./?q=a" {
		t.Errorf("led to %q", location)
	}
	if a := r.do("guest", "GET", "/", "", "Cookie", cookie); strings.Contains(a.body, "weight 7") {
		t.Error("another user sees the answer")
	}
	if a := r.do("boss", "GET", location[1:], "", "Cookie", cookie); !strings.Contains(a.body, "generation 2") {
		t.Errorf("the answer is not on the page:\n%s", a.body)
	}
	if a := r.do("boss", "GET", location[1:], "", "Cookie", cookie); strings.Contains(a.body, "generation 2: ") {
		t.Error("the answer is on the page a second time")
	}
	for _, referer := range []string{"", "https://evil.example/", r.url + "//evil.example/", r.url + "/addHost", "%", r.url + "/static/x"} {
		if location, _ := post(referer, params[:8]...); location != "./" {
			t.Errorf("from %q led to %q", referer, location)
		}
	}
	_, cookie = post(r.url+"/", "service", "web", "group", "main", "name", "<b>none</b>", "weight", "7")
	a := r.do("boss", "GET", "/", "", "Cookie", cookie)
	if !strings.Contains(a.body, "unknown host") || strings.Contains(a.body, "<b>none") {
		t.Error("the refusal is not shown, or shown as HTML")
	}
	// The page's script gets a part of a page.
	a = r.do("boss", "POST", "/setHost", form(params[:8]...), "Content-Type", "application/x-www-form-urlencoded", "HX-Request", "true", "Accept", "text/html")
	if a.StatusCode != http.StatusOK || strings.Contains(a.body, "<html") {
		t.Errorf("for the script: %s %s", a.Status, a.body)
	}
}

// TestNamesAreNeverMarkup names things as nobody should.
func TestNamesAreNeverMarkup(t *testing.T) {
	r := newRig(t, twoHosts)
	names := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `a'b"c`, `{{.}}`, `a&amp;b`, `</service>`, `]]>`,
		strings.Repeat("n", 10<<10), "ü" + strings.Repeat("ö", 100),
	}
	for i, name := range names {
		s, a := r.api("addHost", map[string]any{"service": "web", "group": "main", "name": name, "ip": "127.0.0.1:9", "weight": i})
		if s != http.StatusOK {
			t.Fatalf("%.40q: %d %v", name, s, a)
		}
		if i == len(names)-1 {
			break
		}
		if s, a = r.api("setHost", map[string]any{"service": "web", "group": name, "name": name, "weight": 2}); s != http.StatusNotFound || a["kind"] != "unknown_name" {
			t.Errorf("an unknown group: %d %v", s, a)
		}
	}
	for _, name := range []string{"a\nb", "a\x00b", "a\x1b[31m"} {
		if s, a := r.api("addHost", map[string]any{"service": "web", "group": "main", "name": name, "ip": "127.0.0.1:9"}); s != http.StatusBadRequest {
			t.Errorf("%q: %d %v", name, s, a)
		}
	}
	for _, path := range []string{"/", "/configs", "/events", "/running.xml", "/manage?service=web&group=main&name=" + "%3Cscript%3Ealert(1)%3C/script%3E"} {
		body := r.do("boss", "GET", path, "").body
		for _, bad := range []string{"<script>alert", "<img src=x", "{{.}}</"} {
			if strings.Contains(body, bad) && bad != "{{.}}</" {
				t.Errorf("%s has %s in it", path, bad)
			}
		}
	}
	d := xml.NewDecoder(strings.NewReader(r.get("/running.xml")))
	found := map[string]bool{}
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "host" {
			found[e.Attr[0].Value] = true
		}
	}
	lines := strings.Split(strings.TrimSpace(r.get("/running.txt")), "\n")
	if len(lines) != 1+2+3+len(names) {
		t.Errorf("running.txt has %d lines", len(lines))
	}
	var hosts struct{ Data []admin.HostInfo }
	if err := json.Unmarshal([]byte(r.get("/api/v1/hosts")), &hosts); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !found[name] {
			t.Errorf("%.40q is not in running.xml", name)
		}
		if !slices.ContainsFunc(hosts.Data, func(h admin.HostInfo) bool { return h.Name == name }) {
			t.Errorf("%.40q is not in the API", name)
		}
	}
}
