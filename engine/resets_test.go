package engine_test

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// A host that resets its clients before the first byte of an answer is counted
// for it, and suspect once three in a row from three addresses have met that. One
// client's garbage is not enough, and an answer or a proper end ends the row.
func TestResetsBeforeTheFirstByteMakeAHostSuspect(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127.0.0.0/8")
	}
	eachMode(t, func(t *testing.T, opt setup) {
		// As PostgreSQL does with what it does not understand.
		r := newRig(t, opt, engine.Route{Tries: 1}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
			var word [4]byte
			if _, err := p.Read(word[:]); err != nil {
				return
			}
			switch string(word[:]) {
			case "good":
				p.Send([]byte("answer"))
			case "late": // it resets, but has answered
				p.Send([]byte("answer"))
				p.Expect([]byte("?"))
				p.Rst()
			case "quit":
			default:
				p.Rst()
			}
		}))
		visit := func(from, word string) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: testkit.Patience}
			conn, err := d.Dial("tcp", r.Addr)
			if err != nil {
				t.Fatal(err)
			}
			c := &enginetest.Peer{T: t, Conn: conn}
			c.Send([]byte(word))
			if word == "late" {
				c.Expect([]byte("answer"))
				c.Send([]byte("?"))
			}
			_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
			for err == nil {
				_, err = c.Read(make([]byte, 100))
			}
			if reset := errors.Is(err, syscall.ECONNRESET); reset != (word == "junk" || word == "late") {
				t.Errorf("%s from %s ends with %v", word, from, err)
			}
			_ = c.Close()
			r.Quiet()
		}
		for i, test := range []struct {
			visits  string
			suspect bool
		}{
			{"1junk 1junk 1junk 1junk 1junk", false},
			{"2junk 3good", false},
			{"1junk 2junk 1quit 3junk", false},
			{"1good 1junk 2junk 3late 4junk", false},
			{"1good 1junk 2junk 2junk 3junk", true},
			{"1junk 2junk", false},
		} {
			for _, v := range strings.Fields(test.visits) {
				visit("127.0.0."+v[:1], v[1:])
			}
			select {
			case f := <-r.E.Failures():
				if !f.Suspect || f.Host != r.Hosts[0] || !test.suspect {
					t.Errorf("after %d: reported %+v", i, f)
				}
			default:
				if test.suspect {
					t.Errorf("after %d: no report", i)
				}
			}
		}
		if s := r.Hosts[0].Stats(); s.EarlyResets != 5+1+3+3+4+2 || s.Failures != 0 || !s.Up {
			t.Errorf("counted %+v", s)
		}
	})
}

// A session does not wait for what nobody can acknowledge any more: a client that has
// closed, as those of TLS do, is sent a last message, and then its host resets, before or
// after the client's system has answered that message by a reset.
func TestResetBehindAnEndLeavesNothing(t *testing.T) {
	eachModeAtOnce(t, func(t *testing.T, opt setup) {
		for _, waits := range []bool{true, false} {
			sent, closed := make(chan struct{}), make(chan struct{})
			r := newRig(t, opt, engine.Route{}, enginetest.BackendServer(t, func(p *enginetest.Peer) {
				p.Expect([]byte("?"))
				p.Send([]byte("!"))
				p.ExpectEOF()
				<-closed
				p.Send([]byte("bye"))
				if waits {
					<-sent
				}
				p.Rst()
			}))
			c := r.Dial()
			c.Send([]byte("?"))
			c.Expect([]byte("!"))
			_ = c.Close()
			clock := testkit.NewClock(t)
			began := clock.Now()
			close(closed)
			if waits {
				testkit.Eventually(t, "the last message is passed on", func() bool { return r.Stats().Out == 4 })
			}
			close(sent)
			r.Quiet()
			if took := clock.Since(began); took > core.MaxLinger/2 {
				t.Errorf("waits for the message: %v; the session ended %v after its client", waits, took)
			}
		}
	})
}
