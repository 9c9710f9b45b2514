package peers

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The connections of followers end when what they are told is not acknowledged for a while.
func TestUnackedEndsAConnection(t *testing.T) {
	ln, err := tcp{}.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	there, err := tcp{}.Dial(t.Context(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = there.Close() }()
	here, err := newDoor(ln).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	raw, err := here.(*guest).Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	is := 0
	var ierr error
	err = raw.Control(func(fd uintptr) { is, ierr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) })
	if err != nil || ierr != nil || is != int(unackedFor.Milliseconds()) {
		t.Errorf("%d ms, %v, %v", is, err, ierr)
	}
}
