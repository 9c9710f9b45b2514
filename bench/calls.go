//go:build linux

package main

import (
	"github.com/txlb/txlb/internal/servers"
)

// callCounter counts the system calls of a server: those of all its threads.
// Calls are counted apart from everything else, see [kernelCounter].
type callCounter struct{ *kernelCounter }

// countCalls begins to count. It needs root.
func countCalls(s *servers.Server) (*callCounter, error) {
	pids, err := members(s.Group())
	if err != nil {
		return nil, err
	}
	k, err := newKernelCounter(pids)
	if err != nil {
		return nil, err
	}
	return &callCounter{k}, nil
}

// sum returns how many calls there have been.
func (c *callCounter) sum() (uint64, error) {
	now, err := c.read()
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, n := range now[callsMap] {
		sum += n
	}
	return sum, nil
}
