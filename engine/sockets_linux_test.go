package engine_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// relisten gives the rig's listener other options.
func relisten(r *enginetest.Rig, o engine.ListenOptions) error {
	const listen = "127.0.0.1:0"
	return r.E.Apply(engine.Plan{Services: []engine.Service{{
		Name: "web", Listen: []string{listen}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{listen: o},
	}}})
}

// needsMPTCP skips a test on a machine without MPTCP.
func needsMPTCP(t *testing.T) {
	t.Helper()
	if err := core.CanMultipath(); err != nil {
		t.Skip(err)
	}
}

// dialMPTCP connects a client that really uses MPTCP.
func dialMPTCP(t *testing.T, addr string) *enginetest.Peer {
	t.Helper()
	d := net.Dialer{Timeout: testkit.Patience}
	d.SetMultipathTCP(true)
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if on, err := c.(*net.TCPConn).MultipathTCP(); err != nil || !on {
		t.Errorf("the client has no MPTCP: %v", err)
	}
	return &enginetest.Peer{T: t, Conn: c}
}

// What clients with MPTCP, and those without it at the same listener, do to a backend
// is what they do without it: bytes, ends and resets pass in both directions.
func TestB91MultipathClients(t *testing.T) {
	needsMPTCP(t)
	scenes := []scene{
		{name: "small", client: "send 100|expect 200|fin|eof", backend: "expect 100|send 200|eof|fin"},
		{name: "bulk", client: "[send 3M, fin]|expect 3M|eof", backend: "[send 3M, fin]|expect 3M|eof"},
		{name: "stalled reader", client: "stall|expect 20M|eof|fin", backend: "[send 20M, fin]|eof"},
		{name: "half closed", client: "send 10|fin|expect 64K|eof", backend: "expect 10|eof|send 64K|fin"},
		{name: "client resets", client: "send 10|expect 10|rst", backend: "expect 10|send 10|gone", ended: "CD"},
		{name: "backend resets", client: "send 10|expect 10|tell go|reset", backend: "expect 10|send 10|wait go|rst", ended: "SD"},
		{name: "answer then reset", client: "send 10|expect 100K|tell go|gone", backend: "expect 10|send 100K|wait go|rst", ended: "SD"},
	}
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, sc := range scenes {
			for name, multipath := range map[string]bool{"mptcp": true, "tcp": false} {
				t.Run(sc.name+"/"+name, func(t *testing.T) {
					st := &stage{told: map[string]chan struct{}{}}
					e, err := opt.start(opt.Options)
					if err != nil {
						t.Fatal(err)
					}
					backend := enginetest.BackendServer(t, func(p *enginetest.Peer) {
						(&actor{Peer: p, stage: st, side: backendSide}).play(sc.backend)
					})
					const listen = "127.0.0.1:0"
					r := enginetest.StartWith(t, e, sc.route, map[string]engine.ListenOptions{listen: {MPTCP: true}}, backend)
					dial := func() *enginetest.Peer { return r.Dial() }
					if multipath {
						dial = func() *enginetest.Peer { return dialMPTCP(t, r.Addr) }
					}
					var wg sync.WaitGroup
					wg.Go(func() { (&actor{Peer: dial(), stage: st, side: clientSide}).play(sc.client) })
					wg.Wait()
					testkit.Eventually(t, "the session ends", func() bool { s := r.Stats(); return s.Sessions == 1 && s.Active == 0 })
					want := sc.ended
					if want == "" {
						want = "--"
					}
					s := r.Stats()
					if s.Ended[want] != 1 {
						t.Errorf("the session ended with %v, want %s", s.Ended, want)
					}
					if (s.MPTCP == 1) != multipath {
						t.Errorf("%d clients with MPTCP are counted", s.MPTCP)
					}
					if l := e.Listeners(); len(l) != 1 || !l[0].MPTCP {
						t.Errorf("listeners %+v", l)
					}
				})
			}
		}
	})
}

// A connection that says nothing waits in the kernel with deferAccept, and at once no
// more when that is switched off: the listener stays, and so does its queue.
func TestB91DeferAcceptAndFastOpenChange(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		on := engine.ListenOptions{DeferAccept: true, FastOpen: true}
		if err := relisten(r, on); err != nil {
			t.Fatal(err)
		}
		if l := r.E.Listeners(); len(l) != 1 || l[0].Addr != r.Addr {
			t.Fatalf("listeners %+v, want %s", l, r.Addr)
		}
		silent := r.Dial()
		for range 20 { // others are served meanwhile
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			_ = c.Close()
		}
		r.Quiet()
		if n := r.Stats().Sessions; n != 20 {
			t.Errorf("%d sessions, want 20: the silent client is none yet", n)
		}
		silent.Send([]byte("x"))
		silent.Expect([]byte("x"))
		if err := relisten(r, engine.ListenOptions{}); err != nil {
			t.Fatal(err)
		}
		_ = r.Dial()
		testkit.Eventually(t, "a silent client is accepted", func() bool { return r.Stats().Sessions == 22 })
	})
}

// A listener takes what comes in by its interface, also with another one at run time.
// An interface that is not there changes nothing, and one that comes back is found.
func TestB91ListenOnInterface(t *testing.T) {
	testkit.Long(t)
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip("needs ip, of iproute2")
	}
	if !sandbox.Network(t) {
		return
	}
	do := func(words ...string) {
		t.Helper()
		if out, err := exec.Command(ip, words...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", words, err, out)
		}
	}
	comes := func() {
		t.Helper()
		do("link", "add", "d0", "type", "veth", "peer", "name", "d1")
		do("link", "set", "d0", "up")
		do("link", "set", "d1", "up")
	}
	comes()
	eachLoopMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		served := func() bool {
			c, err := net.DialTimeout("tcp", r.Addr, testkit.Patience)
			if err != nil {
				return false
			}
			p := &enginetest.Peer{T: t, Conn: c}
			defer func() { _ = p.Close() }()
			p.Send([]byte("x"))
			p.Expect([]byte("x"))
			return true
		}
		for _, step := range []struct {
			device string
			served bool
		}{{"lo", true}, {"d0", false}, {"", true}, {"d0", false}, {"lo", true}} {
			if err := relisten(r, engine.ListenOptions{Interface: step.device}); err != nil {
				t.Fatal(err)
			}
			if l := r.E.Listeners(); len(l) != 1 || l[0].Addr != r.Addr {
				t.Errorf("listeners %+v, want %s", l, r.Addr)
			}
			if got := served(); got != step.served {
				t.Errorf("interface %q: served %v", step.device, got)
			}
		}
		err := relisten(r, engine.ListenOptions{Interface: "none0"})
		if !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), `service "web": listen on `+r.Addr+`: there is no interface "none0"`) {
			t.Errorf("no such interface: %v", err)
		}
		if !served() {
			t.Error("a change that was rejected has changed the listener")
		}
		if err := relisten(r, engine.ListenOptions{Interface: "d0"}); err != nil {
			t.Fatal(err)
		}
		do("link", "del", "d0")
		comes()
		index, err := net.InterfaceByName("d0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(r.Addr)
		testkit.Eventually(t, "the listener is that of the new interface", func() bool {
			on := boundIndexes(port)
			return len(on) == opt.Loops && on[0] == index.Index && on[1] == index.Index
		})
	})
}

// boundIndexes returns to which interfaces the listening sockets of this process with a
// port are bound.
func boundIndexes(port string) (list []int) {
	for fd := 3; fd < 1024; fd++ {
		sa, err := unix.Getsockname(fd)
		in, ok := sa.(*unix.SockaddrInet4)
		if on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || !ok || on == 0 || strconv.Itoa(in.Port) != port {
			continue
		}
		index, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
		list = append(list, index)
	}
	return list
}

// No client is refused when other sockets take the place of those of a listener: each is
// served by the old ones or by the new ones, but for one whose handshake ends between the
// last accept and the close, which is reset.
func TestB91ClientsOfAListenerThatIsReopened(t *testing.T) {
	needsMPTCP(t)
	eachLoopMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					// One that comes in the moment between the last accept and the close is reset.
					// It may be over before the dialer looks at it.
					c, err := net.DialTimeout("tcp", r.Addr, testkit.Patience)
					if errors.Is(err, syscall.ECONNRESET) {
						continue
					}
					if err != nil {
						t.Errorf("refused: %v", err)
						return
					}
					_ = c.SetDeadline(time.Now().Add(testkit.Patience))
					_, err = c.Write([]byte("x"))
					if err == nil {
						_, err = c.Read(make([]byte, 1))
					}
					if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
						t.Errorf("not served: %v", err)
					}
					_ = c.Close()
				}
			})
		}
		for i := range 6 {
			before := r.Stats().Sessions
			if err := relisten(r, engine.ListenOptions{MPTCP: i%2 == 0}); err != nil {
				t.Error(err)
			}
			testkit.Eventually(t, "clients are served", func() bool { return r.Stats().Sessions > before+20 })
		}
		close(stop)
		wg.Wait()
	})
}

// What the kernel does not have is an error that says so, and nothing changes.
func TestB91NoMultipath(t *testing.T) {
	if !sandbox.Network(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/mptcp/enabled", []byte("0"), 0); err != nil {
		t.Skip(err)
	}
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, enginetest.Echo))
		const also = "127.0.0.1:0"
		err := r.E.Apply(engine.Plan{Services: []engine.Service{
			{Name: "web", Listen: []string{also}, Route: r.Route},
			{Name: "more", Listen: []string{also}, Route: r.Route, ListenOptions: map[string]engine.ListenOptions{also: {MPTCP: true}}},
		}})
		if !errors.Is(err, unix.ENOPROTOOPT) || !strings.Contains(err.Error(), `service "more": listen on 127.0.0.1:0: mptcp: it is switched off; set net.mptcp.enabled=1`) {
			t.Errorf("MPTCP that is off: %v", err)
		}
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		if l := r.E.Listeners(); len(l) != 1 || l[0].Service != "web" {
			t.Errorf("listeners %+v", l)
		}
	})
}

// The options that a client of a listener for MPTCP has to have are those of any other
// client.
func TestB91OptionsOfMultipathListeners(t *testing.T) {
	needsMPTCP(t)
	for _, opt := range loopModesToTest {
		var options [2]bytes.Buffer
		for i, multipath := range []bool{false, true} {
			e, err := opt.start(opt.Options)
			if err != nil {
				t.Fatal(err)
			}
			const listen = "127.0.0.1:0"
			times := enginetest.TestTimeouts
			times.Unacked, times.KeepAlive = 7*time.Second, 40*time.Second
			r := enginetest.StartWith(t, e, engine.Route{Timeouts: times}, map[string]engine.ListenOptions{listen: {MPTCP: multipath}},
				enginetest.BackendServer(t, enginetest.Echo))
			c := r.Dial()
			c.Send([]byte("x"))
			c.Expect([]byte("x"))
			describeSocket(t, &options[i], c.RemoteAddr().(*net.TCPAddr).Port, c.LocalAddr().(*net.TCPAddr).Port)
		}
		if a, b := options[0].String(), options[1].String(); a != b || a == "" {
			t.Errorf("a client has these options:\n%s\nand at a listener for MPTCP these:\n%s", a, b)
		}
		return // they are the same in all modes
	}
}

// Sessions on goroutines have the same options on both sides, in every mode, once they have
// lived for a while: a listener hands some down, and the session sets the others.
func TestSessionsGetTheirOptions(t *testing.T) {
	testkit.Long(t)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.Unacked, times.KeepAlive = 7*time.Second, 40*time.Second
		r := newRig(t, opt, engine.Route{Timeouts: times}, enginetest.BackendServer(t, enginetest.Echo))
		c := r.Dial()
		c.Send([]byte("x"))
		c.Expect([]byte("x"))
		client := [2]int{c.RemoteAddr().(*net.TCPAddr).Port, c.LocalAddr().(*net.TCPAddr).Port}
		list := r.E.Sessions(0, func(string, *sched.Host) bool { return true })
		if len(list) != 1 {
			t.Fatalf("%d sessions", len(list))
		}
		backend := [2]int{int(list[0].Local.Port()), int(list[0].Host.Addr().IP().Port())}
		const notSent, alive = "TCP_NOTSENT_LOWAT=131.072µs", "SO_KEEPALIVE=1ns\nTCP_KEEPIDLE=40ns\nTCP_KEEPINTVL=10ns\nTCP_KEEPCNT=4ns"
		for name, ports := range map[string][2]int{"client": client, "backend": backend} {
			var now string
			testkit.Eventually(t, "the options of the "+name, func() bool {
				var b bytes.Buffer
				describeSocket(t, &b, ports[0], ports[1])
				now = b.String()
				return t.Failed() || strings.Contains(now, "TCP_NODELAY=1ns") && strings.Contains(now, notSent) &&
					strings.Contains(now, "TCP_USER_TIMEOUT=7µs") && strings.Contains(now, alive)
			})
			if name == "client" && !strings.Contains(now, "SO_OOBINLINE=1ns") {
				t.Errorf("the client's options: %s", now)
			}
		}
	})
}

// describeSocket writes the options of the socket in this process that has these ports.
func describeSocket(t *testing.T, to *bytes.Buffer, own, peer int) {
	t.Helper()
	has := func(sa unix.Sockaddr, err error, port int) bool {
		in, ok := sa.(*unix.SockaddrInet4)
		return err == nil && ok && in.Port == port
	}
	for fd := 3; fd < 1024; fd++ {
		sa, err := unix.Getpeername(fd)
		if !has(sa, err, peer) {
			continue
		}
		if sa, err = unix.Getsockname(fd); !has(sa, err, own) {
			continue
		}
		for _, o := range []struct {
			name        string
			level, what int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY}, {"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
			{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}, {"SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		} {
			value, err := unix.GetsockoptInt(fd, o.level, o.what)
			if err != nil {
				t.Errorf("%s: %v", o.name, err)
			}
			_, _ = to.WriteString(o.name + "=" + time.Duration(value).String() + "\n")
		}
		return
	}
	t.Errorf("no socket has the ports %d and %d", own, peer)
}
