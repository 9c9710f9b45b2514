package admin

import (
	"fmt"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/sched"
)

// drains are the deadlines of hosts that were taken out.
type drains struct {
	mu      *sync.Mutex
	timers  map[*time.Timer]bool // nil after close
	running *sync.WaitGroup
}

func newDrains() drains {
	return drains{mu: new(sync.Mutex), timers: map[*time.Timer]bool{}, running: new(sync.WaitGroup)}
}

// close stops the deadlines that have not come and waits for those that have.
func (d *drains) close() {
	d.mu.Lock()
	for t := range d.timers {
		t.Stop()
	}
	d.timers = nil
	d.mu.Unlock()
	d.running.Wait()
}

// drain ends, after a while, the sessions that hosts still have then. A host
// that takes sessions again by then is left alone.
func (a *Admin) drain(hosts []*sched.Host, after time.Duration) {
	if len(hosts) == 0 {
		return
	}
	if after == 0 {
		a.endDrain(hosts)
		return
	}
	d := &a.drains
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timers == nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(after, func() {
		d.mu.Lock()
		waiting := d.timers[timer]
		delete(d.timers, timer)
		if waiting {
			d.running.Add(1)
		}
		d.mu.Unlock()
		if waiting {
			defer d.running.Done()
			a.endDrain(hosts)
		}
	})
	d.timers[timer] = true
}

func (a *Admin) endDrain(hosts []*sched.Host) {
	doomed := map[*sched.Host]bool{}
	for _, h := range hosts {
		doomed[h] = true
	}
	for _, s := range a.opt.Director.State().Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				for _, t := range h.Targets {
					if g.Config.Enabled && h.Config.State == "ready" {
						delete(doomed, t.Host)
					}
				}
			}
		}
	}
	if n := a.endSessions(doomed); n > 0 {
		a.log.Info("the time to drain is over: the sessions that were left are closed", "sessions", n)
	}
}

// endSessions ends the sessions of hosts.
func (a *Admin) endSessions(hosts map[*sched.Host]bool) int {
	if len(hosts) == 0 {
		return 0
	}
	return a.opt.Engine.EndSessions(func(_ string, h *sched.Host) bool { return hosts[h] })
}

func (k *call) shutdownSessions() (Result, error) {
	service, targets, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	hosts := map[*sched.Host]bool{}
	active := 0
	for _, t := range targets {
		hosts[t.Host] = true
		active += int(t.Host.Stats().Active)
	}
	whole := !k.args.given("group")
	if whole {
		active = int(k.admin.opt.Engine.Snapshot().Services[service].Active)
	}
	if k.args.set("dry-run") {
		return Result{Text: "would end " + count(active, "session"), Data: ended{active}}, nil
	}
	var n int
	if whole {
		n = k.admin.opt.Engine.EndSessions(func(s string, _ *sched.Host) bool { return s == service })
	} else {
		n = k.admin.endSessions(hosts)
	}
	return Result{Text: count(n, "session") + " ended", Data: ended{n}}, nil
}

// ended is the Data of shutdownSessions.
type ended struct {
	Sessions int `json:"sessions"`
}

// targets returns the addresses of the hosts that the command names.
func (k *call) targets() (service string, targets []*director.Target, err error) {
	if k.args.given("name") && !k.args.given("group") {
		return "", nil, fmt.Errorf("GROUP is missing; write %s", k.verb.Syntax())
	}
	state := k.state()
	s, err := findService(state.Config, k.args.text("service"))
	if err != nil {
		return "", nil, err
	}
	if !k.args.given("group") {
		return s.Name, nil, nil
	}
	g, err := findGroup(s, k.args.text("group"))
	if err != nil {
		return "", nil, err
	}
	if k.args.given("name") {
		h, err := findHost(g, k.args.text("name"))
		if err != nil {
			return "", nil, err
		}
		return s.Name, stateHost(state, s.Name, g.Name, h.Name).Targets, nil
	}
	for _, h := range stateGroup(state, s.Name, g.Name).Hosts {
		targets = append(targets, h.Targets...)
	}
	return s.Name, targets, nil
}

func (k *call) retryHost() (Result, error) {
	service, targets, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	group, name := k.args.text("group"), k.args.text("name")
	if k.args.set("dry-run") {
		down := 0
		for _, t := range targets {
			if !t.Host.Up() {
				down++
			}
		}
		return Result{Text: fmt.Sprintf("would count host %s as up; %d of its %d addresses are down", show(name), down, len(targets))}, nil
	}
	n, err := k.admin.opt.Director.Retry(k.ctx, service, group, name)
	if err != nil {
		return Result{}, err
	}
	if n == 0 {
		return Result{Text: fmt.Sprintf("nothing to change: host %s is up", show(name))}, nil
	}
	return Result{Text: fmt.Sprintf("host %s counts as up again", show(name))}, nil
}

// process returns what a verb needs that is about the process.
func (k *call) process() (Process, error) {
	if k.admin.opt.Process == nil {
		return nil, refuse(ErrNotServed, "not served here: it comes with %s", k.verb.Part)
	}
	return k.admin.opt.Process, nil
}

func (k *call) closeLog() (Result, error) {
	p, err := k.process()
	if err != nil {
		return Result{}, err
	}
	return Result{Text: "the log is opened anew"}, p.CloseLog()
}

func (k *call) shutdown() (Result, error) {
	p, err := k.process()
	if err != nil {
		return Result{}, err
	}
	p.Shutdown()
	return Result{Text: "taking leave of the clients"}, nil
}

func (k *call) report() (Result, error) {
	report := k.admin.opt.Reports[k.verb.Name]
	if report == nil {
		return Result{}, refuse(ErrNotServed, "not served here: it comes with %s", k.verb.Part)
	}
	text, data, err := report(k.ctx)
	return Result{Text: text, Data: data}, err
}
