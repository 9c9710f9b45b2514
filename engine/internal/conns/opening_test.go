package conns

import (
	"net"
	"testing"
	"time"
)

// A wake that comes before a wait, or between two, is not lost.
func TestWakeOfAHearing(t *testing.T) {
	c, other := net.Pipe()
	defer func() { _, _ = c.Close(), other.Close() }()
	var h hearing
	h.wake()
	h.set(c)
	if !h.until(time.Time{}) {
		t.Error("a wake before the first wait is lost")
	}
	if h.until(time.Time{}) {
		t.Error("one wake counts twice")
	}
	h.wake()
	if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("a wake does not end the wait: %v", err)
	}
	if !h.until(time.Time{}) || h.until(time.Time{}) {
		t.Error("the wake that has ended a wait is not looked at once")
	}
	go h.wake()
	if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("the wait after that does not end: %v", err)
	}
}
