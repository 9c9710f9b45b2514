//go:build !linux || portable

package engine

// modes are all ways in which bytes can be moved: there is one.
var modes = map[string]Options{"portable": {}}

// longModes are left out by go test -short.
var longModes []string
