// Package logs writes the program's log: slog handlers over a file that can be
// reopened, so that logrotate(8) can move it away.
package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// File is a log file that can be opened anew while it is written to. All
// methods may be called from any goroutine.
type File struct {
	mu   sync.Mutex
	path string // "" for a writer that is no file
	w    io.WriteCloser
}

// mode of a new log file: it names clients, so others need not read it.
const mode = 0o640

// Open opens the file at path to append to it; it is created if need be. An
// empty path is standard error, which Reopen and Close leave alone.
func Open(path string) (*File, error) {
	if path == "" {
		return &File{w: os.Stderr}, nil
	}
	w, err := open(path)
	if err != nil {
		return nil, err
	}
	return &File{path: path, w: w}, nil
}

func open(path string) (*os.File, error) {
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, mode)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return w, nil
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w.Write(p)
}

// Reopen opens the path anew and closes what was open. If it cannot be opened,
// the log goes on where it was.
func (f *File) Reopen() error {
	f.mu.Lock()
	path := f.path
	f.mu.Unlock()
	if path == "" {
		return nil
	}
	return f.Move(path)
}

// Move makes the log go on in another file, or on standard error for an empty
// path, and closes what was open. If the file cannot be opened, the log goes on
// where it was.
func (f *File) Move(path string) error {
	next, err := Open(path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	was := File{path: f.path, w: f.w}
	f.path, f.w = next.path, next.w
	return was.Close()
}

// Close closes the file.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.path == "" {
		return nil
	}
	return f.w.Close()
}

// New returns a logger that writes to w: level is debug, info, warn or error,
// format text or json.
func New(w io.Writer, level, format string) (*slog.Logger, error) {
	h, err := handler(w, level, format)
	if err != nil {
		return nil, err
	}
	return slog.New(h), nil
}

// Switch is a logger's handler whose level and format can be changed while it
// is used. All methods may be called from any goroutine.
type Switch struct {
	w   io.Writer
	now *atomic.Pointer[slog.Handler]
	and []func(slog.Handler) slog.Handler // With and WithGroup, in their order
}

// NewSwitch returns a handler that writes to w, see New.
func NewSwitch(w io.Writer, level, format string) (*Switch, error) {
	s := &Switch{w: w, now: &atomic.Pointer[slog.Handler]{}}
	return s, s.Set(level, format)
}

// Set changes level and format for this handler and all made from it. After an
// error they are what they were.
func (s *Switch) Set(level, format string) error {
	h, err := handler(s.w, level, format)
	if err != nil {
		return err
	}
	s.now.Store(&h)
	return nil
}

// Enabled implements slog.Handler.
func (s *Switch) Enabled(ctx context.Context, l slog.Level) bool {
	return (*s.now.Load()).Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (s *Switch) Handle(ctx context.Context, r slog.Record) error {
	h := *s.now.Load()
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

func handler(w io.Writer, level, format string) (slog.Handler, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch strings.ToLower(format) {
	case "text":
		return slog.NewTextHandler(w, opts), nil
	case "json":
		return slog.NewJSONHandler(w, opts), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}
