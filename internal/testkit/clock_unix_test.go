//go:build unix

package testkit

import (
	"os/exec"
	"testing"
	"time"
)

// The clock runs with the time of day, and not while the process is stopped.
func TestClock(t *testing.T) {
	c := NewClock(t)
	Eventually(t, "the clock goes", func() bool { return c.Now() > 20*time.Millisecond })
	began, ran := time.Now(), c.Now()
	if out, err := exec.Command("sh", "-c", "kill -STOP $PPID; sleep 1; kill -CONT $PPID").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if took, ran := time.Since(began), c.Since(ran); took < time.Second || ran > took-900*time.Millisecond || ran < 0 {
		t.Errorf("stopped for a second: %v went by, and %v on the clock", took, ran)
	}
}

// What waits by a stopped clock does not wait for ever.
func TestClockGoesOnAfterStop(t *testing.T) {
	c := NewClock(t)
	c.Stop()
	began := c.Now()
	Eventually(t, "the clock goes on", func() bool { return c.Since(began) > 3*clockTick })
}
