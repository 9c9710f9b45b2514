//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
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
	units          float64 // of work done
	failed         int     // units of work that failed
	memory         float64 // by how much the peer grew, bytes
	usage
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
	programs map[string]string
	addr     string // where the load goes
	peer     *server
	backend  *server
	length   time.Duration
	sessions int
	load     time.Duration // CPU time of load programs that have ended
	sample
}

// measure records what the machine does while work runs.
func (t *trial) measure(work func() error) error {
	before, err := read(t.peer, t.backend)
	if err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	after, err := read(t.peer, t.backend)
	if err != nil {
		return err
	}
	t.usage, err = after.since(before)
	t.known += t.load
	return err
}

// rig is what all trials of a run share.
type rig struct {
	options
	dir      string
	programs map[string]string
	files    uint64
	backends map[string]*backend
	ports    map[string]string // by peer: host:port
	progress io.Writer
}

// measureAll installs, builds and starts what the options need, makes every
// measurement and ends everything that it has started, also if ctx ends. A
// peer that is missing and a measurement that fails are in the results.
func measureAll(ctx context.Context, opt options, progress io.Writer) (res *results, err error) {
	defer holdThread()()
	r := &rig{options: opt, progress: progress, backends: map[string]*backend{}, ports: map[string]string{}}
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
	if err := r.startBackends(ctx); err != nil {
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
		all = append(all, w.needs...)
		if w.backend == web {
			all = append(all, "nginx")
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// leaveOut drops peers and workloads whose programs are missing, and says so.
func (r *rig) leaveOut(missing map[string]string, res *results) {
	lacks := func(what string, needs []string) bool {
		for _, n := range needs {
			if why, no := missing[n]; no {
				line := what + " is left out: " + why
				res.leftOut = append(res.leftOut, line)
				fmt.Fprintln(r.progress, line)
				return true
			}
		}
		return false
	}
	r.peers = slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool { return lacks("peer "+p.name, p.needs) })
	r.workloads = slices.DeleteFunc(slices.Clone(r.workloads), func(w workload) bool {
		needs := w.needs
		if w.backend == web {
			needs = append(slices.Clone(needs), "nginx")
		}
		return lacks("workload "+w.name, needs)
	})
	res.peers, res.workloads = r.peers, r.workloads
}

// measure makes the measurements. Peers of one round stand close together in
// time, so that their ratio says something though the machine drifts; each
// round begins with another peer and every other one runs backwards, so that
// none always follows the same.
func (r *rig) measure(ctx context.Context, res *results) error {
	for round := range r.rounds {
		for _, w := range r.workloads {
			for _, p := range inTurn(r.peers, round) {
				if w.proxied && p.argv == nil {
					continue
				}
				s, err := r.try(ctx, w, p)
				if ctx.Err() != nil {
					return fmt.Errorf("interrupted: %w", context.Cause(ctx))
				}
				if err != nil {
					line := fmt.Sprintf("round %d, %s, %s: %v", round+1, w.name, p.name, err)
					fmt.Fprintln(r.progress, "BROKEN:", line)
					res.broken = append(res.broken, line)
					continue
				}
				s.workload, s.peer, s.round = w.name, p.name, round
				res.samples = append(res.samples, s)
				fmt.Fprintln(r.progress, progressLine(w, p, s, r.rounds))
			}
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

// try starts a peer, warms it up, measures one workload and stops the peer.
func (r *rig) try(ctx context.Context, w workload, p peer) (sample, error) {
	b := r.backends[w.backend]
	t := &trial{programs: r.programs, addr: b.addr, backend: b.server, length: r.length, sessions: r.room(p)}
	if p.argv != nil {
		s, err := r.startPeer(ctx, p, b)
		if err != nil {
			return sample{}, err
		}
		defer s.stop()
		t.peer, t.addr = s, r.ports[p.name]
	}
	const moment = 250 * time.Millisecond
	if err := warm(ctx, b, t.addr, moment); err != nil {
		return sample{}, fmt.Errorf("warm-up: %w", err)
	}
	if err := w.run(ctx, t); err != nil {
		return sample{}, err
	}
	if t.peer != nil {
		return t.sample, t.peer.alive()
	}
	return t.sample, nil
}

// room returns how many idle sessions to open through p: as many as asked
// for, if the file limit allows.
func (r *rig) room(p peer) int {
	const (
		spare    = 1024   // files that a program keeps for other uses
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

// startPeer starts p in front of b and waits until it passes an answer on.
func (r *rig) startPeer(ctx context.Context, p peer, b *backend) (*server, error) {
	at := place{programs: r.programs, dir: r.dir, listen: r.ports[p.name], target: b.addr, files: r.files}
	if p.config != nil {
		at.file = filepath.Join(r.dir, p.name+".conf")
		if err := os.WriteFile(at.file, []byte(p.config(at)), 0o600); err != nil {
			return nil, err
		}
	}
	// The time-out is a last resort: no measurement takes that long.
	s, err := serve(ctx, r.length+2*time.Minute, r.dir, p.name, p.argv(at))
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, func() error { return b.probe(at.listen) }); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// startBackends starts what the workloads need and reserves a port for each
// peer.
func (r *rig) startBackends(ctx context.Context) error {
	ports, err := freePorts(len(r.peers) + 2)
	if err != nil {
		return err
	}
	for i, p := range r.peers {
		r.ports[p.name] = ports[i]
	}
	ports = ports[len(r.peers):]
	at := place{programs: r.programs, dir: r.dir, file: filepath.Join(r.dir, "web.conf"), files: r.files}
	if r.uses(web) {
		at.listen = ports[0]
		root, err := writePages(r.dir)
		if err != nil {
			return err
		}
		if err := os.WriteFile(at.file, []byte(webConfig(at, root)), 0o600); err != nil {
			return err
		}
		if err := r.startBackend(ctx, web, at.listen, nginxArgv(at), probeWeb); err != nil {
			return err
		}
	}
	if r.uses(streams) {
		argv := []string{r.programs["bench"], roleStreams, ports[1]}
		return r.startBackend(ctx, streams, ports[1], argv, probeStreams)
	}
	return nil
}

func (r *rig) uses(kind string) bool {
	return slices.ContainsFunc(r.workloads, func(w workload) bool { return w.backend == kind })
}

func (r *rig) startBackend(ctx context.Context, kind, addr string, argv []string, probe func(string) error) error {
	const longestRun = 6 * time.Hour
	s, err := serve(ctx, longestRun, r.dir, "backend-"+kind, argv)
	if err != nil {
		return err
	}
	r.backends[kind] = &backend{s, addr, probe}
	return s.await(ctx, func() error { return probe(addr) })
}

func (r *rig) stopBackends() {
	for _, b := range r.backends {
		b.stop()
	}
}

// freePorts returns addresses on loopback that nobody listens on. They lie
// below the range that outgoing connections take their ports from, so they
// stay free.
func freePorts(n int) ([]string, error) {
	low, err := lowestOutgoingPort()
	if err != nil {
		return nil, err
	}
	const lowest = 10_000
	var free []string
	for port := low - 1; port >= lowest && len(free) < n; port-- {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		free = append(free, addr)
	}
	if len(free) < n {
		return nil, fmt.Errorf("only %d of %d ports are free between %d and %d, where outgoing connections begin (net.ipv4.ip_local_port_range)", len(free), n, lowest, low)
	}
	return free, nil
}

func lowestOutgoingPort() (int, error) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, err
	}
	var low, high int
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return 0, fmt.Errorf("ip_local_port_range: %w", err)
	}
	return low, nil
}

// raiseFileLimit allows this process and its children as many open files as
// the hard limit does, and returns that number.
func raiseFileLimit() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("file limit: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("file limit: %w", err)
	}
	return l.Cur, nil
}
