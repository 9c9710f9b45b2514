//go:build unix

package status

import "golang.org/x/sys/unix"

// processCPU returns the processor time that the process has used.
func processCPU() (seconds float64, ok bool) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, true
}
