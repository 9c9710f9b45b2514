// Package metrics writes the counters of the program as Prometheus text, under the
// names of docs/operations.md. It is the only room that imports the metrics
// library. A scrape reads snapshots: no loop and no change waits for it.
package metrics

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// Write writes all metrics of a reading.
func Write(w io.Writer, r *status.Reading) {
	x := &text{w: w}
	services(x, r)
	hosts(x, r)
	queues(x, r.State)
	times(x, r.State)
	sticky(x, r.State)
	loops(x, r.Snapshot)
	facilities(x, r.Snapshot)
	process(x, r)
	runtime(x)
}

// text writes samples; those of one metric follow each other.
type text struct {
	w    io.Writer
	line []byte // the last sample, whose memory the next one takes
}

// labels are pairs of name and value.
func (x *text) sample(name string, value float64, labels ...string) {
	b := append(x.line[:0], name...)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		b = append(append(append(b, sep), labels[i]...), '=')
		b = quote(b, labels[i+1])
	}
	if len(labels) > 0 {
		b = append(b, '}')
	}
	b = append(strconv.AppendFloat(append(b, ' '), value, 'g', -1, 64), '\n')
	_, _ = x.w.Write(b)
	x.line = b
}

// quote appends the value of a label. It escapes backslash, quote and line feed, as
// the exposition format says.
func quote(b []byte, s string) []byte {
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
	return append(b, '"')
}

// kind writes HELP and TYPE of the samples that follow.
func (x *text) kind(name, kind, help string) {
	_, _ = fmt.Fprintf(x.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func services(x *text, r *status.Reading) {
	sorted := make([]*status.Service, len(r.Services))
	for i := range r.Services {
		sorted[i] = &r.Services[i]
	}
	slices.SortFunc(sorted, func(a, b *status.Service) int { return cmp.Compare(a.Config.Name, b.Config.Name) })
	for i := range status.ServiceCounters {
		c := &status.ServiceCounters[i]
		if c.Metric == "" {
			continue
		}
		x.kind(c.Metric, c.Kind(), c.Help)
		for _, s := range sorted {
			x.sample(c.Metric, float64(c.Value(s)), "service", s.Config.Name)
		}
	}
	many := func(metric, help, label string, values func(*engine.ServiceStats) map[string]uint64) {
		x.kind(metric, "counter", help)
		for _, s := range sorted {
			m := values(&s.Stats)
			for _, key := range slices.Sorted(maps.Keys(m)) {
				x.sample(metric, float64(m[key]), "service", s.Config.Name, label, key)
			}
		}
	}
	many("txlb_connect_failures_total", "Failed connects to hosts, by reason", "reason", func(s *engine.ServiceStats) map[string]uint64 { return s.ConnectFailures })
	many("txlb_sessions_refused_total", "Rejected clients: closed without a host, by reason", "reason", func(s *engine.ServiceStats) map[string]uint64 { return s.Refused })
	many("txlb_sessions_ended_total", "Ended sessions, by HAProxy's termination state", "termination", func(s *engine.ServiceStats) map[string]uint64 { return s.Ended })
}

func hosts(x *text, r *status.Reading) {
	var lines []*status.Host
	var labels [][]string
	x.kind("txlb_group_enabled", "gauge", "1: the group takes clients: it is active, or a route leads to it")
	for i := range r.Services {
		s := &r.Services[i]
		for j := range s.Groups {
			g := &s.Groups[j]
			x.sample("txlb_group_enabled", truth(g.Takes), "service", s.Config.Name, "group", g.Config.Name)
			for k := range g.Hosts {
				lines = append(lines, &g.Hosts[k])
				labels = append(labels, []string{"service", s.Config.Name, "group", g.Config.Name, "host", g.Hosts[k].Config.Name})
			}
		}
	}
	each := func(name, kind, help string, value func(*status.Host) float64) {
		x.kind(name, kind, help)
		for i, h := range lines {
			x.sample(name, value(h), labels[i]...)
		}
	}
	for i := range status.HostCounters {
		c := &status.HostCounters[i]
		each(c.Metric, c.Kind(), c.Help, func(h *status.Host) float64 { return float64(c.Value(&h.Stats)) })
	}
	x.kind("txlb_checks_total", "counter", "Ended health checks, by HAProxy's check status")
	for i, h := range lines {
		checks := maps.Collect(h.Checks())
		for _, code := range slices.Sorted(maps.Keys(checks)) {
			x.sample("txlb_checks_total", float64(checks[code]), append(slices.Clip(labels[i]), "result", code)...)
		}
	}
	each("txlb_host_weight", "gauge", "Weight of the host", func(h *status.Host) float64 { return float64(h.Config.Weight) })
	each("txlb_host_state", "gauge", "Administrative state: 0 ready, 1 drain, 2 maint", func(h *status.Host) float64 { return float64(stateNumber(h.Config.State)) })
	x.kind("txlb_host_zone_info", "gauge", "1: the host is in this zone; hosts without a zone have none")
	for i, h := range lines {
		if h.Config.Zone != "" {
			x.sample("txlb_host_zone_info", 1, append(slices.Clip(labels[i]), "zone", h.Config.Zone)...)
		}
	}
	each("txlb_host_addresses", "gauge", "Addresses of the host", func(h *status.Host) float64 { return float64(len(h.Targets)) })
	each("txlb_host_name_failing", "gauge", "1: the host's name does not resolve", func(h *status.Host) float64 { return truth(h.Problem != "") })
	each("txlb_host_up", "gauge", "1: the host is up (at least one of its addresses)", func(h *status.Host) float64 { return truth(h.Stats.Up) })
}

// sticky writes how many clients the groups remember that are to.
func sticky(x *text, state *director.State) {
	for _, m := range []struct {
		name, help string
		of         func(*sched.Sticky) int
	}{
		{"txlb_sticky_clients", "Clients that a group remembers, with a scheduler that is sticky", (*sched.Sticky).Len},
		{"txlb_sticky_size", "Clients that there is room for (stickySize)", (*sched.Sticky).Size},
	} {
		x.kind(m.name, "gauge", m.help)
		for _, svc := range state.Services {
			for _, g := range svc.Groups {
				if g.Sticky != nil {
					x.sample(m.name, float64(m.of(g.Sticky)), "service", svc.Config.Name, "group", g.Config.Name)
				}
			}
		}
	}
}

// queues writes how many sessions wait for a host, and the limits that they wait for.
func queues(x *text, state *director.State) {
	for _, m := range []struct {
		name, help string
		of         func(*sched.Queue) int
	}{
		{"txlb_queue", "Clients that wait because every host of the group has as many sessions as it may", (*sched.Queue).Len},
		{"txlb_queue_max", "Clients that have waited at once, at most", (*sched.Queue).Longest},
	} {
		x.kind(m.name, "gauge", m.help)
		for _, svc := range state.Services {
			for _, g := range svc.Groups {
				if g.Queues() {
					x.sample(m.name, float64(m.of(&g.Times.Queue)), "service", svc.Config.Name, "group", g.Config.Name)
				}
			}
		}
	}
	x.kind("txlb_host_sessions_limit", "gauge", "Sessions that the host may have at once (maxSessions); hosts without a limit have none")
	for _, svc := range state.Services {
		for _, g := range svc.Groups {
			for _, h := range g.Hosts {
				if n := h.Config.MaxSessions; n > 0 {
					x.sample("txlb_host_sessions_limit", float64(n), "service", svc.Config.Name, "group", g.Config.Name, "host", h.Config.Name)
				}
			}
		}
	}
	x.kind("txlb_service_sessions_limit", "gauge", "Sessions that the service may have at once; services without a limit have none")
	for _, svc := range state.Services {
		if n := svc.Config.Limits.Sessions; n > 0 {
			x.sample("txlb_service_sessions_limit", float64(n), "service", svc.Config.Name)
		}
	}
}

// times writes the histograms of groups.
func times(x *text, state *director.State) {
	for _, m := range []struct {
		name, help string
		of         func(*sched.Times) sched.Histogram
	}{
		{"txlb_connect_seconds", "How long hosts took to accept a connect", (*sched.Times).Connects},
		{"txlb_session_seconds", "How long ended sessions lasted", (*sched.Times).Sessions},
		{"txlb_queue_seconds", "How long clients waited for a host to have room", (*sched.Times).Waits},
	} {
		x.kind(m.name, "histogram", m.help)
		for _, svc := range state.Services {
			for _, g := range svc.Groups {
				labels := []string{"service", svc.Config.Name, "group", g.Config.Name}
				h := m.of(g.Times)
				if m.name == "txlb_queue_seconds" && !g.Queues() {
					continue // nobody will ever wait there
				}
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
	each := func(name, kind, help string, value func(engine.LoopStats) float64) {
		x.kind(name, kind, help)
		for i, l := range snap.Loops {
			x.sample(name, value(l), "loop", strconv.Itoa(i))
		}
	}
	each("txlb_loop_sessions", "gauge", "Open sessions of the event loop", func(l engine.LoopStats) float64 { return float64(l.Active) })
	each("txlb_loop_events_total", "counter", "Events handled by the loop", func(l engine.LoopStats) float64 { return float64(l.Events) })
	each("txlb_loop_accepts_total", "counter", "Connections accepted by the loop", func(l engine.LoopStats) float64 { return float64(l.Accepts) })
	each("txlb_loop_awake_seconds_total", "counter", "Time that the loop was awake", func(l engine.LoopStats) float64 { return l.Awake.Seconds() })
	each("txlb_loop_spliced_bytes_total", "counter", "Bytes moved with splice(2)", func(l engine.LoopStats) float64 { return float64(l.Spliced) })
	each("txlb_loop_copied_bytes_total", "counter", "Bytes moved with recv(2) and send(2)", func(l engine.LoopStats) float64 { return float64(l.Copied) })
	each("txlb_pipes", "gauge", "Pipes of the loop", func(l engine.LoopStats) float64 { return float64(l.Pipes) })
}

// facilities writes what of the kernel the loops use.
func facilities(x *text, snap engine.Snapshot) {
	if len(snap.Facilities) == 0 {
		return
	}
	x.kind("txlb_facility", "gauge", "Whether the loops use a facility of the kernel: 1, or 0 if it is switched off or refused")
	for _, f := range snap.Facilities {
		x.sample("txlb_facility", truth(f.On), "name", f.Name)
	}
}

func process(x *text, r *status.Reading) {
	one := func(name, kind, help string, value float64, labels ...string) {
		x.kind(name, kind, help)
		x.sample(name, value, labels...)
	}
	one("txlb_build_info", "gauge", "Always 1; the label has the version", 1, "version", r.Version)
	one("txlb_config_generation", "gauge", "Generation of the configuration: 1 at the start, one more with each change", float64(r.State.Generation))
	if r.HasFile {
		one("txlb_config_unsaved", "gauge", "Changes that are not saved in the configuration file", float64(len(r.Unsaved)))
		one("txlb_config_last_reload_success", "gauge", "0: the last reload failed", truth(!r.ReloadFailed))
	}
	if r.SessionsLimit > 0 {
		one("txlb_sessions_limit", "gauge", "Limit of open sessions", float64(r.SessionsLimit))
	}
	if r.FDLimit > 0 {
		one("txlb_fd_limit", "gauge", "Limit of open files", float64(r.FDLimit))
	}
	if len(r.Logs) > 0 {
		x.kind("txlb_log_dropped_total", "counter", "Lines that the log, the audit file or the access log did not take")
		for _, l := range r.Logs {
			x.sample("txlb_log_dropped_total", float64(l.Dropped), "log", l.Name)
		}
	}
	interfaces(x, r.Interfaces)
	if n, ok := openFDs(); ok {
		one("process_open_fds", "gauge", "Open files", float64(n))
	}
	if n, ok := listenOverflows(); ok {
		one("txlb_listen_overflows_total", "counter", "Connections dropped because a listen queue was full, counted by the kernel for the whole network namespace", float64(n))
	}
}

// interfaces writes what the guard of the admin interfaces has seen.
func interfaces(x *text, all []guard.Stats) {
	if len(all) == 0 {
		return
	}
	each := func(name, kind, help string, value func(guard.Stats) float64) {
		x.kind(name, kind, help)
		for _, i := range all {
			x.sample(name, value(i), "interface", i.Kind.String())
		}
	}
	each("txlb_admin_connections", "gauge", "Connections to an admin interface now", func(i guard.Stats) float64 { return float64(i.Open) })
	each("txlb_admin_connections_limit", "gauge", "Connections that an admin interface may have", func(i guard.Stats) float64 { return float64(i.Limit) })
	each("txlb_admin_accepted_total", "counter", "Connections that an admin interface let in", func(i guard.Stats) float64 { return float64(i.Accepted) })
	each("txlb_admin_delayed_requests_total", "counter", "HTTP requests without a login that waited for their turn", func(i guard.Stats) float64 { return float64(i.Delayed) })
	x.kind("txlb_admin_rejected_total", "counter", "Connections that an admin interface rejected or ended to protect itself")
	for _, i := range all {
		for _, why := range i.Kind.Reasons() {
			x.sample("txlb_admin_rejected_total", float64(i.Rejected[why]), "interface", i.Kind.String(), "reason", why.String())
		}
	}
}
