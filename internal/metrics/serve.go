package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/status"
)

// Text has the metrics as text for many who read. It is written for all who
// wait at once, and at most a tenth of the time: what has taken 10 ms is good for
// 90 more. Any goroutine may use it.
type Text struct {
	read func() *status.Reading
	gate *guard.Gate

	mu      sync.Mutex
	newest  *rendering
	writing chan struct{} // closed when the one being written is there; nil: none is
	held    int           // renderings that somebody reads
	size    int           // of the last one
}

// rendering is the text of one moment.
type rendering struct {
	text    []byte
	until   time.Time // it is fresh
	readers int
}

const (
	// restFor is for how many times as long as the text took it is not written
	// again; leastRest and mostRest bound that.
	restFor   = 9
	leastRest = 50 * time.Millisecond
	mostRest  = 5 * time.Second
	// maxHeld is how many texts are kept for slow readers. Then the newest one is
	// given, whatever its age.
	maxHeld = 4
)

// NewText makes the text of what read returns. gate lets few write at once; nil:
// it has one of its own.
func NewText(read func() *status.Reading, gate *guard.Gate) *Text {
	if gate == nil {
		gate = guard.NewGate()
	}
	return &Text{read: read, gate: gate}
}

// Get returns the text, which nobody changes, and what to call when it was read.
// The error is that of ctx.
func (t *Text) Get(ctx context.Context) (text []byte, done func(), err error) {
	for {
		t.mu.Lock()
		r := t.newest
		if r != nil && (time.Now().Before(r.until) || t.held >= maxHeld) {
			if r.readers++; r.readers == 1 {
				t.held++
			}
			t.mu.Unlock()
			return r.text, sync.OnceFunc(func() { t.drop(r) }), nil
		}
		if t.writing != nil {
			ready := t.writing
			t.mu.Unlock()
			select {
			case <-ready:
				continue
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
		ready := make(chan struct{})
		t.writing = ready
		t.mu.Unlock()
		r, err = t.render(ctx)
		t.mu.Lock()
		if err == nil {
			t.newest, t.size = r, len(r.text)
		}
		t.writing = nil
		t.mu.Unlock()
		close(ready)
		if err != nil {
			return nil, nil, err
		}
	}
}

func (t *Text) drop(r *rendering) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.readers--; r.readers == 0 {
		t.held--
	}
}

// render writes a text when its turn has come.
func (t *Text) render(ctx context.Context) (*rendering, error) {
	if err := t.gate.Enter(ctx, guard.Render); err != nil {
		return nil, err
	}
	defer t.gate.Leave()
	began := time.Now()
	b := bytes.NewBuffer(make([]byte, 0, t.size+t.size/8))
	Write(b, t.read())
	now := time.Now()
	return &rendering{text: b.Bytes(), until: now.Add(min(max(restFor*now.Sub(began), leastRest), mostRest))}, nil
}

// Serve answers GET /metrics on ln until ctx ends, and closes ln. Slow clients
// are cut off: nobody needs a minute for a scrape.
func Serve(ctx context.Context, ln net.Listener, text *Text, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		body, done, err := text.Get(r.Context())
		if err != nil {
			return // the client is gone
		}
		defer done()
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(body) // a client that is gone is no error
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "txlb: the metrics are at /metrics\n")
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	guard.Harden(server)
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(guard.On(guard.Metrics, ln, log)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics on %v: %w", ln.Addr(), err)
	}
	return nil
}
