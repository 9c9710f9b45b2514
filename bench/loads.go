//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// workload is one kind of work. Its run drives the trial and records what was
// done; what that took is measured by the trial.
type workload struct {
	name    string
	title   string
	unit    string // what is counted, in the singular
	how     string // in a few words
	backend string // web or streams
	quick   bool   // part of the quick run
	needs   []string
	figures []figure
	proxied bool // makes no sense without a proxy
	run     func(context.Context, *trial) error
}

func (w workload) key() string { return w.name }

// workloads returns all of them in the order of the report.
func workloads() []workload {
	return []workload{
		wrkLoad("short18k", "Short connections, 18 KB reply", "18k", true, closing),
		wrkLoad("short", "Short connections, reply of 100 bytes", "small", true, closing),
		wrkLoad("short0", "Short connections, reply without a body", "empty", false, closing),
		wrkLoad("short1m", "Short connections, 1 MiB reply", "1m", false, closing),
		abLoad("short18k-ab", "Short connections, 18 KB reply, with ab", "18k"),
		abLoad("short-ab", "Short connections, reply of 100 bytes, with ab", "small"),
		wrkLoad("keep", "Kept-alive connections, reply of 100 bytes", "small", true),
		wrkLoad("keep18k", "Kept-alive connections, 18 KB reply", "18k", true),
		bulkLoad("bulk4", "Bulk, 4 streams to the client", 4, opDown, true),
		bulkLoad("bulk64", "Bulk, 64 streams to the client", 64, opDown, false),
		bulkLoad("bulk4-up", "Bulk, 4 streams to the backend", 4, opUp, false),
		{
			name: "idle", title: "Idle sessions", unit: "session", how: "as many sessions as fit, silent after one small message each",
			backend: streams, quick: true, figures: memory(), proxied: true, run: idle,
		},
	}
}

// lanes is how many connections wrk and ab keep busy.
const lanes = 64

// closing makes wrk open a connection for each request.
const closing = "Connection: close"

// wrkLoad asks for a page with wrk, with request headers if given.
func wrkLoad(name, title, page string, quick bool, headers ...string) workload {
	unit, how := "request", fmt.Sprintf("wrk -t2 -c%d", lanes)
	for _, h := range headers {
		how += " -H '" + h + "'"
		if h == closing {
			unit = "connection"
		}
	}
	return workload{
		name: name, title: title, unit: unit, how: how, backend: web, quick: quick, needs: []string{"wrk"}, figures: figures(unit, unit+"s"),
		run: func(ctx context.Context, t *trial) error {
			argv := []string{t.programs["wrk"], "-t2", fmt.Sprintf("-c%d", lanes), "--timeout", "5s", "-d", seconds(t.length) + "s"}
			for _, h := range headers {
				argv = append(argv, "-H", h)
			}
			return httpLoad(ctx, t, parseWrk, append(argv, "http://"+t.addr+"/"+page)...)
		},
	}
}

// abLoad asks for a page with ab, a connection for each request.
func abLoad(name, title, page string) workload {
	return workload{
		name: name, title: title, unit: "connection", how: fmt.Sprintf("ab -c %d", lanes), backend: web, needs: []string{"ab"}, figures: figures("connection", "connections"),
		run: func(ctx context.Context, t *trial) error {
			// -t sets a bound of 50,000 requests, which -n after it lifts.
			return httpLoad(ctx, t, parseAb, t.programs["ab"], "-q", "-r", "-c", strconv.Itoa(lanes),
				"-t", seconds(t.length), "-n", "100000000", "http://"+t.addr+"/"+page)
		},
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// httpLoad measures one run of a load program and reads what it did.
func httpLoad(ctx context.Context, t *trial, parse func(string) (tally, error), argv ...string) error {
	var out []byte
	err := t.measure(func() error {
		ctx, cancel := context.WithTimeout(ctx, t.length+10*time.Second)
		defer cancel()
		cmd := command(ctx, argv...)
		var err error
		out, err = cmd.CombinedOutput()
		if cmd.ProcessState != nil {
			t.load += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	n, err := parse(string(out))
	if err != nil {
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	if n.done-n.wrong <= 0 {
		return fmt.Errorf("%s: no request succeeded: %s", argv[0], strings.TrimSpace(string(out)))
	}
	t.units, t.failed = float64(n.done-n.wrong), n.failed+n.wrong
	return nil
}

// tally is what a load program says it did.
type tally struct {
	done   int // requests answered
	wrong  int // of these, with an answer that is none
	failed int // requests not answered
}

// parseWrk reads wrk's report.
func parseWrk(out string) (tally, error) {
	var t tally
	var err error
	if t.done, err = number(out, `(\d+) requests in `); err != nil {
		return t, err
	}
	// These two lines are there only if there is something to say.
	if strings.Contains(out, "Non-2xx or 3xx responses:") {
		if t.wrong, err = number(out, `Non-2xx or 3xx responses: (\d+)`); err != nil {
			return t, err
		}
	}
	if strings.Contains(out, "Socket errors:") {
		for _, kind := range []string{"connect", "read", "write", "timeout"} {
			n, err := number(out, `Socket errors:.* `+kind+` (\d+)`)
			if err != nil {
				return t, err
			}
			t.failed += n
		}
	}
	return t, nil
}

// parseAb reads ab's report. Its failed requests are among the complete ones,
// and one may have failed in two ways: it counts both.
func parseAb(out string) (tally, error) {
	var t tally
	var err error
	if t.done, err = number(out, `Complete requests: +(\d+)`); err != nil {
		return t, err
	}
	if t.wrong, err = number(out, `Failed requests: +(\d+)`); err != nil {
		return t, err
	}
	if strings.Contains(out, "Non-2xx responses:") {
		n, err := number(out, `Non-2xx responses: +(\d+)`)
		if err != nil {
			return t, err
		}
		t.wrong += n
	}
	return t, nil
}

// number returns the first number that a pattern captures.
func number(text, pattern string) (int, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("its output has no %q: %s", pattern, strings.TrimSpace(text))
	}
	return strconv.Atoi(m[1])
}

// mebibyte is the unit of bulk work.
const mebibyte = 1 << 20

// bulkLoad moves bytes one way over a number of streams.
func bulkLoad(name, title string, count int, op byte, quick bool) workload {
	return workload{
		name: name, title: title, unit: "MiB", how: "endless streams, a window in their middle", backend: streams, quick: quick, figures: figures("MiB", "MiB"),
		run: func(ctx context.Context, t *trial) error { return bulk(ctx, t, count, op) },
	}
}

// bulk measures a window in the middle of endless streams, so that neither
// what is in buffers at its ends nor the start-up counts.
func bulk(ctx context.Context, t *trial, count int, op byte) error {
	var moved atomic.Int64
	var failed atomic.Int64
	stop := make(chan struct{})
	var work sync.WaitGroup
	conns := make([]net.Conn, 0, count)
	defer func() {
		close(stop)
		for _, c := range conns {
			c.Close()
		}
		work.Wait()
	}()
	for range count {
		c, err := net.DialTimeout("tcp", t.addr, 5*time.Second)
		if err != nil {
			return err
		}
		conns = append(conns, c)
		work.Go(func() {
			err := move(c, op, &moved)
			select {
			case <-stop: // closed by us
			default:
				if err != nil {
					failed.Add(1)
				}
			}
		})
	}
	const ramp = 300 * time.Millisecond
	if err := pause(ctx, ramp); err != nil {
		return err
	}
	var before, after int64
	err := t.measure(func() error {
		before = moved.Load()
		err := pause(ctx, t.length)
		after = moved.Load()
		return err
	})
	t.units, t.failed = float64(after-before)/mebibyte, int(failed.Load())
	if err == nil && t.units == 0 {
		err = errors.New("no byte moved")
	}
	return err
}

// move reads or writes c until it fails, and counts the bytes. It never
// returns nil: a stream has no end.
func move(c net.Conn, op byte, moved *atomic.Int64) error {
	if _, err := c.Write([]byte{op}); err != nil {
		return err
	}
	step := c.Read
	if op == opUp {
		step = c.Write
	}
	for buf := make([]byte, block); ; {
		n, err := step(buf)
		moved.Add(int64(n))
		if err != nil {
			return err
		}
	}
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

// idle opens sessions that exchange one message and then are silent, and
// measures by how much the peer's memory has grown. The peer has served its
// warm-up before, so what it allocates once is not counted.
func idle(ctx context.Context, t *trial) error {
	before, err := resident(t.peer)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	var next, failed atomic.Int64
	err = t.measure(func() error {
		var dialers sync.WaitGroup
		for range 32 {
			dialers.Go(func() {
				// A peer that is full does not answer: after the first
				// failure no more is to be learnt.
				for ctx.Err() == nil && failed.Load() == 0 && next.Add(1) <= int64(t.sessions) {
					c, err := open(t.addr)
					if err != nil {
						failed.Add(1)
						continue
					}
					mu.Lock()
					conns = append(conns, c)
					mu.Unlock()
				}
			})
		}
		dialers.Wait()
		// Long enough for whatever a peer does a moment after the last byte.
		return pause(ctx, 500*time.Millisecond)
	})
	if err != nil {
		return err
	}
	after, err := resident(t.peer)
	if err != nil {
		return err
	}
	t.units, t.failed = float64(len(conns)), int(failed.Load())
	if len(conns) == 0 {
		return errors.New("no session could be opened")
	}
	// Memory may shrink: a collector has run. That is a growth of nothing.
	t.memory = max(0, float64(after)-float64(before))
	return nil
}

// open returns a session that has exchanged one message.
func open(address string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if err := echo(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
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
