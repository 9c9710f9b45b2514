package health

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// A process without a free descriptor cannot tell whether a host is up.
func TestB30OurOwnFaultsAreTold(t *testing.T) {
	for way, probe := range ways {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := Probe{Addr: parse(t, ln.Addr().String()), Timeout: testkit.Patience}
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		none := limit
		none.Cur = 0
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
			t.Fatal(err)
		}
		r := probe(t.Context(), p)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if r.Code != SockErr || r.Tells() || r.Text != syscall.EMFILE.Error() {
			t.Errorf("%s without a descriptor: %v", way, r)
		}
		_ = ln.Close()
		if r := probe(t.Context(), p); r.Code != L4Con || !r.Tells() {
			t.Errorf("%s to a closed port: %v", way, r)
		}
	}
}

// full returns the address of a listener whose queue is full: it answers no
// SYN, like a host that has gone.
func full(t *testing.T) sched.Addr {
	t.Helper()
	return parse(t, testkit.Silent(t))
}

// A TCP probe by Connect is over before the host has a connection to accept.
func TestConnectLeavesNothingToAccept(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	p := Probe{Addr: parse(t, ln.Addr().String()), Timeout: testkit.Patience}
	for range 10 {
		if r := ways["Connect"](t.Context(), p); !r.OK() {
			t.Fatal(r)
		}
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	if got.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("the first connection to accept is of %v, not of %v", got.RemoteAddr(), c.LocalAddr())
	}
}

func TestSilentHost(t *testing.T) {
	addr, clock := full(t), testkit.NewClock(t)
	for way, probe := range ways {
		for name, p := range map[string]Probe{
			"as a whole": {Addr: addr, Timeout: 100 * time.Millisecond},
			"to connect": {Addr: addr, Timeout: time.Hour, Connect: 100 * time.Millisecond},
		} {
			begun := clock.Now()
			r := probe(t.Context(), p)
			if took := clock.Since(begun); r.Code != L4Tout || r.Text != "no answer within 100ms" || r.Took < 100*time.Millisecond || took > 5*time.Second {
				t.Errorf("%s, %s: %v after %v (%v)", way, name, r, took, r.Took)
			}
		}
	}
}

// A probe ends with its context, and then says nothing about the host.
func TestProbeEndsWithItsContext(t *testing.T) {
	addr := full(t)
	for way, probe := range ways {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan Result, 1)
		go func() { ended <- probe(ctx, Probe{Addr: addr, Timeout: time.Hour}) }()
		cancel()
		if r := <-ended; r.Tells() || !strings.Contains(r.Text, "given up") {
			t.Errorf("%s: %v", way, r)
		}
	}
}

// The results of a batch are those of its probes, whatever comes first.
func TestConnectTellsProbesApart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	kinds := []struct {
		addr sched.Addr
		want Code
	}{{parse(t, ln.Addr().String()), L4OK}, {parse(t, gone.Addr().String()), L4Con}, {full(t), L4Tout}}
	var probes []Probe
	for i := range 300 { // more than one wait takes in
		probes = append(probes, Probe{Addr: kinds[i%3].addr, Timeout: 200 * time.Millisecond})
	}
	seen := map[int]Code{}
	Connect(t.Context(), probes, func(i int, r Result) {
		if _, twice := seen[i]; twice {
			t.Errorf("probe %d is reported twice", i)
		}
		seen[i] = r.Code
	})
	if len(seen) != len(probes) {
		t.Errorf("%d of %d are reported", len(seen), len(probes))
	}
	for i, got := range seen {
		if want := kinds[i%3].want; got != want {
			t.Errorf("probe %d of %v: %v, want %v", i, probes[i].Addr, got, want)
		}
	}
}
