package testkit

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Bubble is [synctest.Test], on one processor if the race detector is on. All timers of a
// bubble share one context of the detector, and any of its goroutines may run them: two that
// do so at once, on two processors, crash the process (golang/go#78156). The detector goes by
// what happens before what, so it sees nearly as much on one processor.
func Bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if raceDetector {
		bubbles.enter()
		defer bubbles.leave()
	}
	synctest.Test(t, f)
}

// bubbles is one for all tests, as the number of processors is.
var bubbles processors

// processors counts open bubbles, which parallel tests may have.
type processors struct {
	mu     sync.Mutex
	open   int
	before int // processors when the first opened
}

func (p *processors) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open++; p.open == 1 {
		p.before = runtime.GOMAXPROCS(1)
	}
}

func (p *processors) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open--; p.open == 0 {
		runtime.GOMAXPROCS(p.before)
	}
}
