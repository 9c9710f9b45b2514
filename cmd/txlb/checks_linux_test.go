package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// The program takes a host that says it is sick out of rotation while it still
// serves, tells why, and brings it back; nothing is left of the checks.
func TestB45ChecksByHTTPInTheProgram(t *testing.T) {
	var sick atomic.Bool
	host := func(name string, sick *atomic.Bool) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/health" && (r.Host != "app.example" || sick != nil && sick.Load()) {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(s.Close)
		return s
	}
	a, b := host("a", nil), host("b", &sick)
	bal := balance(t, fmt.Sprintf(`<service name="web"><listen ip="127.0.0.1:0"/><group name="g" scheduler="roundr">
		<check type="http" path="/health" host="app.example" interval="50ms"/>
		<host name="a" ip="%s"/><host name="b" ip="%s"/></group></service>`,
		a.Listener.Addr(), b.Listener.Addr()))
	seen := func() string {
		answers := ""
		for range 6 {
			answer, err := get("http://" + bal.addr("web", 0))
			if err != nil {
				t.Fatal(err)
			}
			answers += answer
		}
		return answers
	}
	is := func(up float64) func() bool {
		return func() bool { return bal.sample(hostSample("txlb_host_up", "b")) == up }
	}
	passed := `txlb_checks_total{service="web",group="g",host="b",result="L7OK"}`
	eventually(t, "b passes", func() bool { return bal.samples()[passed] > 0 })
	eventually(t, "both serve in turn", func() bool { return strings.Count(seen(), "b") == 3 })
	sick.Store(true)
	eventually(t, "b is out", is(0))
	if got := seen(); strings.Contains(got, "b") {
		t.Errorf("answers %s while b is sick", got)
	}
	bal.expect(`host down.*host=b .*reason="503 Service Unavailable" check=L7STS`)
	sick.Store(false)
	eventually(t, "b is back", is(1))
	bal.expect(`host up.*host=b`)
	// The table with b follows at once.
	eventually(t, "b serves", func() bool { return strings.Count(seen(), "b") == 3 })
	if n := bal.samples()[strings.Replace(passed, "L7OK", "L7STS", 1)]; n < 3 {
		t.Errorf("%v failed checks are counted", n)
	}
	// A probe may be under way at any moment, but they do not add up.
	eventually(t, "the descriptors are back", func() bool { return bal.openFiles() <= bal.files })
}
