//go:build !unix

package connect

import "syscall"

// answered is for systems with poll(2): elsewhere the answer is left to the dialer.
func answered(syscall.RawConn) bool { return false }
