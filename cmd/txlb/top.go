package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	view "github.com/txlb/txlb/internal/admin/console"
	"github.com/txlb/txlb/internal/admin/socket"
)

// lookTimeout is how long a running txlb may take to answer.
const lookTimeout = 5 * time.Second

// topCommand shows a live view of a running txlb over its local socket. If txlb is
// restarted, the view reconnects.
func topCommand(flags *flag.FlagSet) action {
	to := socketFlags(flags)
	return func(ctx context.Context, c console, _ []string) int {
		path, err := to.path()
		if err != nil {
			fmt.Fprintln(c.err, "txlb top:", err)
			return exitUsage
		}
		if err := watch(ctx, path); err != nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintln(c.err, "txlb top:", err)
			return exitFailed
		}
		return exitOK
	}
}

// watch shows the view until the user leaves it or ctx ends.
func watch(ctx context.Context, path string) (err error) {
	client, err := socket.Dial(path)
	if err != nil {
		return err
	}
	// A Client cannot be used after an error: the next look connects again.
	defer func() {
		if client != nil {
			_ = client.Close()
		}
	}()
	ask := func(ctx context.Context, line string) (data []byte, generation uint64, err error) {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		if client == nil {
			if client, err = socket.Dial(path); err != nil {
				client = nil
				return nil, 0, err
			}
		}
		a, err := client.Do(ctx, line)
		if err != nil {
			_ = client.Close()
			client = nil
			return nil, 0, err
		}
		return a.Data, a.Generation, a.Err()
	}
	color := os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	terminal, err := view.OpenLocal(os.Stdin, os.Stdout, color)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, terminal.Close()) }()
	resized := make(chan os.Signal, 1)
	if which := resizeSignals(); len(which) > 0 {
		signal.Notify(resized, which...)
		defer signal.Stop(resized)
	}
	ctx, cancel := context.WithCancel(ctx)
	following := make(chan struct{})
	defer func() {
		cancel()
		<-following
	}()
	go followSize(ctx, terminal, resized, following)
	return terminal.Top(ctx, view.Remote(ask))
}

// followSize tells the terminal its size at each signal, until ctx ends.
func followSize(ctx context.Context, terminal *view.Local, resized <-chan os.Signal, done chan<- struct{}) {
	defer close(done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-resized:
			terminal.Measure()
		}
	}
}
