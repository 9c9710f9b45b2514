//go:build linux

package loops

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/uring"
)

// tidyKernels are the ways in which the end of a turn is done.
func tidyKernels(t *testing.T, test func(t *testing.T, k linux)) {
	with := func(t *testing.T, r ring) {
		p, err := newPoller()
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		test(t, linux{poller: p, ring: r, ringFrom: 1})
	}
	t.Run("plain", func(t *testing.T) { with(t, ring{}) })
	eachRing(t, with)
}

// The end of a turn watches sockets, says which it could not watch, and closes
// descriptors, however many there are.
func TestTidy(t *testing.T) {
	tidyKernels(t, func(t *testing.T, k linux) {
		for _, n := range []int{1, 3, uring.Size - 1, uring.Size + 1} {
			near, far := make([]int32, n), make([]int32, n)
			watches := make([]watchOp, n)
			for i := range near {
				fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = unix.Close(fds[1]) }()
				near[i], far[i] = int32(fds[0]), int32(fds[1])
				watches[i] = watchOp{fd: near[i], event: unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}}
			}
			_, _ = unix.Write(int(far[n-1]), []byte("x")) // what came before is reported too
			twice := append(slices.Clone(watches), watches[0], watchOp{fd: -1})
			k.tidy(twice, nil)
			for i, w := range twice {
				want := map[int]unix.Errno{n: unix.EEXIST, n + 1: unix.EBADF}[i]
				if w.errno != want {
					t.Errorf("watch %d of %d: %v, want %v", i, n, w.errno, want)
				}
			}
			if events := k.ready(); len(events) != 1 || int(events[0].Fd) != n-1 {
				t.Errorf("of %d sockets, one with bytes: events %v", n, events)
			}
			// Half of the operations are watches, so that both kinds are in one call.
			for i := range watches {
				k.poller.remove(near[i])
			}
			k.tidy(watches, append([]int32{-1}, near...))
			for i, fd := range far {
				var b [1]byte
				if got, errno := recv(fd, b[:]); got != 0 || errno != 0 && errno != unix.ECONNRESET {
					t.Fatalf("socket %d of %d is open: %d, %v", i, n, got, errno)
				}
				if watches[i].errno != 0 {
					t.Errorf("watch %d of %d beside closes: %v", i, n, watches[i].errno)
				}
			}
			if events := k.ready(); len(events) != 0 {
				t.Errorf("closed sockets have events: %v", events)
			}
		}
		if k.ring.Ring != nil && k.ring.Late() {
			t.Error("an operation was late")
		}
	})
}

// BenchmarkTidy is what it takes to watch and to close a socket, in CPU time of the
// thread: the median, because other programs disturb it.
func BenchmarkTidy(b *testing.B) {
	for _, n := range []int{2, 8, 32} {
		for name, from := range map[string]int{"ring": 1, "plain": uring.Size} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				p, err := newPoller()
				if err != nil {
					b.Fatal(err)
				}
				defer p.close()
				r, err := uring.New(false)
				if err != nil {
					b.Skip(err)
				}
				defer r.Close()
				k := linux{poller: p, ring: ring{r}, ringFrom: from}
				var took []int64
				for b.Loop() {
					fds, watches := make([]int32, n), make([]watchOp, n)
					for i := range fds {
						fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
						if err != nil {
							b.Fatal(err)
						}
						fds[i] = int32(fd)
						watches[i] = watchOp{fd: fds[i], event: unix.EpollEvent{Events: sessionEvents}}
					}
					start := threadTime()
					k.tidy(watches, fds)
					took = append(took, threadTime()-start)
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/float64(n), "cpu-ns/socket")
			})
		}
	}
}

// threadTime returns the CPU time of this thread in ns.
func threadTime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano()
}
