//go:build linux

package loops

// bulk are the flows that wait for their turn to splice, in order. Together they move a
// budget of bytes a turn, and less while small messages pass, so that those do not wait
// long.
type bulk struct {
	line    []turnRef
	served  int // of the line, in this turn
	last    int // where the line of this turn ends
	smallAt int64
}

// add puts flow i of a session in the line, once.
func (b *bulk) add(s *session, i int) {
	if f := &s.flows[i]; !f.queued {
		f.queued = true
		b.line = append(b.line, turnRef{s, s.generation, int8(i)})
	}
}

func (b *bulk) empty() bool { return len(b.line) == 0 }

// small notes that a small message has passed.
func (b *bulk) small(now int64) { b.smallAt = now }

// amongSmall tells whether small messages have passed not long ago.
func (b *bulk) amongSmall(now int64) bool { return now-b.smallAt < quietFor }

// budget returns how many bytes may move in a turn.
func (b *bulk) budget(now int64) int {
	if b.amongSmall(now) {
		return spliceTurn
	}
	return bulkTurn
}

// begin begins a turn: next returns the flows that are in the line now, end lets the
// others move up.
func (b *bulk) begin() { b.served, b.last = 0, len(b.line) }

// next takes the next flow out of the line, nil at its end. One that does not move any
// more is left out.
func (b *bulk) next() (s *session, i int) {
	for b.served < b.last {
		ref := b.line[b.served]
		b.served++
		if ref.s.generation == ref.generation {
			ref.s.flows[ref.dir].queued = false
		}
		if ref.alive() { // else it has ended, or looks for another host
			return ref.s, int(ref.dir)
		}
	}
	return nil, 0
}

func (b *bulk) end() {
	if b.served > 0 {
		rest := copy(b.line, b.line[b.served:])
		clear(b.line[rest:])
		b.line = b.line[:rest]
	}
}
