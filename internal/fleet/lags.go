package fleet

import (
	"errors"
	"fmt"
)

// unfitError tells why a node does not run a generation of its fleet.
type unfitError struct {
	generation uint64
	err        error
}

func (e *unfitError) Error() string {
	return fmt.Sprintf("generation %d cannot run here: %v", e.generation, e.err)
}

func (e *unfitError) Unwrap() error { return e.err }

// LagsError rejects a change because its node cannot run what the fleet has: what it would be a
// change of does not run there.
type LagsError struct {
	Fleet, Node string
	Generation  uint64 // that cannot run on the node
	Why         error
}

func (e *LagsError) Error() string {
	return fmt.Sprintf("node %s cannot run generation %d of fleet %s, so no change is made on it: %s; make the change on another node, or mend this one: it tries again every few seconds",
		e.Node, e.Generation, e.Fleet, oneLine(e.Why))
}

func (e *LagsError) Unwrap() error { return e.Why }

// lags tells why this node cannot run what the fleet has; nil: it can, or has not tried. n.mu is
// held.
func (n *Node) lags() error {
	unfit := (*unfitError)(nil)
	if n.problem == nil || !errors.As(n.problem, &unfit) {
		return nil
	}
	return &LagsError{n.opt.Config.Name, n.name, unfit.generation, unfit.err}
}
