package engine_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/sched"
)

// RC, of which TestB93EveryTerminationIsLogged knows, needs a machine without local ports.
func TestB93TerminationRCIsLogged(t *testing.T) {
	if !sandbox.Network(t) {
		return
	}
	from := 20000 // of our own clients, outside of the kernel's range
	eachMode(t, func(t *testing.T, opt setup) {
		sandbox.LocalPorts(t, 50000, 60000)
		host := stays(t)
		provoked{
			hosts: []sched.Addr{host},
			dial: func(r *enginetest.Rig) *enginetest.Peer {
				sandbox.LocalPorts(t, 50000, 50001)
				useUp(t, host.String())
				from++
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: from}}
				c, err := d.Dial("tcp", r.Addr)
				if err != nil {
					t.Fatal(err)
				}
				return &enginetest.Peer{T: t, Conn: c}
			},
			does: func(_ *enginetest.Rig, c *enginetest.Peer) { c.ExpectGone() },
		}.provoke(t, opt, "RC", "tcplog")
	})
}

// useUp takes all local ports for connections to an address.
func useUp(t *testing.T, addr string) {
	t.Helper()
	for range 10 {
		c, err := net.Dial("tcp", addr)
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatalf("there are more local ports for %s than two", addr)
}
