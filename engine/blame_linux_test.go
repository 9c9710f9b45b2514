package engine_test

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// An address family that the system lacks fails the hosts that need it, and
// nobody else notices.
func TestB70MissingFamilyFailsItsHostAlone(t *testing.T) {
	if !sandbox.NoFamily(t, syscall.AF_INET6) {
		return
	}
	v6, err := sched.ParseAddr("[::1]:9")
	if err != nil {
		t.Fatal(err)
	}
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, v6, enginetest.BackendServer(t, answer("b")))
		alone := engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Table(sched.Policy{Scheduler: "roundr"}, v6)}
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: r.Route},
			engine.Service{Name: "six", Listen: []string{"127.0.0.1:0"}, Route: &alone})
		var six string
		for _, l := range r.E.Listeners() {
			if l.Service == "six" {
				six = l.Addr
			}
		}
		clock := testkit.NewClock(t)
		for range 4 {
			c := enginetest.Dial(t, six)
			c.ExpectEOF()
			if got := r.Ask(); got != "b" {
				t.Errorf("the answer is %q", got)
			}
		}
		if took := clock.Now(); took > 2*time.Second {
			t.Errorf("eight clients took %v", took)
		}
		for range 2 {
			f := <-r.E.Failures()
			if f.Host != r.Hosts[0] && f.Host != r.Hosts[2] || !errors.Is(f.Err, syscall.EAFNOSUPPORT) {
				t.Errorf("host %s: %v", f.Host.Name(), f.Err)
			}
		}
		if r.Hosts[0].Up() || !r.Hosts[1].Up() || r.Hosts[2].Up() {
			t.Error("the wrong hosts are down")
		}
	})
}

// A UNIX socket that we may not connect to is a host that is down.
func TestB70ForbiddenHostGoesDown(t *testing.T) {
	if !sandbox.Unprivileged(t) {
		return
	}
	eachMode(t, func(t *testing.T, opt setup) {
		path := t.TempDir() + "/s"
		forbidden := enginetest.ServeOn(t, enginetest.ListenOn(t, "unix", path), answer("a"))
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		r := newRig(t, opt, engine.Route{}, forbidden, forbidden, enginetest.BackendServer(t, answer("c")))
		for range 3 {
			if got := r.Ask(); got != "c" {
				t.Errorf("the answer is %q", got)
			}
		}
		if err := r.Reported(r.Hosts[0]); !errors.Is(err, syscall.EACCES) {
			t.Errorf("reported %v", err)
		}
		if s := r.Stats(); r.Hosts[0].Up() || r.Hosts[1].Up() || s.ConnectFailures["forbidden"] != 2 {
			t.Errorf("hosts up: %v, %v; failures %v", r.Hosts[0].Up(), r.Hosts[1].Up(), s.ConnectFailures)
		}
	})
}

// unixBacklog listens on a UNIX socket with a short queue.
func unixBacklog(t *testing.T, backlog int) net.Listener {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer func() { _ = f.Close() }()
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: t.TempDir() + "/s"}), syscall.Listen(fd, backlog)); err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// A full queue of a UNIX socket is waited for, as the kernel does over TCP: 300
// clients at once are served through a queue of 16, and the host stays up.
func TestB70FullQueueOfAUnixHostIsAskedAgain(t *testing.T) {
	const clients = 300
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		ln := unixBacklog(t, 16)
		path, err := sched.ParseAddr("unix:" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t, opt, engine.Route{}, path)
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				if got := r.Ask(); got != "a" {
					t.Errorf("the answer is %q", got)
				}
			})
		}
		testkit.Eventually(t, "all clients are there", func() bool { return r.Stats().Active == clients })
		enginetest.ServeOn(t, ln, answer("a"))
		all.Wait()
		r.Quiet()
		if s := r.Stats(); !r.Hosts[0].Up() || s.Ended["--"] != clients || r.Hosts[0].Stats().Failures != 0 {
			t.Errorf("host up %v, counted %+v", r.Hosts[0].Up(), s)
		}
	})
}

// A queue that stays full for the connect time is a host that does not answer.
func TestB70QueueThatStaysFullIsATimeout(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		ln := unixBacklog(t, 0)
		defer func() { _ = ln.Close() }()
		enginetest.Dial(t, "unix:"+ln.Addr().String())
		times := enginetest.TestTimeouts
		times.Connect = 300 * time.Millisecond
		stuck, err := sched.ParseAddr("unix:" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t, opt, engine.Route{Timeouts: times}, stuck, enginetest.BackendServer(t, answer("b")))
		w := startWatch(t)
		if got := r.Ask(); got != "b" {
			t.Errorf("the answer is %q", got)
		}
		w.onTime(times.Connect)
		if err := r.Reported(r.Hosts[0]); !errors.Is(err, syscall.ETIMEDOUT) || r.Stats().ConnectFailures["timeout"] != 1 {
			t.Errorf("reported %v, failures %v", err, r.Stats().ConnectFailures)
		}
		// A client that gives up meanwhile is let go.
		r.Hosts[1].MarkDown()
		r.Hosts[0].MarkUp()
		times.Connect = time.Hour
		r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Timeouts: times, Table: r.Route.Table}})
		c := r.Dial()
		testkit.Eventually(t, "it waits for the host", func() bool { return r.Hosts[0].Stats().Active == 1 })
		c.Rst()
		r.Quiet()
		if !r.Hosts[0].Up() {
			t.Error("the host is down")
		}
	})
}

// When the time for all connects is over, a host that has not had its own time is
// not to blame.
func TestB72EndOfTotalBlamesNoHost(t *testing.T) {
	hole := silent(t)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, connect := range []time.Duration{0, time.Hour} {
			times := enginetest.TestTimeouts
			times.Connect, times.Total = connect, 200*time.Millisecond
			r := newRig(t, opt, engine.Route{Timeouts: times}, hole, hole)
			w := startWatch(t)
			c := r.Dial()
			c.ExpectEOF()
			w.onTime(times.Total)
			_ = c.Close()
			r.Quiet()
			for _, h := range r.Hosts {
				if !h.Up() || h.Stats().Failures != 0 {
					t.Errorf("connect %v: host %s: %+v", connect, h.Name(), h.Stats())
				}
			}
			if s := r.Stats(); s.Refused["timeout"] != 1 || s.Ended["sC"] != 1 || s.ConnectFailures["timeout"] != 0 {
				t.Errorf("connect %v: counted %+v", connect, s)
			}
		}
	})
}

// A connect that began before the host came back says nothing about it; one that
// began afterwards does.
func TestB73ConnectFromBeforeTheHostCameBack(t *testing.T) {
	hole := silent(t)
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		times := enginetest.TestTimeouts
		times.Connect = 300 * time.Millisecond
		r := newRig(t, opt, engine.Route{Timeouts: times}, hole)
		h := r.Hosts[0]
		for failures, comesBack := range []bool{true, false} {
			c := r.Dial()
			testkit.Eventually(t, "the connect is under way", func() bool { return h.Stats().Active == 1 })
			if comesBack {
				h.MarkDown()
				h.MarkUp()
			}
			c.ExpectEOF()
			_ = c.Close()
			r.Quiet()
			if h.Up() != comesBack || h.Stats().Failures != uint64(failures+1) {
				t.Errorf("came back meanwhile: %v; up: %v, failures %d", comesBack, h.Up(), h.Stats().Failures)
			}
		}
	})
}

// A host that is down on a port of the range for connections is refused, whatever
// port the kernel chooses: a connection to itself would echo the client's bytes
// and keep the host's port.
func TestB74NoConnectionToItself(t *testing.T) {
	if !sandbox.Network(t) {
		return
	}
	from := 20000
	eachMode(t, func(t *testing.T, opt setup) {
		for _, text := range []string{"127.0.0.1:40000", "[::1]:40000", "0.0.0.0:40000"} {
			sandbox.LocalPorts(t, 50000, 60000)
			r := newRig(t, opt, engine.Route{})
			addr, err := sched.ParseAddr(text)
			if err != nil {
				t.Fatal(err)
			}
			// The kernel tries the first port of the range first.
			sandbox.LocalPorts(t, 40000, 40001)
			route := engine.Route{Timeouts: enginetest.TestTimeouts, Table: r.Table(sched.Policy{Scheduler: "roundr"}, addr)}
			r.Apply(engine.Service{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &route})
			from++
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: from}}
			conn, err := d.Dial("tcp", r.Addr)
			if err != nil {
				t.Fatal(err)
			}
			c := &enginetest.Peer{T: t, Conn: conn}
			c.Send([]byte("?"))
			c.ExpectEOF()
			_ = c.Close()
			if err := r.Reported(r.Hosts[0]); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: reported %v", text, err)
			}
			testkit.Eventually(t, "the host can have its port", func() bool { return bindable(t, addr) })
		}
	})
}

// bindable tells whether a host that does not set SO_REUSEADDR can start.
func bindable(t *testing.T, a sched.Addr) bool {
	t.Helper()
	family, to := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: int(a.IP().Port())})
	if a.IP().Addr().Is6() {
		family, to = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(a.IP().Port())}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	return syscall.Bind(fd, to) == nil
}

// A client that was accepted when there is no descriptor for its backend waits, and is
// served when there is one. No host is to blame.
func TestB30ClientWaitsForADescriptor(t *testing.T) {
	eachMode(t, func(t *testing.T, opt setup) {
		r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, answer("a")))
		if got := r.Ask(); got != "a" {
			t.Fatalf("the answer is %q", got)
		}
		r.Quiet()
		back := descriptorsLeft(t, 2) // for the client, and for its accept
		c := r.Dial()
		testkit.Eventually(t, "a descriptor is missing", func() bool { return r.Stats().ConnectFailures["local"] > 0 })
		back()
		c.Send([]byte("?"))
		if got := c.Rest(); string(got) != "a" {
			t.Errorf("the answer is %q", got)
		}
		if s := r.Stats(); !r.Hosts[0].Up() || r.Hosts[0].Stats().Failures != 0 || s.Refused["resource"] != 0 {
			t.Errorf("host up %v, counted %+v", r.Hosts[0].Up(), s)
		}
	})
}

// descriptorsLeft lets this process open n more descriptors, until the function that
// it returns is called.
func descriptorsLeft(t *testing.T, n int) (back func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	// The limit is of their numbers: above it there is none, and below it those that
	// are free are taken.
	top, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	taken := []int{top}
	limit := syscall.Rlimit{Cur: uint64(top + 64), Max: was.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	back = sync.OnceFunc(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
		for _, fd := range taken {
			_ = syscall.Close(fd)
		}
	})
	t.Cleanup(back)
	for {
		fd, err := syscall.Dup(0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	for _, fd := range taken[len(taken)-n:] {
		_ = syscall.Close(fd)
	}
	taken = taken[:len(taken)-n]
	return back
}
