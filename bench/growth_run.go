//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// growAll measures every kind at every size. It runs in a network of its own, where
// all of 127.0.0.0/8 is free.
func growAll(ctx context.Context, kinds []growing, most int, progress io.Writer) (all []grownTo, err error) {
	defer holdThread()()
	if err := settleNetwork(); err != nil {
		return nil, err
	}
	if _, err = raiseFileLimit(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "txlb-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	programs, missing, err := provide(ctx, []string{"txlb"}, dir, progress)
	if err != nil {
		return nil, err
	}
	for name, why := range missing {
		return nil, fmt.Errorf("%s is missing: %s", name, why)
	}
	at := growthPlace{socket: filepath.Join(dir, "txlb.sock")}
	var addrs [4]netip.AddrPort
	for i := range addrs {
		addr, err := servers.FreeAddr()
		if err != nil {
			return nil, err
		}
		if addrs[i], err = netip.ParseAddrPort(addr); err != nil {
			return nil, err
		}
	}
	at.port, at.target, at.dead, at.metrics = int(addrs[0].Port()), int(addrs[1].Port()), int(addrs[2].Port()), addrs[3].String()
	back, err := serve(ctx, longestRun, dir, "backend", []string{programs["bench"], roleStreams, fmt.Sprintf("0.0.0.0:%d", at.target)})
	if err != nil {
		return nil, err
	}
	defer back.Stop()
	if err := back.Await(ctx, func() error { return probeStreams(dialer{address: addrs[1].String()}) }); err != nil {
		return nil, err
	}
	for _, k := range kinds {
		for _, n := range growthSizes() {
			if n > most {
				continue
			}
			if k.most > 0 {
				n = min(n, k.most)
			}
			g, err := growTo(ctx, programs["txlb"], dir, k, n, at)
			if ctx.Err() != nil {
				return nil, fmt.Errorf("interrupted: %w", context.Cause(ctx))
			}
			if err != nil {
				return nil, fmt.Errorf("%d %s: %w", n, k.name, err)
			}
			fmt.Fprintf(progress, "%d %s: a connection takes %s µs of CPU, a change %s ms\n", n, k.name, short(g.values["connection"]), short(g.values["change"]))
			all = append(all, g)
		}
	}
	return all, nil
}

// growTo measures one kind at one size with a txlb of its own.
func growTo(ctx context.Context, txlb, dir string, k growing, n int, at growthPlace) (g grownTo, err error) {
	g = grownTo{k.name, n, map[string]float64{}}
	file := filepath.Join(dir, "txlb.xml")
	config := fmt.Sprintf("<config><engine loops=\"1\"/>\n%s<admin><metrics listen=%q/><socket path=%q/></admin></config>\n", k.config(at, n), at.metrics, at.socket)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return g, err
	}
	began := time.Now()
	s, err := serve(ctx, longestRun, dir, "txlb", []string{txlb, "run", "-c", file})
	if err != nil {
		return g, err
	}
	defer s.Stop()
	takers := k.listeners(n)
	// The last listener opens last.
	if err := s.Await(ctx, func() error { return probeStreams(dialer{address: many(1, takers-1, at.port)}) }); err != nil {
		return g, err
	}
	g.values["start"] = float64(time.Since(began)) / float64(time.Millisecond)
	var held sessions
	defer held.close()
	if k.hold {
		if held.open(ctx, dialer{address: many(1, 0, at.port)}, n); held.failed > 0 {
			return g, fmt.Errorf("%d of %d sessions could be opened", len(held.conns), n)
		}
	}
	connections := func(times int) ([]time.Duration, error) {
		var took []time.Duration
		for i := range times {
			start := time.Now()
			c, err := open(dialer{address: many(1, i*takers/times, at.port)})
			if err != nil {
				return nil, err
			}
			took = append(took, time.Since(start))
			_ = c.Close()
		}
		return took, ctx.Err()
	}
	if _, err := connections(200); err != nil {
		return g, err
	}
	if err := g.connections(ctx, s, k, at, connections); err != nil {
		return g, err
	}
	if err := g.changes(ctx, s, at, n, k); err != nil {
		return g, err
	}
	// At rest.
	const rest = time.Second
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return g, err
	}
	before, err := cpuTime(s)
	if err != nil {
		return g, err
	}
	if err := pause(ctx, rest); err != nil {
		return g, err
	}
	after, err := cpuTime(s)
	if err != nil {
		return g, err
	}
	g.values["idle"] = micros(after-before) / 1000 / rest.Seconds()
	bytes, err := resident(s)
	g.values["resident"] = float64(bytes) / mebibyte
	return g, err
}

// connections measures connections, one at a time; a client of the dead group
// beside them if there is one.
func (g grownTo) connections(ctx context.Context, s *servers.Server, k growing, at growthPlace, some func(int) ([]time.Duration, error)) error {
	const times = 500
	pids, err := members(s.Group())
	if err != nil {
		return err
	}
	before, err := cpuTime(s)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !k.attack {
			return
		}
		// It is refused in the end, when every host has been tried.
		if c, err := net.DialTimeout("tcp", many(1, 1, at.port), 5*time.Second); err == nil {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
	}()
	took, err := some(times)
	<-done
	if err != nil {
		return err
	}
	after, err := cpuTime(s)
	if err != nil {
		return err
	}
	sorted := sortedDurations(took)
	g.values["connection"] = micros(after-before) / times
	g.values["p50"], g.values["p99"] = micros(percentile(sorted, 50)), micros(percentile(sorted, 99))
	counter, err := newKernelCounter(pids)
	if err != nil {
		return err
	}
	defer func() { _ = counter.close() }()
	from, err := reading(ctx, s, counter)
	if err != nil {
		return err
	}
	if _, err := some(200); err != nil {
		return err
	}
	to, err := reading(ctx, s, counter)
	if err != nil {
		return err
	}
	values, _ := to.since(from).values(200)
	g.values["calls"] = values[askedCounter]
	return nil
}

// changes measures changes of one host's weight, by the socket.
func (g grownTo) changes(ctx context.Context, s *servers.Server, at growthPlace, n int, k growing) error {
	const times = 20
	change := func(i int) error {
		c, err := net.DialTimeout("unix", at.socket, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c, "setHost s0 g h0 weight=%d\n", 2+i%100); err != nil {
			return err
		}
		answer, err := io.ReadAll(c)
		if said := strings.TrimSpace(string(answer)); err == nil && !strings.HasPrefix(said, "generation ") {
			err = errors.New(said)
		}
		return err
	}
	for i := range 5 {
		if err := change(i); err != nil {
			return fmt.Errorf("change: %w", err)
		}
	}
	objects := func() (float64, error) { return metric(ctx, at.metrics, "go_memstats_mallocs_total") }
	var allocated [3]float64
	var err error
	for i := range 2 {
		if allocated[i], err = objects(); err != nil {
			return err
		}
	}
	before, err := cpuTime(s)
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range times {
		start := time.Now()
		if err := change(i + 7); err != nil {
			return fmt.Errorf("change: %w", err)
		}
		took = append(took, time.Since(start))
	}
	after, err := cpuTime(s)
	if err != nil {
		return err
	}
	if allocated[2], err = objects(); err != nil {
		return err
	}
	g.values["change"] = micros(after-before) / 1000 / times
	g.values["wait"] = micros(percentile(sortedDurations(took), 50)) / 1000
	g.values["objects"] = max(0, allocated[2]-2*allocated[1]+allocated[0]) / times
	return nil
}
