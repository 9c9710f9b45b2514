package engine

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A host that resets its clients before the first byte of an answer is counted
// for it, and suspect once three in a row from three addresses have met that. One
// client's garbage is not enough, and an answer or a proper end ends the row.
func TestResetsBeforeTheFirstByteMakeAHostSuspect(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127.0.0.0/8")
	}
	eachMode(t, func(t *testing.T, opt Options) {
		// As PostgreSQL does with what it does not understand.
		r := newRig(t, opt, Route{Tries: 1}, backendServer(t, func(p *peer) {
			var word [4]byte
			if _, err := p.Read(word[:]); err != nil {
				return
			}
			switch string(word[:]) {
			case "good":
				p.send([]byte("answer"))
			case "late": // it resets, but has answered
				p.send([]byte("answer"))
				p.expect([]byte("?"))
				p.rst()
			case "quit":
			default:
				p.rst()
			}
		}))
		visit := func(from, word string) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
			conn, err := d.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			c := &peer{t, conn}
			c.send([]byte(word))
			if word == "late" {
				c.expect([]byte("answer"))
				c.send([]byte("?"))
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			for err == nil {
				_, err = c.Read(make([]byte, 100))
			}
			if reset := errors.Is(err, syscall.ECONNRESET); reset != (word == "junk" || word == "late") {
				t.Errorf("%s from %s ends with %v", word, from, err)
			}
			_ = c.Close()
			r.quiet()
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
			case f := <-r.e.Failures():
				if !f.Suspect || f.Host != r.hosts[0] || !test.suspect {
					t.Errorf("after %d: reported %+v", i, f)
				}
			default:
				if test.suspect {
					t.Errorf("after %d: no report", i)
				}
			}
		}
		if s := r.hosts[0].Stats(); s.EarlyResets != 5+1+3+3+4+2 || s.Failures != 0 || !s.Up {
			t.Errorf("counted %+v", s)
		}
	})
}
