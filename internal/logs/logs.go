// Package logs writes the program's log: slog handlers over a file that can be
// opened anew, so that logrotate(8) can move it away.
package logs

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// File is a log file that can be opened anew while it is written to. All
// methods may be called from any goroutine.
type File struct {
	path string // "" for a writer that is no file

	mu sync.Mutex
	w  io.WriteCloser
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
	if f.path == "" {
		return nil
	}
	w, err := open(f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	was := f.w
	f.w = w
	f.mu.Unlock()
	return was.Close()
}

// Close closes the file.
func (f *File) Close() error {
	if f.path == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.w.Close()
}

// New returns a logger that writes to w: level is debug, info, warn or error,
// format text or json.
func New(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}
