//go:build !linux

package conns

import (
	"net"
	"time"
)

// unsentBytes cannot be known on this system.
func unsentBytes(*net.TCPConn) (n int, known bool) { return 0, false }

// setUnacked does nothing: this is for Linux.
func setUnacked(*net.TCPConn, time.Duration) {}

// boundQueue does nothing: the system's own bound applies.
func boundQueue(*net.TCPConn) {}

// quickAck does nothing: the system decides.
func quickAck(*net.TCPConn) {}
