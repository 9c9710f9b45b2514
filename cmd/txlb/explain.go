package main

import (
	"context"
	"fmt"
	"os"

	"github.com/txlb/txlb/internal/accesslog"
)

const explainHelp = `FILE is an access log in either format, or one of HAProxy's option tcplog; - is
standard input. Lines that it cannot read are named on standard error.
  grep ' SC ' /var/log/txlb/access.log | tail -3 | txlb explain -`

// explainCommand says in sentences what the lines of an access log mean.
func explainCommand(_ context.Context, c console, args []string) int {
	file := os.Stdin
	if args[0] != "-" {
		opened, err := os.Open(args[0])
		if err != nil {
			fmt.Fprintln(c.err, "txlb explain:", err)
			return exitUsage
		}
		defer func() { _ = opened.Close() }()
		file = opened
	}
	bad, err := accesslog.Explain(c.out, c.err, args[0], file)
	switch {
	case err != nil:
		fmt.Fprintln(c.err, "txlb explain:", err)
		return exitFailed
	case bad > 0:
		return exitFailed
	}
	return exitOK
}
