package guard

import (
	"context"
	"runtime"

	"github.com/txlb/txlb/internal/gate"
)

// Work is a kind of work that passes the gate.
type Work = gate.Kind

// The kinds of work.
const (
	KeyExchange Work = iota // of TLS and SSH
	Hash                    // of a password
	Render                  // of the metrics
	works
)

// Gate lets a few at a time do what costs the processor and what strangers can
// ask for. The others wait, first come, first served within a kind.
type Gate struct{ *gate.Gate }

// NewGate makes a gate for the processors that the process uses now: a quarter
// of them may work at the gate, at least one and at most four.
func NewGate() *Gate { return newGate(min(max(1, runtime.GOMAXPROCS(0)/4), 4)) }

func newGate(places int) *Gate { return &Gate{gate.New(places, int(works))} }

// Enter waits for a place, or for the end of ctx, whose error it returns then. Call
// Leave after an Enter without an error.
func (g *Gate) Enter(ctx context.Context, w Work) error {
	if g.Gate.Enter(ctx.Done(), w) {
		return nil
	}
	return ctx.Err()
}
