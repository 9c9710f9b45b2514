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

// flowLoad asks for a page as fast as it is answered.
func flowLoad(name, title, page string, conns int, closing bool) workload {
	unit, how := "request", fmt.Sprintf("%d connections that ask again as soon as they have the reply", conns)
	if closing {
		unit, how = "connection", fmt.Sprintf("%d connections at a time, a new one for each request", conns)
	}
	return workload{
		name: name, title: title, unit: unit, how: how, backend: web, group: flows, with: []string{large}, figures: figures(unit, unit+"s"),
		run: func(ctx context.Context, t *trial) error {
			_, err := runLoad(ctx, t, order{Address: t.addr, Page: page, Lanes: conns, Threads: min(2, conns), Closing: closing})
			return err
		},
	}
}

// programLoad measures one run of a load program and reads what it did.
func programLoad(ctx context.Context, t *trial, parse func(string) (tally, error), argv ...string) error {
	var out []byte
	err := t.measure(func() (load time.Duration, err error) {
		ctx, cancel := context.WithTimeout(ctx, t.length+20*time.Second)
		defer cancel()
		cmd := command(ctx, argv...)
		out, err = cmd.CombinedOutput()
		return 0, err // a child's time is this program's, once it has ended
	})
	if err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	n, err := parse(string(out))
	if err != nil {
		return fmt.Errorf("%s: %w", argv[0], err)
	}
	if n.done <= 0 || n.perSecond <= 0 {
		return errors.New(argv[0] + ": no request succeeded: " + strings.TrimSpace(string(out)))
	}
	// Its start and its end are not the peer's.
	t.units, t.failed, t.time = float64(n.done), n.failed, time.Duration(float64(n.done)/n.perSecond*float64(time.Second))
	return nil
}

// tally is what a load program says it did.
type tally struct {
	done      int // requests answered
	failed    int // requests not answered
	perSecond float64
}

// number returns the first whole number that a pattern captures, and decimal any.
func number(text, pattern string) (int, error) {
	x, err := decimal(text, pattern)
	return int(x), err
}

func decimal(text, pattern string) (float64, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("its output has no %q: %s", pattern, strings.TrimSpace(text))
	}
	return strconv.ParseFloat(m[1], 64)
}
