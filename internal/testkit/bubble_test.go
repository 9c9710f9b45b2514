package testkit

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// Goroutines that take what their tickers have sent run these timers themselves. Without
// Bubble, that crashes the race detector.
func TestBubble(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	Bubble(t, func(*testing.T) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				var tickers [5000]*time.Ticker
				for i := range tickers {
					tickers[i] = time.NewTicker(time.Millisecond)
				}
				time.Sleep(2 * time.Millisecond)
				for _, ticker := range tickers {
					<-ticker.C
					ticker.Stop()
				}
			})
		}
		all.Wait()
	})
	if now := runtime.GOMAXPROCS(0); now != before {
		t.Errorf("%d processors after the bubble, %d before", now, before)
	}
}
