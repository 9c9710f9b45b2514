package director

import (
	"context"
	"net"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
)

// What a program has that embeds the director, and no configuration can say.

// Hooks are what a program does for one of its services.
type Hooks struct {
	// Fallback takes the clients of the service while the group that they go to has no
	// hosts, or there is none; see [engine.Route]. nil: they are rejected.
	Fallback func(net.Conn)
}

// NoticeKind is what a Notice is about.
type NoticeKind uint8

const (
	HostDown       NoticeKind = iota // Group, Host and Addr are down, for Reason
	HostUp                           // they are up again
	NoHost                           // the clients that go to Group find no usable host
	HostAgain                        // they find one again
	HostEjected                      // Group, Host and Addr get no new clients, for Reason
	HostReadmitted                   // they get them again
	ConfigMoved                      // Generation runs, by the change Verb
)

// Notice is something that has just happened, for [Options].Notify.
type Notice struct {
	Kind                       NoticeKind
	Time                       time.Time
	Service, Group, Host, Addr string // as far as it is about one
	Reason                     string // of HostDown and HostEjected
	Generation                 uint64
	Verb                       string // of ConfigMoved
}

// notify tells of something that has happened.
func (d *Director) notify(n Notice) {
	if d.opt.Notify == nil {
		return
	}
	n.Time = time.Now()
	if n.Generation == 0 {
		n.Generation = d.State().Generation
	}
	d.opt.Notify(n)
}

// hooks returns those of a service.
func (d *Director) hooks(service string) Hooks {
	if d.opt.Hooks == nil {
		return Hooks{}
	}
	return d.opt.Hooks(service)
}

// Rehook gives the engine new routes for services whose hooks have changed.
func (d *Director) Rehook(ctx context.Context, services ...string) error {
	return d.order(ctx, func() {
		for _, s := range services {
			d.changed(s)
		}
		d.publishPlan()
	})
}

// EngineOptions are those of an engine that <engine> is about. Its maximum of sessions and
// of loops are as the configuration says; 0 is auto.
func EngineOptions(e *config.Engine) engine.Options {
	return engine.Options{
		Ring: rings[e.Ring], Steer: e.Steer == "cpu",
		Loops: e.Loops, Splice: splices[e.Splice], PipeSize: int(e.PipeSize), PipeMemory: e.PipeMemory,
		MaxSessions: e.MaxSessions, Backlog: e.Backlog,
	}
}

// splices and rings are what <engine splice> and <engine ring> may say.
var (
	splices = map[string]engine.SpliceMode{"auto": engine.SpliceAuto, "always": engine.SpliceAlways, "never": engine.SpliceNever}
	rings   = map[string]engine.RingMode{"auto": engine.RingAuto, "off": engine.RingOff}
)
