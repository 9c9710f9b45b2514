// Package metrics writes what the program counts as Prometheus text, under the
// names of docs/operations.md. It is the only room that knows the metrics
// library. A scrape reads snapshots: no loop and no change waits for it.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/sched"
)

// Source is where the figures come from.
type Source struct {
	Engine        func() engine.Snapshot
	State         func() *director.State
	Version       string
	SessionsLimit int    // 0: none
	FDLimit       uint64 // 0: not known
	// File tells how many changes of what runs the configuration file lacks, and
	// whether it was wrong when it was last reloaded; nil: there is no file.
	File func() (unsaved int, failed bool)
}

// Write writes all metrics.
func (s Source) Write(w io.Writer) {
	x := &text{w: w}
	snap, state := s.Engine(), s.State()
	services(x, snap)
	hosts(x, state)
	times(x, state)
	loops(x, snap)
	s.process(x, state)
	metrics.WriteProcessMetrics(w)
}

// text writes samples; those of one metric follow each other.
type text struct {
	w io.Writer
}

// labels are pairs of name and value.
func (x *text) sample(name string, value float64, labels ...string) {
	full := name
	for i := 0; i+1 < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		full += sep + labels[i] + "=" + quote(labels[i+1])
	}
	if len(labels) > 0 {
		full += "}"
	}
	_, _ = fmt.Fprintf(x.w, "%s %s\n", full, strconv.FormatFloat(value, 'g', -1, 64))
}

// quote escapes a label's value as the exposition format wants it: backslash,
// quote and line feed, and nothing else.
func quote(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := range len(s) {
		switch s[i] {
		case '\\', '"':
			b = append(b, '\\', s[i])
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, s[i])
		}
	}
	return string(append(b, '"'))
}

// kind says what the samples that follow are.
func (x *text) kind(name, kind string) { _, _ = fmt.Fprintf(x.w, "# TYPE %s %s\n", name, kind) }

func (x *text) counter(name string) { x.kind(name, "counter") }
func (x *text) gauge(name string)   { x.kind(name, "gauge") }

func services(x *text, snap engine.Snapshot) {
	names := slices.Sorted(maps.Keys(snap.Services))
	one := func(metric string, value func(engine.ServiceStats) float64) {
		for _, name := range names {
			x.sample(metric, value(snap.Services[name]), "service", name)
		}
	}
	many := func(metric, label string, values func(engine.ServiceStats) map[string]uint64) {
		x.counter(metric)
		for _, name := range names {
			m := values(snap.Services[name])
			for _, key := range slices.Sorted(maps.Keys(m)) {
				x.sample(metric, float64(m[key]), "service", name, label, key)
			}
		}
	}
	x.gauge("txlb_service_sessions")
	one("txlb_service_sessions", func(s engine.ServiceStats) float64 { return float64(s.Active) })
	x.counter("txlb_service_sessions_total")
	one("txlb_service_sessions_total", func(s engine.ServiceStats) float64 { return float64(s.Sessions) })
	x.counter("txlb_redispatches_total")
	one("txlb_redispatches_total", func(s engine.ServiceStats) float64 { return float64(s.Redispatches) })
	many("txlb_connect_failures_total", "reason", func(s engine.ServiceStats) map[string]uint64 { return s.ConnectFailures })
	many("txlb_sessions_refused_total", "reason", func(s engine.ServiceStats) map[string]uint64 { return s.Refused })
	many("txlb_sessions_ended_total", "termination", func(s engine.ServiceStats) map[string]uint64 { return s.Ended })
}

// hostLine is a host with what it has counted.
type hostLine struct {
	labels        []string
	stats         sched.HostStats
	weight, state int
	checks        map[string]uint64 // probes by result
	addresses     int
	nameFailing   bool
}

func hosts(x *text, state *director.State) {
	var lines []hostLine
	x.gauge("txlb_group_enabled")
	for _, svc := range state.Services {
		for _, g := range svc.Groups {
			enabled := 0.0
			if g.Config.Enabled {
				enabled = 1
			}
			x.sample("txlb_group_enabled", enabled, "service", svc.Config.Name, "group", g.Config.Name)
			for _, h := range g.Hosts {
				lines = append(lines, hostLine{
					labels: []string{"service", svc.Config.Name, "group", g.Config.Name, "host", h.Config.Name},
					stats:  h.Stats(), checks: maps.Collect(h.Checks()),
					weight: h.Config.Weight, state: stateNumber(h.Config.State),
					addresses: len(h.Targets), nameFailing: h.Problem != "",
				})
			}
		}
	}
	each := func(name, kind string, value func(hostLine) float64) {
		x.kind(name, kind)
		for _, l := range lines {
			x.sample(name, value(l), l.labels...)
		}
	}
	each("txlb_sessions", "gauge", func(l hostLine) float64 { return float64(l.stats.Active) })
	each("txlb_sessions_total", "counter", func(l hostLine) float64 { return float64(l.stats.Picks) })
	each("txlb_bytes_in_total", "counter", func(l hostLine) float64 { return float64(l.stats.In) })
	each("txlb_bytes_out_total", "counter", func(l hostLine) float64 { return float64(l.stats.Out) })
	each("txlb_host_connect_failures_total", "counter", func(l hostLine) float64 { return float64(l.stats.Failures) })
	each("txlb_host_early_resets_total", "counter", func(l hostLine) float64 { return float64(l.stats.EarlyResets) })
	x.counter("txlb_checks_total")
	for _, l := range lines {
		for _, code := range slices.Sorted(maps.Keys(l.checks)) {
			x.sample("txlb_checks_total", float64(l.checks[code]), append(slices.Clip(l.labels), "result", code)...)
		}
	}
	each("txlb_host_weight", "gauge", func(l hostLine) float64 { return float64(l.weight) })
	each("txlb_host_state", "gauge", func(l hostLine) float64 { return float64(l.state) })
	each("txlb_host_addresses", "gauge", func(l hostLine) float64 { return float64(l.addresses) })
	each("txlb_host_name_failing", "gauge", func(l hostLine) float64 { return truth(l.nameFailing) })
	each("txlb_host_up", "gauge", func(l hostLine) float64 { return truth(l.stats.Up) })
}

// times writes the histograms, one a group.
func times(x *text, state *director.State) {
	for _, m := range []struct {
		name string
		of   func(*sched.Times) sched.Histogram
	}{{"txlb_connect_seconds", (*sched.Times).Connects}, {"txlb_session_seconds", (*sched.Times).Sessions}} {
		x.kind(m.name, "histogram")
		for _, svc := range state.Services {
			for _, g := range svc.Groups {
				labels := []string{"service", svc.Config.Name, "group", g.Config.Name}
				h := m.of(g.Times)
				var below uint64
				for i, n := range h.Counts {
					below += n
					le := "+Inf"
					if i < len(h.Bounds) {
						le = strconv.FormatFloat(h.Bounds[i].Seconds(), 'g', -1, 64)
					}
					x.sample(m.name+"_bucket", float64(below), append(slices.Clip(labels), "le", le)...)
				}
				x.sample(m.name+"_sum", h.Sum.Seconds(), labels...)
				x.sample(m.name+"_count", float64(below), labels...)
			}
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// stateNumber is the administrative state as a number: 0 ready, 1 drain, 2 maint.
func stateNumber(s string) int { return max(0, slices.Index([]string{"ready", "drain", "maint"}, s)) }

func loops(x *text, snap engine.Snapshot) {
	each := func(name, kind string, value func(engine.LoopStats) float64) {
		x.kind(name, kind)
		for i, l := range snap.Loops {
			x.sample(name, value(l), "loop", strconv.Itoa(i))
		}
	}
	each("txlb_loop_sessions", "gauge", func(l engine.LoopStats) float64 { return float64(l.Active) })
	each("txlb_loop_events_total", "counter", func(l engine.LoopStats) float64 { return float64(l.Events) })
	each("txlb_loop_accepts_total", "counter", func(l engine.LoopStats) float64 { return float64(l.Accepts) })
	each("txlb_loop_awake_seconds_total", "counter", func(l engine.LoopStats) float64 { return l.Awake.Seconds() })
	each("txlb_loop_runner", "gauge", func(l engine.LoopStats) float64 { return float64(l.Runner) })
	each("txlb_loop_spliced_bytes_total", "counter", func(l engine.LoopStats) float64 { return float64(l.Spliced) })
	each("txlb_loop_copied_bytes_total", "counter", func(l engine.LoopStats) float64 { return float64(l.Copied) })
	each("txlb_pipes", "gauge", func(l engine.LoopStats) float64 { return float64(l.Pipes) })
}

func (s Source) process(x *text, state *director.State) {
	x.gauge("txlb_build_info")
	x.sample("txlb_build_info", 1, "version", s.Version)
	x.gauge("txlb_config_generation")
	x.sample("txlb_config_generation", float64(state.Generation))
	if s.File != nil {
		unsaved, failed := s.File()
		x.gauge("txlb_config_unsaved")
		x.sample("txlb_config_unsaved", float64(unsaved))
		x.gauge("txlb_config_last_reload_success")
		success := 1.0
		if failed {
			success = 0
		}
		x.sample("txlb_config_last_reload_success", success)
	}
	if s.SessionsLimit > 0 {
		x.gauge("txlb_sessions_limit")
		x.sample("txlb_sessions_limit", float64(s.SessionsLimit))
	}
	if s.FDLimit > 0 {
		x.gauge("txlb_fd_limit")
		x.sample("txlb_fd_limit", float64(s.FDLimit))
	}
	if n, ok := openFDs(); ok {
		x.gauge("process_open_fds")
		x.sample("process_open_fds", float64(n))
	}
	if n, ok := listenOverflows(); ok {
		x.counter("txlb_listen_overflows_total")
		x.sample("txlb_listen_overflows_total", float64(n))
	}
}

// Serve answers GET /metrics on ln until ctx ends, and closes ln. Slow clients
// are cut off: nobody needs a minute for a scrape.
func Serve(ctx context.Context, ln net.Listener, s Source) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.Write(w)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "txlb: the metrics are at /metrics\n")
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(enduring{ln}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics on %v: %w", ln.Addr(), err)
	}
	return nil
}

// enduring is a listener whose every failed accept but that on a closed socket
// is passing. The server tries again after those, a little later each time; it
// would take ENOMEM, ENOBUFS or a poller without room for its end.
type enduring struct{ net.Listener }

func (l enduring) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		err = passing{err}
	}
	return c, err
}

// passing is an error that net/http takes for a temporary one (net.Error).
type passing struct{ error }

func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }
func (p passing) Unwrap() error { return p.error }
