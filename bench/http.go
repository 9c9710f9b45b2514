//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// lanes is how many connections a load keeps busy if it is not said.
const lanes = 64

// closing makes wrk open a connection for each request.
const closing = "Connection: close"

// wrkLoad asks for a page with wrk, with request headers if given.
func wrkLoad(name, title, page string, conns int, headers ...string) workload {
	threads := min(2, conns)
	unit, how := "request", fmt.Sprintf("wrk -t%d -c%d", threads, conns)
	for _, h := range headers {
		how += " -H '" + h + "'"
		if h == closing {
			unit = "connection"
		}
	}
	return workload{
		name: name, title: title, unit: unit, how: how, backend: web, needs: []string{"wrk"}, brief: time.Second, figures: figures(unit, unit+"s"),
		run: func(ctx context.Context, t *trial) error { return runWrk(ctx, t, t.addr, page, conns, headers...) },
	}
}

func runWrk(ctx context.Context, t *trial, addr, page string, conns int, headers ...string) error {
	argv := []string{t.programs["wrk"], fmt.Sprintf("-t%d", min(2, conns)), fmt.Sprintf("-c%d", conns), "--timeout", "5s", "-d", seconds(t.length) + "s"}
	for _, h := range headers {
		argv = append(argv, "-H", h)
	}
	return programLoad(ctx, t, parseWrk, append(argv, "http://"+addr+"/"+page)...)
}

// abLoad asks for a page with ab, a connection for each request.
func abLoad(name, title, page string) workload {
	return workload{
		name: name, title: title, unit: "connection", how: fmt.Sprintf("ab -c %d", lanes), backend: web, needs: []string{"ab"},
		minor: true, brief: time.Second, figures: figures("connection", "connections"),
		run: func(ctx context.Context, t *trial) error {
			// -t sets a bound of 50,000 requests, which -n after it lifts.
			return programLoad(ctx, t, parseAb, t.programs["ab"], "-q", "-r", "-c", strconv.Itoa(lanes),
				"-t", seconds(t.length), "-n", "100000000", "http://"+t.addr+"/"+page)
		},
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// programLoad measures one run of a load program and reads what it did.
func programLoad(ctx context.Context, t *trial, parse func(string) (tally, error), argv ...string) error {
	var out []byte
	err := t.measure(func() error {
		ctx, cancel := context.WithTimeout(ctx, t.length+20*time.Second)
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
		return errors.New(argv[0] + ": no request succeeded: " + strings.TrimSpace(string(out)))
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
