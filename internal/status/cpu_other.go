//go:build !unix

package status

// processCPU is not known here.
func processCPU() (seconds float64, ok bool) { return 0, false }
