package engine_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// localPorts sets which ports connect(2) may choose from, in the network of the test.
func localPorts(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(from+" "+to), 0o644); err != nil {
		t.Fatal(err)
	}
}

// usePorts connects to an address until no local port is left for that. Other addresses may still be
// connected to from the same ports.
func usePorts(t *testing.T, to string) (list []net.Conn) {
	t.Helper()
	for {
		c, err := net.DialTimeout("tcp", to, testkit.Patience)
		if errors.Is(err, syscall.EADDRNOTAVAIL) && len(list) > 0 {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
		if err := c.(*net.TCPConn).SetLinger(0); err != nil { // its port is free again at once
			t.Error(err)
		}
	}
}

// While there is no local port to reach a mirror from, copies are lost and counted, and sessions go
// on. That is no trouble of the mirror: the next session is copied as soon as there is a port.
func TestB106MirrorWithoutAPort(t *testing.T) {
	if !sandbox.Network(t) {
		return
	}
	eachMode(t, func(t *testing.T, opt setup) {
		localPorts(t, "32768", "60999")
		m, share := mirrorTo(enginetest.BackendServer(t, (*enginetest.Peer).ExpectEnd))
		r := newRig(t, opt, engine.Route{Table: mirrored(t, []sched.MirrorShare{share}, enginetest.BackendServer(t, enginetest.Echo))})
		session := func() {
			c := r.Dial()
			for range 3 {
				c.Send([]byte("question"))
				c.Expect([]byte("question"))
			}
			c.Fin()
			c.ExpectEOF()
			_ = c.Close()
			r.Quiet()
		}
		localPorts(t, "20000", "20003")
		used := usePorts(t, m.Addr().String())
		session()
		session()
		if s := quiet(t, m); s.Sessions != 2 || s.Bytes != 0 || s.Lost["resource"] != 2 || s.LostAll() != 2 || m.Trouble() != nil {
			t.Errorf("without a port: %+v, in trouble: %+v", s, m.Trouble())
		}
		for _, c := range used {
			_ = c.Close()
		}
		session()
		if s := quiet(t, m); s.Sessions != 3 || s.Bytes != 3*uint64(len("question")) || s.LostAll() != 2 {
			t.Errorf("with a port: %+v", s)
		}
	})
}
