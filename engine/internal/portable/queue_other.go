//go:build !linux

package portable

import (
	"net"
	"time"
)

// unsentBytes cannot be told on this system.
func unsentBytes(*net.TCPConn) (n int, known bool) { return 0, false }

// setUnacked does nothing: this is for Linux.
func setUnacked(*net.TCPConn, time.Duration) {}

// boundQueue does nothing: this system's own bound has to do.
func boundQueue(*net.TCPConn) {}
