//go:build race

package testkit

// raceDetector tells whether the test runs with it.
const raceDetector = true
