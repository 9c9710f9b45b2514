//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// results is everything that a run has found out.
type results struct {
	options
	record
	leftOut []string // peers and workloads that were not measured, and why
	broken  []string // slices that could not be made, and why
	files   uint64   // limit of open files
	began   time.Time
}

// fact is a line about where the figures come from.
type fact struct{ name, value string }

// setting is what is equal for all peers of a comparison.
type setting struct {
	workload string
	threads  int
	control  string // congestion control of TCP
}

// comparison is a workload under one setting.
type comparison struct {
	workload
	setting
}

// sample is what one slice gave: some moments of work with one peer.
type sample struct {
	setting
	peer         string
	visit, round int
	units        float64            // of work done
	failed       int                // units of work that failed
	noted        map[string]float64 // what is no difference of counters, by figure
	usage
}

// note records a value of a figure.
func (s *sample) note(name string, value float64) {
	if s.noted == nil {
		s.noted = map[string]float64{}
	}
	s.noted[name] = value
}

// trial is one peer that runs, and the slice of it under way.
type trial struct {
	programs   map[string]string
	addr       string      // where the load goes
	client     *tls.Config // how it speaks there; nil: plain
	besideAddr string      // and where the load beside it goes
	peer       *servers.Server
	backends   []*servers.Server
	length     time.Duration
	sessions   int                // how many there is room for
	held       map[string]float64 // notes of what is held beside all slices
	release    func()             // ends that
	sample
}

// to is where and how the load goes.
func (t *trial) to() dialer { return dialer{t.addr, t.client} }

// measure records what the machine does while work runs. Work returns the CPU time
// of load programs that have ended meanwhile.
func (t *trial) measure(work func() (load time.Duration, err error)) error {
	m := meter{peer: t.peer, backends: t.backends}
	if err := m.start(); err != nil {
		return err
	}
	load, err := work()
	if err != nil {
		return err
	}
	after, err := m.stop()
	if err != nil {
		return err
	}
	t.usage, err = after.since(m.before)
	t.others = othersOf(m.before, after, load)
	return err
}

// rig is what all slices of a run share.
type rig struct {
	options
	dir      string
	programs map[string]string
	files    uint64
	backends map[string]*backend
	ports    map[string][]string // by peer: host:port for each listener
	progress io.Writer
}

// measureAll installs, builds and starts what the options need, makes every
// measurement and ends everything that it has started, also if ctx ends. A
// peer that is missing and a measurement that fails are in the results.
func measureAll(ctx context.Context, opt options, progress io.Writer) (res *results, err error) {
	defer holdThread()()
	r := &rig{options: opt, progress: progress, backends: map[string]*backend{}, ports: map[string][]string{}}
	if r.files, err = raiseFileLimit(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "txlb-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if err := os.Chmod(r.dir, 0o755); err != nil { // nginx's workers are another user
		return nil, err
	}
	res = &results{options: opt, files: r.files, began: time.Now()}
	var missing map[string]string
	if r.programs, missing, err = provide(ctx, r.needed(), r.dir, progress); err != nil {
		return nil, err
	}
	if opt.other != "" {
		r.programs[other] = opt.other
	}
	r.leaveOut(missing, res)
	if len(r.peers) == 0 || len(r.workloads) == 0 {
		return nil, fmt.Errorf("nothing left to measure: %s", strings.Join(res.leftOut, "; "))
	}
	res.facts = slices.Concat(machineFacts(r.files), versions(ctx, r.programs))
	defer r.stopBackends()
	if err := r.startBackends(ctx, res); err != nil {
		return nil, err
	}
	if err := r.compareAll(ctx, res); err != nil {
		return nil, err
	}
	res.closing()
	return res, nil
}

// needed returns the programs that the peers and workloads ask for.
func (r *rig) needed() []string {
	var all []string
	for _, p := range r.peers {
		all = append(all, p.needs...)
	}
	for _, w := range r.workloads {
		all = append(all, needsOf(w)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// needsOf returns the programs of a workload and its backends.
func needsOf(w workload) []string {
	all := slices.Clone(w.needs)
	for _, k := range w.kinds() {
		all = append(all, kindOf(k).needs...)
	}
	return all
}

// leaveOut drops peers and workloads whose programs are missing, and says so.
func (r *rig) leaveOut(missing map[string]string, res *results) {
	lacks := func(what string, needs []string) bool {
		for _, n := range needs {
			if why, no := missing[n]; no {
				r.omit(res, what+" is left out: "+why)
				return true
			}
		}
		return false
	}
	r.peers = slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool { return lacks("peer "+p.name, p.needs) })
	r.workloads = slices.DeleteFunc(slices.Clone(r.workloads), func(w workload) bool { return lacks("workload "+w.name, needsOf(w)) })
	res.options.peers, res.workloads = r.peers, r.workloads
}

// omit records what is not measured.
func (r *rig) omit(res *results, line string) {
	res.leftOut = append(res.leftOut, line)
	fmt.Fprintln(r.progress, line)
}

// room returns how many idle sessions to open through p: as many as asked
// for, if the file limit allows.
func (r *rig) room(p peer) int {
	const (
		spare = 1280 // files that a program keeps for other uses
		most  = 8000
	)
	n := most
	if r.sessions > 0 {
		n = r.sessions
	}
	return max(1, min(n, (int(min(r.files, 1<<30))-spare)/max(2, p.fds)))
}

// startPeer starts p and waits until it passes answers on.
func (r *rig) startPeer(ctx context.Context, p peer, c comparison, routes []route) (*servers.Server, error) {
	at := place{programs: r.programs, dir: r.dir, routes: routes, files: r.files, threads: c.threads}
	var err error
	if at.front, err = r.certificate(c.sides.front); err != nil {
		return nil, err
	}
	if c.sides.back {
		if at.back, err = r.certificate(ecdsaKey); err != nil {
			return nil, err
		}
	}
	if p.config != nil {
		at.file = filepath.Join(r.dir, p.name+".conf")
		if err := os.WriteFile(at.file, []byte(p.config(at)), 0o600); err != nil {
			return nil, err
		}
	}
	s, err := serve(ctx, longestRun, r.dir, p.name, p.argv(at))
	if err != nil {
		return nil, err
	}
	for i, k := range c.kinds() {
		if err := s.Await(ctx, func() error { return kindOf(k).probe(dialer{routes[i].listen, c.sides.client()}) }); err != nil {
			s.Stop()
			return nil, err
		}
	}
	return s, nil
}

// listeners is how many addresses a peer may need: for two services.
const listeners = 2

// startBackends reserves a port for each listener of each peer and starts what
// the workloads need. A kind that does not start takes its workloads with it.
func (r *rig) startBackends(ctx context.Context, res *results) error {
	ports := make([]string, listeners*len(r.peers)+len(kinds()))
	for i := range ports {
		var err error
		if ports[i], err = servers.FreeAddr(); err != nil {
			return err
		}
	}
	for _, p := range r.peers {
		r.ports[p.name], ports = ports[:listeners], ports[listeners:]
	}
	for i, k := range kinds() {
		if !slices.ContainsFunc(r.workloads, func(w workload) bool { return slices.Contains(w.kinds(), k.name) }) {
			continue
		}
		err := r.startBackend(ctx, k, ports[i])
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		if err == nil {
			continue
		}
		r.workloads = slices.DeleteFunc(r.workloads, func(w workload) bool {
			without := slices.Contains(w.kinds(), k.name)
			if without {
				r.omit(res, fmt.Sprintf("workload %s is left out: its backend does not start: %v", w.name, err))
			}
			return without
		})
		res.workloads = r.workloads
	}
	if len(r.workloads) == 0 {
		return errors.New("no backend has started: nothing is left to measure")
	}
	return nil
}

func (r *rig) startBackend(ctx context.Context, k kind, addr string) error {
	s, err := k.start(ctx, r, route{addr, addr})
	if err != nil {
		return err
	}
	r.backends[k.name] = &backend{k, s, addr}
	to := dialer{address: addr}
	if k.tls {
		to.tls = clientTLS()
	}
	return s.Await(ctx, func() error { return k.probe(to) })
}

func (r *rig) stopBackends() {
	for _, b := range r.backends {
		b.Stop()
	}
}
