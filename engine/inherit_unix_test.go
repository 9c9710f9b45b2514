//go:build unix

package engine_test

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// held is a listening socket that the test holds, as systemd does.
type held struct {
	net.Listener
	t *testing.T
}

func hold(t *testing.T, network, address string) held {
	t.Helper()
	var how net.ListenConfig
	how.SetMultipathTCP(false) // Go's default
	ln, err := how.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return held{ln, t}
}

// file returns a duplicate for an engine.
func (h held) file() *os.File {
	h.t.Helper()
	f, err := h.Listener.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

// address is that of a plan.
func (h held) address() string {
	if h.Addr().Network() == "unix" {
		return "unix:" + h.Addr().String()
	}
	return h.Addr().String()
}

// echoes asks for an echo over a connection of its own.
func echoes(address string) error {
	network, at := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, at = "unix", path
	}
	c, err := net.DialTimeout(network, at, testkit.Patience)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return echo(c)
}

func echo(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// A socket that systemd holds serves its address. When the listener goes, clients wait in its
// queue, and are served when it comes back: by a later plan, or by another engine.
func TestB54LentSockets(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		for _, h := range []held{hold(t, "tcp4", "127.0.0.1:0"), hold(t, "unix", t.TempDir()+"/s")} {
			backend := enginetest.BackendServer(t, enginetest.Echo)
			opt.Inherited = []engine.Inherited{{File: h.file(), Lent: true}}
			r := newRig(t, opt, engine.Route{}, backend)
			on := engine.Service{Name: "web", Listen: []string{h.address()}, Route: r.Route}
			r.Apply(on)
			if all := r.E.Listeners(); len(all) != 1 || !all[0].Lent || all[0].Addr != h.address() {
				t.Errorf("listeners: %+v", all)
			}
			for range 10 {
				if err := echoes(h.address()); err != nil {
					t.Error(err)
				}
			}
			waits := func(then func()) {
				t.Helper()
				c := enginetest.Dial(t, h.address())
				served := make(chan error, 1)
				go func() { served <- echo(c) }()
				then()
				if err := <-served; err != nil {
					t.Errorf("%s: a client that waited: %v", h.address(), err)
				}
				_ = c.Close()
			}
			r.Apply()
			waits(func() { r.Apply(on) })
			if err := r.E.Drain(enginetest.Within(t)); err != nil {
				t.Error(err)
			}
			if err := r.E.Close(); err != nil {
				t.Error(err)
			}
			waits(func() {
				opt.Inherited = []engine.Inherited{{File: h.file(), Lent: true}}
				next := newRig(t, opt, engine.Route{}, backend)
				next.Apply(engine.Service{Name: "web", Listen: []string{h.address()}, Route: next.Route})
			})
		}
	})
}

// While clients come as fast as they can, one engine after the other takes over the socket.
// None is refused or reset.
func TestB54RestartsUnderLoad(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		h := hold(t, "tcp4", "127.0.0.1:0")
		backend := enginetest.BackendServer(t, enginetest.Echo)
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		defer clients.Wait()
		defer stop()
		var mu sync.Mutex
		served := 0
		for range 4 {
			clients.Go(func() {
				for ctx.Err() == nil {
					if err := echoes(h.address()); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					served++
					mu.Unlock()
				}
			})
		}
		for range 4 {
			opt.Inherited = []engine.Inherited{{File: h.file(), Lent: true}}
			r := newRig(t, opt, engine.Route{}, backend)
			r.Apply(engine.Service{Name: "web", Listen: []string{h.address()}, Route: r.Route})
			mu.Lock()
			was := served
			mu.Unlock()
			testkit.Eventually(t, "clients are served", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return served >= was+20
			})
			if err := r.E.Drain(enginetest.Within(t)); err != nil {
				t.Error(err)
			}
			if err := r.E.Close(); err != nil {
				t.Error(err)
			}
		}
		stop()
		opt.Inherited = []engine.Inherited{{File: h.file(), Lent: true}} // for those that wait
		r := newRig(t, opt, engine.Route{}, backend)
		r.Apply(engine.Service{Name: "web", Listen: []string{h.address()}, Route: r.Route})
		clients.Wait()
	})
}

// A listener with the port 0 keeps the port that it had.
func TestB54InheritedPortZero(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		h := hold(t, "tcp4", "127.0.0.1:0")
		opt.Inherited = []engine.Inherited{{File: h.file(), Service: "web", Listen: "127.0.0.1:0"}}
		if r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo)); r.Addr != h.address() {
			t.Errorf("it listens on %s, and not on %s", r.Addr, h.address())
		}
	})
}

// A socket that does not fit is not used, and the error says why.
func TestB54SocketsThatDoNotFit(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = packets.Close() }()
		file, err := packets.(*net.UDPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		opt.Inherited = []engine.Inherited{{File: file}}
		if e, err := opt.start(opt.Options); err == nil {
			_ = e.Close()
			t.Error("a socket for datagrams is taken")
		}
		h := hold(t, "tcp4", "127.0.0.1:0")
		opt.Inherited = []engine.Inherited{{File: h.file(), Lent: true}}
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		plan := engine.Plan{Services: []engine.Service{{
			Name: "web", Listen: []string{h.address()}, Route: r.Route,
			ListenOptions: map[string]engine.ListenOptions{h.address(): {Interface: "lo"}},
		}}}
		if err := r.E.Apply(plan); err == nil || !strings.Contains(err.Error(), "does not fit: interface: it is bound to") {
			if _, linux := opt.start, len(r.E.Snapshot().Loops) > 0; linux {
				t.Errorf("another interface: %v", err)
			}
		}
	})
}
