//go:build unix

package engine_test

import (
	"syscall"
	"testing"
	"time"
)

// sendUrgent sends a byte as an urgent one. It returns EAGAIN while there is no room.
func sendUrgent(fd uintptr, b byte) error {
	_, err := syscall.SendmsgN(int(fd), []byte{b}, nil, nil, syscall.MSG_OOB)
	return err
}

// cpuTime returns the processor time of this process.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
