//go:build !linux

package engine

import "net"

// unsentBytes cannot be told on this system.
func unsentBytes(*net.TCPConn) (n int, known bool) { return 0, false }
