//go:build linux

package loops

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/uring"
)

// The ring makes the sends of any batch, tells each its answer, and has nothing
// in flight afterwards.
func TestRingSends(t *testing.T) {
	eachRing(t, testRingSends)
}

// eachRing runs a test with the ring of this kernel, and with that of older ones.
func eachRing(t *testing.T, test func(t *testing.T, r ring)) {
	for name, old := range map[string]bool{"new": false, "old": true} {
		t.Run(name, func(t *testing.T) {
			r, err := uring.New(old)
			if err != nil {
				t.Skipf("this system has no ring to give: %v", err)
			}
			defer r.Close()
			test(t, ring{r})
		})
	}
}

func testRingSends(t *testing.T, r ring) {
	pair := func() (near, far int32) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) })
		return int32(fds[0]), int32(fds[1])
	}
	full, _ := pair()
	for errno := unix.Errno(0); errno == 0; {
		_, errno = send(full, make([]byte, 64<<10), false)
	}
	gone, goneFar := pair()
	if err := unix.Shutdown(int(goneFar), unix.SHUT_RD); err != nil {
		t.Fatal(err)
	}
	small, _ := pair()
	if errno := setInt(small, unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); errno != 0 {
		t.Fatal(errno)
	}
	for _, size := range []int{1, 3, uring.Size, uring.Size + 1, 3*uring.Size + 7} {
		batch := make([]sendOp, size)
		far := make([]int32, size)
		want := make([][]byte, size)
		for i := range batch {
			want[i] = bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1+i%50)
			batch[i] = sendOp{p: want[i]}
			switch i % 7 {
			case 2:
				batch[i].fd = full
			case 4:
				batch[i].fd = gone
			case 6:
				batch[i].fd, batch[i].p = -1, []byte("x")
			default:
				batch[i].fd, far[i] = pair()
			}
		}
		if n := r.send(batch); n != size {
			t.Fatalf("%d of %d sends were made", n, size)
		}
		if r.Late() {
			t.Fatal("an answer came late")
		}
		for i, op := range batch {
			switch i % 7 {
			case 2:
				if op.n != 0 || op.errno != unix.EAGAIN {
					t.Errorf("send %d to a full socket: %d, %v", i, op.n, op.errno)
				}
			case 4:
				if op.n != 0 || op.errno != unix.EPIPE {
					t.Errorf("send %d to a socket that is gone: %d, %v", i, op.n, op.errno)
				}
			case 6:
				if op.n != 0 || op.errno != unix.EBADF {
					t.Errorf("send %d to no socket: %d, %v", i, op.n, op.errno)
				}
			default:
				got := make([]byte, 200)
				n, errno := recv(far[i], got)
				if op.n != len(op.p) || op.errno != 0 || errno != 0 || !bytes.Equal(got[:n], want[i]) {
					t.Fatalf("send %d: %d, %v; %d bytes came, %v", i, op.n, op.errno, n, errno)
				}
			}
		}
	}
	// A short write is short, not late.
	batch := []sendOp{{fd: small, p: make([]byte, 1<<20)}}
	if n := r.send(batch); n != 1 || r.Late() || batch[0].errno == 0 && batch[0].n == 1<<20 {
		t.Errorf("a short write: made %d, %+v, late %v", n, batch[0].n, r.Late())
	}
}

// The engine's tests make every send through the ring; this one tells whether
// there was one.
func TestEngineHasARing(t *testing.T) {
	r, err := uring.New(false)
	if err != nil {
		t.Skipf("this system has no ring to give: %v", err)
	}
	r.Close()
	e, err := New(engine.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	if has := e.Snapshot().Facilities[0]; has != (engine.Facility{Name: engine.IOUring, On: true}) {
		t.Errorf("the engine has no ring: %+v", has)
	}
}
