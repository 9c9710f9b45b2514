//go:build !linux

package core

import (
	"fmt"

	"github.com/txlb/txlb/engine"
)

// BindOptions is for Linux.
func BindOptions(_ int, o engine.ListenOptions) error {
	if o.FreeBind {
		return onlyLinux("freeBind")
	}
	if o.Interface != "" {
		return onlyLinux("interface")
	}
	return nil
}

// QueueOptions is for Linux.
func QueueOptions(_ int, before, o engine.ListenOptions, _ int) error {
	if o.DeferAccept && !before.DeferAccept {
		return onlyLinux("deferAccept")
	}
	if o.FastOpen && !before.FastOpen {
		return onlyLinux("fastOpen")
	}
	return nil
}

// CanMultipath is for Linux.
func CanMultipath() error { return onlyLinux("mptcp") }

func onlyLinux(what string) error {
	return fmt.Errorf("%s needs Linux; leave it out on this system", what)
}
