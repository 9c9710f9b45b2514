// Package logs writes the program's log and its audit file: a [Writer] takes lines
// and never blocks its caller, a [Switch] formats log records as lines, and a
// [Tail] keeps the last lines.
//
// The sink may be slow or broken: a file, a FIFO, standard error. Everything that
// touches it (open, write, close) runs on goroutines that nothing else waits for.
// Between them and the program is a bounded ring: when it is full, lines are
// dropped and counted, and the log says so where they are missing.
//
// [Strangers] bounds what people without a login can put into a log.
//
// Limits: lines that are in the ring when the process is killed or crashes are
// lost. A sink that hangs keeps its goroutine, and its thread, until it returns.
package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
)

// Switch is a logger's handler whose level and format can be changed while it
// is used. All methods may be called from any goroutine.
type Switch struct {
	w   io.Writer
	now *atomic.Pointer[form]
	and []func(slog.Handler) slog.Handler // With and WithGroup, in their order
}

// NewSwitch returns a handler that writes to w: level is debug, info, warn or
// error, format text or json. If w is a [Writer], its reports of dropped lines
// have the same form.
func NewSwitch(w io.Writer, level, format string) (*Switch, error) {
	s := &Switch{w: w, now: &atomic.Pointer[form]{}}
	if err := s.Set(level, format); err != nil {
		return nil, err
	}
	if to, ok := w.(*Writer); ok {
		to.reportWith(s.gap)
	}
	return s, nil
}

// Set changes level and format for this handler and all made from it. After an
// error they are what they were.
func (s *Switch) Set(level, format string) error {
	f, err := newForm(s.w, level, format)
	if err != nil {
		return err
	}
	s.now.Store(f)
	return nil
}

// Enabled implements slog.Handler.
func (s *Switch) Enabled(_ context.Context, l slog.Level) bool { return l >= s.now.Load().level }

// Handle implements slog.Handler.
func (s *Switch) Handle(ctx context.Context, r slog.Record) error {
	h := s.now.Load().lines[priorityOf(r.Level)]
	for _, and := range s.and {
		h = and(h)
	}
	return h.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (s *Switch) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (s *Switch) WithGroup(name string) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *Switch) with(and func(slog.Handler) slog.Handler) *Switch {
	return &Switch{s.w, s.now, append(s.and[:len(s.and):len(s.and)], and)}
}

// gap is the line about lines that were dropped.
func (s *Switch) gap(g gap) []byte {
	var b bytes.Buffer
	w, _ := s.w.(*Writer)
	f := s.now.Load()
	_ = f.make(&line{to: &b, w: w, priority: warning}).Handle(context.Background(), g.record("log lines dropped"))
	return b.Bytes()
}

// form is a level and a format, with a handler for the lines of each priority.
type form struct {
	level slog.Level
	make  func(io.Writer) slog.Handler
	lines [priorities]slog.Handler
}

func newForm(w io.Writer, level, format string) (*form, error) {
	f := &form{}
	if err := f.level.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	to, _ := w.(*Writer)
	opts := &slog.HandlerOptions{Level: f.level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey && to != nil && to.journal.Load() {
			return slog.Attr{} // the journal has its own
		}
		return cutAttr(a, longestValue)
	}}
	switch strings.ToLower(format) {
	case "text":
		f.make = func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, opts) }
	case "json":
		f.make = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, opts) }
	default:
		return nil, fmt.Errorf("log format %q: want text or json", format)
	}
	for p := range f.lines {
		if to != nil {
			w = &line{to: to, w: to, priority: priority(p)}
		}
		f.lines[p] = f.make(w)
	}
	return f, nil
}

// priority is how urgent a line is.
type priority uint8

const (
	debugging priority = iota
	information
	warning
	failure
	priorities
)

// sd has the priorities of sd-daemon(3), which are those of syslog(3).
var sd = [priorities]string{"<7>", "<6>", "<4>", "<3>"}

func priorityOf(l slog.Level) priority {
	switch {
	case l < slog.LevelInfo:
		return debugging
	case l < slog.LevelWarn:
		return information
	case l < slog.LevelError:
		return warning
	}
	return failure
}

// line is where a handler writes the lines of one priority.
type line struct {
	to       io.Writer
	w        *Writer
	priority priority
}

// Write takes one line.
func (l *line) Write(p []byte) (int, error) {
	prefix := ""
	if l.w.journal.Load() {
		prefix = sd[l.priority]
	}
	if l.to == io.Writer(l.w) {
		l.w.put(l.priority, prefix, p)
		return len(p), nil
	}
	if _, err := io.WriteString(l.to, prefix); err != nil {
		return 0, err
	}
	return l.to.Write(p)
}
