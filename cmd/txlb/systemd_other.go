//go:build !linux

package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/txlb/txlb/engine"
)

func inheritSockets() ([]engine.Inherited, []string) { return nil, nil }

// store is for systemd.
type store struct{}

func newStore(*slog.Logger, engine.Engine, map[string]string) *store { return nil }

func givenBack([]string) map[string]string { return nil }

func (*store) follow() {}

func reloading() string { return "RELOADING=1" }

func answerReload(error) {}

func reloadOf(int, time.Duration) error {
	return errors.New("this is for systemd; use txlb ctl reload")
}
