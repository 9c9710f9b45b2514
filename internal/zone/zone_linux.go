package zone

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// IndexBy is Index for who has a socket, of any kind: one call that does not wait.
// The errno is ENODEV if there is no such interface.
func IndexBy(fd int, zone string) (uint32, syscall.Errno) {
	if request, err := unix.NewIfreq(zone); err == nil && unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request) == nil {
		return request.Uint32(), 0
	}
	if n, ok := number(zone); ok {
		return uint32(n), 0
	}
	return 0, syscall.ENODEV
}
