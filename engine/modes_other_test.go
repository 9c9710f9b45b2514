//go:build !linux || portable

package engine

// spliceModes tells whether the engine under test has splice modes.
const spliceModes = false
