package accesslog

import (
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// records gives a lane records of sessions as a loop does, in bursts of 250: what two
// loops have in 25 ms at 10,000 sessions a second.
func records(tb testing.TB, lane *engine.Lane) (put func()) {
	tb.Helper()
	addr, err := sched.ParseAddr("192.0.2.1:80")
	if err != nil {
		tb.Fatal(err)
	}
	host := sched.NewHost("a", addr)
	table, err := sched.NewTable(sched.Policy{Group: "main"}, []sched.Member{{Host: host, Weight: 1}})
	if err != nil {
		tb.Fatal(err)
	}
	client := netip.MustParseAddrPort("198.51.100.7:35856")
	return func() {
		lane.Put(func(r *engine.Record) {
			r.Service, r.Table, r.Host, r.Client, r.How = "web", table, host, client, "--"
			r.Accepted, r.Picked, r.Connected, r.Ended = 1, 2, 300_000, 2_000_000
			r.In, r.Out, r.Sessions = 79, 1352, 12
		})
	}
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLog has what a session costs the log, all goroutines together: compare
// cpu-ns/op.
func BenchmarkLog(b *testing.B) {
	for _, format := range []string{"tcplog", "json"} {
		b.Run(format, func(b *testing.B) {
			rec := engine.NewRecorder()
			lane := rec.Attach(1, time.Now())[0]
			l, err := Open(rec, filepath.Join(b.TempDir(), "log"), format)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			put := records(b, lane)
			b.ReportAllocs()
			began := cpuTime()
			n := 0
			for b.Loop() {
				put()
				if n++; n%250 == 0 {
					l.mu.Lock()
					l.take()
					l.mu.Unlock()
					time.Sleep(2 * time.Millisecond) // else lines are dropped, which costs less
				}
			}
			if n > 0 {
				if s, _ := l.Stats(); s.Dropped > 0 {
					b.ReportMetric(float64(s.Dropped)/float64(n), "dropped/op")
				}
				b.ReportMetric(float64(cpuTime()-began)/float64(n), "cpu-ns/op")
			}
		})
	}
}

// A line is made without an allocation.
func TestLinesAllocateNothing(t *testing.T) {
	rec := engine.NewRecorder()
	lane := rec.Attach(1, time.Now())[0]
	l, err := Open(rec, filepath.Join(t.TempDir(), "log"), "tcplog")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	put := records(t, lane)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for l.w.format = range JSON + 1 {
		if n := testing.AllocsPerRun(100, func() {
			put()
			rec.Take(func(r *engine.Record) {
				l.buf = l.w.line(l.buf[:0], r, now, rec.Wall(now, r.Accepted), l.group(r.Table))
			})
		}); n != 0 {
			t.Errorf("format %d: %v allocations", l.w.format, n)
		}
	}
	l.buf = l.buf[:0]
}
