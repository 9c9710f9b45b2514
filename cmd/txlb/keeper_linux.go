package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/keeper"
)

// keeperSocket is where the keeper listens.
func keeperSocket() string {
	if path := os.Getenv("TXLB_KEEPER"); path != "" {
		return path
	}
	return "/run/txlb-keeper/keeper.sock"
}

// keeperOf returns the keeper of the sessions.
func keeperOf() engine.Keeper { return keeper.NewClient(keeperSocket()) }

// keeperCommand is the process that keeps sessions: see package keeper.
func keeperCommand(*flag.FlagSet) action {
	return func(ctx context.Context, c console, _ []string) int {
		ignoreBrokenPipes()
		log := slog.New(slog.NewTextHandler(c.err, nil))
		files, err := raiseFiles()
		if err != nil {
			fmt.Fprintln(c.err, "txlb keeper:", err)
			return exitFailed
		}
		ln, err := keeper.Listen(keeperSocket())
		if err != nil {
			fmt.Fprintln(c.err, "txlb keeper:", err)
			return exitFailed
		}
		go func() {
			<-ctx.Done()
			_ = ln.Close()
		}()
		log.Info("ready", "socket", keeperSocket(), "files", files)
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
		if err := keeper.NewServer(int(min(files, 1<<30))-keeper.FilesFor(0), log).Serve(ln); err != nil {
			fmt.Fprintln(c.err, "txlb keeper:", err)
			return exitFailed
		}
		return exitOK
	}
}
