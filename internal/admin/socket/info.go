package socket

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// infoField is one line of show info.
type infoField struct {
	name  string
	value any
}

// showInfo returns HAProxy's fields in its order. Fields without a meaning here are 0.
func showInfo(r *request) answer {
	if len(r.words) > 0 {
		return answer{err: fmt.Errorf("show info has no form '%s' here; for JSON there is status --json", r.words[0])}
	}
	now := r.opt.Status.Read()
	all, active, listeners := &now.All, now.Sessions, len(now.Listeners)
	threads, idle := max(len(now.Snapshot.Loops), 1), 100
	if now.Busy >= 0 {
		idle = min(max(int(100-100*now.Busy/float64(threads)), 0), 100)
	}
	stopping := 0
	if now.Draining {
		stopping = 1
	}
	node, err := os.Hostname()
	if err != nil {
		node = "localhost"
	}
	up := now.Uptime()
	memory := runtimeMetrics(heapObjects, mapped, released)
	used, alloc := memory[0], memory[1]-min(memory[2], memory[1])
	const mega = 1 << 20
	fields := []infoField{
		{"Name", "txlb"}, {"Version", now.Version}, {"Release_date", releaseDate()},
		{"Nbthread", threads}, {"Nbproc", 1}, {"Process_num", 1}, {"Pid", os.Getpid()},
		{"Uptime", haproxyDuration(up)}, {"Uptime_sec", int(up.Seconds())},
		{"Memmax_MB", 0}, {"PoolAlloc_MB", alloc / mega}, {"PoolUsed_MB", used / mega}, {"PoolFailed", 0},
		{"Ulimit-n", now.FDLimit}, {"Maxsock", now.FDLimit},
		{"Maxconn", now.SessionsLimit}, {"Hard_maxconn", now.SessionsLimit},
		{"CurrConns", active}, {"CumConns", now.Totals.Sessions}, {"CumReq", now.Totals.Sessions},
		{"MaxSslConns", 0}, {"CurrSslConns", 0}, {"CumSslConns", 0},
		{"Maxpipes", r.opt.PipesLimit}, {"PipesUsed", now.Totals.Pipes}, {"PipesFree", 0},
		{"ConnRate", all.LastSecond}, {"ConnRateLimit", 0}, {"MaxConnRate", all.MaxRate},
		{"SessRate", all.LastSecond}, {"SessRateLimit", 0}, {"MaxSessRate", all.MaxRate},
		{"SslRate", 0}, {"SslRateLimit", 0}, {"MaxSslRate", 0},
		{"SslFrontendKeyRate", 0}, {"SslFrontendMaxKeyRate", 0}, {"SslFrontendSessionReuse_pct", 0},
		{"SslBackendKeyRate", 0}, {"SslBackendMaxKeyRate", 0},
		{"SslCacheLookups", 0}, {"SslCacheMisses", 0},
		{"CompressBpsIn", 0}, {"CompressBpsOut", 0}, {"CompressBpsRateLim", 0},
		{"Tasks", runtime.NumGoroutine()}, {"Run_queue", 0}, {"Idle_pct", idle}, {"node", node},
		{"Stopping", stopping}, {"Jobs", active + int64(listeners)}, {"Unstoppable Jobs", 0}, {"Listeners", listeners},
		{"ActivePeers", 0}, {"ConnectedPeers", 0}, {"DroppedLogs", 0}, {"BusyPolling", 0},
		{"FailedResolutions", now.Totals.Unresolved}, {"TotalBytesOut", now.Totals.Out}, {"TotalSplicdedBytesOut", now.Totals.Spliced}, {"BytesOutRate", uint64(all.OutRate)},
		{"DebugCommandsIssued", 0}, {"CumRecvLogs", 0}, {"Build info", now.Version},
		{"Memmax_bytes", 0}, {"PoolAlloc_bytes", alloc}, {"PoolUsed_bytes", used},
		{"Start_time_sec", now.Started.Unix()}, {"Tainted", 0},
	}
	var b strings.Builder
	data := make(map[string]any, len(fields))
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %v\n", f.name, f.value)
		data[f.name] = f.value
	}
	return answer{text: b.String(), data: data}
}

// haproxyDuration writes 0d 0h00m02s.
func haproxyDuration(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%dd %dh%02dm%02ds", s/86400, s/3600%24, s/60%60, s%60)
}

// releaseDate is the date of the commit that the program was built from, if known.
func releaseDate() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return at.Format("2006/01/02")
			}
		}
	}
	return "unknown"
}
