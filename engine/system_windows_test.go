package engine_test

import (
	"syscall"
	"testing"
	"time"
)

// sendUrgent sends a byte as an urgent one.
func sendUrgent(fd uintptr, b byte) error {
	const urgent = 1 // MSG_OOB
	var sent uint32
	return syscall.WSASend(syscall.Handle(fd), &syscall.WSABuf{Len: 1, Buf: &b}, 1, &sent, urgent, nil, nil)
}

// cpuTime returns the processor time of this process.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	self, err := syscall.GetCurrentProcess()
	if err != nil {
		t.Fatal(err)
	}
	var began, ended, kernel, user syscall.Filetime
	if err := syscall.GetProcessTimes(self, &began, &ended, &kernel, &user); err != nil {
		t.Fatal(err)
	}
	span := func(f syscall.Filetime) time.Duration { // in units of 100 ns
		return 100 * time.Duration(int64(f.HighDateTime)<<32|int64(f.LowDateTime))
	}
	return span(kernel) + span(user)
}
