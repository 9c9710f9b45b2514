//go:build !linux

package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/txlb/txlb/engine"
)

// keeperOf is for Linux.
func keeperOf() engine.Keeper { return nil }

func keeperCommand(*flag.FlagSet) action {
	return func(_ context.Context, c console, _ []string) int {
		fmt.Fprintln(c.err, "txlb keeper: sessions can be kept on Linux alone")
		return exitFailed
	}
}
