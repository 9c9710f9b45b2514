package txlb

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/VictoriaMetrics/metrics"

	"github.com/txlb/txlb/internal/testkit"
)

// A balancer changes nothing of the process that it is in, and writes nothing. The test runs
// in a process of its own, whose output is looked at.
func TestTheProcessIsLeftAlone(t *testing.T) {
	const child = "TXLB_TEST_ALONE"
	if os.Getenv(child) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.coverprofile=")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "PASS" {
			t.Errorf("%v, and it wrote %q", err, out)
		}
		return
	}
	before := processOf(t)
	lb, err := Start(context.Background(), Config{
		Logger:  slog.New(slog.DiscardHandler),
		OnEvent: func(Event) { panic("contained") },
		Services: []Service{{
			Name: "web", Listen: []string{"127.0.0.1:0"}, Check: TCPCheck(),
			Hosts: []Host{{Addr: "127.0.0.1:1"}}, // nobody is there
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	during := processOf(t)
	web := lb.Service("web")
	if conn, err := net.Dial("tcp", web.Addrs()[0].String()); err == nil {
		_, _ = conn.Read(make([]byte, 1)) // it is rejected
		_ = conn.Close()
	}
	if err := web.AddHost(Host{Addr: "127.0.0.1:2"}); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, "the host is down", func() bool {
		all, err := web.Hosts()
		return err == nil && len(all) > 0 && !all[0].Up
	})
	if err := lb.WriteMetrics(new(strings.Builder)); err != nil {
		t.Error(err)
	}
	if err := lb.Close(); err != nil {
		t.Error(err)
	}
	for when, is := range map[string]process{"while it runs": during, "after it": processOf(t)} {
		if !reflect.DeepEqual(is, before) {
			t.Errorf("%s the process is %+v, and was %+v", when, is, before)
		}
	}
}

// process is what all of a process share.
type process struct {
	Procs   int
	Files   syscall.Rlimit
	Logger  *slog.Logger
	Metrics []string // of the library's default set
	Signals []string // caught and ignored
}

func processOf(t *testing.T) process {
	t.Helper()
	p := process{Procs: runtime.GOMAXPROCS(0), Logger: slog.Default(), Metrics: metrics.ListMetricNames()}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &p.Files); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "SigIgn") || strings.HasPrefix(line, "SigCgt") {
			p.Signals = append(p.Signals, line)
		}
	}
	return p
}
