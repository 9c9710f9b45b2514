package engine

import "time"

// governor is how loops are spread over goroutines. The tests have their own.
type governor struct {
	every  time.Duration
	decide func(runner []int, share []float64) []handover
}

// handover gives a loop, which the goroutine of loop from runs, to the
// goroutine of loop to.
type handover struct{ loop, from, to int }
