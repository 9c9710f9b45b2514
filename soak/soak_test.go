//go:build linux

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) {
	if status, played := playRole(os.Args[1:]); played {
		os.Exit(status)
	}
	testkit.Main(m)
}

// A few seconds with the clients that need no other program: nothing that can
// be saved is lost.
func TestSoakBriefly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes five seconds")
	}
	var out, progress bytes.Buffer
	status := run(t.Context(), runtime.GOMAXPROCS(0), []string{"-for", "5s", "-only", "echo,greeting"}, &out, &progress)
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	t.Logf("%s%s", progress.String(), out.String())
}

// An interrupt ends everything at once, and is no success.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(time.Second, cancel).Stop() // in the middle of it
	var out, progress bytes.Buffer
	begun := time.Now()
	status := run(ctx, 1, []string{"-for", "1h", "-only", "echo"}, &out, &progress)
	if status != 1 {
		t.Errorf("exit status %d\n%s%s", status, progress.String(), out.String())
	}
	if d := time.Since(begun); d > patience {
		t.Errorf("it took %v\n%s%s", d, progress.String(), out.String())
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"-for", "1ms"}, {"-only", "smoke"}, {"now"}, {"-seed", "x"}} {
		var out, progress bytes.Buffer
		if status := run(t.Context(), 1, args, &out, &progress); status != 2 || progress.Len() == 0 {
			t.Errorf("%v: exit status %d, said %q", args, status, progress.String())
		}
	}
}

func TestSafe(t *testing.T) {
	group := func(hosts ...*config.Host) *config.Group { return &config.Group{Hosts: hosts} }
	ready := &config.Host{Address: "r", State: "ready", Weight: 1}
	other := &config.Host{Address: "o", State: "ready", Weight: 1}
	drained := &config.Host{Address: "d", State: "drain", Weight: 1}
	weightless := &config.Host{Address: "w", State: "ready"}
	for name, test := range map[string]struct {
		groups  []*config.Group
		without string
		want    bool
	}{
		"one is ready":              {[]*config.Group{group(drained, weightless, ready)}, "", true},
		"none is":                   {[]*config.Group{group(ready), group(drained, weightless)}, "", false},
		"the one that is will die":  {[]*config.Group{group(ready, drained)}, "r", false},
		"another stays":             {[]*config.Group{group(ready, other), group(other)}, "r", true},
		"another in one group only": {[]*config.Group{group(ready, other), group(ready)}, "r", false},
	} {
		if got := safe(&config.Service{Groups: test.groups}, test.without); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The client of the echo servers notices a byte that is wrong, missing or too
// much, and says who had answered.
func TestEchoClientNotices(t *testing.T) {
	spoil := func(answer func(name string, frame []byte) []byte) func(net.Conn) {
		return func(c net.Conn) {
			there, here := net.Pipe()
			go echo(there, "x", false)
			go func() { // what the client sends goes to a right server
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if _, werr := here.Write(buf[:n]); err != nil || werr != nil {
						_ = here.Close()
						return
					}
				}
			}()
			buf := make([]byte, 64<<10)
			for {
				n, err := here.Read(buf)
				if n > 0 {
					if _, err := c.Write(answer("x", buf[:n])); err != nil {
						break
					}
				}
				if err != nil {
					break
				}
			}
			_, _ = here.Close(), c.Close()
		}
	}
	for name, test := range map[string]struct {
		serve func(net.Conn)
		fails bool
	}{
		"right": {func(c net.Conn) { echo(c, "x", false) }, false},
		"one bit is wrong": {spoil(func(_ string, p []byte) []byte {
			if len(p) > 2 {
				p[len(p)-1] ^= 1
			}
			return p
		}), true},
		"a byte too many": {spoil(func(_ string, p []byte) []byte { return append(p, 0) }), true},
		"nothing":         {func(c net.Conn) { _ = c.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				if c, err := ln.Accept(); err == nil {
					test.serve(c)
				}
			}()
			w := &worker{
				service: &service{addr: ln.Addr().String()}, rng: random(1, name, 0), block: make([]byte, 1000),
			}
			failures := echoTurn(false)(t.Context(), w)
			if (len(failures) > 0) != test.fails {
				t.Errorf("failures: %v", failures)
			}
			_ = ln.Close()
			<-served
		})
	}
}

// txlb follows the leader of a Patroni: after each of two switchovers under pgbench, writes go
// to the new leader. With the clients held meanwhile, none of them fails.
func TestFollowsALeader(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, append([]string{"psql"}, servers.PatroniNeeds...)...)
	var out, progress bytes.Buffer
	turns, err := followLeader(t.Context(), 2, false, &out, &progress)
	t.Logf("%s%s", progress.String(), out.String())
	if err != nil {
		t.Fatal(err)
	}
	for i, turn := range turns {
		if turn.write <= 0 {
			t.Errorf("switchover %d: nothing was written at the new leader", i+1)
		}
		if turn.held && (turn.errors > 0 || turn.aborts > 0) {
			t.Errorf("switchover %d: clients were held, and %d writes failed (%v), %d clients of pgbench gave up", i+1, turn.errors, turn.why, turn.aborts)
		}
	}
}
