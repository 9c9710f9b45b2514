//go:build unix

package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// raiseFiles raises the soft limit of open files to the hard one and returns it.
func raiseFiles() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	if l.Cur < l.Max {
		raised := l
		raised.Cur = l.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err == nil {
			l = raised
		}
	}
	return uint64(l.Cur), nil
}

// ignoreBrokenPipes makes writes to a pipe without a reader fail with EPIPE instead
// of ending the process.
func ignoreBrokenPipes() { signal.Ignore(unix.SIGPIPE) }

// reopenSignals are the signals that reopen the log.
func reopenSignals() []os.Signal { return []os.Signal{unix.SIGUSR1, unix.SIGHUP} }

// upgradeSignals are the signals that ask for an upgrade.
func upgradeSignals() []os.Signal { return []os.Signal{unix.SIGUSR2} }

// isReload tells whether a signal also reloads the configuration.
func isReload(s os.Signal) bool { return s == unix.SIGHUP }

// resizeSignals are sent when a terminal changes its size.
func resizeSignals() []os.Signal { return []os.Signal{unix.SIGWINCH} }

// writable tells why this process cannot write to a file, or create files in a
// folder; nil: it can.
func writable(path string) error { return unix.Access(path, unix.W_OK) }
