package core

import (
	"errors"
	"fmt"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/connect"
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

// checkSources tells whether the system allows where connections to hosts should come
// from.
func checkSources(p engine.Plan) error {
	var problems []error
	for i := range p.Services {
		s := &p.Services[i]
		for _, c := range []struct {
			host  string
			check func() error
		}{{s.ClientSource, connect.CanUseClients}, {s.HostInterface, connect.CanUseInterfaces}} {
			if c.host == "" {
				continue
			}
			if err := c.check(); err != nil {
				problems = append(problems, fmt.Errorf("service %q: host %q: %w", s.Name, c.host, err))
			}
		}
	}
	return errors.Join(problems...)
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
