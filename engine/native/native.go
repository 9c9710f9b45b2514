// Package native makes the engine for the system: event loops on Linux, and the
// portable engine elsewhere or with the build tag portable.
//
// Compatibility: this package may change in a minor version; package txlb does not.
package native

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/connect"
)

// CheckListen tells what an engine would say of an address to listen on, but for its port,
// which may be in use. It listens there for a moment, on a free port.
func CheckListen(listen string, o engine.ListenOptions) error { return checkListen(listen, o) }

// CheckSource tells what keeps connections to a host from coming from an address of this
// machine, or from those of clients, or from going out by an interface; "" is none. A
// process with other rights may get another answer.
func CheckSource(address string, client bool, device string) error {
	if client {
		if err := connect.CanUseClients(); err != nil {
			return err
		}
	}
	if device != "" {
		if err := connect.CanUseInterfaces(); err != nil {
			return err
		}
		if _, err := net.InterfaceByName(device); err != nil {
			return fmt.Errorf("this machine has no interface %q", device)
		}
	}
	if client || address == "" {
		return nil
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err == nil {
		return ln.Close()
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("no interface of this machine has the source address %s", address)
	}
	return fmt.Errorf("source %s: %w", address, err)
}

// New returns an engine that serves nothing yet.
func New(opt engine.Options) (engine.Engine, error) { return newEngine(opt) }
