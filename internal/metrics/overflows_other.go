//go:build !linux

package metrics

// listenOverflows is not known on this system.
func listenOverflows() (uint64, bool) { return 0, false }
