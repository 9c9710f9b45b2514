//go:build !linux

package health

import (
	"context"
	"sync"
)

// Connect makes many TCP probes together and calls report with the index and
// the result of each as it ends, from one goroutine at a time. It returns when
// all have ended; when ctx ends first, the others are reported as given up.
// Only the address, the PROXY header and the timeouts of a probe count.
func Connect(ctx context.Context, probes []Probe, report func(i int, r Result)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, p := range probes {
		p.Type = TCP
		wg.Go(func() {
			r := Run(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			report(i, r)
		})
	}
	wg.Wait()
}
