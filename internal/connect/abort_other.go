//go:build !unix

package connect

import "syscall"

// abort does nothing here: see that for UNIX.
func abort(_, _ string, _ syscall.RawConn) error { return nil }
