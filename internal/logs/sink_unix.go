//go:build unix

package logs

import (
	"fmt"
	"os"
	"syscall"
)

// withoutWaiting opens a FIFO without waiting for its reader, and a terminal
// without making it ours.
const withoutWaiting = syscall.O_NONBLOCK | syscall.O_NOCTTY

// noReader is how opening a FIFO without a reader fails.
const noReader = syscall.ENXIO

// isJournal tells whether the journal of systemd reads a stream (systemd.exec(5),
// $JOURNAL_STREAM).
func isJournal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", is.Dev, is.Ino)
}
