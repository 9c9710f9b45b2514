package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lockPlace locks a file, which it makes if there is none, until that is closed or the process
// ends. The error is an *occupiedError if another process has it.
func lockPlace(path string) (_ *os.File, where place, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, where, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		text := make([]byte, 20)
		n, _ := f.ReadAt(text, 0)
		pid, _ := strconv.Atoi(string(bytes.TrimSpace(text[:n])))
		return nil, where, &occupiedError{pid}
	} else if err != nil {
		return nil, where, fmt.Errorf("lock %s: %w", path, err)
	}
	var is unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &is); err != nil {
		return nil, where, fmt.Errorf("stat %s: %w", path, err)
	}
	boot, err := bootTime()
	if err != nil {
		return nil, where, err
	}
	if f.Truncate(0) == nil { // for people, and for the error above
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, place{fmt.Sprintf("%x:%d", is.Dev, is.Ino), boot}, nil
}

// bootTime is when the machine was booted. Only a step of its clock changes it. The boot id of
// /proc would be exact, but a service may not see it (ProcSubset=pid).
func bootTime() (time.Time, error) {
	var up, now unix.Timespec
	if err := errors.Join(unix.ClockGettime(unix.CLOCK_BOOTTIME, &up), unix.ClockGettime(unix.CLOCK_REALTIME, &now)); err != nil {
		return time.Time{}, err
	}
	return time.Unix(0, now.Nano()-up.Nano()), nil
}
