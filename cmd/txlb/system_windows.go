package main

import (
	"errors"
	"os"
)

// raiseFiles: this system has no such limit.
func raiseFiles() (uint64, error) {
	return 0, errors.New("this system has no limit of open files")
}

// ignoreBrokenPipes: this system has no signal for them.
func ignoreBrokenPipes() {}

// reopenSignals: this system has none.
func reopenSignals() []os.Signal { return nil }

func upgradeSignals() []os.Signal { return nil }

func isReload(os.Signal) bool { return false }

func resizeSignals() []os.Signal { return nil }

// writable is not known here before it is tried.
func writable(string) error { return nil }
