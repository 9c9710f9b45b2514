//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

// at is a moment of the story that the tests tell: a server called b is killed
// at 10 s and dead 10 ms later.
func at(seconds float64) time.Time {
	return time.Unix(1000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func death() *kill {
	return &kill{service: "echo", host: "b", begun: at(10), dead: at(10.01), held: 3}
}

var errReset = fmt.Errorf("read: %w", syscall.ECONNRESET)

func TestWhatADeathExplains(t *testing.T) {
	drained := death()
	drained.drained = true
	going := death()
	going.dead = time.Time{}
	for name, test := range map[string]struct {
		kill    *kill
		service string
		failure failure
		want    bool
	}{
		"it had answered":                       {death(), "echo", failure{at(9), at(10.02), "b", true, errReset}, true},
		"it may have taken what was sent":       {death(), "echo", failure{at(9), at(10.02), "", true, errReset}, true},
		"it ended the connection":               {death(), "echo", failure{at(9), at(10.02), "", false, io.EOF}, true},
		"it is dying":                           {going, "echo", failure{at(9), at(10.02), "b", true, errReset}, true},
		"the connection came while it died":     {death(), "echo", failure{at(10.005), at(10.02), "", true, errReset}, true},
		"another had answered":                  {death(), "echo", failure{at(9), at(10.02), "a", true, errReset}, false},
		"nothing had moved before the reset":    {death(), "echo", failure{at(9), at(10.02), "", false, errReset}, false},
		"txlb refused the connect":              {death(), "echo", failure{at(9), at(10.02), "", false, syscall.ECONNREFUSED}, false},
		"the connection came after":             {death(), "echo", failure{at(10.02), at(10.03), "", true, errReset}, false},
		"the error came before":                 {death(), "echo", failure{at(9), at(9.9), "b", true, errReset}, false},
		"the error came much later":             {death(), "echo", failure{at(9), at(60), "b", true, errReset}, false},
		"it had been drained":                   {drained, "echo", failure{at(9), at(10.02), "b", true, errReset}, false},
		"it was another service":                {death(), "curl", failure{at(9), at(10.02), "b", true, errReset}, false},
		"what came was wrong, not missing":      {death(), "echo", failure{at(9), at(10.02), "b", true, errWrong}, false},
		"what came was wrong while it is dying": {going, "echo", failure{at(9), at(10.02), "b", true, fmt.Errorf("%w: x", errWrong)}, false},
	} {
		if got := test.kill.explains(test.service, test.failure); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A death explains no more failures than the server had sessions.
func TestADeathExplainsWhatWasHeld(t *testing.T) {
	lost := failure{at(9), at(10.02), "b", true, errReset}
	r := newRecord()
	k := &kill{service: "echo", host: "b"}
	r.dying(k)
	k.begun = at(10)
	for range 5 { // seen before the number of sessions is
		r.failed("echo", lost)
	}
	if _, saved, _ := r.failures(); saved != 0 {
		t.Errorf("%d blamed on txlb while the server was dying", saved)
	}
	r.died(k, 4)
	k.dead = at(10.01)
	if seen, saved, _ := r.failures(); seen != 5 || saved != 1 {
		t.Errorf("seen %d, could have been saved %d, want 5 and 1", seen, saved)
	}
	r.failed("echo", lost)
	if seen, saved, _ := r.failures(); seen != 6 || saved != 2 {
		t.Errorf("seen %d, could have been saved %d, want 6 and 2", seen, saved)
	}
}

func TestReport(t *testing.T) {
	good := func() *report {
		return &report{
			seed: 7, length: 2 * time.Minute,
			rows: []row{
				{name: "echo", sessions: 1000, bytes: 12_340_000, moved: 9, errors: 3},
				{name: "redis", leftOut: "missing: install it"},
			},
			kills:   []*kill{{held: 4, lost: 3}, {drained: true}},
			changes: map[string]int{"weight": 2, "killed": 1},
		}
	}
	var out strings.Builder
	if err := good().write(&out); err != nil || good().bad() {
		t.Errorf("a good report: %v, bad %v", err, good().bad())
	}
	for _, want := range []string{
		"seed 7", "1000   12.3             9        3                      3                       0", "redis was left out: missing: install it",
		"kills: 2, 1 of them", "changes: killed 1, weight 2\n", "\nok\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("there is no %q in:\n%s", want, out.String())
		}
	}
	for name, spoil := range map[string]func(r *report){
		"an error that could have been saved": func(r *report) { r.rows[0].saved = 1 },
		"a client without sessions":           func(r *report) { r.rows[0].sessions = 0 },
		"a leak":                              func(r *report) { r.leaks.goroutines = 1 },
		"a leak of less than nothing":         func(r *report) { r.leaks.counters = -1 },
		"something that did not happen":       func(r *report) { r.broken = 1 },
		"an interrupt":                        func(r *report) { r.early = true },
	} {
		r := good()
		spoil(r)
		out.Reset()
		if err := r.write(&out); err != nil || !r.bad() || strings.Contains(out.String(), "\nok\n") {
			t.Errorf("%s: %v, bad %v\n%s", name, err, r.bad(), out.String())
		}
	}
}

func TestCurlsLines(t *testing.T) {
	missing := t.TempDir() + "/none"
	for name, test := range map[string]struct {
		line string
		want failure
		ok   bool
	}{
		"all is well":       {"0 200 a ", failure{}, true},
		"no answer":         {"52 000  Empty reply from server", failure{sent: true}, false},
		"cut off":           {"18 200 b transfer closed", failure{sent: true, host: "b"}, false},
		"no connection":     {"7 000  Failed to connect", failure{}, false},
		"not what it wants": {"0 404 c ", failure{sent: true, host: "c", err: errWrong}, false},
		"nonsense":          {"curl: what?", failure{sent: true}, false},
	} {
		f := judgePage(test.line, missing, "empty")
		switch {
		case (f == nil) != test.ok:
			t.Errorf("%s: %+v", name, f)
		case f != nil && (f.sent != test.want.sent || f.host != test.want.host || test.want.err != nil && !errors.Is(f.err, test.want.err)):
			t.Errorf("%s: %+v, want %+v", name, f, test.want)
		}
	}
	if f := judgePage("0 200 a ", missing, "18k"); f == nil || !errors.Is(f.err, errWrong) {
		t.Errorf("a page that is missing: %+v", f)
	}
}
