//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// compareAll visits the comparisons in turns: in each of them new programs are
// started and take turns for some rounds. What is decided is visited no more. It
// ends when all is decided, after the last look, or when the time is over.
func (r *rig) compareAll(ctx context.Context, res *results) error {
	all := r.plan()
	f := newForecast(r.options, all)
	fmt.Fprintf(r.progress, "%d comparisons, %v for one visit to each, %v in all\n", len(all), f.once, r.time)
	end := res.began.Add(r.time)
	for visit := range r.visits() {
		for i, c := range all {
			peers := r.open(res, c, visit)
			if len(peers) == 0 {
				continue
			}
			if visit > 0 && time.Now().Add(f.takes(c, len(peers))).After(end) {
				r.omit(res, fmt.Sprintf("the time was over after %d of %d comparisons of visit %d", i, len(all), visit+1))
				return nil
			}
			began := time.Now()
			if err := r.visit(ctx, c, peers, visit, res); err != nil {
				return err
			}
			f.visited(c, len(peers), time.Since(began))
			fmt.Fprintf(r.progress, "[visit %d, %d/%d, %v] %s\n", visit+1, i+1, len(all), time.Since(res.began).Round(time.Second), progressLine(res, c))
		}
	}
	return nil
}

// visits returns how often a comparison is visited at most.
func (r *rig) visits() int {
	if r.quick {
		return 1
	}
	return looks
}

// plan returns the comparisons that the options ask for. Without a network of its
// own the bench leaves the congestion control as it is.
func (r *rig) plan() []comparison {
	var all []comparison
	for _, w := range r.workloads {
		threads, controls := []int{1, 2}, []string{usualControl}
		if w.once {
			threads = threads[1:]
		}
		if w.controls != nil {
			controls = w.controls
		}
		if !inNetwork() {
			controls = []string{currentControl()}
		}
		for _, c := range controls {
			for _, n := range threads {
				if chosen(r.threads, n) && chosen(r.controls, c) {
					all = append(all, comparison{w, setting{w.name, n, c}})
				}
			}
		}
	}
	return all
}

// chosen reports whether a list that was typed has x; an empty one has all.
func chosen[T comparable](list []T, x T) bool { return len(list) == 0 || slices.Contains(list, x) }

// contestants returns the peers of a comparison: those that were asked for by name,
// or those that the workload says.
func (r *rig) contestants(w workload) []peer {
	return slices.DeleteFunc(slices.Clone(r.peers), func(p peer) bool {
		switch {
		case w.proxied && p.argv == nil:
			return true
		case r.asked:
			return false
		case w.alone:
			return p.role != subject
		case w.own:
			return p.role != subject && !slices.Contains(w.with, p.name)
		case p.role == bare:
			return !slices.Contains(p.of, w.group)
		}
		return p.role != subject && p.role != installed && !slices.Contains(w.with, p.name)
	})
}

// open returns the peers that a comparison needs in a visit: all in the first, and
// then those whose verdicts are open, with txlb, the bare relays and, for latencies, no
// proxy.
func (r *rig) open(res *results, c comparison, visit int) []peer {
	all := r.contestants(c.workload)
	if visit == 0 {
		return all
	}
	names := map[string]bool{}
	for _, v := range res.verdicts(c) {
		if v.verdict == undecided && v.got.n > 0 {
			names[v.against] = true
		}
	}
	if len(names) == 0 {
		return nil
	}
	return slices.DeleteFunc(all, func(p peer) bool { return !names[p.name] && p.role != subject && p.role != unproxied && p.role != bare })
}

// inTurn returns the peers in the order of a round, which begins with the peer
// whose number the round has. Every other one runs backwards, so that none always
// follows the same.
func inTurn[T any](all []T, round int) []T {
	backwards := round % 2
	from := (round + backwards) % len(all)
	turned := slices.Concat(all[from:], all[:from])
	if backwards == 1 {
		slices.Reverse(turned)
	}
	return turned
}

// settle is a pause after a slice: what it leaves to be done is done.
const settle = 20 * time.Millisecond

// visit starts the peers, lets them take turns and stops them. It returns an error
// only if ctx ends.
func (r *rig) visit(ctx context.Context, c comparison, peers []peer, visit int, res *results) error {
	broken := func(p peer, err error) {
		line := fmt.Sprintf("visit %d, %s, %s: %v", visit+1, c.label(), p.name, err)
		fmt.Fprintln(r.progress, "BROKEN:", line)
		res.broken = append(res.broken, line)
	}
	if inNetwork() {
		if err := setControl(ctx, c.control); err != nil {
			broken(peer{name: "all"}, err)
			return nil
		}
	}
	type contestant struct {
		peer
		*trial
	}
	var all []contestant
	defer func() {
		for _, one := range all {
			one.stop()
		}
	}()
	for _, p := range peers {
		t, err := r.start(ctx, c, p)
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		}
		if err != nil {
			broken(p, err)
			continue
		}
		all = append(all, contestant{p, t})
	}
	out := map[string]bool{}
	for round := range r.roundsOf(c.workload) {
		if len(all) == 0 {
			break
		}
		for _, one := range inTurn(all, round) {
			if out[one.peer.name] {
				continue
			}
			s, err := one.slice(ctx, c)
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted: %w", context.Cause(ctx))
			}
			if err != nil {
				broken(one.peer, err)
				out[one.peer.name] = true
				continue
			}
			s.peer, s.visit, s.round = one.peer.name, visit, round
			res.samples = append(res.samples, s)
		}
	}
	return nil
}

// start starts a peer, warms it up and makes what is held beside all slices. Its
// caller must call stop.
func (r *rig) start(ctx context.Context, c comparison, p peer) (*trial, error) {
	t := &trial{programs: r.programs, client: c.sides.client(), length: r.lengthOf(c.workload), sessions: r.room(p)}
	var routes []route
	for i, k := range c.kinds() {
		b := r.backends[k]
		t.backends = append(t.backends, b.Server)
		at := route{b.addr, b.addr}
		if p.argv != nil {
			at.listen = r.ports[p.name][i]
		}
		routes = append(routes, at)
	}
	t.addr, t.besideAddr = routes[0].listen, routes[len(routes)-1].listen
	if p.argv != nil {
		var err error
		if t.peer, err = r.startPeer(ctx, p, c, routes); err != nil {
			return nil, err
		}
	}
	const moment = 100 * time.Millisecond
	err := warm(ctx, r.backends[c.backend], t.to(), moment)
	if err != nil {
		err = fmt.Errorf("warm-up: %w", err)
	} else if c.hold != nil && t.peer != nil {
		t.release, err = c.hold(ctx, t)
	}
	if err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

func (t *trial) stop() {
	if t.release != nil {
		t.release()
	}
	if t.peer != nil {
		t.peer.Stop()
	}
}

// slice makes one, in a minute at most.
func (t *trial) slice(ctx context.Context, c comparison) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute+10*t.length)
	defer cancel()
	t.sample = sample{setting: c.setting}
	for name, v := range t.held {
		t.note(name, v)
	}
	err := c.run(ctx, t)
	if err == nil && t.peer != nil {
		err = t.peer.Alive()
	}
	if err == nil {
		err = pause(ctx, settle)
	}
	return t.sample, err
}

// closing notes what is known at the end only.
func (res *results) closing() {
	network := "one of its own"
	if !inNetwork() {
		network = "the machine's, with " + currentControl() + " for all"
	}
	res.facts = append([]fact{
		{factCommand, strings.Join(append([]string{"go run ./bench"}, res.args...), " ")},
		{factBegan, res.began.UTC().Format("2006-01-02 15:04 UTC")},
		{factTook, time.Since(res.began).Round(time.Second).String()},
		{factSlice, res.length.String()},
		{"Network", network},
	}, res.facts...)
	for _, line := range trouble(res) {
		res.facts = append(res.facts, fact{factTrouble, line})
	}
}

// The congestion control of comparisons that do not name one.
const usualControl = "cubic"
