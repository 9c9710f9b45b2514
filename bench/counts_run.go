//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/servers"
)

// countedPeers are the programs whose work is counted, each with a number of threads.
func countedPeers() []peer {
	pinned := func(as, name string, threads int) peer {
		all := peers()
		p := all[slices.IndexFunc(all, func(p peer) bool { return p.name == name })]
		p.name = as
		config, argv := p.config, p.argv
		if config != nil {
			p.config = func(at place) string { at.threads = threads; return config(at) }
		}
		p.argv = func(at place) []string { at.threads = threads; return argv(at) }
		return p
	}
	all := []peer{
		pinned("haproxy", plain, 2), pinned("haproxy-1", plain, 1), pinned("nginx", "nginx", 2), pinned("go", "go", 2),
		pinned("bare", "bare", 1), pinned("bare", "bare-splice", 1), // the second for bulk
		pinned("txlb-1", ours, 1), pinned("txlb-2", ours, 2),
	}
	for _, p := range shapes() {
		all = append(all, pinned(p.name, p.name, 2))
	}
	return all
}

// countsControl is the congestion control under which everything is counted: no clock
// drives it, and every network may have it.
const countsControl = "reno"

// countedNeeds returns the programs that counting needs.
func countedNeeds(programs []peer) []string {
	needs := slices.Concat(kindOf(web).needs, kindOf(secureWeb).needs, kindOf(streams).needs)
	for _, p := range programs {
		needs = append(needs, p.needs...)
	}
	slices.Sort(needs)
	return slices.Compact(needs)
}

// countingRig is what all counts of a run share.
type countingRig struct {
	*rig
	core int
}

// countAll counts all works of all programs. It runs in a network of its own, see
// [enterNetwork].
func countAll(ctx context.Context, suite string, works []counted, programs []peer, rounds int, progress io.Writer) (all []*count, err error) {
	defer holdThread()()
	if err := settleNetwork(); err != nil {
		return nil, err
	}
	if err := os.WriteFile(controlFile, []byte(countsControl), 0o644); err != nil {
		return nil, err
	}
	r := countingRig{rig: &rig{progress: progress, backends: map[string]*backend{}, ports: map[string][]string{}}}
	r.peers = programs
	for _, w := range works {
		r.workloads = append(r.workloads, countedBehind(w.sides))
	}
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
	var missing map[string]string
	if r.programs, missing, err = provide(ctx, countedNeeds(programs), r.dir, progress); err != nil {
		return nil, err
	}
	for name, why := range missing {
		return nil, fmt.Errorf("%s is missing: %s", name, why)
	}
	defer r.stopBackends()
	if err := r.startBackends(ctx, &results{}); err != nil {
		return nil, err
	}
	if r.core, err = lastCore(); err != nil {
		return nil, err
	}
	for _, b := range r.backends {
		if err := confine(b.Server, r.core, 1); err != nil {
			return nil, err
		}
	}
	for round := range rounds {
		for _, p := range programs {
			works := slices.DeleteFunc(slices.Clone(works), func(w counted) bool { return !p.counts(suite, w) })
			err := r.countPeer(ctx, p, works, func(w counted, values, names map[string]float64) {
				all = remember(all, w.name, p.name, values, names)
				fmt.Fprintf(progress, "round %d of %d: %s, %s: %s\n", round+1, rounds, w.name, p.name, brief(w, values))
			})
			if ctx.Err() != nil {
				return nil, fmt.Errorf("interrupted: %w", context.Cause(ctx))
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return all, nil
}

// countedBehind is what stands behind a peer while works with these sides are counted.
func countedBehind(sides secured) workload {
	w := workload{name: "counts", backend: web, beside: streams, sides: sides}
	if sides.back {
		w.backend, w.beside = secureWeb, ""
	}
	return w
}

// countPeer starts a peer, counts each work once and passes it on to got. Memory
// is measured in a process of its own, and each kind of TLS too.
func (r countingRig) countPeer(ctx context.Context, p peer, works []counted, got func(counted, map[string]float64, map[string]float64)) error {
	metrics := ""
	if p.admin {
		var err error
		if metrics, err = servers.FreeAddr(); err != nil {
			return err
		}
		config := p.config
		p.config = func(at place) string {
			return strings.Replace(config(at), "</config>", fmt.Sprintf("<admin><metrics listen=%q/></admin>\n</config>", metrics), 1)
		}
	}
	// Works that one process can do after each other.
	type sort struct {
		sides secured
		idle  bool
	}
	var sorts []sort
	sorted := map[sort][]counted{}
	for _, w := range works {
		of := sort{w.sides, w.idle}
		if sorted[of] == nil {
			sorts = append(sorts, of)
		}
		sorted[of] = append(sorted[of], w)
	}
	for _, of := range sorts {
		if err := r.countProcess(ctx, p, countedBehind(of.sides), sorted[of], metrics, got); err != nil {
			return err
		}
	}
	return nil
}

// countProcess is the part of [countingRig.countPeer] that one process does.
func (r countingRig) countProcess(ctx context.Context, p peer, behind workload, works []counted, metrics string, got func(counted, map[string]float64, map[string]float64)) error {
	var routes []route
	for i, kind := range behind.kinds() {
		routes = append(routes, route{r.ports[p.name][i], r.backends[kind].addr})
	}
	s, err := r.startPeer(ctx, p, comparison{workload: behind}, routes)
	if err != nil {
		return err
	}
	defer s.Stop()
	for _, w := range works {
		to := dialer{routes[slices.Index(behind.kinds(), w.backend)].listen, behind.sides.client()}
		var values, names map[string]float64
		if w.idle {
			values = map[string]float64{}
			values[residentCounter], err = residentPerSession(ctx, s, r.backends[w.backend], to, r.room(p))
		} else if err = confine(s, r.core, 0); err == nil {
			values, names, err = r.countOne(ctx, p, w, s, to.address, metrics)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		got(w, values, names)
	}
	return s.Alive()
}

// residentPerSession returns by how many KiB each session lets the memory of a program
// grow.
func residentPerSession(ctx context.Context, peer *servers.Server, b *backend, to dialer, n int) (float64, error) {
	if err := warm(ctx, b, to, 250*time.Millisecond); err != nil {
		return 0, err
	}
	var s sessions
	defer s.close()
	kib, err := s.growth(ctx, peer, to, n)
	if err == nil && s.failed > 0 {
		err = fmt.Errorf("only %d of %d sessions could be opened", len(s.conns), n)
	}
	return kib, err
}

// countOne counts one work once.
func (r countingRig) countOne(ctx context.Context, p peer, w counted, s *servers.Server, address, metrics string) (values, names map[string]float64, err error) {
	pids, err := members(s.Group())
	if err != nil {
		return nil, nil, err
	}
	load, err := startSteps(ctx, r.programs["bench"], w.do, address, r.core)
	if err != nil {
		return nil, nil, err
	}
	defer load.stop()
	// What asking costs is taken off.
	var objects [3]float64
	for i := range 2 {
		if objects[i], err = allocations(ctx, p, s, metrics); err != nil {
			return nil, nil, err
		}
	}
	k, err := newKernelCounter(pids)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, k.close()) }()
	before, err := reading(ctx, s, k)
	if err != nil {
		return nil, nil, err
	}
	done, err := load.work()
	if err != nil {
		return nil, nil, err
	}
	after, err := reading(ctx, s, k)
	if err != nil {
		return nil, nil, err
	}
	if objects[2], err = allocations(ctx, p, s, metrics); err != nil {
		return nil, nil, err
	}
	units := float64(done.Requests)
	if w.unit == "MiB" {
		units = float64(done.Bytes) / mebibyte
	}
	values, names = after.since(before).values(units)
	values[allocationsCounter] = max(0, objects[2]-2*objects[1]+objects[0]) / units
	return values, names, nil
}

// countReading is one reading of all counters.
type countReading struct {
	kernel   kernelCounts
	segments uint64
	cpu      time.Duration
}

// reading waits until the server has nothing more to do, then reads.
func reading(ctx context.Context, s *servers.Server, k *kernelCounter) (c countReading, err error) {
	const calm, most = 30 * time.Millisecond, 50
	for range most {
		last := c.kernel
		if c.kernel, err = k.read(); err != nil {
			return c, err
		}
		if last != nil && slices.Equal(last[callsMap], c.kernel[callsMap]) {
			break
		}
		if err := pause(ctx, calm); err != nil {
			return c, err
		}
	}
	if c.segments, err = segments(); err != nil {
		return c, err
	}
	c.cpu, err = cpuTime(s)
	return c, err
}

func (c countReading) since(before countReading) countReading {
	return countReading{c.kernel.since(before.kernel), c.segments - before.segments, c.cpu - before.cpu}
}

// values are the counts for one unit of work; names the system calls by name and
// the operations of the ring.
func (c countReading) values(units float64) (values, names map[string]float64) {
	names = map[string]float64{}
	total := func(counter string, name func(int) string) (sum float64) {
		for i, n := range c.kernel[counter] {
			sum += float64(n)
			if n > 0 && name != nil {
				names[name(i)] = float64(n) / units
			}
		}
		return sum / units
	}
	of := func(counter string, numbers ...int) (sum float64) {
		for _, i := range numbers {
			sum += float64(c.kernel[counter][i])
		}
		return sum / units
	}
	calls, timed := total(callsMap, callName), of(callsMap, byClock...)
	return map[string]float64{
		askedCounter:     calls - timed,
		timedCounter:     timed,
		againCounter:     total(againMap, nil),
		ringCounter:      total(ringMap, func(i int) string { return "ring:" + cmp.Or(ringNames[i], strconv.Itoa(i)) }),
		segmentsCounter:  float64(c.segments) / units,
		waitsCounter:     of(schedMap, voluntary),
		preemptedCounter: of(schedMap, involuntary),
		wakeupsCounter:   of(schedMap, wakeups),
		copiedCounter:    (of(bytesMap, copying...) + of(ringBytesMap, ringCopying...)) / 1024,
		splicedCounter:   of(bytesMap, unix.SYS_SPLICE) / 1024,
		cpuCounter:       micros(c.cpu) / units,
	}, names
}

// allocations returns how many objects a Go program has allocated so far; no
// number for another.
func allocations(ctx context.Context, p peer, s *servers.Server, metrics string) (float64, error) {
	switch {
	case metrics != "":
		return metric(ctx, metrics, "go_memstats_mallocs_total")
	case p.reports:
		return reported(ctx, s)
	}
	return math.NaN(), nil
}

// metric reads one number of the metrics.
func metric(ctx context.Context, addr, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("the metrics lack %s: status %s", name, resp.Status)
}

// A role that is a Go proxy writes how many objects it has allocated, and a number of its
// own for each time, when it gets a signal.
const allocated = "allocated"

func answerAllocations() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go reportAllocations(asked, os.Stderr)
}

func reportAllocations(asked <-chan os.Signal, to io.Writer) {
	var m runtime.MemStats
	for range asked {
		runtime.ReadMemStats(&m)
		fmt.Fprintf(to, "%s %d\n", allocated, m.Mallocs)
	}
}

func reported(ctx context.Context, s *servers.Server) (float64, error) {
	lines := func() ([]string, error) {
		text, err := os.ReadFile(s.Log)
		return strings.Split(strings.TrimSpace(string(text)), "\n"), err
	}
	before, err := lines()
	if err != nil {
		return 0, err
	}
	if err := unix.Kill(s.Group(), unix.SIGUSR1); err != nil {
		return 0, err
	}
	for range 1000 {
		now, err := lines()
		if err != nil {
			return 0, err
		}
		last := strings.Fields(now[len(now)-1])
		if (len(now) > len(before) || before[0] == "" && now[0] != "") && len(last) == 2 && last[0] == allocated {
			return strconv.ParseFloat(last[1], 64)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("the proxy does not say what it has allocated")
}

// confine puts all threads of a server on one core; with a priority above 0 they
// run before all that have none.
func confine(s *servers.Server, core, priority int) error {
	pids, err := members(s.Group())
	if err != nil {
		return err
	}
	for _, dir := range taskDirs(pids) {
		id, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		if err := confineThread(id, core, priority); err != nil && !gone(err) {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

// confineThread does so for one thread; what it starts inherits it.
func confineThread(id, core, priority int) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(id, &set); err != nil {
		return fmt.Errorf("put a thread on core %d: %w", core, err)
	}
	if priority == 0 {
		return nil
	}
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: uint32(priority)}
	if err := unix.SchedSetAttr(id, &attr, 0); err != nil {
		return fmt.Errorf("give a thread priority (as root): %w", err)
	}
	return nil
}

// lastCore returns the last of the cores that this process may use.
func lastCore() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, err
	}
	last := 0
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			last = i
		}
	}
	return last, nil
}

// stepsLoad is a process that plays roleSteps.
type stepsLoad struct {
	in   io.WriteCloser
	from *json.Decoder
	stop func()
}

// startSteps starts one and returns when it is warm.
func startSteps(ctx context.Context, bench string, do steps, address string, core int) (*stepsLoad, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	cmd := command(ctx, bench, roleSteps, strconv.Itoa(core))
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	l := &stepsLoad{in: in, from: json.NewDecoder(out)}
	l.stop = func() {
		_ = in.Close()
		cancel()
		_ = cmd.Wait() // killed
	}
	do.Address = address
	var word string
	if err = json.NewEncoder(in).Encode(do); err == nil {
		err = l.from.Decode(&word)
	}
	if err != nil {
		l.stop()
		return nil, fmt.Errorf("the load: %w: %s", err, said.String())
	}
	return l, nil
}

// work has it do its steps.
func (l *stepsLoad) work() (stepped, error) {
	var done stepped
	err := json.NewEncoder(l.in).Encode("go")
	if err == nil {
		err = l.from.Decode(&done)
	}
	if err != nil {
		return done, fmt.Errorf("the load failed while it was counted: %w", err)
	}
	return done, nil
}

// brief is a line of progress.
func brief(w counted, values map[string]float64) string {
	if w.idle {
		return fmt.Sprintf("%.2f KiB per %s", values[residentCounter], w.unit)
	}
	return fmt.Sprintf("%.2f system calls, %.2f segments per %s", values[askedCounter], values[segmentsCounter], w.unit)
}
