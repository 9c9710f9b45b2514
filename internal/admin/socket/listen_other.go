//go:build !unix

package socket

import (
	"fmt"
	"io/fs"
	"net"
	"runtime"

	"github.com/txlb/txlb/internal/admin"
)

// Listen is not there: the mode of a socket protects nothing on this system.
func Listen(path string, _ fs.FileMode, _ string) (net.Listener, error) {
	return nil, fmt.Errorf("admin socket %s: not on %s, where a socket has no mode; leave <socket> out", path, runtime.GOOS)
}

func callerOf(net.Conn) admin.Caller {
	return admin.Caller{Name: "socket", From: "socket", Role: admin.Full}
}

// processCPU is not known here.
func processCPU() (seconds float64, ok bool) { return 0, false }
