package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// An upgrade changes the program and nothing else: no counter ever falls, at any door;
// a host that is down stays down, with its reason; uptime, history and what is not saved stay.
func TestNothingIsForgottenAtAnUpgrade(t *testing.T) {
	t.Parallel()
	host, dead := backend(t, echo), "127.0.0.1:1"
	services := fmt.Sprintf(`<engine loops="2"/><service name="web"><listen ip="127.0.0.1:0"/>
<group name="main" scheduler="roundr"><host name="a" ip=%q/><host name="b" ip=%q/></group></service>
<manager><hostCheck enable="yes" interval="3600"/></manager>`, host, dead)
	l := newLineage(t, services, `<metrics listen="127.0.0.1:0"/>`)
	metrics := "http://" + l.first(`msg="admin listening" part=metrics addr=(\S+)`) + "/metrics"
	address := l.addr("web")
	ctl := func(words ...string) string {
		t.Helper()
		status, out := l.ctl(words...)
		if status != 0 {
			t.Fatalf("%v: %s", words, out)
		}
		return out
	}

	load, ctx := newVisitors(t)
	load.add(ctx, 2, "tcp", polite/10, func() error { return short("tcp", address) })
	// One connection an answer: a process answers those alone that it has accepted before the
	// next one serves. The last of them may be answered when its counters have been given
	// away already, and it goes on counting sessions until they move.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * patience}
	var process string
	var floor, seen, last map[string]float64
	load.add(ctx, 1, "metrics", polite, func() error {
		body, err := fetch(client, metrics)
		if err != nil {
			return nil // which is another test's
		}
		if p := regexp.MustCompile(`(?m)^process_start_time_seconds .*$`).FindString(body); p != process {
			process, floor, seen, last = p, seen, nil, nil
		}
		now := countersIn(body)
		for _, before := range []map[string]float64{floor, last} {
			for name, n := range before {
				if is, there := now[name]; !there || is < n {
					return fmt.Errorf("%s was %v and is %v (%v)", name, n, is, there)
				}
			}
		}
		seen, last = last, now
		return nil
	})
	load.more(50)
	down := func() string {
		return regexp.MustCompile(`(?mi)^.*127\.0\.0\.1:1 .*down.*$`).FindString(ctl("show", "hosts"))
	}
	eventually(t, "b is down", func() bool { return down() != "" })
	ctl("setHost", "web", "main", "b", "weight=4", "confirm=12h")
	ctl("setHost", "web", "main", "a", "weight=5")
	started := regexp.MustCompile(`"started": ?"[^"]*"`).FindString(ctl("--json", "status"))
	for range 3 {
		before := l.pid
		l.upgrade()
		load.more(50)
		l.ends(before)
		if is := regexp.MustCompile(`"started": ?"[^"]*"`).FindString(ctl("--json", "status")); is != started || is == "" {
			t.Errorf("%s is now %s", started, is)
		}
		if down() == "" {
			t.Errorf("b is not down any more:\n%s", ctl("show", "hosts"))
		}
	}
	load.end()
	if len(last) < 50 {
		t.Errorf("only %d counters were looked at", len(last))
	}
	// What was said in the answers of three processes is what one has counted.
	stat := countersIn(must(get(metrics))(t))
	if n := stat[`txlb_service_sessions_total{service="web"}`]; n < float64(load.asked.Load())/2 {
		t.Errorf("%v sessions, of %d requests", n, load.asked.Load())
	}
	if out := ctl("status"); !strings.Contains(out, ", upgraded ") {
		t.Errorf("status does not tell of the upgrade: %s", out)
	}
	if out := ctl("show", "diff"); !strings.Contains(out, "weight=5") {
		t.Errorf("not saved: %s", out)
	}
	ctl("rollback")
	if out := ctl("show", "diff"); strings.Contains(out, "weight=5") || !strings.Contains(out, "# generation 2 (setHost web main b weight=4) is undone at ") {
		t.Errorf("after a rollback: %s", out)
	}
	ctl("confirm", "2")
	if out := ctl("show", "diff"); out != "setHost web main b weight=4\n" {
		t.Errorf("after it was confirmed: %s", out)
	}
	if n := strings.Count(l.log(), `msg="host down"`); n != 1 {
		t.Errorf("the log tells %d times that b is down", n)
	}
}

// fetch is get with a client of the test's own.
func fetch(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

func must(body string, err error) func(*testing.T) string {
	return func(t *testing.T) string {
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
}

// countersIn returns the counters of metrics that an upgrade carries on.
func countersIn(text string) map[string]float64 {
	all, kind := map[string]float64{}, map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if words := strings.Fields(line); len(words) == 4 && words[1] == "TYPE" {
			kind[words[2]] = words[3]
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		name, _, _ := strings.Cut(line[:at], "{")
		base := name
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, end)
		}
		if kind[name] != "counter" && kind[base] != "histogram" || !strings.HasPrefix(name, "txlb_") {
			continue
		}
		if strings.HasPrefix(name, "txlb_admin_") || strings.HasPrefix(name, "txlb_log_") { // of the process
			continue
		}
		if n, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			all[line[:at]] = n
		}
	}
	return all
}
