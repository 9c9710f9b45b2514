package metrics

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
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
	zip     sync.Once
	zipped  []byte    // text compressed, when somebody has asked for it
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
	r, done, err := t.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	return r.text, done, nil
}

func (t *Text) get(ctx context.Context) (r *rendering, done func(), err error) {
	for {
		t.mu.Lock()
		r = t.newest
		if r != nil && (time.Now().Before(r.until) || t.held >= maxHeld) {
			if r.readers++; r.readers == 1 {
				t.held++
			}
			t.mu.Unlock()
			return r, sync.OnceFunc(func() { t.drop(r) }), nil
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

// ErrUnknownService is returned for a service that has no samples.
var ErrUnknownService = errors.New("unknown service")

// Respond is Get for an HTTP request, with the header of the answer: only the samples
// of services that the query names (service, repeated), compressed if
// Accept-Encoding allows it. All who want the whole text of a moment compressed
// share that.
func (t *Text) Respond(q *http.Request) (body []byte, header map[string]string, done func(), err error) {
	ctx, services := q.Context(), q.URL.Query()["service"]
	r, done, err := t.get(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	body, header = r.text, map[string]string{"Vary": "Accept-Encoding"}
	if len(services) > 0 {
		if body, err = ofServices(r.text, services); err != nil {
			done()
			return nil, nil, nil, err
		}
	}
	if !acceptsGzip(q.Header.Values("Accept-Encoding")) {
		return body, header, done, nil
	}
	if err := t.gate.Enter(ctx, guard.Render); err != nil {
		done()
		return nil, nil, nil, err
	}
	defer t.gate.Leave()
	header["Content-Encoding"] = "gzip"
	if len(services) > 0 {
		return compress(body), header, done, nil
	}
	r.zip.Do(func() { r.zipped = compress(r.text) })
	return r.zipped, header, done, nil
}

// compress is fast rather than thorough: repeated names leave a twentieth anyway.
func compress(text []byte) []byte {
	b := bytes.NewBuffer(make([]byte, 0, len(text)/16))
	w, _ := gzip.NewWriterLevel(b, gzip.BestSpeed) // the level is right
	_, _ = w.Write(text)
	_ = w.Close()
	return b.Bytes()
}

// acceptsGzip tells whether Accept-Encoding allows gzip.
func acceptsGzip(values []string) bool {
	for one := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, params, _ := strings.Cut(one, ";")
		if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && name != "*" {
			continue
		}
		q, given := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		weight, err := strconv.ParseFloat(q, 64)
		return !given || err == nil && weight > 0
	}
	return false
}

// ofServices returns the samples that have one of the services as their first label,
// with the HELP and TYPE of their metrics.
func ofServices(text []byte, services []string) ([]byte, error) {
	var out, head []byte
	found := map[string]bool{}
	labels := make([][]byte, len(services))
	for i, s := range services {
		labels[i] = quote([]byte("{service="), s)
	}
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 {
			end = len(text)
		}
		line := text[:end]
		text = text[end:]
		switch {
		case bytes.HasPrefix(line, []byte("# HELP ")):
			head = append(head[:0], line...)
			continue
		case line[0] == '#':
			head = append(head, line...)
			continue
		}
		at := bytes.IndexByte(line, '{')
		if at < 0 {
			continue
		}
		for i, label := range labels {
			if rest, ok := bytes.CutPrefix(line[at:], label); ok && len(rest) > 0 && (rest[0] == ',' || rest[0] == '}') {
				found[services[i]] = true
				out = append(append(out, head...), line...)
				head = head[:0]
				break
			}
		}
	}
	for _, s := range services {
		if !found[s] {
			return nil, fmt.Errorf("%w %q", ErrUnknownService, s)
		}
	}
	return out, nil
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
		body, header, done, err := text.Respond(r)
		if errors.Is(err, ErrUnknownService) {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		if err != nil {
			return // the client is gone
		}
		defer done()
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		for name, value := range header {
			w.Header().Set(name, value)
		}
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
