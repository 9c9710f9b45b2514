//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
)

// injection is a strace that makes system calls of a running program fail.
type injection struct {
	*process
	file string
}

// inject makes calls of the program fail as rule says, in strace's words:
// CALL:error=NAME:when=FIRST+STEP, counted for each thread.
func (b *balancer) inject(rule string) *injection {
	b.t.Helper()
	debian.NeedFor(b.t, "strace")
	in := &injection{file: filepath.Join(b.t.TempDir(), "calls")}
	name, _, _ := strings.Cut(rule, ":")
	in.process = run(b.t, "strace", "-f", "-s", "0", "-o", in.file, "-p", fmt.Sprint(b.pid()),
		"-e", "trace="+name, "-e", "inject="+rule)
	// Where the system refuses ptrace, strace says so and ends.
	said := in.expect(`(?s)(Process \d+ attached|attach: .*)`)
	if !strings.Contains(said, "attached") {
		b.t.Skipf("this system does not let a process be traced: %s", in.out)
	}
	return in
}

var injected = regexp.MustCompile(`= -1 E\w+ \([^)]*\) \(INJECTED\)`)

// end lets the program go and returns how many calls were made to fail.
func (in *injection) end() int {
	in.t.Helper()
	in.signal(syscall.SIGINT)
	in.wait()
	text, err := os.ReadFile(in.file)
	if err != nil {
		in.t.Fatal(err)
	}
	return len(injected.FindAll(text, -1))
}

// hit tells whether a call was made to fail.
func (in *injection) hit() bool {
	text, err := os.ReadFile(in.file)
	return err == nil && injected.Match(text)
}

// outcome counts how the sessions of a test ended.
type outcome struct {
	whole, cut, refused int
}

// sort looks at how sessions closed under a fault. Wrong bytes, a session that
// hangs, and a stream cut short that looks like a clean end fail the test
// whatever the fault was. A client that got no byte was refused.
func sort(t *testing.T, results []error) (o outcome) {
	t.Helper()
	for i, err := range results {
		c, isCut := errors.AsType[*cut](err)
		switch {
		case err == nil:
			o.whole++
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Errorf("session %d neither goes on nor ends: %v", i, err)
		case isCut && c.got == 0:
			o.refused++
		case isCut && c.how == io.EOF:
			t.Errorf("session %d was cut short, and the end looks clean: %v", i, err)
		case isCut:
			o.cut++
		default:
			t.Errorf("session %d: %v", i, err)
		}
	}
	return o
}

// onFault runs sessions while calls fail and checks what holds for every
// fault: nothing but the sessions that were hit may notice, at most one for
// each failed call, no host is marked down, and afterwards all is as before.
// It returns how many calls failed, how the sessions closed, and the metrics.
// calm says that sessions which were there before cannot be hit.
func onFault(t *testing.T, rule string, sessions int, calm bool) (failed int, o outcome, all map[string]float64, b *balancer) {
	t.Helper()
	one, two := backend(t, echo), backend(t, echo)
	b = balance(t, group(`<timeouts halfClosed="30s"/>`, one, two))
	var there *bystanders
	if calm {
		there = b.bystanders(4)
	}
	in := b.inject(rule)
	o = sort(t, b.together(sessions, 1<<20))
	if calm {
		there.ping()
	}
	failed = in.end()
	if failed == 0 {
		t.Errorf("%s: no call was made to fail", rule)
	}
	if o.cut+o.refused > failed {
		t.Errorf("%d calls failed, and %+v", failed, o)
	}
	t.Logf("%d calls failed: %+v", failed, o)
	if calm {
		there.finish()
	}
	all = b.samples()
	if n := all[ended("cD")] + all[ended("sD")]; n != 0 {
		t.Errorf("%v sessions closed only when their time was out", n)
	}
	b.serves()
	b.hostsUp()
	b.settled()
	return failed, o, all, b
}

// faulty are rules for errors of one kind. Each runs as a test of its own; with -short
// the first stands for all, as they take the same way.
func faulty(t *testing.T, call, when string, errnos string, test func(t *testing.T, rule string)) {
	list := strings.Fields(errnos)
	if testing.Short() {
		list = list[:1]
	}
	for _, errno := range list {
		t.Run(call+"/"+errno, func(t *testing.T) {
			t.Parallel()
			test(t, call+":error="+errno+":when="+when)
		})
	}
}

const someSessions = 24

// A call that a signal interrupts is made again. Nobody notices. epoll_pwait is not
// tried: Go's runtime waits with it too, and ends the process if strace lets go of it
// in the middle of the call (ENOSYS). The runtime's own signals interrupt the loops'.
func TestB60InterruptedCallsAreInvisible(t *testing.T) {
	t.Parallel()
	for _, call := range strings.Fields("splice accept4 connect recvfrom sendto") {
		faulty(t, call, "1+2", "EINTR", func(t *testing.T, rule string) {
			if _, o, _, _ := onFault(t, rule, someSessions, true); o.whole != someSessions {
				t.Errorf("clients noticed: %+v", o)
			}
		})
	}
}

// Without a pipe a stream is copied; when pipes are to be had again, it is
// spliced again.
func TestB60WithoutPipesBytesAreCopied(t *testing.T) {
	t.Parallel()
	faulty(t, "pipe2", "1+", "EMFILE ENFILE ENOMEM", func(t *testing.T, rule string) {
		_, o, all, b := onFault(t, rule, someSessions, true)
		if o.whole != someSessions {
			t.Errorf("clients noticed: %+v", o)
		}
		if n := sum(all, "txlb_loop_spliced_bytes_total"); n != 0 {
			t.Errorf("%v bytes were spliced without a pipe", n)
		}
		if n := sum(all, "txlb_loop_copied_bytes_total"); n < 2*someSessions<<20 {
			t.Errorf("%v bytes were copied", n)
		}
		// A pool that was refused asks again only after a while.
		eventually(t, "bytes are spliced again", func() bool {
			if err := b.session(8<<20, 0); err != nil {
				t.Fatal(err)
			}
			return sum(b.samples(), "txlb_loop_spliced_bytes_total") > 0
		})
		b.settled()
	})
	// The size of a pipe cannot be set, or cannot even be learnt.
	faulty(t, "fcntl", "1+", "EPERM ENOMEM", func(t *testing.T, rule string) {
		if _, o, _, _ := onFault(t, rule, someSessions, true); o.whole != someSessions {
			t.Errorf("clients noticed: %+v", o)
		}
	})
}

// A session whose call fails for want of memory ends, and its client sees that
// it was cut. The others move on.
func TestB60NoMemoryEndsOneSession(t *testing.T) {
	t.Parallel()
	hit := func(t *testing.T, rule string) {
		failed, o, all, _ := onFault(t, rule, someSessions, false)
		if o.whole == 0 {
			t.Errorf("%d calls failed, and no session came through", failed)
		}
		if n := all[ended("--")]; int(n) > o.whole {
			t.Errorf("%v sessions are said to have ended well, %d did", n, o.whole)
		}
	}
	faulty(t, "splice", "9+61", "ENOMEM", hit)
	faulty(t, "recvfrom", "9+61", "ENOMEM ENOBUFS", hit)
	faulty(t, "sendto", "9+61", "ENOMEM ENOBUFS", hit)
}

// A socket that the poller does not take costs its session, which is told and
// counted as a want of our own.
func TestB60FullPollerEndsOneSession(t *testing.T) {
	t.Parallel()
	faulty(t, "epoll_ctl", "2+3", "ENOMEM ENOSPC", func(t *testing.T, rule string) {
		_, o, all, _ := onFault(t, rule, someSessions, true)
		if o.cut > 0 {
			t.Errorf("a session was cut that had begun: %+v", o)
		}
		if n := all[refusedFor("resource")]; int(n) != o.refused || n != all[ended("RC")] {
			t.Errorf("%v refused, %v ended with RC, want %d", n, all[ended("RC")], o.refused)
		}
	})
}

// While accept fails, clients wait in the kernel's queue; none is lost.
func TestB59FailedAcceptLosesNobody(t *testing.T) {
	t.Parallel()
	faulty(t, "accept4", "1+2", "EMFILE ENFILE ENOBUFS ENOMEM ECONNABORTED EAGAIN", func(t *testing.T, rule string) {
		if _, o, _, _ := onFault(t, rule, someSessions/2, true); o.whole != someSessions/2 {
			t.Errorf("clients noticed: %+v", o)
		}
	})
}

// While nothing can be accepted, the program asks now and then. The calls are
// counted, so a busy machine makes the test no stricter.
func TestB59FailingAcceptDoesNotSpin(t *testing.T) {
	t.Parallel()
	faulty(t, "accept4", "1+", "EMFILE ENFILE ENOBUFS ENOMEM", func(t *testing.T, rule string) {
		const loops, clients = 2, 10
		b := balance(t, fmt.Sprintf(`<engine loops="%d" ring="off"/>`, loops)+group("", backend(t, echo)))
		in, start := b.inject(rule), time.Now()
		waiting := make(chan []error)
		go func() { waiting <- b.together(clients, 100<<10) }()
		time.Sleep(time.Second) // the time measured
		eventually(t, "accept is tried", in.hit)
		failed, most := in.end(), 2*loops*int(time.Since(start)/(100*time.Millisecond)+1)
		if failed == 0 || failed > most {
			t.Errorf("accept was tried %d times, want 1 to %d", failed, most)
		}
		if o := sort(t, <-waiting); o.whole != clients {
			t.Errorf("clients that waited: %+v", o)
		}
		b.settled()
	})
}

// So it does where each accept is refused, by a security module for example: not a
// shortage, but no reason to spin either.
func TestB59RefusedAcceptDoesNotSpin(t *testing.T) {
	t.Parallel()
	faulty(t, "accept4", "1+", "EPERM EINVAL", func(t *testing.T, rule string) {
		const loops, clients, inRow = 2, 10, 4
		b := balance(t, fmt.Sprintf(`<engine loops="%d" ring="off"/>`, loops)+group("", backend(t, echo)))
		in, start := b.inject(rule), time.Now()
		waiting := make(chan []error)
		go func() { waiting <- b.together(clients, 100<<10) }()
		time.Sleep(time.Second) // the time measured
		eventually(t, "accept is tried", in.hit)
		failed, most := in.end(), 2*inRow*loops*int(time.Since(start)/(100*time.Millisecond)+1)
		if failed == 0 || failed > most {
			t.Errorf("accept was tried %d times, want 1 to %d", failed, most)
		}
		if o := sort(t, <-waiting); o.whole != clients {
			t.Errorf("clients that waited: %+v", o)
		}
		b.settled()
	})
}

// What fails on our side says nothing about a host. Another host is tried, and
// the failures are counted as local.
func TestB30LocalFaultsMarkNoHostDown(t *testing.T) {
	t.Parallel()
	faulty(t, "connect", "1+2", "EADDRNOTAVAIL EAGAIN ENOBUFS ENOMEM", func(t *testing.T, rule string) {
		failed, o, all, _ := onFault(t, rule, someSessions, true)
		if n := all[connectFailed("local")]; int(n) != failed || n != sum(all, "txlb_connect_failures_total") {
			t.Errorf("%d connects failed, %v are counted as local, %v in all", failed, n, sum(all, "txlb_connect_failures_total"))
		}
		if o.cut > 0 || 2*o.refused > failed {
			t.Errorf("%d connects failed over two hosts: %+v", failed, o)
		}
	})
	// Without a descriptor another host would fare no better.
	faulty(t, "socket", "1+2", "EMFILE ENFILE ENOBUFS ENOMEM", func(t *testing.T, rule string) {
		failed, o, all, _ := onFault(t, rule, someSessions, true)
		if n := all[connectFailed("local")]; int(n) != failed || n != sum(all, "txlb_connect_failures_total") {
			t.Errorf("%d sockets failed, %v are counted as local, %v in all", failed, n, sum(all, "txlb_connect_failures_total"))
		}
		if n := all[refusedFor("resource")]; int(n) != o.refused || n != all[ended("RC")] {
			t.Errorf("%v refused, %v ended with RC, want %d", n, all[ended("RC")], o.refused)
		}
	})
}

// A client that no host could be tried for, because every connect failed on
// our side, is counted as a want of resources: it is not the hosts' fault.
func TestB30OnlyLocalFaultsAreAWantOfResources(t *testing.T) {
	t.Parallel()
	faulty(t, "connect", "1+", "EADDRNOTAVAIL", func(t *testing.T, rule string) {
		_, o, all, _ := onFault(t, rule, someSessions, true)
		if o.refused != someSessions {
			t.Errorf("sessions came through: %+v", o)
		}
		if n := all[refusedFor("resource")]; n != someSessions || all[ended("RC")] != someSessions {
			t.Errorf("%v refused for want of a resource, %v ended with RC, %v refused for want of a host; want %d, %[4]d, 0",
				n, all[ended("RC")], all[refusedFor("no_host")], someSessions)
		}
	})
}

// The same holds for probes: one that could not be made says nothing. When it
// can be made again, it tells what there is to tell.
func TestB30ProbesThatCannotBeMade(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, rule string) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		doc, metrics := withMetrics(t, group("", backendOn(t, ln, silent), backend(t, silent)))
		doc = strings.Replace(doc, "</manager>", `<heartbeat interval="0.1" enable="yes"/></manager>`, 1)
		b := attach(t, txlb(t, doc), metrics, dial)
		in := b.inject(rule)
		// Three failures in a row take a host out; a dialer may try thrice.
		eventually(t, "probes fail", func() bool {
			text, err := os.ReadFile(in.file)
			return err == nil && len(injected.FindAll(text, -1)) > 2*3*3*2
		})
		in.end()
		b.hostsUp()
		_ = ln.Close()
		b.expect(`msg="host down" service=web group=g host=h0`)
		if b.sample(hostSample("txlb_host_up", "h1")) != 1 {
			t.Error("the host that answers is down")
		}
	}
	faulty(t, "socket", "1+", "EMFILE", test)
	faulty(t, "connect", "1+", "EADDRNOTAVAIL", test)
	faulty(t, "epoll_ctl", "1+", "ENOMEM ENOSPC", test)
}

// The metrics come back after a fault that hit their listener, too.
func TestB60MetricsOutliveAFault(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"accept4", "epoll_ctl"} {
		faulty(t, call, "1+", "ENOMEM ENOBUFS", func(t *testing.T, rule string) {
			b := balance(t, group("", backend(t, echo)))
			in := b.inject(rule)
			c, err := dial(b.metrics)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			eventually(t, "the fault hits", in.hit)
			in.end()
			eventually(t, "the metrics are there", func() bool {
				_, err := get("http://" + b.metrics + "/metrics")
				return err == nil
			})
			_ = c.Close()
			b.serves()
			b.settled()
		})
	}
}
