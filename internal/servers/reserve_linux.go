package servers

import (
	"fmt"
	"syscall"
)

const descriptorsOfBlock = 1

// reserve takes a block of ports for this process, until it ends. Whoever binds the
// name first has the block: an abstract UNIX socket, which belongs to the network that
// the ports belong to.
func reserve(block int) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@txlb-test-ports-%d", block)}); err != nil {
		_ = syscall.Close(fd)
		return false
	}
	return true
}
