//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// secureSite serves pages over TLS as the peers do, with settings of the test.
func secureSite(t *testing.T, set func(*tls.Config)) (addr string) {
	t.Helper()
	cert, key, err := selfSigned(ecdsaKey)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, pages()[strings.TrimPrefix(r.URL.Path, "/")]))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	set(s.TLS)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func playOrder(t *testing.T, o order) (outcome, error) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := playLoad(strings.NewReader(string(text)+` "go"`), &out); err != nil {
		return outcome{}, err
	}
	var got outcome
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || lines[0] != `"ready"` {
		t.Fatalf("the load wrote %q", lines)
	}
	return got, json.Unmarshal([]byte(lines[1]), &got)
}

// The load over TLS: new connections, resumed ones and kept ones. Where a session is
// not resumed, the load says so instead of measuring something else.
func TestLoadOverTLS(t *testing.T) {
	addr := secureSite(t, func(*tls.Config) {})
	for name, o := range map[string]order{
		"full":    {Closing: true},
		"resumed": {Closing: true, Resume: true},
		"kept":    {},
	} {
		o.Address, o.Page, o.Lanes, o.TLS, o.Length = addr, "small", 3, true, 20*time.Millisecond
		got, err := playOrder(t, o)
		if err != nil || got.Failed+got.Late > 0 || got.Answered < 3 || got.P50 <= 0 || got.P50 > got.P99 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	without := secureSite(t, func(c *tls.Config) { c.SessionTicketsDisabled = true })
	o := order{Address: without, Page: "small", Lanes: 1, TLS: true, Closing: true, Resume: true, Length: time.Millisecond}
	if got, err := playOrder(t, o); err == nil && got.Failed == 0 {
		t.Errorf("sessions without tickets were resumed: %+v", got)
	}
}

// So does the load of counts, with calls that block.
func TestStepsOverTLS(t *testing.T) {
	addr := secureSite(t, func(*tls.Config) {})
	for name, o := range map[string]steps{
		"full":    {Lanes: 1, Closing: true},
		"resumed": {Lanes: 1, Closing: true, Resume: true},
		"kept":    {Lanes: 3},
	} {
		o.Address, o.Page, o.TLS, o.Warm, o.Count = addr, "small", true, 1, 2
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		want := fmt.Sprintf(`"Requests":%d`, o.Lanes*o.Count)
		if err := playSteps(strings.NewReader(string(text)+` "go" "end"`), &out); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v, %s, want %s", name, err, out.String(), want)
		}
	}
}

// Every peer that is measured over TLS is: handshakes, kept connections, streams, and
// TLS towards hosts.
func TestPeersOverTLS(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "nginx")
	opt := options{
		workloads: pick(t, workloads(), "tls-rsa", "tls-resumed", "tls-keep64", "tls-bulk1", "tls-host-short", "tls-idle"),
		peers:     pick(t, peers(), tlsPeers(t)...), asked: true, rounds: 1, length: 500 * time.Millisecond, time: time.Nanosecond, sessions: 20, // on a busy machine nothing may move for a while
	}
	testkit.BestOf(t, 3, func() error {
		var progress bytes.Buffer
		res, err := measureAll(t.Context(), opt, &progress)
		if err != nil {
			t.Fatalf("%v\n%s", err, progress.String())
		}
		if len(res.broken) > 0 || res.failed() > 0 {
			return fmt.Errorf("broken: %q, left out: %q, failed: %d", res.broken, res.leftOut, res.failed())
		}
		if want := len(opt.workloads) * len(opt.peers); len(res.samples) != want {
			return fmt.Errorf("%d slices, want %d:\n%s", len(res.samples), want, progress.String())
		}
		for _, s := range res.samples {
			if s.units <= 0 || s.threads != 2 {
				return fmt.Errorf("%s with %s: %+v", s.workload, s.peer, s)
			}
		}
		return nil
	})
}

// tlsPeers are those that are there.
func tlsPeers(t *testing.T) []string {
	t.Helper()
	names := []string{ours}
	if debian.Path("haproxy") != "" {
		names = append(names, plain)
	}
	if debian.Path("/usr/lib/nginx/modules/ngx_stream_module.so") != "" {
		names = append(names, "nginx")
	}
	return names
}

// What "bench tls" measures is not what "bench" does, and the other way round.
func TestSuites(t *testing.T) {
	usualRun, err := parseArgs(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	tlsRun, err := parseArgs([]string{tlsWork, "-rounds", "3"}, io.Discard)
	if err != nil || tlsRun.rounds != 3 || tlsRun.time > 10*time.Minute {
		t.Fatalf("%+v, %v", tlsRun, err)
	}
	for _, w := range usualRun.workloads {
		if w.suite != usual || slices.ContainsFunc(tlsRun.workloads, func(x workload) bool { return x.name == w.name }) {
			t.Errorf("%s is measured with the usual workloads", w.name)
		}
	}
	for _, w := range countedWork() {
		if got := slices.ContainsFunc(countedOf(usual), func(x counted) bool { return x.name == w.name }); got != (w.suite == usual) {
			t.Errorf("%s is counted with the usual works: %v", w.name, got)
		}
	}
	for _, name := range countedAgain() {
		pick(t, countedOf(tlsWork), name)
	}
	r := &rig{options: tlsRun}
	for _, w := range tlsRun.workloads {
		want := "txlb, haproxy, nginx"
		if w.own {
			want = "txlb, embedded, embedded-spare, own-tcp, own-conns, goroutines"
		}
		if got := names(r.contestants(w)); got != want {
			t.Errorf("%s is measured with %s, want %s", w.name, got, want)
		}
	}
}

// fullTLS is a record of everything that "bench tls" measures.
func fullTLS(t *testing.T) *record {
	opt, err := parseArgs([]string{tlsWork}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	rec, r := &record{}, &rig{options: opt}
	for _, w := range opt.workloads {
		for i, p := range r.contestants(w) {
			for round := range 8 {
				s := sample{setting: setting{w.name, 2, usualControl}, peer: p.name, round: round, units: 1, usage: usage{time: time.Second, cpu: time.Duration(i+1) * time.Millisecond, segments: 1}}
				for _, name := range []string{"p50", p99, loadCPU, grown, "sessions"} {
					s.note(name, float64(i+1))
				}
				rec.samples = append(rec.samples, s)
			}
		}
	}
	return rec
}

func TestReportOfTLS(t *testing.T) {
	rec := fullTLS(t)
	text := tlsReport(rec, "../bench/data/tls", "")
	rowsFit(t, text)
	for _, want := range []string{
		"| Full handshakes, RSA 2048 | proxy CPU, µs per connection<br>connections per second<br>p99, µs | 1,000<br>1.00<br>1.00 | 2,000<br>1.00<br>2.00 | 0.50 ✓<br>1.00 ✓<br>0.50 ✓ |",
		"| Idle sessions over TLS | resident KiB per session | 1.00 |",
		"| 64 kept-alive connections, reply of 100 bytes | proxy CPU, µs per request",
		"](../bench/data/tls/slices.tsv)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	// It can be written again.
	dir := t.TempDir()
	if err := writeData(filepath.Join(dir, "data"), rec, ""); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "tls.md")
	var said strings.Builder
	if status := run(t.Context(), []string{tlsWork, "-from", filepath.Join(dir, "data"), "-out", out}, io.Discard, &said); status != 0 {
		t.Fatalf("status %d: %s", status, &said)
	}
	if again, err := os.ReadFile(out); err != nil || !strings.Contains(string(again), "Full handshakes, RSA 2048") {
		t.Errorf("%v\n%s", err, again)
	}
}
