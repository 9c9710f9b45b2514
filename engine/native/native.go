// Package native makes the engine for the system: event loops on Linux, and the
// portable engine elsewhere or with the build tag portable.
package native

import "github.com/txlb/txlb/engine"

// New returns an engine that serves nothing yet.
func New(opt engine.Options) (engine.Engine, error) { return newEngine(opt) }
