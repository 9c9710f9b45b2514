package core

import "github.com/txlb/txlb/engine"

// Names of facilities, see [engine.Facility].
const Ring = "io_uring"

// NoFacilities are those of an engine that uses none.
func NoFacilities() []engine.Facility {
	return []engine.Facility{{Name: Ring, Why: "not used by the portable engine"}}
}
