package core

import (
	"errors"

	"github.com/txlb/txlb/engine"
)

// WithDefaults replaces zero values by defaults; loops is the default number of
// loops.
func WithDefaults(o engine.Options, loops int) (engine.Options, error) {
	if o.Loops < 0 || o.PipeSize < 0 || o.PipeMemory < 0 || o.MaxSessions < 0 || o.Backlog < 0 {
		return o, errors.New("engine: an option is negative")
	}
	if o.Loops == 0 {
		o.Loops = loops
	}
	if o.PipeSize == 0 {
		o.PipeSize = DefaultPipeSize
	}
	if o.PipeMemory == 0 {
		o.PipeMemory = defaultPipeMemory
	}
	if o.Backlog == 0 {
		o.Backlog = defaultBacklog
	}
	return o, nil
}

// Reports is where failures wait for the director.
type Reports chan engine.Failure

func NewReports() Reports { return make(Reports, failureQueue) }

// Report hands a failure over; it never waits.
func (r Reports) Report(f engine.Failure) {
	select {
	case r <- f:
	default: // the director's scan of the hosts finds it
	}
}
