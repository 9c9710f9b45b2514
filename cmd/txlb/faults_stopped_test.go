//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/testkit"
)

// eachEngine runs a test with the program on event loops, with and without a ring,
// and with that on the portable engine.
func eachEngine(t *testing.T, test func(t *testing.T, balance func(services string) *balancer)) {
	t.Run("ring", func(t *testing.T) {
		t.Parallel()
		test(t, func(services string) *balancer { return balance(t, `<engine ring="auto"/>`+services) })
	})
	t.Run("no ring", func(t *testing.T) {
		t.Parallel()
		test(t, func(services string) *balancer { return balance(t, services) })
	})
	t.Run("portable", func(t *testing.T) {
		t.Parallel()
		path, err := portable()
		if err != nil {
			t.Fatal(err)
		}
		test(t, func(services string) *balancer {
			doc, metrics := withMetrics(t, services)
			p := run(t, path, "run", "-c", write(t, doc))
			p.expect("msg=ready")
			return attach(t, p, metrics, dial)
		})
	})
}

// stop makes the program stand still for d, and calls meanwhile once it does.
func (b *balancer) stop(d time.Duration, meanwhile func()) {
	b.t.Helper()
	start := time.Now()
	if err := unix.Kill(b.pid(), unix.SIGSTOP); err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, "the program is stopped", b.stopped)
	meanwhile()
	time.Sleep(d - time.Since(start)) // the standstill itself
	if err := unix.Kill(b.pid(), unix.SIGCONT); err != nil {
		b.t.Fatal(err)
	}
}

// Clients send while the program stands still for longer than their idle time: no
// session ends. One whose client has said nothing ends as idle.
func TestB66WhatCameWhileTheProgramStoodStillCounts(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	const clients, idle = 300, 6 * time.Second // enough for all to speak on a busy machine
	eachEngine(t, func(t *testing.T, balance func(string) *balancer) {
		for _, stood := range []time.Duration{idle + 300*time.Millisecond, idle + 2*time.Second} {
			b := balance(group(fmt.Sprintf(`<timeouts idle="%v"/>`, idle), backend(t, echo)))
			var all, silent *bystanders
			for late, tries := true, 0; late; tries++ {
				if tries == 5 {
					t.Skip("this machine takes too long to stop the program")
				}
				var since time.Time // all have been heard since then
				all, since = b.fresh(clients, idle)
				silent = b.bystanders(1)
				b.stop(stood, func() {
					if late = time.Since(since) > idle*3/4; late {
						return
					}
					for _, c := range all.conns {
						if _, err := c.Write([]byte("x")); err != nil {
							t.Fatal(err)
						}
					}
				})
				if late {
					all.close()
					silent.close()
				}
			}
			lost := 0
			for _, c := range all.conns {
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := c.Read(make([]byte, 1)); err != nil {
					lost++
				}
				_ = c.Close()
			}
			if lost > 0 {
				t.Errorf("stopped for %v: %d of %d sessions were ended although their clients had sent", stood, lost, clients)
			}
			_ = silent.conns[0].SetDeadline(time.Now().Add(patience))
			if _, err := silent.conns[0].Read(make([]byte, 1)); isTimeout(err) {
				t.Error("a silent session does not end")
			}
			b.settled()
		}
	})
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// The program stands still for longer than a check may take: no healthy host is
// taken out, and one that is dead is.
func TestB66ChecksWhileTheProgramStoodStill(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	const hosts, stops = 30, 3
	for name, check := range map[string]string{
		"http": `type="http"`, "tcp": `type="tcp"`, "expect": `type="expect" send="GET / HTTP/1.0\r\n\r\n" expect="200"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var text strings.Builder
			for range hosts {
				address := backend(t, func(c *net.TCPConn) {
					_, _ = c.Read(make([]byte, 4096))
					time.Sleep(20 * time.Millisecond) // so that checks are under way most of the time
					_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
					_, _ = c.Read(make([]byte, 1))
				})
				fmt.Fprintf(&text, `<host name="h%d" ip="%s"/>`, text.Len(), address)
			}
			b := balance(t, `<service name="web"><listen ip="127.0.0.1:0"/><group name="g">
				<check `+check+` interval="50ms" fall="1" rise="1" timeout="1s"/>`+text.String()+`</group></service>`)
			eventually(t, "every host has passed", func() bool {
				passed := 0
				for sample, n := range b.samples() {
					if strings.HasPrefix(sample, "txlb_checks_total") && strings.Contains(sample, "OK") && n > 2 {
						passed++
					}
				}
				return passed == hosts
			})
			// On a busy machine a host may rightly be down for not answering in time, so one
			// series without that suffices: many checks are under way at each stop.
			testkit.BestOf(t, 8, func() error {
				eventually(t, "every host is up", func() bool { return sum(b.samples(), "txlb_host_up") == hosts })
				before := strings.Count(b.out.String(), `msg="host down"`)
				for range stops {
					b.stop(2500*time.Millisecond, func() {})
					checks := func() (n float64) { return sum(b.samples(), "txlb_checks_total") }
					from := checks()
					eventually(t, "checks go on", func() bool { return checks() > from+3*hosts })
				}
				if n := strings.Count(b.out.String(), `msg="host down"`) - before; n > 0 {
					return fmt.Errorf("healthy hosts were taken out %d times in %d stops", n, stops)
				}
				return nil
			})
		})
	}
}

// stopped tells whether the program is stopped by a signal: all of its threads, as the
// others run on for a moment.
func (p *process) stopped() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		if err != nil || stat[bytes.LastIndexByte(stat, ')')+2] != 'T' {
			return false
		}
	}
	return len(threads) > 0
}
