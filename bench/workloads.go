//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// workload is one kind of work. Its run makes one slice of the trial and records
// what was done; what that took is measured by the trial.
type workload struct {
	name    string
	title   string
	unit    string // what is counted, in the singular
	how     string // in a few words
	backend string // what stands behind the peer: a kind of backend
	beside  string // what stands behind its second listener; "" for none

	group    group
	suite    string        // which command measures it: usual or tlsWork
	sides    secured       // where TLS is spoken
	own      bool          // compares txlb with what with names, and with nothing as installed
	with     []string      // peers beside txlb and what is as installed
	controls []string      // congestion controls; nil is the usual one
	quick    bool          // part of the quick run
	once     bool          // with two threads only
	asked    bool          // only if asked for by name
	proxied  bool          // makes no sense without a proxy
	alone    bool          // is about txlb alone
	rounds   int           // of a visit, where it is not the usual number
	longer   int           // times the usual length; 0 is 1
	around   time.Duration // what a slice takes beside, if it is much
	needs    []string
	figures  []figure
	// hold makes what stays beside all slices of a peer, and ends it; may be nil.
	hold func(context.Context, *trial) (release func(), err error)
	run  func(context.Context, *trial) error
}

// group is a kind of workload that goals speak of.
type group string

const (
	flows    group = "requests" // and transactions, as fast as they go
	bulks    group = "streams"
	files    group = "files"
	rates    group = "rates"
	attacked group = "attacked"
	others   group = ""

	tlsShakes group = "TLS connections"
	tlsFlows  group = "TLS requests"
	tlsBulks  group = "TLS streams"
	tlsHeld   group = "TLS sessions"
)

// The suites: what "bench" measures, and what "bench tls" does.
const usual, tlsWork = "", "tls"

func (w workload) key() string { return w.name }

// kinds returns the backends that it works with.
func (w workload) kinds() []string {
	if w.beside == "" {
		return []string{w.backend}
	}
	return []string{w.backend, w.beside}
}

// label names a comparison.
func (c comparison) label() string {
	l := fmt.Sprintf("%s, %d threads", c.setting.workload, c.threads)
	if c.threads == 1 {
		l = c.setting.workload + ", 1 thread"
	}
	if c.control != usualControl {
		l += ", " + c.control
	}
	return l
}

// workloads returns all of them in the order of the report.
func workloads() []workload {
	quick := func(w workload) workload { w.quick = true; return w }
	large := func(w workload) workload { w.with = append(w.with, spliced); return w } // replies large enough to splice
	all := []workload{
		quick(large(flowLoad("short18k", "Short connections, 18 KB reply", "18k", lanes, true))),
		flowLoad("short0", "Short connections, reply without a body", "empty", lanes, true),
		quick(flowLoad("keep64", "64 kept-alive connections, reply of 100 bytes", "small", lanes, false)),
		flowLoad("keep1000", "1,000 kept-alive connections, reply of 100 bytes", "small", 1000, false),
		large(flowLoad("keep18k", "64 kept-alive connections, 18 KB reply", "18k", lanes, false)),
		sqlLoad(),
		redisLoad(1, 50_000),
		redisLoad(64, 1_000_000),
		bulkLoad(1),
		bulkLoad(4),
		quick(bulkLoad(64)),
		fileLoad(1),
		fileLoad(4),
		quick(fileLoad(64)),
		rateLoad(5000),
		quick(rateLoad(10_000)),
		rateLoad(16_000),
		mixedLoad(),
		stalledLoad(),
		quick(idleLoad()),
	}
	return slices.Concat(all, attacks(), tlsWorkloads(), ownWorkloads())
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
func warm(ctx context.Context, b *backend, to dialer, moment time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { errs <- repeat(ctx, func() error { return b.probe(to) }) }()
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
