//go:build linux

package loops

import (
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/engine"
)

// loopCounters are one loop's counts of its own work.
type loopCounters struct {
	active, pipes                    atomic.Int64
	awake                            atomic.Int64 // ns that the loop's goroutine was not asleep
	events, accepts, spliced, copied atomic.Uint64
	_                                [64]byte
}

func (c *loopCounters) stats() engine.LoopStats {
	return engine.LoopStats{
		Active: c.active.Load(), Pipes: c.pipes.Load(),
		Events: c.events.Load(), Accepts: c.accepts.Load(),
		Spliced: c.spliced.Load(), Copied: c.copied.Load(),
		Awake: time.Duration(c.awake.Load()),
	}
}
