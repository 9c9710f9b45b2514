//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// loader is a generator in a process of its own; see [loadProcess].
type loader struct {
	cmd      *exec.Cmd
	to       *json.Encoder
	from     *json.Decoder
	shut     func() error // ends its input
	complain strings.Builder
}

// startLoader returns when the generator has ramped up. Its caller must
// call finish.
func startLoader(ctx context.Context, bench string, o order) (*loader, error) {
	l := &loader{cmd: command(ctx, bench, roleLoad)}
	l.cmd.Stderr = &l.complain
	in, err := l.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	l.to, l.from, l.shut = json.NewEncoder(in), json.NewDecoder(out), in.Close
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	var word string
	err = l.to.Encode(o)
	if err == nil {
		err = l.from.Decode(&word)
	}
	if err != nil {
		return nil, l.finish(err)
	}
	return l, nil
}

// measure lets the generator do its work and returns what it saw.
func (l *loader) measure() (outcome, error) {
	var o outcome
	if err := l.to.Encode("go"); err != nil {
		return o, err
	}
	return o, l.from.Decode(&o)
}

// used returns the CPU time of the process so far.
func (l *loader) used() (time.Duration, error) { return processTime(l.cmd.Process.Pid) }

// finish ends the process and adds what it said to err.
func (l *loader) finish(err error) error {
	_ = l.shut() // it ends anyway when there is no more to read
	if status := l.cmd.Wait(); err != nil {
		return fmt.Errorf("load: %w: %v: %s", err, status, strings.TrimSpace(l.complain.String()))
	}
	return nil
}

// runLoad measures one run of a generator. Its units are the requests answered.
func runLoad(ctx context.Context, t *trial, o order) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, t.length+time.Minute)
	defer cancel()
	o.Length = t.length
	l, err := startLoader(ctx, t.programs["bench"], o)
	if err != nil {
		return outcome{}, err
	}
	var got outcome
	var used time.Duration
	err = t.measure(func() (time.Duration, error) {
		before, err := l.used()
		if err != nil {
			return 0, err
		}
		if got, err = l.measure(); err != nil {
			return 0, err
		}
		after, err := l.used()
		used = after - before
		return used, err
	})
	if err = l.finish(err); err != nil {
		return got, err
	}
	if got.Answered == 0 {
		return got, errors.New("no request was answered")
	}
	t.note(loadCPU, micros(used)/float64(got.Answered))
	t.units, t.failed = float64(got.Answered), got.Failed+got.Late
	return got, nil
}

// latency measures small requests at a fixed rate.
func latency(ctx context.Context, t *trial, lanes int, rate float64) error {
	o, err := runLoad(ctx, t, order{Address: t.addr, Page: "small", Lanes: lanes, Rate: rate})
	t.note("p50", micros(o.P50))
	t.note(p99, micros(o.P99))
	t.note("mean", micros(o.Mean))
	return err
}

// rateLoad sends small requests at a fixed rate.
func rateLoad(rate int) workload {
	return workload{
		name: fmt.Sprintf("rate%dk", rate/1000), title: fmt.Sprintf("Small requests at a fixed rate, %s a second", short(float64(rate))), unit: "request",
		how:     fmt.Sprintf("open loop over %d kept-alive connections, reply of 100 bytes, latency from the intended time", lanes),
		backend: web, group: rates, with: []string{direct, large}, figures: latencyFigures(),
		run: func(ctx context.Context, t *trial) error { return latency(ctx, t, lanes, float64(rate)) },
	}
}

// mixedLoad sends small requests over a few connections while streams fill
// the rest of the machine.
func mixedLoad() workload {
	const few, rate, count = 8, 400, 64
	return workload{
		name: "mixed", title: fmt.Sprintf("%d small connections beside %d bulk streams", few, count), unit: "request",
		how:     fmt.Sprintf("open loop of %d small requests a second; the streams go to the client", rate),
		backend: web, beside: streams, with: []string{spliced}, once: true, longer: 3, figures: besideFigures(),
		run: func(ctx context.Context, t *trial) error {
			s, err := startStreams(dialer{address: t.besideAddr}, count, readStream)
			if err != nil {
				return err
			}
			defer s.close()
			if err := pause(ctx, bulkRamp); err != nil {
				return err
			}
			began, before := time.Now(), s.moved.Load()
			err = latency(ctx, t, few, rate)
			t.note(beside, float64(s.moved.Load()-before)/mebibyte/time.Since(began).Seconds())
			t.failed += int(s.failed.Load())
			return err
		},
	}
}

// stalledLoad sends small requests beside readers that have asked for an
// endless stream and do not read.
func stalledLoad() workload {
	const most, rate = 200, 5000
	return workload{
		name: "stalled", title: fmt.Sprintf("Small requests beside %d stalled readers", most), unit: "request",
		how:     fmt.Sprintf("open loop of %d small requests a second over %d connections; fewer readers where memory is short", rate, lanes),
		backend: web, beside: streams, with: []string{direct, spliced}, once: true, figures: stalledFigures(),
		hold: func(ctx context.Context, t *trial) (func(), error) {
			free, err := available()
			if err != nil {
				return nil, err
			}
			before, err := resident(t.peer)
			if err != nil {
				return nil, err
			}
			// A reader holds up to the largest buffers of four sockets, and other
			// peers want to have theirs.
			const each = 5 * 12 * mebibyte
			s, err := startStalled(ctx, t.besideAddr, min(t.sessions, most, max(1, free/each)))
			if err != nil {
				return nil, err
			}
			after, err := resident(t.peer)
			if err != nil {
				s.close()
				return nil, err
			}
			left, err := available()
			if err != nil {
				s.close()
				return nil, err
			}
			n := float64(len(s.conns))
			t.held = map[string]float64{
				grown: float64(max(after, before)-before) / 1024 / n, "held": float64(max(free, left)-left) / 1024 / n, "readers": n,
			}
			return s.close, nil
		},
		run: func(ctx context.Context, t *trial) error { return latency(ctx, t, lanes, rate) },
	}
}
