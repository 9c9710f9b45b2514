//go:build !portable

package engine

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/sched"
)

// resetter accepts and resets at once, as a process does that dies with
// connections in its queue.
func resetter(t *testing.T, count *atomic.Int64) sched.Addr {
	return backendServer(t, func(p *peer) {
		count.Add(1)
		p.rst()
	})
}

// A backend that resets the connection before a byte has moved costs the client
// nothing: it gets another host, with every byte it sent, and its end.
func TestB22ResetBeforeTheFirstByteFailsOver(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		var resets atomic.Int64
		request := payload(200<<10, 22)
		r := newRig(t, opt, Route{}, resetter(t, &resets), resetter(t, &resets), backendServer(t, func(p *peer) {
			p.expect(request)
			p.expectEOF()
			p.send([]byte("thanks"))
		}))
		sessions := 0
		for ; sessions < 30 || sessions < 3000 && r.stats().ConnectFailures["dropped"] == 0; sessions++ {
			r.hosts[0].MarkUp()
			r.hosts[1].MarkUp()
			c := r.dial()
			// What is sent to a host before it resets is lost with it, and so
			// is the right to another: send when the resets have been.
			eventually(t, "the session is with the last host", func() bool { return r.hosts[2].Stats().Active == 1 })
			var wg sync.WaitGroup
			wg.Go(func() { c.send(request); c.fin() })
			c.expect([]byte("thanks"))
			c.expectEOF()
			wg.Wait()
			_ = c.Close()
			r.quiet()
		}
		s := r.stats()
		if s.Ended["--"] != uint64(sessions) || s.ConnectFailures["dropped"] == 0 || resets.Load() == 0 || s.ConnectFailures["dropped"]+s.ConnectFailures["refused"] != uint64(resets.Load()) {
			t.Errorf("%d resets, counted %+v", resets.Load(), s)
		}
	})
}

// A host that resets while bytes are on the way to it loses them, but no
// session ever hangs: the client is served by the next host or gets a reset.
func TestResetWhileTheRequestIsOnTheWay(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		var resets atomic.Int64
		request := payload(200<<10, 23)
		r := newRig(t, opt, Route{}, resetter(t, &resets), resetter(t, &resets), backendServer(t, func(p *peer) {
			p.expect(request)
			p.expectEOF()
			p.send([]byte("thanks"))
		}))
		for range 100 {
			c := r.dial()
			_, _ = c.Write(request)
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if got, err := io.ReadAll(c); string(got) != "thanks" && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("got %q, %v", got, err)
			}
			_ = c.Close()
			r.quiet()
		}
	})
}

// With no other host the client gets the reset.
func TestB18ResetBeforeTheFirstByteWithNoOtherHost(t *testing.T) {
	eachMode(t, func(t *testing.T, opt Options) {
		var resets atomic.Int64
		r := newRig(t, opt, Route{}, resetter(t, &resets))
		// A reset that is quicker than the loop looks like a refused connect,
		// and the client gets a clean end.
		eventually(t, "a reset comes after the connect", func() bool {
			r.hosts[0].MarkUp()
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				return errors.Is(err, syscall.ECONNRESET) && r.stats().Ended["SD"] > 0
			}
			defer func() { _ = c.Close() }()
			_, err = c.Read(make([]byte, 1))
			return errors.Is(err, syscall.ECONNRESET) && r.stats().Ended["SD"] > 0
		})
	})
}
