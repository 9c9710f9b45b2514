//go:build linux

package loops

import "testing"

// BenchmarkTurn is what a loop and the simulated kernel take for small messages both ways,
// of 64 sessions in each batch.
func BenchmarkTurn(b *testing.B) {
	const sessions = 64
	g := newTheatre([]byte{2})
	for range sessions {
		g.accept()
	}
	for g.turn(nil); ; g.turn(nil) {
		waiting := false
		for _, s := range g.k.sockets {
			s.answer(0)
			waiting = waiting || s.connecting
		}
		g.turn(g.due(batchSize))
		if !waiting && g.l.idle() {
			break
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, s := range g.k.sockets {
			if !s.closed && !s.dead {
				s.farSend(100)
			}
		}
		g.l.now += 1e5
		events := g.due(batchSize)
		g.l.turn(events)
		for _, s := range g.k.sockets {
			s.farRead(1 << 20)
		}
	}
	if len(g.k.wrong) > 0 {
		b.Fatal(g.k.wrong)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2/sessions, "ns/message")
}
