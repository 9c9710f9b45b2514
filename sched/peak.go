package sched

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// peakDecay is how long a peak takes to fall to 1/e, about a third: 10 s, as in Finagle,
	// which had this average first.
	peakDecay = 10 * time.Second
	// peakForgotten is how long after the last turnaround an average says nothing any more.
	// By then it has fallen to a twentieth.
	peakForgotten = 3 * peakDecay
)

// peak is a moving average of the turnarounds of a host. A turnaround that is longer counts
// at once; shorter ones take effect slowly, and so does time without any. It is one word,
// which all loops share: within a millisecond only a longer turnaround writes it.
type peak struct {
	cell atomic.Uint64 // when, in ms of peakClock, and the average then, in ns as a float32; 0: none
	_    [cacheLine - 8]byte
}

// started is where peakClock counts from.
var started = time.Now()

// peakClock returns the time in milliseconds. It comes round after 49 days, so only
// differences say something.
func peakClock() uint32 { return uint32(time.Since(started) / time.Millisecond) }

func (p *peak) add(d time.Duration, now uint32) {
	mine := float32(max(d, 1))
	for range 4 { // a sample more or less does not matter
		was := p.cell.Load()
		average := valueAt(was, now)
		switch keep := decayed(now - uint32(was>>32)); {
		case mine >= average:
			average = mine
		case keep == 1:
			return
		default:
			average += mine * (1 - keep)
		}
		if p.cell.CompareAndSwap(was, uint64(now)<<32|uint64(math.Float32bits(average))) {
			return
		}
	}
}

// at returns the average in nanoseconds; 0: there is none.
func (p *peak) at(now uint32) float32 { return valueAt(p.cell.Load(), now) }

// valueAt returns what an average has fallen to.
func valueAt(cell uint64, now uint32) float32 {
	ago := now - uint32(cell>>32)
	if cell == 0 || ago > uint32(peakForgotten/time.Millisecond) && !aMomentAhead(ago) {
		return 0
	}
	return math.Float32frombits(uint32(cell)) * decayed(ago)
}

// aMomentAhead tells whether a difference of two times says that another loop was faster by
// a moment. Half of all differences are negative, those of long silence too.
func aMomentAhead(ago uint32) bool { return ago == 0 || -ago < uint32(time.Minute/time.Millisecond) }

// decayed returns the part of an average that is left after so many milliseconds.
func decayed(ms uint32) float32 {
	if aMomentAhead(ms) {
		return 1
	}
	return float32(math.Exp(-float64(ms) / float64(peakDecay/time.Millisecond)))
}

// SetPeak says whether the host keeps [Host.Peak], which begins without turnarounds. The
// tables of schedulers that need it, see [Peaks], turn it on.
func (h *Host) SetPeak(on bool) {
	switch {
	case !on:
		h.peak.Store(nil)
	case h.peak.Load() == nil:
		h.peak.CompareAndSwap(nil, new(peak))
	}
}

// Peak returns the moving average of the host's turnarounds that the scheduler ewma goes by:
// a longer turnaround counts at once, and the average then falls to a third in 10 s. It is 0
// without a turnaround in the last 30 s or since the host came back, and unless
// [Host.SetPeak] was called.
func (h *Host) Peak(now time.Time) time.Duration {
	p := h.peak.Load()
	if p == nil {
		return 0
	}
	return time.Duration(p.at(uint32(now.Sub(started) / time.Millisecond)))
}

// Refresh says that the host may have changed, because it has come back: what it was like
// before says nothing now, so [Host.Peak] and a row of early resets begin again from nothing.
func (h *Host) Refresh() {
	h.Answered()
	if p := h.peak.Load(); p != nil {
		p.cell.Store(0)
	}
}

// turnedPeak is what a turnaround means for the average.
func (h *Host) turnedPeak(d time.Duration) {
	if p := h.peak.Load(); p != nil {
		p.add(d, peakClock())
	}
}
