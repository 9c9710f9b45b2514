package status

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// exportFormat is the number of the format that Export writes. It changes only if a reader
// of the old one would misunderstand the new one: unknown fields are ignored, and fields
// that are missing have their zero values.
const exportFormat = 1

// exported is what the samples have seen, in JSON.
type exported struct {
	Format  int           `json:"format"`
	Version string        `json:"version"` // of the program
	Started time.Time     `json:"started"` // the first of the processes
	All     exportedRow   `json:"all"`
	Rows    []exportedRow `json:"rows,omitempty"`
}

// exportedRow is what has been seen of a service, a group or a host.
type exportedRow struct {
	Service string `json:"service,omitempty"`
	Group   string `json:"group,omitempty"`
	Host    string `json:"host,omitempty"`

	ID           int           `json:"id,omitempty"`
	MaxRate      uint64        `json:"max_rate,omitempty"`
	Max          int64         `json:"max,omitempty"`
	LastSession  time.Time     `json:"last_session,omitzero"`
	Up           bool          `json:"up,omitempty"`
	Changed      time.Time     `json:"changed,omitzero"`
	Downs        uint64        `json:"downs,omitempty"`
	DownFor      time.Duration `json:"down_for,omitempty"`
	WaitingSince time.Time     `json:"waiting_since,omitzero"`
	FirstWeight  int           `json:"first_weight,omitempty"`
	Sessions     uint64        `json:"sessions,omitempty"` // ever
	Connect      exportedMean  `json:"connect,omitzero"`
	Session      exportedMean  `json:"session,omitzero"`
	Wait         exportedMean  `json:"wait,omitzero"`
	Turnaround   exportedMean  `json:"turnaround,omitzero"`
	Worst        time.Duration `json:"worst_turnaround,omitempty"`
	History      []byte        `json:"history,omitempty"`             // moments, the newest last
	Turnarounds  []byte        `json:"history_turnarounds,omitempty"` // of the same moments
}

// exportedMean is a mean of times.
type exportedMean struct {
	N     uint64        `json:"n,omitempty"`
	Sum   time.Duration `json:"sum,omitempty"`
	Value time.Duration `json:"value,omitempty"`
}

// Export returns what the samples have seen, for the process that takes the place of this
// one: maxima, downtimes, means and the history of charts, and since when the first of the
// processes runs. It takes no longer than a Read.
func (s *Source) Export() ([]byte, error) {
	e := exported{Format: exportFormat, Version: s.Version, Started: s.Origin().Round(0)}
	s.sampler.export(&e)
	return json.Marshal(e)
}

// Inherit makes what the samples have seen that which they had seen in the process whose
// place this one takes: what this one has seen by now is dropped. So it is to be called
// before anybody reads, and again with newer words of that process. Director and Engine have
// to go on where those of that process were.
func (s *Source) Inherit(data []byte) error {
	var e exported
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	if e.Format != exportFormat {
		return fmt.Errorf("samples: the format is %d; this version of txlb reads format %d", e.Format, exportFormat)
	}
	s.sampler.inherit(&e, s.counts)
	s.origin.Store(&origin{e.Started, e.Version})
	return nil
}

// origin is where this process comes from.
type origin struct {
	started time.Time // the first process
	version string    // of the last one before this
}

// Origin tells since when txlb has served without a restart: when the first process of
// those was started of which each has taken the place of the one before. It is Started if
// this process has taken nobody's place.
func (s *Source) Origin() time.Time {
	if o := s.origin.Load(); o != nil {
		return o.started
	}
	return s.Started
}

func (s *sampler) export(e *exported) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.All = exportRow(Key{}, &row{Traffic: s.all})
	e.Rows = make([]exportedRow, 0, len(s.rows))
	for key, r := range s.rows {
		e.Rows = append(e.Rows, exportRow(key, r))
	}
}

func exportRow(key Key, r *row) exportedRow {
	t := &r.Traffic
	e := exportedRow{
		Service: key.Service, Group: key.Group, Host: key.Host,
		ID: t.ID, MaxRate: t.MaxRate, Max: t.Max, LastSession: t.LastSession.Round(0), Up: t.Up, Changed: t.Changed.Round(0),
		Downs: t.Downs, DownFor: t.downFor, WaitingSince: t.WaitingSince.Round(0), FirstWeight: t.FirstWeight,
		Sessions: r.before, Connect: r.connect.export(), Session: r.session.export(), Wait: r.wait.export(),
		Turnaround: r.turnaround.export(), Worst: t.WorstTurnaround,
	}
	if n := len(r.past); n > 0 {
		e.Sessions = r.past[n-1].total
	}
	if h := r.history; h != nil {
		for i := range h.n {
			m := &h.moments[(h.next-h.n+i+historyLength)%historyLength]
			for _, v := range m.values() {
				e.History = binary.BigEndian.AppendUint32(e.History, math.Float32bits(*v))
			}
			e.Turnarounds = binary.BigEndian.AppendUint32(e.Turnarounds, math.Float32bits(m.turnaround))
		}
	}
	return e
}

func (m *mean) export() exportedMean { return exportedMean{m.n, m.sum, m.value} }

// values are what History has of a moment. What was added later has a list of its own, so
// that other versions can read the history.
func (m *moment) values() []*float32 {
	return []*float32{&m.rate, &m.sessions, &m.in, &m.out, &m.connect, &m.check}
}

// inherit replaces what has been seen. Rows that are not there any more are dropped.
func (s *sampler) inherit(e *exported, facts func() Facts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := facts()
	s.arrange(f.State, f.At)
	all := row{}
	e.All.restore(&all)
	s.all = all.Traffic
	kept := maxHistories
	for i := range e.Rows {
		one := &e.Rows[i]
		r := s.rows[Key{one.Service, one.Group, one.Host}]
		if r == nil {
			continue
		}
		*r = row{Traffic: Traffic{ID: r.ID}, hosts: r.hosts}
		one.restore(r)
		if len(one.History) > 0 && kept > 0 && one.Host != "" {
			kept--
			r.history = ringOf(one.History, one.Turnarounds)
		}
		if len(one.History) > 0 && one.Group == "" {
			r.history = ringOf(one.History, one.Turnarounds)
		}
	}
	s.number()
	s.see(sum(f))
}

func (e *exportedRow) restore(r *row) {
	t := &r.Traffic
	if e.ID > 0 {
		t.ID = e.ID
	}
	t.MaxRate, t.Max, t.LastSession, t.Up, t.Changed, t.Downs, t.downFor = e.MaxRate, e.Max, e.LastSession, e.Up, e.Changed, e.Downs, e.DownFor
	t.WaitingSince, t.FirstWeight = e.WaitingSince, e.FirstWeight
	r.before = e.Sessions
	r.connect, r.session, r.wait, r.turnaround = e.Connect.mean(), e.Session.mean(), e.Wait.mean(), e.Turnaround.mean()
	t.MeanConnect, t.MeanSession, t.MeanWait, t.Turnaround = r.connect.value, r.session.value, r.wait.value, r.turnaround.value
	r.worst.take(e.Worst, 0)
	t.WorstTurnaround = e.Worst
}

func (e *exportedMean) mean() mean { return mean{e.N, e.Sum, e.Value} }

// ringOf makes a history of what exportRow has written.
func ringOf(data, turnarounds []byte) *ring {
	h := &ring{}
	size := 4 * len((&moment{}).values())
	data = data[max(0, len(data)/size-historyLength)*size:]
	turnarounds = turnarounds[max(0, len(turnarounds)/4-historyLength)*4:]
	for ; len(data) >= size; data = data[size:] {
		m := &h.moments[h.next]
		m.turnaround = float32(math.NaN())
		if len(turnarounds) >= 4 {
			m.turnaround = math.Float32frombits(binary.BigEndian.Uint32(turnarounds))
			turnarounds = turnarounds[4:]
		}
		for i, v := range m.values() {
			*v = math.Float32frombits(binary.BigEndian.Uint32(data[4*i:]))
		}
		h.next, h.n = (h.next+1)%historyLength, h.n+1
	}
	return h
}

// number gives new rows IDs that no other has.
func (s *sampler) number() {
	top := func(ids *int, rows func(yield func(*row) bool)) {
		seen := map[int]bool{}
		for r := range rows {
			*ids = max(*ids, r.ID)
		}
		for r := range rows {
			if seen[r.ID] {
				*ids++
				r.ID = *ids
			}
			seen[r.ID] = true
		}
	}
	top(&s.ids, func(yield func(*row) bool) {
		for _, svc := range s.tree {
			if !yield(svc.row) {
				return
			}
			for _, g := range svc.groups {
				if !yield(g.row) {
					return
				}
			}
		}
	})
	for _, svc := range s.tree {
		for _, g := range svc.groups {
			top(&g.row.hosts, func(yield func(*row) bool) {
				for _, h := range g.hosts {
					if !yield(h) {
						return
					}
				}
			})
		}
	}
}
