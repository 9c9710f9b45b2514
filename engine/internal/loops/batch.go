//go:build linux

package loops

// A batch is what a turn has read and is about to send. The bytes lie in its arena, or
// where a flow holds them. They must not be changed until they are sent.
type batch struct {
	ops   []sendOp
	arena []byte
	used  int // bytes of the arena that ops refer to
}

func newBatch() batch { return batch{arena: make([]byte, arenaSize)} }

// roomy tells whether both flows of a session can read into the arena.
func (b *batch) roomy() bool { return len(b.arena)-b.used >= 2*readSize }

// room returns where the next read goes.
func (b *batch) room() []byte { return b.arena[b.used : b.used+readSize] }

// addRead adds the send of n bytes that were read into room, see add.
func (b *batch) addRead(s *session, i, n int, last bool) {
	b.add(s, i, b.arena[b.used:b.used+n], last)
	b.used += n
}

// add adds a send of flow i. With last, the end of the stream follows at once.
func (b *batch) add(s *session, i int, p []byte, last bool) {
	s.flows[i].sending = true
	b.ops = append(b.ops, sendOp{s: s, p: p, dir: int8(i), last: last})
}

// clear empties the batch once its sends are answered.
func (b *batch) clear() {
	b.ops = b.ops[:0]
	b.used = 0
}
