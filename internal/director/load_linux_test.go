package director

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/health"
	launch "github.com/txlb/txlb/internal/servers"
)

// TestHostsProcess is no test: it is all the hosts of the benchmark, in a
// process of its own, so that the benchmark counts what checking costs alone.
func TestHostsProcess(t *testing.T) {
	if os.Getenv("TXLB_HOSTS") == "" {
		t.Skip("this is the other process of the benchmark")
	}
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(ln.Addr().(*net.TCPAddr).Port)
	launch.Here()
	_ = ln.Close()
}

// BenchmarkCheck10000Hosts is what checking 10,000 hosts every 2 s by TCP costs,
// director and all, in parts of one core.
func BenchmarkCheck10000Hosts(b *testing.B) {
	const length = 10 * time.Second
	port := launch.Other(b, "TestHostsProcess", "TXLB_HOSTS")
	var doc strings.Builder
	doc.WriteString(`<config><service name="s"><listen ip=":1"/><group name="g"><check/>`)
	for i := range 10_000 {
		fmt.Fprintf(&doc, `<host name="h%d" ip="127.1.%d.%d:%s"/>`, i, i/200, 1+i%200, port)
	}
	doc.WriteString(`</group></service></config>`)
	c, problems := config.Parse("", []byte(doc.String()))
	if c == nil {
		b.Fatal(problems)
	}
	d, err := New(c, newWorld(), Options{Log: slog.New(slog.DiscardHandler), MaxProbes: 1024})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	checks := func() (passed, failed uint64) {
		for _, h := range d.State().Services[0].Groups[0].Hosts {
			for code, n := range h.Checks() {
				if code == health.L4OK.String() {
					passed += n
				} else {
					failed += n
				}
			}
		}
		return passed, failed
	}
	time.Sleep(3 * time.Second) // past the start
	var before, after syscall.Rusage
	from, _ := checks()
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	time.Sleep(length)
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	to, failed := checks()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	if failed > 0 || to-from < 10_000*uint64(length/(2*time.Second)) {
		b.Errorf("%d checks passed in %v, %d failed", to-from, length, failed)
	}
	used := time.Duration(after.Utime.Nano()+after.Stime.Nano()) - time.Duration(before.Utime.Nano()+before.Stime.Nano())
	b.ReportMetric(100*used.Seconds()/length.Seconds(), "%core")
	b.ReportMetric(float64(to-from)/length.Seconds(), "checks/s")
	b.ReportMetric(used.Seconds()*1e6/float64(to-from), "cpu-µs/check")
	b.ReportMetric(0, "ns/op")
}

// Many hosts that fail at once, the first of the list first, cost time in
// proportion to their number. Only CPU time of this thread counts: other programs
// and the garbage collector take none of it.
func TestManyFailuresCostInProportion(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fail := func(hosts int) time.Duration {
		d := newStill(t, crowd(1, hosts))
		all := d.State().Services[0].Groups[0].Hosts
		runtime.GC()
		start := threadTime(t)
		for _, h := range all {
			h.Targets[0].Host.MarkDown()
			d.failed(engine.Failure{Host: h.Targets[0].Host, Err: syscall.ECONNREFUSED})
		}
		d.tellUsable()
		return threadTime(t) - start
	}
	const few, times = 1250, 8
	one, many := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for i := range 20 { // in turn, so that a busy machine slows both
		one, many = min(one, fail(few)), min(many, fail(few*times))
		if i >= 4 && many <= 3*times*one {
			break
		}
	}
	t.Logf("%d hosts: %v, %d hosts: %v", few, one, few*times, many)
	if many > 3*times*one {
		t.Errorf("%d hosts cost %v, %d cost %v", few, one, few*times, many)
	}
}

// threadTime returns the CPU time that this thread has used.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
