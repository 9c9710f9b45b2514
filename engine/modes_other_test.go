//go:build !linux

package engine_test

// loopModes is empty: event loops are for Linux.
var loopModes, goroutineModes map[string]setup

// longModes are left out by go test -short.
var longModes []string
