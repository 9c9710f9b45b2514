package health

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// TestListenerProcess is no test: it is the host that the benchmarks probe, in
// a process of its own, so that theirs counts what probing costs alone.
func TestListenerProcess(t *testing.T) {
	if os.Getenv("TXLB_LISTENER") == "" {
		t.Skip("this is the other process of the benchmarks")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(ln.Addr())
	go func() { // it ends with the pipe that it was started with
		servers.Here()
		_ = ln.Close()
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

// cpu is the time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTCP is a TCP probe by its CPU time, dialled and in batches of what
// 10,000 hosts every 2 s give each 10 ms.
func BenchmarkTCP(b *testing.B) {
	p := Probe{Addr: parse(b, servers.Other(b, "TestListenerProcess", "TXLB_LISTENER")), Timeout: 2 * time.Second}
	report := func(b *testing.B, probes int, before time.Duration) {
		b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/1000/float64(probes), "cpu-µs/probe")
	}
	b.Run("Run", func(b *testing.B) {
		before := cpu(b)
		for b.Loop() {
			if r := Run(b.Context(), p); !r.OK() {
				b.Fatal(r)
			}
		}
		report(b, b.N, before)
	})
	for _, size := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("Connect/%d", size), func(b *testing.B) {
			probes := make([]Probe, size)
			for i := range probes {
				probes[i] = p
			}
			before := cpu(b)
			for b.Loop() {
				Connect(b.Context(), probes, func(_ int, r Result) {
					if !r.OK() {
						b.Fatal(r)
					}
				})
			}
			report(b, b.N*size, before)
		})
	}
}
