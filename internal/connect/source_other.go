//go:build !linux

package connect

import (
	"errors"
	"syscall"
)

// prepare is for Linux.
func (s Source) prepare(int32) syscall.Errno {
	if s.Transparent {
		return NotTransparent
	}
	return syscall.EINVAL
}

// CanUseClients is for Linux.
func CanUseClients() error {
	return errors.New("source=\"client\" needs Linux; leave it out on this system")
}

// CanUseInterfaces is for Linux.
func CanUseInterfaces() error {
	return errors.New("interface needs Linux; leave it out on this system")
}

// noPort is for Linux: elsewhere bind(2) chooses the port.
func noPort(uintptr) {}
