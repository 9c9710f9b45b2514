package engine_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
)

// shared returns listening sockets of one address.
func shared(t *testing.T, n int) (group []held) {
	t.Helper()
	how := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlled := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		if controlled != nil {
			return controlled
		}
		return err
	}}
	how.SetMultipathTCP(false)
	address := "127.0.0.1:0"
	for range n {
		ln, err := how.Listen(t.Context(), "tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		group = append(group, held{ln, t})
		address = ln.Addr().String()
	}
	return group
}

// The sockets of a group (SO_REUSEPORT) that another process had are all served, whatever the
// number of loops. When their listener goes, they end, although somebody has duplicates. One
// that no plan asks for ends at once.
func TestB54SocketsOfAnotherProcess(t *testing.T) {
	for _, sockets := range []int{1, 2, 5} {
		eachLoopMode(t, func(t *testing.T, opt setup) {
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
			group := shared(t, sockets)
			other := hold(t, "tcp4", "127.0.0.1:0")
			unused := other.file()
			opt.Inherited = []engine.Inherited{{File: unused}}
			for _, h := range group {
				opt.Inherited = append(opt.Inherited, engine.Inherited{File: h.file()})
			}
			heir := newRig(t, opt, engine.Route{})
			address := group[0].address()
			heir.Apply(engine.Service{Name: "web", Listen: []string{address}, Route: r.Route})
			if all := heir.E.Listeners(); len(all) != 1 || all[0].Lent || all[0].Addr != address {
				t.Errorf("listeners: %+v", all)
			}
			for range 50 { // the kernel spreads them over all sockets
				if err := echoes(address); err != nil {
					t.Fatal(err)
				}
			}
			heir.Apply()
			for _, gone := range []string{address, other.address()} {
				if err := echoes(gone); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("%d sockets: a client of a listener that has gone: %v", sockets, err)
				}
			}
		})
	}
}

// A socket that systemd holds is passed on to the next process, also while no listener uses it: a
// plan there may ask for it.
func TestB54LentSocketsArePassedOn(t *testing.T) {
	eachLoopMode(t, func(t *testing.T, opt setup) {
		backend := enginetest.BackendServer(t, enginetest.Echo)
		used, unused := hold(t, "tcp4", "127.0.0.1:0"), hold(t, "tcp4", "127.0.0.1:0")
		local := hold(t, "unix", t.TempDir()+"/s")
		opt.Inherited = nil
		for _, h := range []held{used, unused, local} {
			opt.Inherited = append(opt.Inherited, engine.Inherited{File: h.file(), Lent: true})
		}
		old := newRig(t, opt, engine.Route{}, backend)
		old.Apply(engine.Service{Name: "web", Listen: []string{used.address()}, Route: old.Route})
		sockets, err := old.E.Sockets()
		if err != nil {
			t.Fatal(err)
		}
		if len(sockets) != 3 {
			t.Errorf("%d sockets are passed on, want 3", len(sockets))
		}
		opt.Inherited = sockets
		next := newRig(t, opt, engine.Route{}, backend)
		all := []string{used.address(), unused.address(), local.address()}
		next.Apply(engine.Service{Name: "web", Listen: all, Route: next.Route})
		for _, l := range next.E.Listeners() {
			if !l.Lent {
				t.Errorf("%s is not lent", l.Addr)
			}
		}
		for _, address := range all {
			if err := echoes(address); err != nil {
				t.Errorf("%s: %v", address, err)
			}
		}
	})
}
