//go:build linux

package loops

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/engine/internal/enginetest"
)

// Where the system paces, connections to and from this machine do not, until
// they are told to; what a listener hands down is set on what it accepts.
func TestLoopbackIsNotPaced(t *testing.T) {
	if pacing() == "" {
		t.Log("the system's congestion control does not pace: only the calls are tried")
	}
	control := func(fd int32) string {
		name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimRight(name, "\x00")
	}
	ln := enginetest.ListenLoopback(t)
	defer func() { _ = ln.Close() }()
	addr := enginetest.AddrOf(t, ln.Addr())
	fd, _ := connectTo(addr, netip.Addr{}, true)
	defer closeFD(fd)
	if got := control(fd); got != "reno" {
		t.Errorf("a connection to the loopback interface has %q", got)
	}
	asIs, _ := connectTo(addr, netip.Addr{}, false)
	defer closeFD(asIs)
	system, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = system.Close() }()
	raw, _ := system.(*net.TCPConn).SyscallConn()
	_ = raw.Control(func(other uintptr) {
		want := control(int32(other))
		if got := control(asIs); got != want {
			t.Errorf("a connection that is to be paced has %q, the system's is %q", got, want)
		}
		congestion(fd, want)
		if got := control(fd); got != want {
			t.Errorf("paced again, the connection has %q, the system's is %q", got, want)
		}
	})
	for listen, want := range map[string]bool{"127.0.0.1:0": true, "[::1]:0": true, "0.0.0.0:0": false, "*:0": false} {
		l, err := openListener(core.ListenKey{Listen: listen}, listening{}, 1, 16, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := onLoopback(int(l.fds[0])); got != want {
			t.Errorf("%s: on the loopback interface: %v", listen, got)
		}
		if want && pacing() != "" && control(l.fds[0]) != "reno" {
			t.Errorf("%s: the listener hands %q down", listen, control(l.fds[0]))
		}
		l.close()
	}
}
