package logs

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
)

// Tail is a logger's handler that hands on to another, and remembers the last
// lines that went through, as text whatever the other makes of them. It
// remembers what the log says and nothing else. All methods may be called from
// any goroutine.
type Tail struct {
	next slog.Handler
	text slog.Handler // writes into ring
	ring *ring
}

const (
	// tailLines and tailBytes bound what a Tail remembers.
	tailLines = 1000
	tailBytes = 256 << 10
	// tailLine bounds one line, in bytes.
	tailLine = 4 << 10
)

// NewTail returns a handler that hands on to next.
func NewTail(next slog.Handler) *Tail {
	r := &ring{}
	// next decides what is logged.
	return &Tail{next, slog.NewTextHandler(r, &slog.HandlerOptions{
		Level: slog.Level(-100), ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { return cutAttr(a, tailLine) },
	}), r}
}

// Lines returns up to the last n lines, the oldest first, without their ends;
// 0 is all that are remembered: a thousand at most, and fewer long ones.
func (t *Tail) Lines(n int) []string {
	t.ring.mu.Lock()
	defer t.ring.mu.Unlock()
	lines := t.ring.lines
	if n > 0 && n < len(lines) {
		lines = lines[len(lines)-n:]
	}
	return append([]string(nil), lines...)
}

// Enabled implements slog.Handler.
func (t *Tail) Enabled(ctx context.Context, l slog.Level) bool { return t.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (t *Tail) Handle(ctx context.Context, r slog.Record) error {
	_ = t.text.Handle(ctx, r) // memory takes everything
	return t.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (t *Tail) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Tail{t.next.WithAttrs(attrs), t.text.WithAttrs(attrs), t.ring}
}

// WithGroup implements slog.Handler.
func (t *Tail) WithGroup(name string) slog.Handler {
	return &Tail{t.next.WithGroup(name), t.text.WithGroup(name), t.ring}
}

// ring holds the lines.
type ring struct {
	mu    sync.Mutex
	lines []string
	bytes int
}

// Write takes one line.
func (r *ring) Write(p []byte) (int, error) {
	line := bytes.TrimRight(p, "\n")
	if len(line) > tailLine {
		line = append(bytes.ToValidUTF8(line[:tailLine:tailLine], nil), "…"...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, string(line))
	r.bytes += len(line)
	gone := 0
	for len(r.lines)-gone > tailLines || r.bytes > tailBytes {
		r.bytes -= len(r.lines[gone])
		r.lines[gone] = ""
		gone++
	}
	r.lines = r.lines[gone:]
	return len(p), nil
}
