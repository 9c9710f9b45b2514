package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestClientOf(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, c := range []struct {
		values []string
		want   string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"192.0.2.1"}, "192.0.2.1"},
		{[]string{"192.0.2.1:443"}, "192.0.2.1:443"},
		{[]string{"2001:db8::1"}, "2001:db8::1"},
		{[]string{"[2001:db8::1]"}, "2001:db8::1"},
		{[]string{"[2001:db8::1%eth0]:99"}, "[2001:db8::1]:99"},
		{[]string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		{[]string{"203.0.113.9, 192.0.2.1"}, "192.0.2.1"}, // the first one is made up
		{[]string{"203.0.113.9", "192.0.2.1"}, "192.0.2.1"},
		{[]string{"203.0.113.9, 192.0.2.1, 10.1.1.1,::1"}, "192.0.2.1"},
		{[]string{"10.2.2.2, 10.1.1.1"}, "10.2.2.2"},
		{[]string{"unknown, 10.1.1.1"}, "10.1.1.1"},
		{[]string{"192.0.2.1, _hidden"}, ""},
		{[]string{"127.0.0.1\nadmin"}, ""},
	} {
		if got := clientOf(c.values, trusted); got != c.want {
			t.Errorf("%q: %q, want %q", c.values, got, c.want)
		}
	}
}

func TestCleanPrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"": "", "/": "", "/lb": "/lb", "/lb/": "/lb", "/a/b-c.d_e~": "/a/b-c.d_e~", "lb": "", "//evil.example": "", "/lb//": "", "/../x": "", "/.": "",
		"/lb?x": "", "/lb\"": "", "https://evil.example": "", "/%2e%2e": "", "/" + strings.Repeat("x", 300): "",
	} {
		if got := cleanPrefix(prefix); got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
}

// trusts makes the page trust proxies at an address, and be called ops.example.
func trusts(proxy string) func(*Options) {
	return func(o *Options) {
		o.Names = func() []string { return []string{"ops.example"} }
		o.Proxies = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(proxy)} }
	}
}

const setWeight = "/setHost?service=web&group=main&name=a&weight="

// TestProxyIsBelieved sends what a trusted proxy would.
func TestProxyIsBelieved(t *testing.T) {
	r := newRig(t, twoHosts, trusts("127.0.0.1/32"))
	if a := r.do("boss", "GET", "/status.txt", "", "Host", "other.example"); a.StatusCode != http.StatusMisdirectedRequest || !strings.Contains(a.body, "<web names>") {
		t.Errorf("as another host: %s %s", a.Status, a.body)
	}
	for _, header := range [][]string{{"Host", "ops.example"}, {"Host", "OPS.example:8443"}, {"X-Forwarded-Host", "ops.example"}, {"Host", "x.example", "X-Forwarded-Host", "made.up, ops.example"}} {
		if a := r.do("boss", "GET", "/status.txt", "", header...); a.StatusCode != http.StatusOK {
			t.Errorf("%v: %s %s", header, a.Status, a.body)
		}
	}
	if a := r.do("boss", "GET", "/status.txt", "", "X-Forwarded-Host", "evil.example"); a.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("for another host: %s", a.Status)
	}
	// A browser that knows no Sec-Fetch-Site says the origin that it sees.
	if a := r.do("boss", "POST", setWeight+"2", "", "Origin", "https://ops.example", "X-Forwarded-Host", "ops.example", "X-Forwarded-For", "203.0.113.9, 192.0.2.1"); a.StatusCode != http.StatusOK {
		t.Errorf("a form: %s %s", a.Status, a.body)
	}
	if a := r.do("boss", "POST", setWeight+"3", "", "Origin", "https://evil.example", "X-Forwarded-Host", "ops.example"); a.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site: %s", a.Status)
	}
	if e := r.dir.Events(); len(e) != 1 || e[0].From != "192.0.2.1" {
		t.Errorf("the events are %+v", e)
	}
	var doc struct{ Servers []struct{ URL string } }
	if a := r.do("boss", "GET", "/api/v1/openapi.json", "", "X-Forwarded-Prefix", "/lb/"); json.Unmarshal([]byte(a.body), &doc) != nil || len(doc.Servers) != 1 || doc.Servers[0].URL != "/lb" {
		t.Errorf("the API is at %+v", doc.Servers)
	}
	// Who guesses waits; others behind the same proxy do not.
	guess := func(from string) int {
		q := r.request("", "GET", "/status.txt", nil, "X-Forwarded-For", from)
		q.SetBasicAuth("boss", "wrong"+r.log.String()) // another one each time
		return r.send(q).StatusCode
	}
	status := 0
	for range 10 {
		if status = guess("192.0.2.66"); status == http.StatusTooManyRequests {
			break
		}
	}
	if status != http.StatusTooManyRequests {
		t.Errorf("ten wrong passwords: %d", status)
	}
	if a := r.do("boss", "GET", "/status.txt", "", "X-Forwarded-For", "192.0.2.66"); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("who has guessed: %s", a.Status)
	}
	if a := r.do("boss", "GET", "/status.txt", "", "X-Forwarded-For", "192.0.2.67"); a.StatusCode != http.StatusOK {
		t.Errorf("another client of the proxy: %s", a.Status)
	}
	if log := r.log.String(); !strings.Contains(log, "from=192.0.2.66") || strings.Contains(log, "failed\" user=boss from=127.0.0.1") {
		t.Errorf("the log has other addresses:\n%s", log)
	}
}

// TestStrangersAreNotBelieved sends the same headers from elsewhere.
func TestStrangersAreNotBelieved(t *testing.T) {
	for _, change := range []func(*Options){func(*Options) {}, trusts("192.0.2.0/24")} {
		r := newRig(t, twoHosts, change)
		forged := []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Host", "evil.example", "X-Forwarded-Prefix", "/evil"}
		if a := r.do("boss", "POST", setWeight+"2", "", forged...); a.StatusCode != http.StatusOK {
			t.Errorf("a change: %s %s", a.Status, a.body)
		}
		if e := r.dir.Events(); len(e) != 1 || !strings.HasPrefix(e[0].From, "127.0.0.1:") {
			t.Errorf("the events are %+v", e)
		}
		if a := r.do("boss", "POST", setWeight+"3", "", append(forged, "Origin", "https://evil.example")...); a.StatusCode != http.StatusForbidden {
			t.Errorf("a form of another site: %s", a.Status)
		}
		if a := r.do("boss", "GET", "/", "", "Host", "evil.example", "X-Forwarded-Host", "localhost"); a.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("as another host: %s", a.Status)
		}
		if a := r.do("boss", "GET", "/api/v1/openapi.json", "", forged...); strings.Contains(a.body, "/evil") {
			t.Error("the API is where a stranger says")
		}
		status := 0
		for i := 0; i < 20 && status != http.StatusTooManyRequests; i++ {
			q := r.request("", "GET", "/status.txt", nil, "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
			q.SetBasicAuth("boss", fmt.Sprint("wrong", i))
			status = r.send(q).StatusCode
		}
		if status != http.StatusTooManyRequests {
			t.Errorf("who guesses is not slowed down: %d", status)
		}
	}
}
