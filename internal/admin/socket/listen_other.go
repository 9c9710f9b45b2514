//go:build !unix

package socket

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"

	"github.com/txlb/txlb/internal/admin/users"
)

// Listen fails: on this system the mode of a socket protects nothing.
func Listen(string, fs.FileMode, string) (net.Listener, error) {
	return nil, fmt.Errorf("not on %s, where a socket has no mode; leave <socket> out", runtime.GOOS)
}

// Inherit fails: no other process can have listened.
func Inherit(path string, _ *os.File) (net.Listener, error) { return Listen(path, 0, "") }

// CheckGroup has nothing to check: there are no sockets with a group.
func CheckGroup(string) error { return nil }

func callerOf(net.Conn) users.Caller {
	return users.Caller{Name: "socket", From: "socket", Role: users.Full}
}
