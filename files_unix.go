//go:build unix

package txlb

import "golang.org/x/sys/unix"

// openFiles returns the limit of open files, 0 if it is not known.
func openFiles() uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return uint64(l.Cur)
}
