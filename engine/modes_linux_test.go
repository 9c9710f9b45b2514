//go:build !portable

package engine

// spliceModes tells whether the engine under test has splice modes.
const spliceModes = true
