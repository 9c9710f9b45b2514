package logs

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// limit bounds how many records of one message are logged.
type limit struct {
	burst int           // at once
	every time.Duration // then one in this time
}

const (
	// sumAfter is how long after a record that was left out the log says how many
	// there were, if no other record of the message has said it.
	sumAfter = 10 * time.Second
	// maxMessages bounds the messages that are told apart.
	maxMessages = 256
)

// Strangers returns a logger for what people without a login can cause: failed
// logins, handshakes, wrong requests. Of each message it logs 20 at once and then
// one a second; not_logged counts those left out before. Values are cut to 256
// bytes. It may be used concurrently.
func Strangers(log *slog.Logger) *slog.Logger { return bounded(log, limit{20, time.Second}) }

// AuditStrangers is Strangers for the audit file, which has more of them: 1,000 at
// once and then 20 a second.
func AuditStrangers(audit *slog.Logger) *slog.Logger {
	return bounded(audit, limit{1000, 50 * time.Millisecond})
}

func bounded(log *slog.Logger, l limit) *slog.Logger {
	return slog.New(&strangers{next: log.Handler(), all: &budgets{limit: l, of: map[string]*budget{}}})
}

type strangers struct {
	next slog.Handler
	all  *budgets
}

type budgets struct {
	limit limit
	mu    sync.Mutex
	of    map[string]*budget
}

// budget is what one message may still do.
type budget struct {
	left    int
	since   time.Time // when left was brought up to date
	skipped uint64    // and not told
}

// Enabled implements slog.Handler.
func (s *strangers) Enabled(ctx context.Context, l slog.Level) bool { return s.next.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (s *strangers) Handle(ctx context.Context, r slog.Record) error {
	skipped, ok := s.take(r)
	if !ok {
		return nil
	}
	short := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		short.AddAttrs(cutAttr(a, strangersValue))
		return true
	})
	if skipped > 0 {
		short.AddAttrs(slog.Uint64("not_logged", skipped))
	}
	return s.next.Handle(ctx, short)
}

// take tells whether a record may be logged, and how many before it were not.
func (s *strangers) take(r slog.Record) (skipped uint64, ok bool) {
	all := s.all
	now := time.Now()
	all.mu.Lock()
	defer all.mu.Unlock()
	b := all.of[r.Message]
	if b == nil {
		if len(all.of) >= maxMessages { // messages are constant, so that there are not so many
			return 0, false
		}
		b = &budget{left: all.limit.burst, since: now}
		all.of[r.Message] = b
	}
	if n := int(now.Sub(b.since) / all.limit.every); n > 0 {
		b.left = min(b.left+n, all.limit.burst)
		b.since = b.since.Add(time.Duration(n) * all.limit.every)
	}
	if b.left > 0 {
		b.left--
		skipped, b.skipped = b.skipped, 0
		return skipped, true
	}
	if b.skipped++; b.skipped == 1 {
		level, message := r.Level, r.Message
		time.AfterFunc(sumAfter, func() { s.sum(level, message, b) })
	}
	return 0, false
}

// sum tells how many records were left out, if nothing else has.
func (s *strangers) sum(level slog.Level, message string, b *budget) {
	s.all.mu.Lock()
	skipped := b.skipped
	b.skipped = 0
	s.all.mu.Unlock()
	if skipped == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), level, message, 0)
	r.AddAttrs(slog.Uint64("not_logged", skipped))
	_ = s.next.Handle(context.Background(), r) // a log that takes nothing says so itself
}

// WithAttrs implements slog.Handler.
func (s *strangers) WithAttrs(attrs []slog.Attr) slog.Handler {
	short := make([]slog.Attr, len(attrs))
	for i := range attrs {
		short[i] = cutAttr(attrs[i], strangersValue)
	}
	return &strangers{s.next.WithAttrs(short), s.all}
}

// WithGroup implements slog.Handler.
func (s *strangers) WithGroup(name string) slog.Handler {
	return &strangers{s.next.WithGroup(name), s.all}
}
