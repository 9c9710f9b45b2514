//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// backendProcess is set where this test binary is to be a host that can be
// killed.
const backendProcess = "TXLB_TEST_BACKEND"

// TestBackendProcess is that host, and no test. A "greeter" greets each client
// and reads nothing; a "deaf" one never accepts, so its clients are in the
// kernel's hands alone.
func TestBackendProcess(t *testing.T) {
	how := os.Getenv(backendProcess)
	if how == "" {
		t.Skip("runs only as a process of another test")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("at %v.\n", ln.Addr())
	for how == "deaf" {
		time.Sleep(time.Hour) // until it is killed
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "hello")
	}
}

// killable runs a host in a process of its own.
func killable(t *testing.T, how string) (p *process, address string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBackendProcess$")
	cmd.Env = append(os.Environ(), backendProcess+"="+how)
	p = start(t, cmd)
	return p, p.expect(`at (\S+)\.\n`)
}

func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
}

// hear reads exactly what a host is to say.
func hear(c net.Conn, words string) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(words))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != words {
		return errWrongBytes
	}
	return nil
}

// rest reads to the end and returns how it came: nil is a clean end.
func rest(c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	return err
}

// open opens a session that is closed with the test.
func (b *balancer) open() net.Conn {
	b.t.Helper()
	c, err := b.dialer(b.addr("web", 0))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

// endings compares how sessions closed with what is wanted, and nothing else.
func (b *balancer) endings(want map[string]float64) {
	b.t.Helper()
	all := b.samples()
	total := 0.0
	for how, n := range want {
		total += n
		if all[ended(how)] != n {
			b.t.Errorf("%v sessions closed as %s, want %v", all[ended(how)], how, n)
		}
	}
	if n := sum(all, "txlb_sessions_ended_total"); n != total {
		b.t.Errorf("%v sessions closed in all, want %v", n, total)
	}
}

// A host that accepts and says nothing: the session ends when its time is out,
// as the client's, or as the server's where the client has ended. Such a client
// gets a reset, for an end would look like an empty answer. The other
// host serves meanwhile. Of the two time-outs only the one that counts is short.
func TestB57SilentHost(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	for name, test := range map[string]struct {
		timeouts string
		ends     bool // the client
		want     map[string]float64
	}{
		"both are open":        {`idle="5s" halfClosed="1h"`, false, map[string]float64{"cD": 4}},
		"the client has ended": {`idle="1h" halfClosed="5s"`, true, map[string]float64{"sD": 2, "--": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mute := func(c *net.TCPConn) { silent(c); hold(t)(c) }
			b := balance(t, group("<timeouts "+test.timeouts+"/>", backend(t, mute), backend(t, echo)))
			results := make([]error, 4)
			var wg sync.WaitGroup
			for i := range results { // by turns on h0 and h1
				c := b.open()
				if _, err := io.WriteString(c, "anybody there?"); err != nil {
					t.Fatal(err)
				}
				if i%2 == 0 {
					eventually(t, "the silent host has the session", func() bool {
						return b.sample(hostSample("txlb_sessions_total", "h0")) == float64(i/2+1)
					})
				} else if err := hear(c, "anybody there?"); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
				if test.ends {
					if err := c.(*net.TCPConn).CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				wg.Go(func() {
					results[i] = rest(c)
					_ = c.Close()
				})
			}
			wg.Wait()
			for i, err := range results {
				switch waits := test.ends && i%2 == 0; {
				case waits && !isReset(err):
					t.Errorf("session %d waits for an answer: %v, want a reset", i, err)
				case !waits && err != nil:
					t.Errorf("session %d did not end cleanly: %v", i, err)
				}
			}
			b.settled()
			b.endings(test.want)
			b.hostsUp()
		})
	}
}

// A host that sends a byte every tenth of a second is alive, however long that
// takes in all: the idle time-out starts again with each byte.
func TestB57TricklingHost(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	const idle, bytes = 5 * time.Second, 60
	words := stream(bytes, 3)
	b := balance(t, group(fmt.Sprintf(`<timeouts idle="%v" halfClosed="%[1]v"/>`, idle),
		backend(t, func(c *net.TCPConn) {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for i := range words {
				<-tick.C
				if _, err := c.Write(words[i : i+1]); err != nil {
					return
				}
			}
		}), backend(t, echo)))
	start := time.Now()
	c := b.open()
	if err := exchange(c, nil, words); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	if took := time.Since(start); took < idle {
		t.Errorf("it took %v, less than the time-out: this tests nothing", took)
	}
	if err := b.session(100<<10, 0); err != nil {
		t.Error(err)
	}
	b.settled()
	b.endings(map[string]float64{"--": 2})
	b.hostsUp()
}

// A host that resets a session which has begun: the client has what came
// before, and then a reset. The host stays up: it did answer.
func TestB18HostThatResets(t *testing.T) {
	t.Parallel()
	b := balance(t, group("", backend(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half a ")
		_, _ = io.ReadFull(c, make([]byte, 2))
		reset(c)
	}), backend(t, echo)))
	for range 5 {
		c := b.open()
		if err := hear(c, "half a "); err != nil {
			t.Error(err)
		}
		if _, err := io.WriteString(c, "go"); err != nil {
			t.Error(err)
		}
		if err := rest(c); !isReset(err) {
			t.Errorf("want a reset: %v", err)
		}
		if err := b.session(100<<10, 0); err != nil {
			t.Errorf("the other host: %v", err)
		}
	}
	b.settled()
	b.endings(map[string]float64{"SD": 5, "--": 5})
	b.hostsUp()
}

// A host that resets every connection before a byte has moved: its clients are
// served by the other one.
func TestB22HostThatResetsAtOnce(t *testing.T) {
	t.Parallel()
	b := balance(t, group("", backend(t, func(c *net.TCPConn) { reset(c) }), backend(t, echo)))
	clients := 20
	if testing.Short() {
		clients = 8 // each asks for the metrics a few times, of which there are 20 a second
	}
	for i := range clients {
		c := b.open()
		// Nothing is sent before the host has decided: what was sent to it
		// cannot be sent again.
		eventually(t, "the client is on the other host", func() bool {
			return b.sample(hostSample("txlb_sessions", "h1")) == 1 && b.sample(hostSample("txlb_sessions", "h0")) == 0
		})
		if err := ask(c, fmt.Sprint("word ", i)); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		_ = c.Close()
		b.settled()
	}
	all := b.samples()
	// Whether the reset comes before the connect is seen or after it is chance.
	failed := sum(all, "txlb_connect_failures_total")
	if n := all[connectFailed("dropped")] + all[connectFailed("refused")]; n == 0 || n != failed {
		t.Errorf("%v dropped or refused, %v failed in all", n, failed)
	}
	if all[hostSample("txlb_host_up", "h1")] != 1 {
		t.Error("the host that serves is down")
	}
	b.endings(map[string]float64{"--": float64(clients)})
}

// The process of a host is killed. A client whose bytes it had not read sees a
// reset, one that it owed nothing sees an end; new ones go to the other host.
func TestB17KilledHost(t *testing.T) {
	t.Parallel()
	host, address := killable(t, "greeter")
	b := balance(t, group("", address, backend(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		echo(c)
	})))
	var conns []net.Conn
	for range 4 { // by turns on h0 and h1
		c := b.open()
		if err := hear(c, "hello"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	unread, there, idle, other := conns[0], conns[1], conns[2], conns[3]
	_ = unread.SetWriteDeadline(time.Now().Add(patience))
	if _, err := unread.Write(stream(100<<10, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host has bytes to read", func() bool {
		return b.sample(hostSample("txlb_bytes_in_total", "h0")) > 0
	})
	host.kill()
	if err := rest(unread); !isReset(err) {
		t.Errorf("the client whose bytes are lost: %v, want a reset", err)
	}
	if err := rest(idle); err != nil {
		t.Errorf("the client that waits for nothing: %v", err)
	}
	_ = idle.Close()
	for _, c := range []net.Conn{there, other} {
		if err := ask(c, "still there?"); err != nil {
			t.Errorf("a client of the other host: %v", err)
		}
		_ = c.Close()
	}
	for range 4 {
		c := b.open()
		if err := errors.Join(hear(c, "hello"), ask(c, "anybody there?")); err != nil {
			t.Error(err)
		}
		_ = c.Close()
	}
	b.expect(`msg="host down" service=web group=g host=h0`)
	b.settled()
	b.endings(map[string]float64{"SD": 1, "--": 7})
	all := b.samples()
	if n := all[connectFailed("refused")]; n != 1 || sum(all, "txlb_connect_failures_total") != 1 {
		t.Errorf("%v connects were refused, %v failed in all", n, sum(all, "txlb_connect_failures_total"))
	}
}

// A host dies with clients in its queue that nothing has moved for: they get
// the other host and notice nothing.
func TestB22KilledHostWithClientsInItsQueue(t *testing.T) {
	t.Parallel()
	host, address := killable(t, "deaf")
	b := balance(t, group("", address, backend(t, echo)))
	const clients = 10
	var conns []net.Conn
	for range clients {
		conns = append(conns, b.open())
	}
	on := func(name string) float64 { return b.sample(hostSample("txlb_sessions", name)) }
	eventually(t, "half of them are on each host", func() bool { return on("h0") == clients/2 && on("h1") == clients/2 })
	host.kill()
	eventually(t, "all are on the other host", func() bool { return on("h0") == 0 && on("h1") == clients })
	for i, c := range conns {
		if err := ask(c, fmt.Sprint("word ", i)); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
		_ = c.Close()
	}
	b.settled()
	all := b.samples()
	// One that was still being connected when the host died counts as refused.
	if n := all[connectFailed("dropped")] + all[connectFailed("refused")]; n != clients/2 || n != sum(all, "txlb_connect_failures_total") {
		t.Errorf("%v dropped or refused, %v failed in all, want %d", n, sum(all, "txlb_connect_failures_total"), clients/2)
	}
	b.endings(map[string]float64{"--": clients})
}
