//go:build !linux

package core

import (
	"fmt"
	"os"

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

// fits: the options of inherited sockets are those of Linux.
func fits(*os.File, ListenAddr, engine.ListenOptions) error { return nil }

// EndListening does nothing: closing has to do.
func EndListening(*os.File) {}

// QueueOptionsOf returns none, which this system does not have.
func QueueOptionsOf(*os.File) engine.ListenOptions { return engine.ListenOptions{} }

// TCPInfo knows nothing of a socket.
func TCPInfo(int) engine.TCPInfo { return engine.TCPInfo{} }
