//go:build !linux

package connect

// noPort is for Linux: elsewhere bind(2) chooses the port.
func noPort(uintptr) {}
