package connect

import (
	"net/netip"
	"syscall"
	"testing"
)

func TestWhoseFault(t *testing.T) {
	for errno, want := range map[syscall.Errno][2]bool{ // shortage, ours
		syscall.EMFILE: {true, true}, syscall.ENFILE: {true, true}, syscall.ENOBUFS: {true, true}, syscall.ENOMEM: {true, true},
		syscall.EADDRNOTAVAIL: {false, true}, syscall.EADDRINUSE: {false, true}, syscall.EAGAIN: {false, true},
		syscall.EACCES: {}, syscall.EPERM: {}, syscall.EAFNOSUPPORT: {}, syscall.ECONNREFUSED: {}, syscall.ENOENT: {}, syscall.ETIMEDOUT: {}, syscall.EINVAL: {},
	} {
		if got := [2]bool{Shortage(errno), Ours(errno)}; got != want {
			t.Errorf("%v: shortage, ours: %v, want %v", errno, got, want)
		}
	}
}

func TestSelf(t *testing.T) {
	for _, c := range []struct {
		local, to string
		want      bool
	}{
		{"127.0.0.1:40000", "127.0.0.1:40000", true},
		{"127.0.0.1:40001", "127.0.0.1:40000", false},
		{"127.0.0.2:40000", "127.0.0.1:40000", false},
		{"[::1]:40000", "[::1]:40000", true},
		{"[fe80::1%2]:40000", "[fe80::1%eth0]:40000", true},
		{"127.0.0.1:40000", "0.0.0.0:40000", true},
		{"[::1]:40000", "[::]:40000", true},
		{"10.0.0.1:40000", "0.0.0.0:40000", false},
	} {
		if got := Self(netip.MustParseAddrPort(c.local), netip.MustParseAddrPort(c.to)); got != c.want {
			t.Errorf("Self(%s, %s) = %v", c.local, c.to, got)
		}
	}
	if Self(netip.AddrPort{}, netip.AddrPort{}) {
		t.Error("a UNIX socket was taken for a connection to itself")
	}
	if p := LocalPorts(); p.Low == 0 || p.High < p.Low || !p.Has(p.Low) || !p.Has(p.High) || p.Has(p.Low-1) {
		t.Errorf("ports %+v", p)
	}
}
