package engine_test

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// A backend that writes twice with Nagle's algorithm on, as many servers do,
// holds the second write back until the first is acknowledged. Its first bytes
// come as soon as over a direct connection: who gets them may not sit on the
// acknowledgement for the 40 ms of a delayed one.
func TestB69FirstAnswerOfTwoWrites(t *testing.T) {
	testkit.Long(t)
	const half = 100
	twice := func(p *enginetest.Peer) {
		p.Send(enginetest.Payload(half, 1))
		p.Send(enginetest.Payload(half, 2))
	}
	answers := func(p *enginetest.Peer) {
		for {
			if _, err := p.Read(make([]byte, 10)); err != nil {
				return
			}
			twice(p)
		}
	}
	hear := func(p *enginetest.Peer) {
		p.Expect(enginetest.Payload(half, 1))
		p.Expect(enginetest.Payload(half, 2))
	}
	ask := func(p *enginetest.Peer) { p.Send([]byte("?")) }
	for name, sc := range map[string]struct{ backend, client func(*enginetest.Peer) }{
		"the client speaks first": {answers, func(p *enginetest.Peer) { ask(p); hear(p) }},
		"the client speaks late": {answers, func(p *enginetest.Peer) {
			time.Sleep(10 * time.Millisecond) // the handshake is acknowledged by then
			ask(p)
			hear(p)
		}},
		"the server speaks first":           {func(p *enginetest.Peer) { twice(p); _, _ = p.Read(make([]byte, 1)) }, hear},
		"the server greets, then answers":   {func(p *enginetest.Peer) { twice(p); answers(p) }, func(p *enginetest.Peer) { hear(p); ask(p); hear(p) }},
		"the client asks over the greeting": {func(p *enginetest.Peer) { twice(p); answers(p) }, func(p *enginetest.Peer) { ask(p); hear(p); hear(p) }},
		"many in a row": {answers, func(p *enginetest.Peer) {
			ask(p)
			hear(p)
			ask(p)
			hear(p)
			ask(p)
			hear(p)
		}},
		"and ends": {func(p *enginetest.Peer) { p.Expect([]byte("?")); twice(p) }, func(p *enginetest.Peer) { ask(p); hear(p); p.ExpectEOF() }},
	} {
		t.Run(name, func(t *testing.T) {
			addr := enginetest.BackendServer(t, func(p *enginetest.Peer) {
				_ = p.Conn.(*net.TCPConn).SetNoDelay(false)
				sc.backend(p)
			})
			clock := testkit.NewClock(t)
			took := func(to string) time.Duration {
				start := clock.Now()
				c := enginetest.Dial(t, to)
				sc.client(c)
				d := clock.Since(start)
				_ = c.Close()
				return d
			}
			rigs := map[string]*enginetest.Rig{}
			for mode, opt := range modesToTest {
				if runtime.GOOS != "linux" && name == "the client asks over the greeting" {
					continue // acknowledgements are left to the system: what comes first decides
				}
				rigs[mode] = newRig(t, opt, engine.Route{}, addr)
			}
			// All in turn, so that a busy machine slows all. One good series suffices for
			// each: a delayed acknowledgement would delay it in all.
			testkit.BestOf(t, 5, func() (err error) {
				var direct []time.Duration
				through := map[string][]time.Duration{}
				for range 11 {
					direct = append(direct, took(addr.String()))
					for mode, r := range rigs {
						through[mode] = append(through[mode], took(r.Addr))
					}
				}
				for mode := range rigs {
					// A delayed acknowledgement takes 40 ms; the rest is for a busy machine.
					if d, th := median(direct), median(through[mode]); th > d+15*time.Millisecond {
						err = errors.Join(err, fmt.Errorf("%s: the median is %v, and %v over a direct connection", mode, th, d))
					} else {
						delete(rigs, mode)
					}
				}
				return err
			})
		})
	}
}
