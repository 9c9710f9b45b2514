package engine_test

import (
	"fmt"
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/engine/internal/loops"
	"github.com/txlb/txlb/sched"
)

// carriers are who may carry a session on Linux.
var carriers = []string{"loop", "goroutines"}

// carriedBy starts a service whose sessions are carried so.
func carriedBy(b *testing.B, carrier string, host sched.Addr) (e engine.Engine, listens string) {
	e, err := loops.New(engine.Options{Loops: 2})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	table, err := sched.NewTable(sched.Policy{}, []sched.Member{{Host: sched.NewHost("a", host), Weight: 1}})
	if err != nil {
		b.Fatal(err)
	}
	route := &engine.Route{Table: table, Timeouts: enginetest.TestTimeouts, Goroutines: carrier == "goroutines"}
	if err := e.Apply(engine.Plan{Services: []engine.Service{{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: route}}}); err != nil {
		b.Fatal(err)
	}
	return e, e.Listeners()[0].Addr
}

// BenchmarkShortSession is a connection with one message and its answer. Client and host
// are in it, and the same for both carriers: the difference is theirs.
func BenchmarkShortSession(b *testing.B) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 64)
			if n, err := c.Read(buf); err == nil {
				_, _ = c.Write(buf[:n])
			}
			_ = c.Close()
		}
	}()
	host, err := sched.ParseAddr(ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	for _, carrier := range carriers {
		b.Run(carrier, func(b *testing.B) {
			b.ReportAllocs()
			_, addr := carriedBy(b, carrier, host)
			buf := make([]byte, 64)
			for b.Loop() {
				c, err := net.Dial("tcp4", addr)
				if err != nil {
					b.Fatal(err)
				}
				if _, err = c.Write([]byte("hello")); err == nil {
					_, err = c.Read(buf)
				}
				if err != nil {
					b.Fatal(err)
				}
				_ = c.Close()
			}
		})
	}
}

// BenchmarkIdleSession tells what memory a session takes that moves nothing, with one
// message behind it. Client and host take none: they are sockets without Go around them.
func BenchmarkIdleSession(b *testing.B) {
	const sessions = 2000
	raiseFiles(b, 5*sessions)
	for _, carrier := range carriers {
		b.Run(carrier, func(b *testing.B) {
			listens, host := rawListener(b)
			e, addr := carriedBy(b, carrier, host)
			to, err := net.ResolveTCPAddr("tcp4", addr)
			if err != nil {
				b.Fatal(err)
			}
			var fds []int
			defer func() {
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
			}()
			open := func() {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err == nil {
					fds = append(fds, fd)
					err = unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte{127, 0, 0, 1}})
				}
				if err == nil {
					_, err = unix.Write(fd, []byte("hello"))
				}
				if err != nil {
					b.Fatal(err)
				}
				other, _, err := unix.Accept4(listens, unix.SOCK_CLOEXEC)
				if err != nil {
					b.Fatal(err)
				}
				fds = append(fds, other)
				buf := make([]byte, 5)
				if _, err = unix.Read(other, buf); err == nil {
					_, err = unix.Write(other, buf)
				}
				if err == nil {
					_, err = unix.Read(fd, buf)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			for range 100 { // what is kept for the next sessions
				open()
			}
			before := memoryInUse()
			for range sessions {
				open()
			}
			b.ReportMetric(float64(memoryInUse()-before)/sessions, "B/session")
			if n := e.Snapshot().Services["web"].Active; n < sessions {
				b.Fatalf("%d sessions", n)
			}
		})
	}
}

// memoryInUse returns the bytes of Go's heap and stacks.
func memoryInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// rawListener returns a socket that listens, and where.
func rawListener(b *testing.B) (fd int, addr sched.Addr) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		b.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		b.Fatal(err)
	}
	if addr, err = sched.ParseAddr(fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)); err != nil {
		b.Fatal(err)
	}
	return fd, addr
}

// raiseFiles lets the process have n descriptors, or skips the benchmark.
func raiseFiles(b *testing.B, n uint64) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur < n {
		b.Skipf("needs %d descriptors", n)
	}
}
