package status

import (
	"math"
	"time"
)

const (
	// historyLength is how many samples are kept: ten minutes.
	historyLength = 600
	// maxHistories is how many hosts there may be for each to have a history, and
	// how many services. One takes 17 KiB.
	maxHistories = 256
)

// History is the past of services and hosts.
type History struct {
	Time   time.Time // of the newest values
	Step   time.Duration
	Series map[Key]Series
}

// Series is the past of one service or host, the newest value last. All fields
// have the same length. Rates are a second; NaN: nothing was measured.
type Series struct {
	Rate, Sessions, InRate, OutRate []float32
	Connect, Check                  []float32 // milliseconds that connects of clients and the last checks took
	Turnaround                      []float32 // milliseconds from what clients sent to the answers
}

// History returns the last ten minutes of services and hosts. What has none is
// left out: what is not there, groups, and all hosts where there are more than
// 256.
func (s *Source) History(keys ...Key) History { return s.sampler.history(keys) }

func (s *sampler) history(keys []Key) History {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := History{Time: s.at, Step: SampleEvery, Series: map[Key]Series{}}
	for _, key := range keys {
		if r := s.rows[key]; r != nil && r.history != nil {
			h.Series[key] = r.history.series()
		}
	}
	return h
}

// ring has the last historyLength moments.
type ring struct {
	moments [historyLength]moment
	next, n int
}

// moment is what charts show of one sample.
type moment struct{ rate, sessions, in, out, connect, check, turnaround float32 }

// remember adds the sample that the row has just taken to its history, or drops
// that.
func (r *row) remember(keep bool, sessions int64, check time.Duration) {
	if !keep {
		r.history = nil
		return
	}
	if r.history == nil {
		r.history = &ring{}
	}
	h := r.history
	h.moments[h.next] = moment{
		float32(r.Rate), float32(sessions), float32(r.InRate), float32(r.OutRate), milliseconds(r.ConnectTime), milliseconds(check),
		milliseconds(r.TurnTime),
	}
	h.next = (h.next + 1) % historyLength
	h.n = min(h.n+1, historyLength)
}

// milliseconds is a time to the hundredth; 0 was not measured.
func milliseconds(d time.Duration) float32 {
	if d == 0 {
		return float32(math.NaN())
	}
	return float32(math.Round(d.Seconds()*1e5) / 100)
}

func (h *ring) series() Series {
	list := func(of func(*moment) float32) []float32 {
		values := make([]float32, h.n)
		for i := range values {
			values[i] = of(&h.moments[(h.next-h.n+i+historyLength)%historyLength])
		}
		return values
	}
	return Series{
		Rate:     list(func(m *moment) float32 { return m.rate }),
		Sessions: list(func(m *moment) float32 { return m.sessions }),
		InRate:   list(func(m *moment) float32 { return m.in }),
		OutRate:  list(func(m *moment) float32 { return m.out }),
		Connect:  list(func(m *moment) float32 { return m.connect }),
		Check:    list(func(m *moment) float32 { return m.check }),

		Turnaround: list(func(m *moment) float32 { return m.turnaround }),
	}
}
