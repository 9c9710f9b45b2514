package txlb

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
)

// callback is a function of the program that the balancer calls.
type callback int

const (
	onEvent callback = iota
	onLog
	onFallback
	callbacks // how many there are
)

func (c callback) String() string { return [...]string{"OnEvent", "Logger", "Fallback"}[c] }

// panics counts those of callbacks.
type panics [callbacks]atomic.Uint64

// contain runs a callback. A panic in it is logged and counted, and ends nothing but the
// call. A callback may end its goroutine (runtime.Goexit): callers must be ready for it.
func (b *Balancer) contain(which callback, attrs []any, f func()) (panicked bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		panicked = true
		b.panics[which].Add(1)
		if which != onLog { // which would panic again
			b.log.Error("panic in a callback of the program", append([]any{"callback", which.String(), "panic", fmt.Sprint(v), "stack", string(debug.Stack())}, attrs...)...)
		}
	}()
	f()
	return false
}

// logHandler hands records to the handler of the program from a queue, so that nothing waits
// for it.
type logHandler struct {
	to    slog.Handler
	lines *queue[logLine]
}

// logLine is a record with the handler that is to have it.
type logLine struct {
	to     slog.Handler
	record slog.Record
}

func (h *logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.to.Enabled(ctx, l) }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	h.lines.put(logLine{h.to, r.Clone()})
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &logHandler{h.to.WithAttrs(attrs), h.lines}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.to.WithGroup(name), h.lines}
}

// write gives a line to the program's handler.
func (b *Balancer) write(l logLine, missed int) {
	b.contain(onLog, nil, func() {
		if missed > 0 {
			r := slog.NewRecord(l.record.Time, slog.LevelWarn, "log lines dropped, the handler is slow", 0)
			r.AddAttrs(slog.Int("lines", missed))
			_ = l.to.Handle(context.Background(), r)
		}
		_ = l.to.Handle(context.Background(), l.record)
	})
}
