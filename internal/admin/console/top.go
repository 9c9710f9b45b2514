package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/words"
)

// Snapshot is what a live view shows.
type Snapshot struct {
	At         time.Time
	Generation uint64
	Status     admin.Status
	Services   []admin.ServiceInfo
	Hosts      []admin.HostInfo
}

// Source is where a live view gets its snapshots.
type Source interface {
	// Snapshot returns the current state. An error is shown and the view tries again
	// a second later, unless the error is ErrEnd.
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Live returns the Source that asks an Executor in the same process.
func Live(x Executor) Source { return live{x} }

type live struct{ x Executor }

func (l live) Snapshot(ctx context.Context) (s Snapshot, err error) {
	s.At = time.Now()
	status, err := l.x.Execute(ctx, words.Command{Verb: "status"})
	if err != nil {
		return s, err
	}
	services, err := l.x.Execute(ctx, words.Command{Verb: "show", Words: []words.Word{{Value: "services"}}})
	if err != nil {
		return s, err
	}
	hosts, err := l.x.Execute(ctx, words.Command{Verb: "show", Words: []words.Word{{Value: "hosts"}}})
	if err != nil {
		return s, err
	}
	s.Generation = hosts.Generation
	s.Status, _ = status.Data.(admin.Status)
	s.Services, _ = services.Data.([]admin.ServiceInfo)
	s.Hosts, _ = hosts.Data.([]admin.HostInfo)
	return s, nil
}

// Remote returns the Source that asks another process: ask sends it a command and
// returns the data of the answer in JSON, and the generation.
func Remote(ask func(ctx context.Context, line string) (data []byte, generation uint64, err error)) Source {
	return remote{ask}
}

type remote struct {
	ask func(context.Context, string) ([]byte, uint64, error)
}

func (r remote) Snapshot(ctx context.Context) (s Snapshot, err error) {
	s.At = time.Now()
	for _, one := range []struct {
		line string
		to   any
	}{{"status", &s.Status}, {"show services", &s.Services}, {"show hosts", &s.Hosts}} {
		if err := r.read(ctx, one.line, one.to, &s.Generation); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (r remote) read(ctx context.Context, line string, to any, generation *uint64) error {
	data, n, err := r.ask(ctx, line)
	if err != nil {
		return err
	}
	*generation = n
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("%s: the answer is not as expected: %w", line, err)
	}
	return nil
}

// pace is the time between two snapshots.
const pace = time.Second

// Escape sequences. With synchronised writes (?2026), a terminal shows a picture only
// when it is complete; terminals that do not know them ignore them.
const (
	enterView = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	leaveView = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	beginSync = "\x1b[?2026h"
	endSync   = "\x1b[?2026l"
)

// Top shows a live view until q, Ctrl-C, or the end of ctx or of the terminal, and
// restores the terminal. It returns nil if the user has left.
func (t *Terminal) Top(ctx context.Context, source Source) (err error) {
	ctx, done := t.input.during(ctx)
	defer done()
	if _, err := io.WriteString(t.rw, enterView); err != nil {
		return fmt.Errorf("%w: %w", errGoneWriting, err)
	}
	defer func() {
		if _, werr := io.WriteString(t.rw, leaveView); err == nil && werr != nil {
			err = fmt.Errorf("%w: %w", errGoneWriting, werr)
		}
	}()
	select { // a size that was told before is no news
	case <-t.input.resized:
	default:
	}
	v := newView(t.style)
	v.size = t.input.current()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	look := func() error {
		s, err := source.Snapshot(ctx)
		if errors.Is(err, ErrEnd) {
			return err
		}
		v.take(s, err)
		return nil
	}
	if err := look(); err != nil {
		return err
	}
	var shown screen
	for {
		if err := shown.update(t.rw, v.draw(), v.size); err != nil {
			return fmt.Errorf("%w: %w", errGoneWriting, err)
		}
		what, k, err := t.input.next(ctx, tick.C)
		switch {
		case errors.Is(err, errStopped):
			return nil
		case errors.Is(err, io.EOF):
			return errHangup
		case err != nil:
			return err
		}
		switch what {
		case eventTick:
			if err := look(); err != nil {
				return err
			}
		case eventResize:
			v.size = t.input.current()
			shown = screen{}
		case eventKey:
			if v.press(k) {
				return nil
			}
		}
	}
}

// screen is what a terminal shows.
type screen struct{ lines []string }

// update writes the lines that have changed, in one write. So nothing flickers, and
// slow connections carry little.
func (s *screen) update(w io.Writer, lines []string, to size) error {
	lines = lines[:min(len(lines), to.height)]
	var b strings.Builder
	if s.lines == nil {
		b.WriteString("\x1b[2J")
	}
	for i := range max(len(lines), len(s.lines)) {
		line := ""
		if i < len(lines) {
			line = lines[i]
		}
		if i < len(s.lines) && s.lines[i] == line {
			continue
		}
		fmt.Fprintf(&b, "\x1b[%d;1H%s", i+1, line)
		// After a line of full width the cursor is still on its last letter, which
		// this would erase.
		if visible(line) < to.width {
			b.WriteString("\x1b[K")
		}
	}
	s.lines = lines
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(w, beginSync+b.String()+endSync)
	return err
}

// visible counts the letters of a line that has colours.
func visible(line string) int {
	n, hidden := 0, false
	for _, c := range line {
		switch {
		case c == '\x1b':
			hidden = true
		case hidden:
			hidden = c != 'm'
		default:
			n++
		}
	}
	return n
}
