package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"time"
)

// reloadWithin is how long `txlb reload` waits for the result: less than systemd waits for
// it, 90 s, and more than names may take to resolve.
const reloadWithin = 60 * time.Second

// reloadCommand is for ExecReload= of the systemd unit: unlike kill -HUP it fails if the
// reload does.
func reloadCommand(flags *flag.FlagSet) action {
	file := configFlag(flags)
	return func(ctx context.Context, c console, words []string) int {
		pid, err := strconv.Atoi(words[0])
		if err != nil || pid < 1 {
			fmt.Fprintf(c.err, "txlb reload: PID: %q is not the number of a process\n", words[0])
			return exitUsage
		}
		if doc, _ := readConfig(*file, c.err); doc == nil {
			return exitUsage
		}
		if err := reloadOf(pid, reloadWithin); err != nil {
			fmt.Fprintln(c.err, "txlb: reload failed, keeping the current configuration:", err)
			return exitFailed
		}
		return exitOK
	}
}
