// Package native makes the engine for the system: event loops on Linux, and the
// portable engine elsewhere or with the build tag portable.
package native

import "github.com/txlb/txlb/engine"

// CheckListen tells what an engine would say of an address to listen on, but for its port,
// which may be in use. It listens there for a moment, on a free port.
func CheckListen(listen string, o engine.ListenOptions) error { return checkListen(listen, o) }

// New returns an engine that serves nothing yet.
func New(opt engine.Options) (engine.Engine, error) { return newEngine(opt) }
