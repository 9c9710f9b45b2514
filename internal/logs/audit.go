package logs

import (
	"bytes"
	"context"
	"io"
	"log/slog"
)

// NewAudit returns a logger that writes JSON lines to the audit file: time and
// event, which is the message, and what the record has besides. Its level says
// nothing.
func NewAudit(w *Writer) *slog.Logger {
	opts := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 {
			switch a.Key {
			case slog.LevelKey:
				return slog.Attr{}
			case slog.MessageKey:
				a.Key = "event"
			}
		}
		return cutAttr(a, longestValue)
	}}
	handler := func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, opts) }
	w.reportWith(func(g gap) []byte {
		var b bytes.Buffer
		_ = handler(&b).Handle(context.Background(), g.record("audit lines dropped"))
		return b.Bytes()
	})
	return slog.New(handler(w))
}
