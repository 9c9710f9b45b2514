//go:build linux

package main

import (
	"context"
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
	samples []sample
	leftOut []string // peers and workloads that were not measured, and why
	broken  []string // measurements that could not be made, and why
	facts   []fact
	files   uint64 // limit of open files
	began   time.Time
	took    time.Duration
}

// fact is a line about where the figures come from.
type fact struct{ name, value string }

// sample is one measurement.
type sample struct {
	workload, peer string
	round          int
	units          float64            // of work done
	failed         int                // units of work that failed
	noted          map[string]float64 // what is no difference of counters, by figure
	usage
}

// note records a value of a figure.
func (s *sample) note(name string, value float64) {
	if s.noted == nil {
		s.noted = map[string]float64{}
	}
	s.noted[name] = value
}

// failed adds up the failures of all measurements.
func (r *results) failed() int {
	n := 0
	for _, s := range r.samples {
		n += s.failed
	}
	return n
}

// trial is one measurement under way: one workload, one peer, which was
// started for it.
type trial struct {
	programs   map[string]string
	addr       string // where the load goes
	besideAddr string // and where the load beside it goes
	adminAddr  string // the admin page of the peer, if the workload needs one
	peer       *servers.Server
	backends   []*servers.Server
	length     time.Duration
	sessions   int           // how many there is room for
	slowest    float64       // small requests a second that the slowest peer can do
	counting   bool          // count system calls, and nothing else is of interest
	load       time.Duration // CPU time of load programs that have ended
	sample
}

// measure records what the machine does while work runs.
func (t *trial) measure(work func() error) error {
	if t.counting {
		return t.count(work)
	}
	t.load = 0
	before, err := read(t.peer, t.backends)
	if err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	after, err := read(t.peer, t.backends)
	if err != nil {
		return err
	}
	t.usage, err = after.since(before)
	t.known += t.load
	return err
}

// count records how many system calls the peer makes while work runs.
func (t *trial) count(work func() error) error {
	c, err := countCalls(t.peer)
	if err != nil {
		return err
	}
	before, err := c.sum()
	if err == nil {
		err = work()
	}
	var after uint64
	if err == nil {
		after, err = c.sum()
	}
	t.calls = after - before
	return errors.Join(err, c.close())
}

// rig is what all trials of a run share.
type rig struct {
	options
	dir      string
	programs map[string]string
	files    uint64
	backends map[string]*backend
	ports    map[string][]string // by peer: host:port for each listener
	slowest  float64             // what the slowest peer can do, once it is known
	noCalls  error               // why system calls cannot be counted
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
	r.leaveOut(missing, res)
	if len(r.peers) == 0 || len(r.workloads) == 0 {
		return nil, fmt.Errorf("nothing left to measure: %s", strings.Join(res.leftOut, "; "))
	}
	res.facts = slices.Concat(machineFacts(r.files), versions(ctx, r.programs))
	defer r.stopBackends()
	if err := r.startBackends(ctx, res); err != nil {
		return nil, err
	}
	if err := r.measure(ctx, res); err != nil {
		return nil, err
	}
	res.took = time.Since(res.began)
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
	res.peers, res.workloads = r.peers, r.workloads
}

// omit records what is not measured.
func (r *rig) omit(res *results, line string) {
	res.leftOut = append(res.leftOut, line)
	fmt.Fprintln(r.progress, line)
}

// measure makes the measurements. Peers of one round stand close together in
// time, so that their ratio says something though the machine drifts; each
// round begins with another peer and every other one runs backwards, so that
// none always follows the same.
func (r *rig) measure(ctx context.Context, res *results) error {
	left := newForecast(r.options)
	fmt.Fprintf(r.progress, "%d measurements, about %s\n", left.total, left.whole())
	for round := range r.most() {
		for _, w := range r.workloads {
			if round >= r.roundsOf(w) {
				continue
			}
			if err := r.prepare(ctx, w); err != nil {
				return err
			}
			for _, p := range r.chosen(w, round) {
				s, err := r.try(ctx, w, p, round == 0)
				if ctx.Err() != nil {
					return fmt.Errorf("interrupted: %w", context.Cause(ctx))
				}
				left.done(w)
				if err != nil {
					line := fmt.Sprintf("round %d, %s, %s: %v", round+1, w.name, p.name, err)
					fmt.Fprintln(r.progress, "BROKEN:", line)
					res.broken = append(res.broken, line)
					continue
				}
				s.workload, s.peer, s.round = w.name, p.name, round
				res.samples = append(res.samples, s)
				fmt.Fprintln(r.progress, left.String(), progressLine(w, p, s, r.roundsOf(w)))
			}
		}
	}
	if r.noCalls != nil {
		r.omit(res, fmt.Sprintf("system calls are not counted: %v", r.noCalls))
	}
	return nil
}

// chosen returns the peers that a workload is measured with, in the order of
// a round.
func (r *rig) chosen(w workload, round int) []peer {
	return slices.DeleteFunc(inTurn(r.peers, round), func(p peer) bool { return r.skips(w, p) })
}

// prepare finds out what the slowest peer can do, once, if w wants to know.
func (r *rig) prepare(ctx context.Context, w workload) error {
	if !w.ofSlowest || r.slowest > 0 {
		return nil
	}
	for _, p := range r.chosen(w, 0) {
		var n float64
		err := r.through(ctx, w, p, func(t *trial) (err error) {
			n, err = capacity(ctx, r.programs["bench"], t.addr)
			return err
		})
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		if err != nil {
			fmt.Fprintf(r.progress, "what %s can do is not known: %v\n", p.name, err)
			continue
		}
		fmt.Fprintf(r.progress, "%s can do %s small requests a second\n", p.name, short(n))
		if r.slowest == 0 || n < r.slowest {
			r.slowest = n
		}
	}
	return nil
}

// inTurn returns the peers in the order of a round, which begins with the peer
// whose number the round has.
func inTurn(all []peer, round int) []peer {
	backwards := round % 2
	from := (round + backwards) % len(all)
	turned := slices.Concat(all[from:], all[:from])
	if backwards == 1 {
		slices.Reverse(turned)
	}
	return turned
}

// try measures one workload with one peer; its system calls too if asked for.
func (r *rig) try(ctx context.Context, w workload, p peer, calls bool) (sample, error) {
	var s sample
	err := r.through(ctx, w, p, func(t *trial) error {
		if w.ofSlowest && t.slowest == 0 {
			return errors.New("no peer has told what it can do")
		}
		if err := w.run(ctx, t); err != nil {
			return err
		}
		s = t.sample
		if calls && r.counts(w) && t.peer != nil {
			r.countCalls(ctx, w, *t, &s)
		}
		return nil
	})
	return s, err
}

// countCalls runs a workload briefly again and notes how many system calls a
// unit takes. What it cannot find out is missing from the sample.
func (r *rig) countCalls(ctx context.Context, w workload, t trial, s *sample) {
	if r.noCalls != nil {
		return
	}
	// Whether it is possible at all shows before the work.
	c, err := countCalls(t.peer)
	if err == nil {
		err = c.close()
	}
	if err != nil {
		r.noCalls = err
		return
	}
	t.counting, t.length, t.sample = true, w.brief, sample{}
	if err := w.run(ctx, &t); err != nil {
		if ctx.Err() == nil {
			fmt.Fprintf(r.progress, "system calls of %s not counted: %v\n", w.name, err)
		}
		return
	}
	s.note("calls", float64(t.calls)/t.units)
}

// through starts a peer, warms it up, calls f and stops the peer.
func (r *rig) through(ctx context.Context, w workload, p peer, f func(*trial) error) error {
	t := &trial{programs: r.programs, length: r.lengthOf(w), sessions: r.room(p), slowest: r.slowest}
	var routes []route
	for i, k := range w.kinds() {
		b := r.backends[k]
		t.backends = append(t.backends, b.Server)
		at := route{b.addr, b.addr}
		if p.argv != nil {
			at.listen = r.ports[p.name][i]
		}
		routes = append(routes, at)
	}
	t.addr, t.besideAddr = routes[0].listen, routes[len(routes)-1].listen
	if w.admin {
		t.adminAddr = r.ports[p.name][listeners-1]
	}
	if p.argv != nil {
		var err error
		if t.peer, err = r.startPeer(ctx, p, w, routes, t.adminAddr); err != nil {
			return err
		}
		defer t.peer.Stop()
	}
	const moment = 250 * time.Millisecond
	if err := warm(ctx, r.backends[w.backend], t.addr, moment); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	if err := f(t); err != nil {
		return err
	}
	if t.peer != nil {
		return t.peer.Alive()
	}
	return nil
}

// room returns how many idle sessions to open through p: as many as asked
// for, if the file limit allows.
func (r *rig) room(p peer) int {
	const (
		spare    = 1280   // files that a program keeps for other uses
		most     = 20_000 // leaves some of the outgoing ports that there are by default
		mostFast = 4000
	)
	n := most
	switch {
	case r.sessions > 0:
		n = r.sessions
	case r.quick:
		n = mostFast
	}
	return max(1, min(n, (int(min(r.files, 1<<30))-spare)/max(2, p.fds)))
}

// startPeer starts p and waits until it passes answers on.
func (r *rig) startPeer(ctx context.Context, p peer, w workload, routes []route, admin string) (*servers.Server, error) {
	at := place{programs: r.programs, dir: r.dir, routes: routes, admin: admin, files: r.files}
	if p.config != nil {
		at.file = filepath.Join(r.dir, p.name+".conf")
		if err := os.WriteFile(at.file, []byte(p.config(at)), 0o600); err != nil {
			return nil, err
		}
	}
	// The time-out is a last resort: no measurement takes that long.
	s, err := serve(ctx, r.lengthOf(w)+2*time.Minute, r.dir, p.name, p.argv(at))
	if err != nil {
		return nil, err
	}
	for i, k := range w.kinds() {
		if err := s.Await(ctx, func() error { return kindOf(k).probe(routes[i].listen) }); err != nil {
			s.Stop()
			return nil, err
		}
	}
	return s, nil
}

// listeners is how many addresses a peer may need: for two services and its
// admin page.
const listeners = 3

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
	return s.Await(ctx, func() error { return k.probe(addr) })
}

func (r *rig) stopBackends() {
	for _, b := range r.backends {
		b.Stop()
	}
}
