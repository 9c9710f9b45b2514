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

// finish ends the process and adds what it said to err.
func (l *loader) finish(err error) error {
	_ = l.shut() // it ends anyway when there is no more to read
	if status := l.cmd.Wait(); err != nil {
		return fmt.Errorf("load: %w: %v: %s", err, status, strings.TrimSpace(l.complain.String()))
	}
	return nil
}

// latency is the part of a workload that sends small requests at a fixed
// rate while the trial is measured. Its units are the requests answered.
func latency(ctx context.Context, t *trial, lanes int, rate float64, beside ...func(while time.Duration)) error {
	ctx, cancel := context.WithTimeout(ctx, t.length+time.Minute)
	defer cancel()
	l, err := startLoader(ctx, t.programs["bench"], order{t.addr, lanes, rate, t.length})
	if err != nil {
		return err
	}
	var o outcome
	err = t.measure(func() error {
		var err error
		o, err = l.measure()
		return err
	})
	for _, f := range beside {
		f(t.time)
	}
	if err = l.finish(err); err != nil {
		return err
	}
	t.load += l.cmd.ProcessState.UserTime() + l.cmd.ProcessState.SystemTime()
	if o.Answered == 0 {
		return errors.New("no request was answered")
	}
	t.units, t.failed = float64(o.Answered), o.Failed
	t.note(p50, micros(o.P50))
	t.note(p99, micros(o.P99))
	t.note(p999, micros(o.P999))
	t.note("late", float64(o.Late))
	return nil
}

// The latencies that are reported, by name of the figure.
const p50, p99, p999 = "p50", "p99", "p99.9"

// rateLoad sends small requests at a fixed rate.
func rateLoad(rate int, quick bool) workload {
	return workload{
		name: fmt.Sprintf("rate%dk", rate/1000), title: fmt.Sprintf("Small requests at a fixed rate, %s a second", short(float64(rate))), unit: "request",
		how:     fmt.Sprintf("open loop over %d kept-alive connections, reply of 100 bytes, latency from the intended time", lanes),
		backend: web, quick: quick, longer: 2, brief: 500 * time.Millisecond, figures: latencyFigures(),
		run: func(ctx context.Context, t *trial) error { return latency(ctx, t, lanes, float64(rate)) },
	}
}

// shareLoad sends small requests at a share of what the slowest peer can do.
func shareLoad(percent int) workload {
	return workload{
		name: fmt.Sprintf("share%d", percent), title: fmt.Sprintf("Small requests at %d %% of what the slowest peer can do", percent), unit: "request",
		how:     fmt.Sprintf("open loop over %d kept-alive connections, latency from the intended time", lanes),
		backend: web, minor: true, ofSlowest: true, longer: 2, brief: 500 * time.Millisecond, figures: latencyFigures(),
		run: func(ctx context.Context, t *trial) error {
			return latency(ctx, t, lanes, t.slowest*float64(percent)/100)
		},
	}
}

// capacity returns how many small requests a second can be answered at
// address when each connection sends as soon as it can.
func capacity(ctx context.Context, bench, address string) (float64, error) {
	const moment = 400 * time.Millisecond
	l, err := startLoader(ctx, bench, order{address, lanes, 0, moment})
	if err != nil {
		return 0, err
	}
	o, err := l.measure()
	if err = l.finish(err); err != nil {
		return 0, err
	}
	return float64(o.Answered) / moment.Seconds(), nil
}

// mixedLoad sends small requests over a few connections while streams fill
// the rest of the machine.
func mixedLoad() workload {
	const few, rate, count = 8, 400, 64
	return workload{
		name: "mixed", title: fmt.Sprintf("%d small connections beside %d bulk streams", few, count), unit: "request",
		how:     fmt.Sprintf("open loop of %d small requests a second; the streams go to the client", rate),
		backend: web, beside: streams, longer: 3, figures: besideFigures(),
		run: func(ctx context.Context, t *trial) error {
			s, err := startStreams(t.besideAddr, count, opDown)
			if err != nil {
				return err
			}
			defer s.close()
			if err := pause(ctx, ramp); err != nil {
				return err
			}
			before := s.moved.Load()
			err = latency(ctx, t, few, rate, func(took time.Duration) {
				t.note("stream", float64(s.moved.Load()-before)/mebibyte/took.Seconds())
			})
			t.failed += int(s.failed.Load())
			return err
		},
	}
}

// stalledLoad sends small requests beside readers that have asked for an
// endless stream and do not read.
func stalledLoad() workload {
	const most, rate = 1000, 5000
	return workload{
		name: "stalled", title: "Small requests beside 1,000 stalled readers", unit: "request",
		how:     fmt.Sprintf("open loop of %d small requests a second over %d connections; fewer readers where memory is short", rate, lanes),
		backend: web, beside: streams, proxied: true, longer: 2, figures: stalledFigures(),
		run: func(ctx context.Context, t *trial) error {
			free, err := available()
			if err != nil {
				return err
			}
			before, err := resident(t.peer)
			if err != nil {
				return err
			}
			// A reader holds up to the largest buffers of four sockets.
			const each = 12 * mebibyte
			s, err := startStalled(ctx, t.besideAddr, min(t.sessions, most, max(1, free/each)))
			if err != nil {
				return err
			}
			defer s.close()
			after, err := resident(t.peer)
			if err != nil {
				return err
			}
			left, err := available()
			if err != nil {
				return err
			}
			t.note("memory", float64(max(after, before)-before)/1024/float64(len(s.conns)))
			t.note("held", float64(max(free, left)-left)/mebibyte)
			t.note("sessions", float64(len(s.conns)))
			return latency(ctx, t, lanes, rate)
		},
	}
}
