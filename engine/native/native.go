// Package native makes the engine that suits the system: event loops on Linux, and
// elsewhere, or with the build tag portable, the portable engine.
package native

import "github.com/txlb/txlb/engine"

// New returns an engine that serves nothing yet.
func New(opt engine.Options) (engine.Engine, error) { return newEngine(opt) }
