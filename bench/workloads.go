//go:build linux

package main

import (
	"context"
	"errors"
	"time"
)

// workload is one kind of work. Its run drives the trial and records what was
// done; what that took is measured by the trial.
type workload struct {
	name    string
	title   string
	unit    string // what is counted, in the singular
	how     string // in a few words
	backend string // what stands behind the peer: a kind of backend
	beside  string // what stands behind its second listener; "" for none

	quick     bool          // part of the quick run
	wide      bool          // with the variants of txlb too
	minor     bool          // no goal hangs on it: fewer rounds
	proxied   bool          // makes no sense without a proxy
	admin     bool          // needs an admin page, so it is for txlb alone
	ofSlowest bool          // needs to know what the slowest peer can do
	longer    int           // times the usual length; 0 is 1
	brief     time.Duration // length for counting system calls; 0: they are not
	needs     []string
	figures   []figure
	run       func(context.Context, *trial) error
}

func (w workload) key() string { return w.name }

// kinds returns the backends that it works with.
func (w workload) kinds() []string {
	if w.beside == "" {
		return []string{w.backend}
	}
	return []string{w.backend, w.beside}
}

// workloads returns all of them in the order of the report.
func workloads() []workload {
	quick := func(w workload) workload { w.quick = true; return w }
	wide := func(w workload) workload { w.wide = true; return w }
	minor := func(w workload) workload { w.minor = true; return w }
	return append([]workload{
		quick(wide(wrkLoad("short18k", "Short connections, 18 KB reply", "18k", lanes, closing))),
		minor(wrkLoad("short0", "Short connections, reply without a body", "empty", lanes, closing)),
		minor(wrkLoad("short1m", "Short connections, 1 MiB reply", "1m", lanes, closing)),
		abLoad("short18k-ab", "Short connections, 18 KB reply, with ab", "18k"),
		abLoad("short0-ab", "Short connections, reply without a body, with ab", "empty"),
		abLoad("short1m-ab", "Short connections, 1 MiB reply, with ab", "1m"),
		minor(wrkLoad("keep1", "One kept-alive connection, reply of 100 bytes", "small", 1)),
		quick(wide(wrkLoad("keep64", "64 kept-alive connections, reply of 100 bytes", "small", lanes))),
		wrkLoad("keep1000", "1,000 kept-alive connections, reply of 100 bytes", "small", 1000),
		minor(wrkLoad("keep18k-1", "One kept-alive connection, 18 KB reply", "18k", 1)),
		quick(wide(wrkLoad("keep18k-64", "64 kept-alive connections, 18 KB reply", "18k", lanes))),
		minor(wrkLoad("keep18k-1000", "1,000 kept-alive connections, 18 KB reply", "18k", 1000)),
		minor(bulkLoad(1, opDown)),
		wide(bulkLoad(4, opDown)),
		quick(wide(bulkLoad(64, opDown))),
		minor(bulkLoad(1, opUp)),
		minor(bulkLoad(4, opUp)),
		minor(bulkLoad(64, opUp)),
		rateLoad(5000, false),
		rateLoad(10_000, true),
		rateLoad(16_000, false),
		shareLoad(50),
		shareLoad(80),
		mixedLoad(),
		stalledLoad(),
		idleLoad(),
		besideIdleLoad(),
		sqlLoad(),
		redisLoad(1, 50_000),
		redisLoad(64, 1_000_000),
	}, attacks()...)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// warm sends a peer small work for a moment, so that its threads, buffers and
// caches are there before anything is measured.
func warm(ctx context.Context, b *backend, address string, moment time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { errs <- repeat(ctx, func() error { return b.probe(address) }) }()
	}
	var all []error
	for range cap(errs) {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// repeat calls f until ctx ends, at least once, and returns its first error.
func repeat(ctx context.Context, f func() error) error {
	for {
		if err := f(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}
