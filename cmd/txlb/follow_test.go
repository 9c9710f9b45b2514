package main

import (
	"log/slog"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
)

// listed counts how often its listeners are asked for.
type listed struct {
	engine.Engine
	times int
}

func (l *listed) Listeners() []engine.Listener { l.times++; return nil }

func (l *listed) Snapshot() engine.Snapshot { return engine.Snapshot{} }

// A change of a host does not list all listeners: with 10,000 of them that took more
// time than the change.
func TestFollowerListsListenersIfTheyChange(t *testing.T) {
	parse := func(text string) *config.Config {
		c, problems := config.Parse("", []byte(text))
		if c == nil {
			t.Fatal(problems)
		}
		return c
	}
	const hosts = `<group name="g"><host name="h" ip="127.0.0.1:1" weight="1"/></group></service></config>`
	first := parse(`<config><service name="a"><listen ip="127.0.0.1:80"/>` + hosts)
	weight := first.Clone()
	weight.Services[0].Groups[0].Hosts[0].Weight = 7
	eng := &listed{}
	f := &follower{log: slog.New(slog.DiscardHandler), logging: first.Logging, engine: eng}
	for i, step := range []struct {
		config *config.Config
		want   int
	}{
		{first, 1}, {first, 1}, {weight, 1},
		{parse(`<config><service name="a"><listen ip="127.0.0.1:81"/>` + hosts), 2},
		{parse(`<config><service name="b"><listen ip="127.0.0.1:81"/>` + hosts), 3},
	} {
		if f.follow(step.config); eng.times != step.want {
			t.Errorf("step %d: listed %d times, want %d", i, eng.times, step.want)
		}
	}
}
