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

// Text has the metrics as text for many who read. Nobody gets a text from before
// he asked. It is written for all who wait at once, and at most a tenth of the
// time: after one that has taken 10 ms, the next begins 90 ms later. Any goroutine
// may use it.
type Text struct {
	read func() *status.Reading
	gate *guard.Gate

	mu      sync.Mutex
	newest  *rendering
	writing chan struct{} // closed when the one being written is there; nil: none is
	held    int           // renderings that somebody reads
	size    int           // of the last one
	rest    time.Time     // no other is begun before
	begun   uint64        // how many were
}

// rendering is the text of one moment.
type rendering struct {
	text    []byte
	zip     sync.Once
	zipped  []byte        // text compressed, when somebody has asked for it
	number  uint64        // counts from 1
	took    time.Duration // to write it
	readers int
}

const (
	// restFor is for how many times as long as the text took it is not written
	// again, for mostRest at most: a scrape waits for 10 s.
	restFor  = 9
	mostRest = 2 * time.Second
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
	t.mu.Lock()
	before := t.begun // these are too old
	t.mu.Unlock()
	for {
		t.mu.Lock()
		r = t.newest
		if r != nil && (r.number > before || t.held >= maxHeld) {
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
		rest := t.rest
		t.mu.Unlock()
		r, err = t.render(ctx, rest)
		t.mu.Lock()
		if err == nil {
			t.newest, t.size = r, len(r.text)
			t.rest = time.Now().Add(min(restFor*r.took, mostRest))
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

// render writes a text when its turn has come, after rest.
func (t *Text) render(ctx context.Context, rest time.Time) (*rendering, error) {
	if wait := time.Until(rest); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := t.gate.Enter(ctx, guard.Render); err != nil {
		return nil, err
	}
	defer t.gate.Leave()
	t.mu.Lock()
	t.begun++
	r := &rendering{number: t.begun}
	t.mu.Unlock()
	began := time.Now()
	b := bytes.NewBuffer(make([]byte, 0, t.size+t.size/8))
	Write(b, t.read())
	r.text, r.took = b.Bytes(), time.Since(began)
	return r, nil
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
