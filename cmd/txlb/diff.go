package main

import (
	"context"
	"fmt"

	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/config/document"
)

// Exit statuses of diff, as diff(1) has them.
const (
	diffSame      = 0
	diffDifferent = 1
	diffFailed    = 2
)

// diffCommand prints the runtime commands that turn one configuration into another.
func diffCommand(_ context.Context, c console, words []string) int {
	var files [2]*document.File
	for i, path := range words {
		doc, problems := document.Open(path)
		if doc == nil {
			fmt.Fprintln(c.err, problems)
		}
		files[i] = doc
	}
	if files[0] == nil || files[1] == nil {
		return diffFailed
	}
	edits := changes.Diff(files[0].Config, files[1].Config)
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
