package core

import "github.com/txlb/txlb/engine"

// NoFacilities are those of an engine that uses none.
func NoFacilities() []engine.Facility {
	const why = "not used by the portable engine"
	return []engine.Facility{{Name: engine.IOUring, Why: why}, {Name: engine.CPUSteering, Why: why}}
}
