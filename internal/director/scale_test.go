package director

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

// crowd makes a configuration of services with hosts each.
func crowd(services, hosts int) *config.Config {
	c := config.New()
	for i := range services {
		s := config.NewService(fmt.Sprint("s", i))
		s.Listen = []config.Listen{{Address: fmt.Sprintf("127.0.%d.%d:80", i>>8, i&255)}}
		g := config.NewGroup("g")
		g.Enabled = true
		for n := range hosts {
			g.Hosts = append(g.Hosts, &config.Host{Name: fmt.Sprint("h", n), Address: fmt.Sprintf("10.%d.%d.%d:80", i&255, n>>8, n&255), Weight: 1, State: "ready"})
		}
		s.Groups = []*config.Group{g}
		c.Services = append(c.Services, s)
	}
	return c
}

// still is an engine that does nothing.
type still struct{}

func (still) Apply(engine.Plan) error                              { return nil }
func (still) Failures() <-chan engine.Failure                      { return nil }
func (still) Snapshot() engine.Snapshot                            { return engine.Snapshot{} }
func (still) Inherit(engine.Snapshot)                              {}
func (still) Refused(func(service, reason string, clients uint64)) {}

func (still) Sessions(int, func(string, *sched.Host) bool) []engine.SessionInfo { return nil }
func (still) Listeners() []engine.Listener                                      { return nil }
func (still) EndSessions(engine.Ending, func(engine.Candidate) bool) int        { return 0 }

// eachScale runs a benchmark with many services and with many hosts.
func eachScale(b *testing.B, run func(b *testing.B, c *config.Config)) {
	for _, scale := range []struct {
		name            string
		services, hosts int
	}{{"1000x10", 1000, 10}, {"10000x1", 10_000, 1}, {"1x10000", 1, 10_000}} {
		b.Run(scale.name, func(b *testing.B) {
			c := crowd(scale.services, scale.hosts)
			b.ReportAllocs()
			run(b, c)
		})
	}
}

func newStill(b testing.TB, c *config.Config) *Director {
	b.Helper()
	d, err := New(c, still{}, Options{Log: slog.New(slog.DiscardHandler), Probe: func(context.Context, health.Probe) health.Result { return health.Result{} }})
	if err != nil {
		b.Fatal(err)
	}
	return d
}

// BenchmarkStart is New without an engine.
func BenchmarkStart(b *testing.B) {
	eachScale(b, func(b *testing.B, c *config.Config) {
		for b.Loop() {
			newStill(b, c)
		}
	})
}

// BenchmarkChange is one change of one host, as a caller of Do waits for it.
func BenchmarkChange(b *testing.B) {
	eachScale(b, func(b *testing.B, c *config.Config) {
		d := newStill(b, c)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		n := 0
		for b.Loop() {
			n++
			if _, err := d.Do(ctx, Change{Apply: func(c *config.Config) error {
				s := c.Services[n*7%len(c.Services)]
				s.Groups[0].Hosts[n*13%len(s.Groups[0].Hosts)].Weight = 1 + n%100
				return nil
			}}); err != nil {
				b.Fatal(err)
			}
		}
		cancel()
		<-done
	})
}
