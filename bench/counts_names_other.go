//go:build linux && !amd64

package main

// oldCallNames are those that newer processors do not have.
var oldCallNames = map[int]string{}
