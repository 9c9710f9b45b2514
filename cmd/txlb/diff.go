package main

import (
	"context"
	"fmt"

	"github.com/txlb/txlb/config"
)

// Exit statuses of diff, as diff(1) has them.
const (
	diffSame      = 0
	diffDifferent = 1
	diffFailed    = 2
)

// diffCommand prints the runtime commands that make one file into another.
func diffCommand(_ context.Context, c console, words []string) int {
	var models [2]*config.Config
	for i, path := range words {
		cfg, problems := config.ReadFile(path)
		if cfg == nil {
			fmt.Fprintln(c.err, problems)
		}
		models[i] = cfg
	}
	if models[0] == nil || models[1] == nil {
		return diffFailed
	}
	edits := config.Diff(models[0], models[1])
	if len(edits) == 0 {
		return diffSame
	}
	for _, e := range edits {
		fmt.Fprintln(c.out, e.Command())
	}
	if c.out.err != nil {
		return diffFailed
	}
	return diffDifferent
}
