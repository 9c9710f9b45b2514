//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/testkit"
)

// leave lowers the program's limit of open files until it can open as many
// more as asked, and returns the limit that it had.
func (b *balancer) leave(more int) (was unix.Rlimit) {
	b.t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.pid()))
	if err != nil {
		b.t.Fatal(err)
	}
	taken := map[int]bool{}
	for _, e := range list {
		fd, _ := strconv.Atoi(e.Name())
		taken[fd] = true
	}
	limit := 0
	for free := 0; free < more || taken[limit]; limit++ {
		if !taken[limit] {
			free++
		}
	}
	if err := unix.Prlimit(b.pid(), unix.RLIMIT_NOFILE, nil, &was); err != nil {
		b.t.Fatal(err)
	}
	b.limit(unix.Rlimit{Cur: uint64(limit), Max: was.Max})
	return was
}

func (b *balancer) limit(to unix.Rlimit) {
	b.t.Helper()
	if err := unix.Prlimit(b.pid(), unix.RLIMIT_NOFILE, &to, nil); err != nil {
		b.t.Fatal(err)
	}
}

// With no descriptor to be had the program does not spin, and clients wait in
// the kernel's queue. They are served, all of them, when sessions end; and as
// ever when the limit is raised again. An odd number of free descriptors is
// enough to accept a client, and not enough to connect a host for it.
func TestB59NoDescriptors(t *testing.T) {
	t.Parallel()
	for _, free := range []int{0, 1, 2, 3} {
		t.Run(fmt.Sprintf("%d free", free), func(t *testing.T) {
			if free > 1 {
				testkit.Long(t)
			}
			t.Parallel()
			const clients = 20
			b := balance(t, group("", backend(t, echo), backend(t, echo)))
			there := b.bystanders(10)
			was := b.leave(free)
			waiting := make(chan []error)
			go func() { waiting <- b.together(clients, 100<<10) }()
			// A loop that spins takes all of a core.
			if used := b.busy(2 * time.Second); used > 0.25 {
				t.Errorf("the program uses %.0f %% of a core while it has no descriptors", 100*used)
			}
			there.ping()
			there.finish()
			o := sort(t, <-waiting)
			if o.whole != clients {
				t.Errorf("of %d clients that waited %d were served, %d cut, %d closed", clients, o.whole, o.cut, o.refused)
			}
			b.limit(was)
			b.serves()
			b.hostsUp()
			b.settled()
		})
	}
}

// nobody is a user without any right of his own.
const nobody = 65534

// asNobody runs a document as that user.
func asNobody(t *testing.T, doc string) *process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("user %d may not run programs as another one", os.Geteuid())
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	// The folders of a test are root's alone; this user has to get in.
	dir, err := os.MkdirTemp("", "txlb-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file, program := filepath.Join(dir, "config.xml"), filepath.Join(dir, "txlb")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, program); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, file} {
		if err := os.Chown(name, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "run", "-c", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	p := start(t, cmd)
	p.expect("msg=ready")
	return p
}

// An unprivileged user may have few pipes. With two thousand sessions that all
// want to splice at once most are copied, and no byte is lost.
func TestB63UnprivilegedUser(t *testing.T) {
	testkit.Long(t)
	const sessions, size = 2000, 320 << 10
	text, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	quota := float64(pages * os.Getpagesize())
	// A pipe is asked for 1 MiB; the last ones within the quota get less, and
	// one of less than 64 KiB is not used.
	const asked, least = 1 << 20, 64 << 10
	if quota == 0 || quota >= sessions*asked {
		t.Skipf("pipe-user-pages-soft is %d: there is no quota to run into", pages)
	}
	doc, metrics := withMetrics(t, `<engine pipeSize="1MiB" pipeMemory="4GiB"/>`+group("", backend(t, echo), backend(t, echo)))
	b := attach(t, asNobody(t, doc), metrics, dial)
	if uid := statusField(t, b.pid(), "Uid"); uid != nobody {
		t.Fatalf("the program runs as %d", uid)
	}

	// All are there before the first one moves more than a word.
	conns := make([]net.Conn, sessions)
	for i := range conns {
		c, err := dial(b.addr("web", 0))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		conns[i] = c
	}
	for i, c := range conns {
		if err := ask(c, fmt.Sprint("word ", i)); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
	if n := b.sample(`txlb_service_sessions{service="web"}`); n != sessions {
		t.Errorf("%v sessions at once, want %d", n, sessions)
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			data := stream(size, i)
			if err := exchange(c, data, data); err != nil {
				t.Errorf("session %d: %v", i, err)
			}
			_ = c.Close()
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	most := 0.0
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(20 * time.Millisecond):
			most = max(most, sum(b.samples(), "txlb_pipes"))
		}
	}
	all := b.samples()
	spliced, copied := sum(all, "txlb_loop_spliced_bytes_total"), sum(all, "txlb_loop_copied_bytes_total")
	t.Logf("at most %v pipes, %.0f MB spliced, %.0f MB copied", most, spliced/1e6, copied/1e6)
	if most*least > quota || most >= sessions {
		t.Errorf("%v pipes for %d sessions, the quota is %.0f MiB", most, sessions, quota/(1<<20))
	}
	if spliced == 0 || copied == 0 {
		t.Errorf("%v bytes spliced, %v copied: both must be", spliced, copied)
	}
	if n := all[ended("--")]; n != sessions || sum(all, "txlb_sessions_ended_total") != sessions {
		t.Errorf("%v of %d sessions closed well", n, sessions)
	}
	b.hostsUp()
	b.settled()
}

// Sessions in which nothing can move cost no processor time, whatever it is
// that they wait for.
func TestB21WaitingCostsNothing(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	const sessions = 100
	connect := func(t *testing.T, b *balancer) (conns []net.Conn) {
		for range sessions {
			c, err := dial(b.addr("web", 0))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			conns = append(conns, c)
		}
		return conns
	}
	// measure waits until all sessions are there and still says that they wait.
	// On a busy machine the last bytes may come late, so a window in which
	// something moved, or that is too expensive, is followed by another: a loop
	// that spins spins in all of them.
	measure := func(t *testing.T, b *balancer, still func() bool) {
		used, waiting := 1.0, false
		for range 6 {
			eventually(t, "all sessions are there", func() bool {
				return b.sample(`txlb_service_sessions{service="web"}`) == sessions && still()
			})
			used = b.busy(5 * time.Second)
			if waiting = still(); waiting && used <= 0.01 {
				break
			}
		}
		t.Logf("%.3f %% of a core", 100*used)
		if !waiting {
			t.Error("something moved all the time: this tests nothing")
		}
		if used > 0.01 {
			t.Errorf("%d waiting sessions use %.1f %% of a core", sessions, 100*used)
		}
	}
	t.Run("half open", func(t *testing.T) {
		t.Parallel()
		var accepted atomic.Int64
		b := balance(t, group("", backend(t, func(c *net.TCPConn) { accepted.Add(1); silent(c) })))
		conns := connect(t, b)
		measure(t, b, func() bool { return accepted.Load() == sessions })
		for _, c := range conns {
			_ = c.Close()
		}
		b.settled()
	})
	t.Run("stalled", func(t *testing.T) {
		t.Parallel()
		var poured atomic.Int64
		block := stream(64<<10, 0)
		b := balance(t, group("", backend(t, func(c *net.TCPConn) {
			for {
				n, err := c.Write(block)
				poured.Add(int64(n))
				if err != nil {
					return
				}
			}
		})))
		conns := connect(t, b)
		last, since := int64(0), time.Now()
		measure(t, b, func() bool { // all is full when nothing has moved for a while
			if now := poured.Load(); now != last || now == 0 {
				last, since = now, time.Now()
			}
			return time.Since(since) > 500*time.Millisecond
		})
		for _, c := range conns {
			reset(c)
		}
		b.settled()
	})
	t.Run("half closed", func(t *testing.T) {
		t.Parallel()
		// The first host waits for its clients' ends and keeps silent after them;
		// the second ends at once. Each greets, so that the client knows.
		var ends atomic.Int64
		b := balance(t, group(`<timeouts halfClosed="1h"/>`,
			backend(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "0")
				silent(c)
				ends.Add(1)
				hold(t)(c)
			}),
			backend(t, func(c *net.TCPConn) {
				_, _ = io.WriteString(c, "1")
				_ = c.CloseWrite()
				hold(t)(c)
			})))
		conns := connect(t, b)
		var of [2]int
		for _, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			greeting := make([]byte, 1)
			if _, err := io.ReadFull(c, greeting); err != nil {
				t.Fatal(err)
			}
			of[greeting[0]-'0']++
			if greeting[0] == '0' {
				if err := c.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			} else if _, err := c.Read(greeting); err != io.EOF {
				t.Fatalf("want the host's end: %v", err)
			}
		}
		if of[0] == 0 || of[1] == 0 {
			t.Errorf("sessions by host: %v", of)
		}
		measure(t, b, func() bool { return ends.Load() == int64(of[0]) })
		for _, c := range conns {
			reset(c)
		}
		b.settled()
	})
}

// small makes the buffers of a socket as small as the kernel allows.
func small(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) {
		for _, which := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, which, 4<<10)
		}
	})
}

// Buffers of a few kilobytes on both ends: five megabytes each way at once
// arrive byte for byte, though no read and no write is ever a whole one.
func TestB11TinyBuffers(t *testing.T) {
	t.Parallel()
	const size = 5 << 20
	up, down := stream(size, 1), stream(size, 2)
	config := net.ListenConfig{Control: small}
	ln, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	behind := make(chan error, 3)
	address := backendOn(t, ln, func(c *net.TCPConn) { behind <- exchange(c, down, up) })
	b := balance(t, group("", address))
	dialer := net.Dialer{Control: small, Timeout: patience}
	const sessions = 3
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			c, err := dialer.Dial("tcp", b.addr("web", 0))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			if err := exchange(c, up, down); err != nil {
				t.Errorf("client: %v", err)
			}
			if err := <-behind; err != nil {
				t.Errorf("backend: %v", err)
			}
		})
	}
	wg.Wait()
	b.settled()
}
