package keeper

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// serve runs a server and returns where.
func serve(t *testing.T, limit int, patience time.Duration) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(limit, slog.New(slog.DiscardHandler))
	s.patience = patience
	over := make(chan error, 1)
	go func() { over <- s.Serve(ln) }()
	t.Cleanup(func() {
		_ = ln.Close()
		if err := <-over; err != nil {
			t.Error(err)
		}
		testkit.Eventually(t, "the clients are gone", func() bool { return s.connected() == 0 })
		s.drop(s.all())
		if s.files != 0 {
			t.Errorf("%d descriptors are left", s.files)
		}
	})
	return path
}

func (s *Server) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// pairs returns two sockets that are connected, and the near end of each.
func pairs(t *testing.T) (far [2]int, near [2]*net.UnixConn) {
	t.Helper()
	for i := range far {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		far[i] = fds[0]
		file := os.NewFile(uintptr(fds[1]), "near")
		conn, err := net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		near[i] = conn.(*net.UnixConn)
	}
	return far, near
}

func keepOne(t *testing.T, c *Client, id uint64, state string) (near [2]*net.UnixConn, kept int) {
	t.Helper()
	far, near := pairs(t)
	kept, err := c.Keep([]engine.Kept{{ID: id, Client: far[0], Backend: far[1], State: []byte(state)}})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(far[:])
	return near, kept
}

// closed tells whether the last descriptor of the other end is closed.
func closed(t *testing.T, near [2]*net.UnixConn) bool {
	t.Helper()
	for _, conn := range near {
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	return true
}

func takeAll(t *testing.T, c *Client) (list []engine.Kept) {
	t.Helper()
	if err := c.Take(func(some []engine.Kept) { list = append(list, some...) }); err != nil {
		t.Fatal(err)
	}
	return list
}

// What a client has given is there for the next one, but only when the first is gone.
func TestKeepAndTake(t *testing.T) {
	t.Parallel()
	path := serve(t, 1000, time.Hour)
	first, second := NewClient(path), NewClient(path)
	t.Cleanup(second.Close)
	const sessions = 300 // more than go into a message
	var near [sessions][2]*net.UnixConn
	for i := range near {
		near[i], _ = keepOne(t, first, uint64(i), "state")
	}
	if err := first.Forget([]uint64{7, 1 << 40}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "what is forgotten is closed", func() bool { return closed(t, near[7]) })
	if list := takeAll(t, second); len(list) > 0 {
		t.Errorf("%d sessions were given of a process that is there", len(list))
	}
	first.Close()
	var list []engine.Kept
	testkit.Eventually(t, "the sessions were left", func() bool { list = takeAll(t, second); return len(list) > 0 })
	if len(list) != sessions-1 {
		t.Fatalf("%d sessions, want %d", len(list), sessions-1)
	}
	for _, one := range list {
		if string(one.State) != "state" {
			t.Errorf("session %d has the state %q", one.ID, one.State)
		}
		for i, fd := range []int{one.Client, one.Backend} {
			if _, err := unix.Write(fd, []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1)
			if _, err := near[one.ID][i].Read(b); err != nil || b[0] != byte(i) {
				t.Errorf("session %d, socket %d: %v %v", one.ID, i, b, err)
			}
		}
		closeAll([]int{one.Client, one.Backend})
	}
	if closed(t, near[0]) {
		t.Error("the server has closed what was taken before the client was done")
	}
	if err := second.Done(); err != nil {
		t.Fatal(err)
	}
	if !closed(t, near[0]) {
		t.Error("the server still has what was taken")
	}
}

// What is dropped while a client is being given it stays open until the client has it all: else the
// client would get what has the numbers of the descriptors then.
func TestDropWhileGiven(t *testing.T) {
	t.Parallel()
	path := serve(t, 1000, time.Hour)
	first, second, other := NewClient(path), NewClient(path), NewClient(path)
	t.Cleanup(second.Close)
	t.Cleanup(other.Close)
	const sessions = 2*perMessage + 1 // three messages
	var near [sessions][2]*net.UnixConn
	for i := range near {
		near[i], _ = keepOne(t, first, uint64(i), "state")
	}
	first.Close()
	seen := map[uint64]bool{}
	testkit.Eventually(t, "the sessions were left", func() bool {
		err := second.Take(func(some []engine.Kept) {
			for _, one := range some {
				seen[one.ID] = true
				b := []byte{0}
				_ = near[one.ID][0].SetReadDeadline(time.Now().Add(testkit.Patience))
				if _, err := unix.Write(one.Client, []byte{byte(one.ID)}); err != nil {
					t.Errorf("session %d: %v", one.ID, err)
				} else if _, err := near[one.ID][0].Read(b); err != nil || b[0] != byte(one.ID) {
					t.Errorf("session %d: %v %v", one.ID, b, err)
				}
				closeAll([]int{one.Client, one.Backend})
			}
			if len(seen) == perMessage { // after the first message
				if err := other.Done(); err != nil {
					t.Error(err)
				}
				for i := range perMessage { // these would get the numbers
					keepOne(t, other, uint64(1000+i), "")
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(seen) > 0
	})
	if len(seen) != sessions {
		t.Errorf("%d sessions came of %d", len(seen), sessions)
	}
	testkit.Eventually(t, "what was dropped is closed", func() bool { return closed(t, near[0]) })
}

func TestFull(t *testing.T) {
	t.Parallel()
	c := NewClient(serve(t, 4, 0))
	t.Cleanup(c.Close)
	for i, want := range []int{1, 1, 0} {
		if near, kept := keepOne(t, c, uint64(i), ""); kept != want || closed(t, near) != (want == 0) {
			t.Errorf("session %d: kept %d, want %d", i, kept, want)
		}
	}
	if err := c.Forget([]uint64{0}); err != nil {
		t.Fatal(err)
	}
	if _, kept := keepOne(t, c, 9, ""); kept != 1 {
		t.Error("there is no room after one was forgotten")
	}
}

// What nobody takes is closed, and so is what was taken too often.
func TestPatience(t *testing.T) {
	t.Parallel()
	c := NewClient(serve(t, 100, time.Millisecond))
	near, _ := keepOne(t, c, 1, "")
	c.Close()
	testkit.Eventually(t, "what nobody takes is closed", func() bool { return closed(t, near) })

	path := serve(t, 100, time.Hour)
	c = NewClient(path)
	near, _ = keepOne(t, c, 1, "")
	c.Close()
	for i := range maxTakes {
		c := NewClient(path)
		if i == 0 {
			testkit.Eventually(t, "it was left", func() bool {
				list := takeAll(t, c)
				for _, one := range list {
					closeAll([]int{one.Client, one.Backend})
				}
				return len(list) == 1
			})
		} else {
			for _, one := range takeAll(t, c) {
				closeAll([]int{one.Client, one.Backend})
			}
		}
		c.Close()
	}
	c = NewClient(path)
	defer c.Close()
	if list := takeAll(t, c); len(list) > 0 || !closed(t, near) {
		t.Errorf("it is given after %d processes have died of it", maxTakes)
	}
}

// A server that is not there, or goes, is an error; the next call tries again.
func TestNoServer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	c := NewClient(path)
	defer c.Close()
	if _, err := c.Keep(nil); err == nil {
		t.Error("no error without a server")
	}
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	if _, err := c.Keep(nil); err == nil {
		t.Error("no error from a server that hangs up")
	}
	_ = ln.Close()
}

func FuzzDecode(f *testing.F) {
	f.Add(appendEntry(appendEntry(nil, 1, []byte("a")), 2, nil))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := range 4 {
			if list, err := decodeEntries(b, make([]int, 2*n)); err == nil {
				var again []byte
				for _, one := range list {
					again = appendEntry(again, one.ID, one.State)
				}
				if string(again) != string(b) {
					t.Errorf("%q was read, %q is written", b, again)
				}
			}
		}
		if ids, err := decodeIDs(b); err == nil && string(appendIDs(nil, ids)) != string(b) {
			t.Errorf("numbers: %q", b)
		}
	})
}
