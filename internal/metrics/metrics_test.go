package metrics

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/testkit"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const doc = `<config><service name="we&quot;b\"><listen ip=":1"/>
	<group name="g" enable="yes"><host name="a" ip="10.0.0.1:80" weight="7"/><host name="b" ip="10.0.0.2:80" state="maint"/></group>
	<group name="h"/></service></config>`

func reading(t *testing.T) *status.Reading {
	t.Helper()
	d := rig.Hold(t, doc)
	h := d.State().Services[0].Groups[0].Hosts[0].Targets[0].Host
	h.AddBytes(11, 22)
	h.Fail()
	h.Times().Connected(0, 200*time.Microsecond)
	h.Times().Connected(1, 3*time.Second)
	h.Times().Ended(1, 25*time.Hour)
	return status.Read(status.Facts{
		Snapshot: engine.Snapshot{
			Services: map[string]engine.ServiceStats{`we"b\`: {
				Active: 3, Sessions: 9, Redispatches: 2,
				Refused: map[string]uint64{"no_host": 4}, Ended: map[string]uint64{"--": 5},
				ConnectFailures: map[string]uint64{"refused": 6},
			}},
			Loops: []engine.LoopStats{{Active: 1, Pipes: 2, Events: 3, Accepts: 4, Spliced: 5, Copied: 6, Awake: 8500 * time.Millisecond}},

			Facilities: []engine.Facility{{Name: "io_uring", On: true}, {Name: "other", Why: "no"}},
		},
		State: d.State(), Version: "v1", SessionsLimit: 100, FDLimit: 1000,
	})
}

// Every probe that has ended is counted under its result, whatever it did to
// the host; a host that is down by checks is so in txlb_host_up.
func TestChecksAreCounted(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		c, problems := config.Parse("", []byte(`<config><service name="s"><listen ip=":1"/><group name="g"><check interval="1s" fall="1"/>
			<host name="a" ip="10.0.0.1:80"/><host name="b" ip="10.0.0.2:80"/></group></service></config>`))
		if c == nil {
			t.Fatal(problems)
		}
		d, err := director.New(c, rig.Idle{}, director.Options{
			Log: slog.New(slog.DiscardHandler),
			Probe: func(_ context.Context, p health.Probe) health.Result {
				if p.Addr.String() == "10.0.0.1:80" {
					return health.Result{Code: health.L4OK}
				}
				return health.Result{Code: health.L7Sts, Text: "503"}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		var out strings.Builder
		Write(&out, status.Read(status.Facts{State: d.State()}))
		samples := read(t, out.String())
		for host, code := range map[string]string{"a": "L4OK", "b": "L7STS"} {
			name := `txlb_checks_total{service="s",group="g",host="` + host + `",result="` + code + `"}`
			if n := samples[name]; n < 10 || n > 15 {
				t.Errorf("%s is %v", name, n)
			}
		}
		up := func(host string) float64 { return samples[`txlb_host_up{service="s",group="g",host="`+host+`"}`] }
		if up("a") != 1 || up("b") != 0 {
			t.Errorf("up: %v, %v", up("a"), up("b"))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// line is one sample of the text format (Prometheus, exposition formats).
var line = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-zA-Z_][a-zA-Z0-9_]*="(\\.|[^"\\\n])*",? ?)*\})? (\S+)$`)

// read checks every line of the text and returns the samples.
func read(t *testing.T, text string) map[string]float64 {
	t.Helper()
	samples := map[string]float64{}
	kinds := map[string]bool{}
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if name, ok := strings.CutPrefix(l, "# TYPE "); ok {
			if kinds[name] {
				t.Errorf("%q stands twice", l)
			}
			kinds[name] = true
			continue
		}
		if strings.HasPrefix(l, "# HELP ") {
			continue
		}
		m := line.FindStringSubmatch(l)
		if m == nil {
			t.Errorf("no sample: %q", l)
			continue
		}
		v, err := strconv.ParseFloat(m[5], 64)
		if _, twice := samples[m[1]+m[2]]; err != nil || twice {
			t.Errorf("%q: no number, or the same sample twice", l)
		}
		samples[m[1]+m[2]] = v
	}
	return samples
}

func TestServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, NewText(func() *status.Reading { return reading(t) }, nil), nil) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(method, path string) (int, string) {
		req, _ := http.NewRequest(method, fmt.Sprintf("http://%s%s", ln.Addr(), path), nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	code, body := get("GET", "/metrics")
	if code != http.StatusOK {
		t.Errorf("status %d", code)
	}
	samples := read(t, body)
	const svc, host = `service="we\"b\\"`, `{service="we\"b\\",group="g",host="a"}`
	for name, want := range map[string]float64{
		"txlb_service_sessions{" + svc + "}":                              3,
		"txlb_service_sessions_total{" + svc + "}":                        9,
		"txlb_redispatches_total{" + svc + "}":                            2,
		"txlb_sessions_refused_total{" + svc + `,reason="no_host"}`:       4,
		"txlb_sessions_ended_total{" + svc + `,termination="--"}`:         5,
		"txlb_connect_failures_total{" + svc + `,reason="refused"}`:       6,
		"txlb_group_enabled{" + svc + `,group="g"}`:                       1,
		"txlb_group_enabled{" + svc + `,group="h"}`:                       0,
		"txlb_bytes_in_total" + host:                                      11,
		"txlb_bytes_out_total" + host:                                     22,
		"txlb_sessions" + host:                                            0,
		"txlb_sessions_total" + host:                                      0,
		"txlb_host_connect_failures_total" + host:                         1,
		"txlb_host_up" + host:                                             0,
		"txlb_host_addresses" + host:                                      1,
		"txlb_host_name_failing" + host:                                   0,
		"txlb_host_weight" + host:                                         7,
		"txlb_connect_seconds_bucket{" + svc + `,group="g",le="0.0001"}`:  0,
		"txlb_connect_seconds_bucket{" + svc + `,group="g",le="0.00025"}`: 1,
		"txlb_connect_seconds_bucket{" + svc + `,group="g",le="1"}`:       1,
		"txlb_connect_seconds_bucket{" + svc + `,group="g",le="5"}`:       2,
		"txlb_connect_seconds_bucket{" + svc + `,group="g",le="+Inf"}`:    2,
		"txlb_connect_seconds_sum{" + svc + `,group="g"}`:                 3.0002,
		"txlb_connect_seconds_count{" + svc + `,group="g"}`:               2,
		"txlb_session_seconds_bucket{" + svc + `,group="g",le="86400"}`:   0,
		"txlb_session_seconds_count{" + svc + `,group="g"}`:               1,
		"txlb_session_seconds_count{" + svc + `,group="h"}`:               0,
		"txlb_host_state{" + svc + `,group="g",host="b"}`:                 2,
		`txlb_loop_sessions{loop="0"}`:                                    1,
		`txlb_pipes{loop="0"}`:                                            2,
		`txlb_loop_events_total{loop="0"}`:                                3,
		`txlb_loop_accepts_total{loop="0"}`:                               4,
		`txlb_loop_spliced_bytes_total{loop="0"}`:                         5,
		`txlb_loop_copied_bytes_total{loop="0"}`:                          6,
		`txlb_loop_awake_seconds_total{loop="0"}`:                         8.5,
		`txlb_facility{name="io_uring"}`:                                  1,
		`txlb_facility{name="other"}`:                                     0,
		`txlb_build_info{version="v1"}`:                                   1,
		"txlb_config_generation":                                          1,
		"txlb_sessions_limit":                                             100,
		"txlb_fd_limit":                                                   1000,
	} {
		if got, ok := samples[name]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", name, got, ok, want)
		}
	}
	for _, name := range []string{"process_resident_memory_bytes", "go_goroutines"} {
		if samples[name] <= 0 {
			t.Errorf("%s is %v", name, samples[name])
		}
	}
	if code, _ := get("POST", "/metrics"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST has code %d", code)
	}
	if code, _ := get("GET", "/other"); code != http.StatusNotFound {
		t.Errorf("another path has code %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A host counts what all its addresses have counted, and a name that fails shows.
func TestHostsWithNames(t *testing.T) {
	target := func(addr string, in uint64) *director.Target {
		a, err := sched.ParseAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		h := sched.NewHost("a", a)
		h.AddBytes(in, 0)
		return &director.Target{Host: h}
	}
	group := status.Group{Group: &director.Group{Config: config.NewGroup("g")}}
	for _, h := range []*director.Host{
		{
			Config:  config.NewHost("a", "db:1"),
			Targets: []*director.Target{target("10.0.0.1:1", 1), target("10.0.0.2:1", 2)},
			Problem: "lookup db: no such host",
		},
		{Config: config.NewHost("b", "ghost:1"), Problem: "lookup ghost: no such host"},
	} {
		group.Hosts = append(group.Hosts, status.Host{Host: h, Stats: h.Stats()})
	}
	r := &status.Reading{Services: []status.Service{{Service: &director.Service{Config: config.NewService("s")}, Groups: []status.Group{group}}}}
	var out strings.Builder
	hosts(&text{w: &out}, r)
	for _, want := range []string{
		`txlb_bytes_in_total{service="s",group="g",host="a"} 3`,
		`txlb_host_addresses{service="s",group="g",host="a"} 2`,
		`txlb_host_name_failing{service="s",group="g",host="a"} 1`,
		`txlb_host_addresses{service="s",group="g",host="b"} 0`,
		`txlb_host_up{service="s",group="g",host="b"} 0`,
	} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
}

// Nobody gets a text from before he asked, and many who ask at once share one.
func TestTextIsOfAfterTheQuestion(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		var asked atomic.Int64 // the question that came last
		var writes int
		text := NewText(func() *status.Reading {
			writes++
			r := reading(t)
			r.Version = strconv.FormatInt(asked.Load(), 10)
			time.Sleep(time.Millisecond) // how long it takes
			return r
		}, nil)
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				mine := asked.Add(1)
				got, done, err := text.Get(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				defer done()
				m := regexp.MustCompile(`txlb_build_info\{[^}]*version="(\d+)"`).FindSubmatch(got)
				if m == nil {
					t.Fatal("no version")
				}
				if of, _ := strconv.ParseInt(string(m[1]), 10, 64); of < mine {
					t.Errorf("question %d was answered by a text of question %d", mine, of)
				}
			})
			time.Sleep(100 * time.Microsecond)
		}
		begun := time.Now()
		all.Wait()
		if writes > 12 || time.Since(begun) > 30*time.Millisecond {
			t.Errorf("written %d times for 200 who asked within 20 ms; the last waited %v", writes, time.Since(begun))
		}
	})
}

// What a request asks for: services, and whether it is compressed.
func TestRespond(t *testing.T) {
	text := NewText(func() *status.Reading { return reading(t) }, nil)
	respond := func(path, accept string) ([]byte, map[string]string, error) {
		q := httptest.NewRequest("GET", path, nil)
		if accept != "" {
			q.Header.Set("Accept-Encoding", accept)
		}
		body, header, done, err := text.Respond(q)
		if err == nil {
			done()
		}
		return body, header, err
	}
	plain, header, err := respond("/metrics", "")
	if err != nil || header["Content-Encoding"] != "" || header["Vary"] != "Accept-Encoding" {
		t.Fatalf("%v %v", header, err)
	}
	for accept, want := range map[string]bool{
		"gzip": true, "deflate, GZIP;q=0.5": true, "*": true, "gzip;q=0": false, "gzip; q=0.0": false, "identity": false, "br": false, "gzip;q=x": false,
	} {
		body, header, err := respond("/metrics", accept)
		if err != nil || (header["Content-Encoding"] == "gzip") != want {
			t.Errorf("%s: %v %v", accept, header, err)
		}
		if !want {
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || len(read(t, string(got))) != len(read(t, string(plain))) {
			t.Errorf("%s: other metrics, %v", accept, err)
		}
	}
	name := `we"b\`
	all := read(t, string(plain))
	body, _, err := respond("/metrics?service="+url.QueryEscape(name), "")
	if err != nil {
		t.Fatal(err)
	}
	some := read(t, string(body))
	for sample := range all {
		if _, there := some[sample]; there != strings.Contains(sample, `{service="we\"b\\"`) {
			t.Errorf("%s is there: %v", sample, there)
		}
	}
	if twice, _, err := respond("/metrics?service="+url.QueryEscape(name)+"&service="+url.QueryEscape(name), ""); err != nil || len(twice) != len(body) {
		t.Errorf("a service that is named twice: %d bytes, want %d, %v", len(twice), len(body), err)
	}
	for _, none := range []string{"none", "we", ""} {
		if _, _, err := respond("/metrics?service="+none, ""); !errors.Is(err, ErrUnknownService) {
			t.Errorf("service %q: %v", none, err)
		}
	}
	// Every metric has HELP and TYPE.
	said := map[string]string{}
	for line := range strings.Lines(string(plain)) {
		fields := strings.Fields(line)
		if fields[0] == "#" {
			if fields[1] == "HELP" && len(fields) > 3 || fields[1] == "TYPE" && said[fields[2]] == "HELP" {
				said[fields[2]] = fields[1]
			}
			continue
		}
		name, _, _ := strings.Cut(fields[0], "{")
		whole := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, suffix); said[base] != "" {
				whole = base
			}
		}
		if said[whole] != "TYPE" || strings.Contains(string(plain), "# HELP "+whole+" Metric of the process\n") {
			t.Errorf("%s has no HELP and TYPE", name)
		}
	}
}

// BenchmarkManyHosts and BenchmarkManyServices are what docs/monitoring.md and
// docs/performance.md say of the cost of a scrape.
func BenchmarkManyHosts(b *testing.B)    { benchmarkScrape(b, 10, 1000) }
func BenchmarkManyServices(b *testing.B) { benchmarkScrape(b, 10_000, 1) }

func benchmarkScrape(b *testing.B, services, hosts int) {
	var doc strings.Builder
	doc.WriteString(`<config>`)
	for s := range services {
		fmt.Fprintf(&doc, `<service name="service-%d"><listen ip="127.0.0.1:0"/><group name="main">`, s)
		for h := range hosts {
			fmt.Fprintf(&doc, `<host name="host-%d" ip="10.%d.%d.%d:80"/>`, h, s%250, s/250+h/250, h%250+1)
		}
		doc.WriteString(`</group></service>`)
	}
	doc.WriteString(`</config>`)
	r := rig.Hold(b, doc.String())
	read := func() *status.Reading { return status.Read(status.Facts{State: r.State()}) }
	var buffer bytes.Buffer
	Write(&buffer, read())
	text := buffer.Bytes()
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buffer.Reset()
			Write(&buffer, read())
		}
		b.ReportMetric(float64(len(text)), "bytes")
	})
	b.Run("gzip", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			n = len(compress(text))
		}
		b.ReportMetric(float64(n), "bytes")
	})
	b.Run("service", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			some, err := ofServices(text, []string{"service-7"})
			if err != nil {
				b.Fatal(err)
			}
			n = len(some)
		}
		b.ReportMetric(float64(n), "bytes")
	})
}
