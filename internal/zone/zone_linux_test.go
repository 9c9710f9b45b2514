package zone

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestZones(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		s, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(s) }()
	for _, c := range []struct {
		zone string
		want int
	}{{"lo", lo.Index}, {strconv.Itoa(lo.Index), lo.Index}, {"4711", 4711}, {"none", 0}, {"", 0}, {"0", 0}, {"a-name-that-is-too-long", 0}} {
		n, err := Index(c.zone)
		if n != c.want || (err == nil) != (c.want != 0) || err != nil && !errors.Is(err, syscall.ENODEV) {
			t.Errorf("Index(%q): %d, %v", c.zone, n, err)
		}
		by, errno := IndexBy(s, c.zone)
		if int(by) != c.want || (errno == 0) != (c.want != 0) || errno != 0 && errno != syscall.ENODEV {
			t.Errorf("IndexBy(%q): %d, %v", c.zone, by, errno)
		}
	}
	for in, want := range map[string]string{
		"[fe80::1%lo]:80": "[fe80::1%" + strconv.Itoa(lo.Index) + "]:80", "[fe80::1]:80": "[fe80::1]:80", "1.2.3.4:5": "1.2.3.4:5",
	} {
		if got, err := Numbered(netip.MustParseAddrPort(in)); err != nil || got.String() != want {
			t.Errorf("Numbered(%s): %v, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{"fe80::1%" + strconv.Itoa(lo.Index): "fe80::1%lo", "fe80::1%lo": "fe80::1%lo", "::1": "::1", "": "", "host": "host"} {
		if got := Named(in); got != want {
			t.Errorf("Named(%s): %s", in, got)
		}
	}
	if _, err := Numbered(netip.MustParseAddrPort("[fe80::1%none]:80")); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("Numbered: %v", err)
	}
}
