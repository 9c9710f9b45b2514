//go:build !linux

package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/status"
)

// A hand-over is for Linux.

type upgrader struct {
	program string
	demo    bool
	engine  engine.Engine
	dir     *director.Director
	front   *front
	systemd *supervisor
	status  *status.Source
	store   *store
	node    *node
	gone    chan struct{} // never closed
	result  upgraded
}

func newUpgrader(*slog.Logger) *upgrader { return &upgrader{} }

func (*upgrader) open()                                  {}
func (*upgrader) end(string)                             {}
func (*upgrader) tellLeft(context.Context, *predecessor) {}
func (*upgrader) endSuccessor()                          {}
func (*upgrader) succeeded() bool                        { return true }

func (*upgrader) upgrade(context.Context, string, string) (upgraded, error) {
	return upgraded{}, errors.New("an upgrade without a restart needs Linux; restart txlb")
}

type predecessor struct {
	state    *director.Inherited
	samples  []byte
	stored   map[string]string
	sockets  []engine.Inherited
	surfaces []entranceFile
	parts    *fleet.Parts
	lineage  []string
}

type news struct {
	Director, Samples []byte
	Parts             *fleet.Parts
}

type settlement struct {
	Director []byte
	By, From string
}

type service struct {
	log   *slog.Logger
	serve func()
	adopt func([]engine.Moved) []error
	hear  func(news) error
	learn func(settlement) error
	count func([]byte) error
}

func findPredecessor() (*predecessor, error)                 { return nil, nil }
func (*predecessor) fail(error)                              {}
func (*predecessor) takeOver(context.Context, service) error { return nil }
func (*predecessor) former() *status.Former                  { return nil }
func (*predecessor) await(context.Context)                   {}
func (*predecessor) version() string                         { return "" }
