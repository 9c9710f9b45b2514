//go:build !linux

package engine

import "net"

// unsentBytes cannot be told on this system.
func unsentBytes(*net.TCPConn) (n int, known bool) { return 0, false }

// boundQueue does nothing: this system's own bound has to do.
func boundQueue(*net.TCPConn) {}
