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

// showInfo gives HAProxy's fields in its order. What does not exist here is 0.
func showInfo(r *request) answer {
	if len(r.words) > 0 {
		return answer{err: fmt.Errorf("show info has no form '%s' here; for JSON there is status --json", r.words[0])}
	}
	now := time.Now()
	snap := r.opt.Engine.Snapshot()
	var active, pipes int64
	var total, out, spliced uint64
	for _, s := range snap.Services {
		active, total, out = active+s.Active, total+s.Sessions, out+s.Out
	}
	for _, l := range snap.Loops {
		pipes, spliced = pipes+l.Pipes, spliced+l.Spliced
	}
	listeners := len(r.opt.Engine.Listeners())
	failing := 0
	for _, s := range r.opt.Director.State().Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if h.Problem != "" {
					failing++
				}
			}
		}
	}
	threads := max(len(snap.Loops), 1)
	s := r.samples
	s.mu.Lock()
	s.all.max = max(s.all.max, active)
	rate, top, outRate, idle := s.all.rate, s.all.top, s.outRate, 100
	if s.cpuIsKnown {
		idle = min(max(int(100-100*s.busy/float64(threads)), 0), 100)
	}
	s.mu.Unlock()
	node, err := os.Hostname()
	if err != nil {
		node = "localhost"
	}
	up := now.Sub(r.started)
	memory := runtimeMetrics(heapObjects, mapped, released)
	used, alloc := memory[0], memory[1]-min(memory[2], memory[1])
	const mega = 1 << 20
	fields := []infoField{
		{"Name", "txlb"}, {"Version", r.opt.Version}, {"Release_date", releaseDate()},
		{"Nbthread", threads}, {"Nbproc", 1}, {"Process_num", 1}, {"Pid", os.Getpid()},
		{"Uptime", haproxyDuration(up)}, {"Uptime_sec", int(up.Seconds())},
		{"Memmax_MB", 0}, {"PoolAlloc_MB", alloc / mega}, {"PoolUsed_MB", used / mega}, {"PoolFailed", 0},
		{"Ulimit-n", r.opt.FDLimit}, {"Maxsock", r.opt.FDLimit},
		{"Maxconn", r.opt.SessionsLimit}, {"Hard_maxconn", r.opt.SessionsLimit},
		{"CurrConns", active}, {"CumConns", total}, {"CumReq", total},
		{"MaxSslConns", 0}, {"CurrSslConns", 0}, {"CumSslConns", 0},
		{"Maxpipes", r.opt.PipesLimit}, {"PipesUsed", pipes}, {"PipesFree", 0},
		{"ConnRate", rate}, {"ConnRateLimit", 0}, {"MaxConnRate", top},
		{"SessRate", rate}, {"SessRateLimit", 0}, {"MaxSessRate", top},
		{"SslRate", 0}, {"SslRateLimit", 0}, {"MaxSslRate", 0},
		{"SslFrontendKeyRate", 0}, {"SslFrontendMaxKeyRate", 0}, {"SslFrontendSessionReuse_pct", 0},
		{"SslBackendKeyRate", 0}, {"SslBackendMaxKeyRate", 0},
		{"SslCacheLookups", 0}, {"SslCacheMisses", 0},
		{"CompressBpsIn", 0}, {"CompressBpsOut", 0}, {"CompressBpsRateLim", 0},
		{"Tasks", runtime.NumGoroutine()}, {"Run_queue", 0}, {"Idle_pct", idle}, {"node", node},
		{"Stopping", 0}, {"Jobs", active + int64(listeners)}, {"Unstoppable Jobs", 0}, {"Listeners", listeners},
		{"ActivePeers", 0}, {"ConnectedPeers", 0}, {"DroppedLogs", 0}, {"BusyPolling", 0},
		{"FailedResolutions", failing}, {"TotalBytesOut", out}, {"TotalSplicdedBytesOut", spliced}, {"BytesOutRate", outRate},
		{"DebugCommandsIssued", 0}, {"CumRecvLogs", 0}, {"Build info", r.opt.Version},
		{"Memmax_bytes", 0}, {"PoolAlloc_bytes", alloc}, {"PoolUsed_bytes", used},
		{"Start_time_sec", r.started.Unix()}, {"Tainted", 0},
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

// releaseDate is the day of the commit that the program was built of, as far as
// it is known.
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
