package socket

import (
	"testing"
	"time"
)

func TestHumanTimes(t *testing.T) {
	for seconds, want := range map[float64]string{0: "0s", 59.9: "59s", 61: "1m1s", 3600: "1h0m", 7_384: "2h3m", 86_400: "1d0h", 180_000: "2d2h"} {
		if got := humanTime(seconds); got != want {
			t.Errorf("%v s: %s, want %s", seconds, got, want)
		}
	}
	if got := haproxyDuration(90_061 * time.Second); got != "1d 1h01m01s" {
		t.Errorf("got %s", got)
	}
}
