// Package metrics writes the counters of the program as Prometheus text, under the
// names of docs/monitoring.md. It is the only room that imports the metrics
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
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/sched"
)

// Write writes all metrics of a reading.
func Write(w io.Writer, r *status.Reading) {
	x := &text{w: w}
	balancer(x, r)
	process(x, r)
	runtime(x)
}

// WriteBalancer writes those that are of the balancer and not of the process, for a program
// that embeds it.
func WriteBalancer(w io.Writer, r *status.Reading) {
	x := &text{w: w}
	balancer(x, r)
}

// WritePanics writes how many panics of a program's callbacks were contained, by the name of
// the callback.
func WritePanics(w io.Writer, counts map[string]uint64) {
	x := &text{w: w}
	x.kind("txlb_callback_panics_total", "counter", "Panics in callbacks of the program that were contained")
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		x.sample("txlb_callback_panics_total", float64(counts[name]), "callback", name)
	}
}

func balancer(x *text, r *status.Reading) {
	services(x, r)
	hosts(x, r)
	queues(x, r.State)
	mirrors(x, r.State)
	times(x, r.State)
	sticky(x, r.State)
	schedulers(x, r.Faults)
	standby(x, r.Movable)
	loops(x, r.Snapshot)
	facilities(x, r.Snapshot)
	problems(x, r.Problems)
	x.one("txlb_config_generation", "gauge", "Generation of the configuration: 1 at the start, one more with each change", float64(r.State.Generation))
	if r.SessionsLimit > 0 {
		x.one("txlb_sessions_limit", "gauge", "Limit of open sessions", float64(r.SessionsLimit))
	}
}

// text writes samples; those of one metric follow each other.
type text struct {
	w    io.Writer
	line []byte // the last sample, whose memory the next one takes
}

// set is labels with their values as a sample has them between its braces. What has many
// samples keeps its set, so that names are quoted once and not for each of them.
type set []byte

// setOf returns the set of pairs of name and value.
func setOf(labels ...string) set { return appendLabels(nil, labels, true) }

// appendLabels appends pairs of name and value to a set; first says that it is empty.
func appendLabels(b []byte, labels []string, first bool) []byte {
	for i := 0; i+1 < len(labels); i += 2 {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = quote(append(append(b, labels[i]...), '='), labels[i+1])
	}
	return b
}

// sample writes a sample whose labels are pairs of name and value.
func (x *text) sample(name string, value float64, labels ...string) {
	x.of(nil, name, value, labels...)
}

// of writes a sample with the labels of a set, and more.
func (x *text) of(s set, name string, value float64, more ...string) {
	b := append(x.line[:0], name...)
	if len(s)+len(more) > 0 {
		b = append(append(b, '{'), s...)
		b = append(appendLabels(b, more, len(s) == 0), '}')
	}
	b = append(appendValue(append(b, ' '), value), '\n')
	_, _ = x.w.Write(b)
	x.line = b
}

// appendValue appends a number: counts as they are, everything else as short as it can be.
func appendValue(b []byte, value float64) []byte {
	if n := uint64(value); value >= 0 && value < 1<<53 && float64(n) == value {
		return strconv.AppendUint(b, n, 10)
	}
	return strconv.AppendFloat(b, value, 'g', -1, 64)
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

// one writes a metric of one sample.
func (x *text) one(name, kind, help string, value float64, labels ...string) {
	x.kind(name, kind, help)
	x.sample(name, value, labels...)
}

func services(x *text, r *status.Reading) {
	sorted := make([]*status.Service, len(r.Services))
	for i := range r.Services {
		sorted[i] = &r.Services[i]
	}
	slices.SortFunc(sorted, func(a, b *status.Service) int { return cmp.Compare(a.Config.Name, b.Config.Name) })
	sets := make([]set, len(sorted))
	for i, s := range sorted {
		sets[i] = setOf("service", s.Config.Name)
	}
	for i := range status.ServiceCounters {
		c := &status.ServiceCounters[i]
		if c.Metric == "" {
			continue
		}
		if i == 0 || status.ServiceCounters[i-1].Metric != c.Metric {
			x.kind(c.Metric, c.Kind(), c.Help)
		}
		for j, s := range sorted {
			if c.Has == nil || c.Has(s) {
				x.of(sets[j], c.Metric, float64(c.Value(s)), c.Labels...)
			}
		}
	}
	many := func(metric, help, label string, values func(*engine.ServiceStats) map[string]uint64) {
		x.kind(metric, "counter", help)
		for i, s := range sorted {
			m := values(&s.Stats)
			for _, key := range slices.Sorted(maps.Keys(m)) {
				x.of(sets[i], metric, float64(m[key]), label, key)
			}
		}
	}
	many("txlb_connect_failures_total", "Failed connects to hosts, by reason", "reason", func(s *engine.ServiceStats) map[string]uint64 { return s.ConnectFailures })
	many("txlb_sessions_refused_total", "Rejected clients: closed without a host, by reason", "reason", func(s *engine.ServiceStats) map[string]uint64 { return s.Refused })
	certificates(x, sorted)
	many("txlb_sessions_ended_total", "Ended sessions, by HAProxy's termination state", "termination", func(s *engine.ServiceStats) map[string]uint64 { return s.Ended })
}

// certificates writes until when those of listeners are valid.
func certificates(x *text, sorted []*status.Service) {
	const metric = "txlb_tls_certificate_not_after_seconds"
	x.kind(metric, "gauge", "When the certificate of a listener expires, in seconds since 1970; name is the first that it is for")
	for _, s := range sorted {
		for _, c := range s.Certificates {
			x.sample(metric, float64(c.To.Unix()), "service", s.Config.Name, "listen", c.Listen, "name", c.Names[0], "file", c.File)
		}
	}
}

func hosts(x *text, r *status.Reading) {
	var lines []*status.Host
	var sets []set
	x.kind("txlb_group_enabled", "gauge", "1: the group takes clients: it is active, or a route leads to it")
	for i := range r.Services {
		s := &r.Services[i]
		for j := range s.Groups {
			g := &s.Groups[j]
			group := setOf("service", s.Config.Name, "group", g.Config.Name)
			x.of(group, "txlb_group_enabled", truth(g.Takes))
			for k := range g.Hosts {
				lines = append(lines, &g.Hosts[k])
				sets = append(sets, appendLabels(slices.Clip(group), []string{"host", g.Hosts[k].Config.Name}, false))
			}
		}
	}
	each := func(name, kind, help string, value func(*status.Host) float64) {
		x.kind(name, kind, help)
		for i, h := range lines {
			x.of(sets[i], name, value(h))
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
			x.of(sets[i], "txlb_checks_total", float64(checks[code]), "result", code)
		}
	}
	each("txlb_host_weight", "gauge", "Weight of the host", func(h *status.Host) float64 { return float64(h.Config.Weight) })
	each("txlb_host_state", "gauge", "Administrative state: 0 ready, 1 drain, 2 maint", func(h *status.Host) float64 { return float64(stateNumber(h.Config.State)) })
	x.kind("txlb_host_zone_info", "gauge", "1: the host is in this zone; hosts without a zone have none")
	for i, h := range lines {
		if h.Config.Zone != "" {
			x.of(sets[i], "txlb_host_zone_info", 1, "zone", h.Config.Zone)
		}
	}
	each("txlb_host_addresses", "gauge", "Addresses of the host", func(h *status.Host) float64 { return float64(len(h.Targets)) })
	each("txlb_host_name_failing", "gauge", "1: the host's name does not resolve", func(h *status.Host) float64 { return truth(h.Problem != "") })
	each("txlb_host_up", "gauge", "1: the host is up (at least one of its addresses)", func(h *status.Host) float64 { return truth(h.Stats.Up) })
	each("txlb_host_ejected", "gauge", "1: the host is up, and it or an address of it gets no new clients because it is slow, silent or resets them", func(h *status.Host) float64 { return truth(h.Ejected != nil) })
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

// schedulers writes how often the program's own schedulers have failed, if it has some.
func schedulers(x *text, faults map[string]uint64) {
	if len(faults) == 0 {
		return
	}
	const name = "txlb_scheduler_faults_total"
	x.kind(name, "counter", "Picks of a scheduler of the program that panicked, or returned no index of a host")
	for _, s := range slices.Sorted(maps.Keys(faults)) {
		x.sample(name, float64(faults[s]), "scheduler", "custom:"+s)
	}
}

// standby writes which listeners with freeBind wait for their address, if there are some.
func standby(x *text, list []status.Movable) {
	if len(list) == 0 {
		return
	}
	const name = "txlb_listener_standby"
	x.kind(name, "gauge", "1: no interface of this machine has the address of the listener, which has freeBind")
	for _, m := range list {
		x.sample(name, truth(m.Standby), "service", m.Service, "listen", m.Listen)
	}
}

// queues writes how many sessions wait for a host, and the limits that they wait for.
func queues(x *text, state *director.State) {
	for _, m := range []struct {
		name, help string
		of         func(*sched.Queue) int
	}{
		{"txlb_queue", "Clients that wait for a host: every host of the group has as many sessions as it may, or the group holds its clients", (*sched.Queue).Len},
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
	x.kind("txlb_held", "gauge", "Clients that wait because their group is held, or because none of its hosts is up and allDown is hold")
	for _, svc := range state.Services {
		for _, g := range svc.Groups {
			if g.Queues() {
				x.sample("txlb_held", float64(g.Held()), "service", svc.Config.Name, "group", g.Config.Name)
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

// mirrors writes what the mirrors of groups have got, if there are some.
func mirrors(x *text, state *director.State) {
	type line struct {
		of     set
		stats  sched.MirrorStats
		mirror *director.Mirror
	}
	var all []line
	for _, svc := range state.Services {
		for _, g := range svc.Groups {
			for _, m := range g.Mirrors {
				all = append(all, line{setOf("service", svc.Config.Name, "group", g.Config.Name, "mirror", m.Config.Address), m.Stats(), m})
			}
		}
	}
	if len(all) == 0 {
		return
	}
	each := func(name, kind, help string, value func(*line) float64) {
		x.kind(name, kind, help)
		for i := range all {
			x.of(all[i].of, name, value(&all[i]))
		}
	}
	each("txlb_mirror_up", "gauge", "1: the mirror can be reached, as far as the last connect has shown", func(l *line) float64 {
		return truth(l.mirror.Trouble() == nil && l.mirror.Addr() != "")
	})
	each("txlb_mirror_copies", "gauge", "Connections to the mirror: sessions that are copied now", func(l *line) float64 { return float64(l.stats.Active) })
	each("txlb_mirror_sessions_total", "counter", "Sessions that were to be copied to the mirror", func(l *line) float64 { return float64(l.stats.Sessions) })
	each("txlb_mirror_bytes_total", "counter", "Bytes that the mirror has taken", func(l *line) float64 { return float64(l.stats.Bytes) })
	const lost = "txlb_mirror_lost_total"
	x.kind(lost, "counter", "Sessions whose copy for the mirror is not whole, by reason")
	for i := range all {
		for _, reason := range slices.Sorted(maps.Keys(all[i].stats.Lost)) {
			x.of(all[i].of, lost, float64(all[i].stats.Lost[reason]), "reason", reason)
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
		{"txlb_turnaround_seconds", "Turnarounds: from the last byte passed on from a client to the first byte back from its host", (*sched.Times).Turnarounds},
		{"txlb_queue_seconds", "How long clients waited for a host to have room, or for their group to be released", (*sched.Times).Waits},
	} {
		x.kind(m.name, "histogram", m.help)
		bucket, sum, count := m.name+"_bucket", m.name+"_sum", m.name+"_count"
		var le []string // all groups have the same bounds
		for _, svc := range state.Services {
			for _, g := range svc.Groups {
				if m.name == "txlb_queue_seconds" && !g.Queues() {
					continue // nobody will ever wait there
				}
				group, h := setOf("service", svc.Config.Name, "group", g.Config.Name), m.of(g.Times)
				if le == nil {
					le = boundsOf(h)
				}
				var below uint64
				for i, n := range h.Counts {
					below += n
					x.of(group, bucket, float64(below), "le", le[i])
				}
				x.of(group, sum, h.Sum.Seconds())
				x.of(group, count, float64(below))
			}
		}
	}
}

// boundsOf returns the labels of the buckets.
func boundsOf(h sched.Histogram) (le []string) {
	for _, d := range h.Bounds {
		le = append(le, strconv.FormatFloat(d.Seconds(), 'g', -1, 64))
	}
	return append(le, "+Inf")
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

// keeper writes what the engine has to do with a keeper, if there is one.
func keeper(x *text, snap engine.Snapshot) {
	if !slices.ContainsFunc(snap.Facilities, func(f engine.Facility) bool { return f.Name == engine.SessionKeeper }) {
		return
	}
	x.kind("txlb_keeper_sessions", "gauge", "Sessions that the keeper has now: they survive a crash")
	x.sample("txlb_keeper_sessions", float64(snap.Keeper.Kept))
	for _, c := range []struct {
		name, help string
		n          uint64
	}{
		{"txlb_keeper_unkept_total", "Sessions that the keeper was to have and has not: it was full or did not answer", snap.Keeper.Unkept},
		{"txlb_keeper_revived_total", "Sessions that have gone on after the crash of a process before", snap.Keeper.Revived},
		{"txlb_keeper_cut_total", "Sessions of a process before that have not: bytes were lost with it, or they were over", snap.Keeper.Cut},
	} {
		x.kind(c.name, "counter", c.help)
		x.sample(c.name, float64(c.n))
	}
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
	keeper(x, snap)
}

// problems writes how many problems there are of each kind. A kind without one has no
// sample.
func problems(x *text, all []status.Problem) {
	type key struct{ kind, level, service string }
	count, order := map[key]int{}, []key(nil)
	for i := range all {
		k := key{string(all[i].Kind), all[i].Level.String(), all[i].Service}
		if count[k]++; count[k] == 1 {
			order = append(order, k)
		}
	}
	x.kind("txlb_problems", "gauge", "Problems that the status page shows now, by kind; those of the process have no service")
	for _, k := range order {
		labels := []string{"kind", k.kind, "level", k.level}
		if k.service != "" {
			labels = append(labels, "service", k.service)
		}
		x.sample("txlb_problems", float64(count[k]), labels...)
	}
}

func process(x *text, r *status.Reading) {
	x.one("txlb_build_info", "gauge", "Always 1; the label has the version", 1, "version", r.Version)
	failed := 0
	for _, p := range r.State.Pending() {
		if p.Trouble != "" {
			failed++
		}
	}
	x.one("txlb_config_pending", "gauge", "Changes that are undone unless they are confirmed", float64(len(r.State.Pending())))
	x.one("txlb_config_undo_failed", "gauge", "Changes of txlb_config_pending that should have been undone and could not be", float64(failed))
	x.one("txlb_config_undone_total", "counter", "Changes that were undone because nobody confirmed them, or because the group that they had enabled had no host up", float64(r.Undone))
	if r.HasFile {
		x.one("txlb_config_unsaved", "gauge", "Changes that are not saved in the configuration file", float64(len(r.Unsaved)))
		x.one("txlb_config_last_reload_success", "gauge", "0: the last reload failed", truth(!r.ReloadFailed))
	}
	if r.FDLimit > 0 {
		x.one("txlb_fd_limit", "gauge", "Limit of open files", float64(r.FDLimit))
	}
	if len(r.Logs) > 0 {
		x.kind("txlb_log_dropped_total", "counter", "Lines that the log, the audit file or the access log did not take")
		for _, l := range r.Logs {
			x.sample("txlb_log_dropped_total", float64(l.Dropped), "log", l.Name)
		}
	}
	fleetOf(x, r.Fleet)
	interfaces(x, r.Interfaces)
	if n, ok := openFDs(); ok {
		x.one("process_open_fds", "gauge", "Open files", float64(n))
	}
	if n, ok := listenOverflows(); ok {
		x.one("txlb_listen_overflows_total", "counter", "Connections dropped because a listen queue was full, counted by the kernel for the whole network namespace", float64(n))
	}
}

// fleetOf writes how this node stands in its fleet, if it is in one.
func fleetOf(x *text, f *fleet.Status) {
	if f == nil {
		return
	}
	x.one("txlb_fleet_joined", "gauge", "1: this node is in its fleet, 0: it is not, and refuses changes", truth(f.Joined), "fleet", f.Fleet, "node", f.Node)
	x.one("txlb_fleet_store_silent_seconds", "gauge", "For how long the store has not answered this node, which is in its fleet until its lease ends; 0: it answers, or the node is not in its fleet", f.Silent)
	x.one("txlb_fleet_generation", "gauge", "Generation of the fleet's configuration, as this node has last heard", float64(f.Generation))
	x.one("txlb_fleet_generation_running", "gauge", "Generation of the fleet's configuration that this node runs", float64(f.Running))
	x.one("txlb_fleet_nodes", "gauge", "Nodes of the fleet, as this node has last heard", float64(len(f.Nodes)))
	running, stopped := f.Upgrade()
	x.kind("txlb_fleet_upgrade", "gauge", "1: an upgrade of nodes goes on (running), or has stopped before its end and nobody has cancelled it (stopped), as this node has last heard")
	x.sample("txlb_fleet_upgrade", truth(running), "fleet", f.Fleet, "state", "running")
	x.sample("txlb_fleet_upgrade", truth(stopped), "fleet", f.Fleet, "state", "stopped")
	lag := 0.0
	for _, n := range f.Nodes {
		if n.Name == f.Node {
			lag = n.Lag
		}
	}
	if s := f.Shares; s != nil {
		live := 0
		for _, p := range s.Peers {
			if p.Live {
				live++
			}
		}
		x.one("txlb_fleet_peers", "gauge", "Other nodes of the fleet that this node hears now", float64(live))
		x.kind("txlb_fleet_checks", "gauge", "Addresses of hosts by who checks them: mine, learned: other nodes, fallback: this node for want of another, differs: this node too, as it found something else")
		x.sample("txlb_fleet_checks", float64(s.Mine), "by", "mine")
		x.sample("txlb_fleet_checks", float64(s.Learned), "by", "learned")
		x.sample("txlb_fleet_checks", float64(s.Fallback), "by", "fallback")
		x.sample("txlb_fleet_checks", float64(s.Differs), "by", "differs")
	}
	if len(f.Limits) > 0 {
		x.kind("txlb_fleet_limit_part", "gauge", "How much of a limit that the nodes of the fleet share (scope=\"fleet\") this node may use now: sessions at once, or new sessions a second")
		for _, l := range f.Limits {
			x.sample("txlb_fleet_limit_part", float64(l.Part), "service", l.Service, "limit", l.Limit)
		}
	}
	x.one("txlb_fleet_lag_seconds", "gauge", "For how long this node has not run the newest configuration of the fleet", lag)
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
