package txlb

import (
	"bytes"
	"io"
	"net/http"

	"github.com/txlb/txlb/internal/metrics"
	"github.com/txlb/txlb/internal/status"
)

// WriteMetrics writes what the balancer has counted, as Prometheus text: the families txlb_…
// that docs/monitoring.md lists, and none of the process. It reads counters and waits for
// nothing but w. Several balancers of one process have the same families: they are
// scraped one by one.
func (b *Balancer) WriteMetrics(w io.Writer) error {
	var text bytes.Buffer // w may be slow
	metrics.WriteBalancer(&text, status.Read(b.source.Facts()))
	counts := map[string]uint64{}
	for i := range b.panics {
		counts[callback(i).String()] = b.panics[i].Load()
	}
	metrics.WritePanics(&text, counts)
	_, err := w.Write(text.Bytes())
	return err
}

// MetricsHandler serves what WriteMetrics writes, for Prometheus: GET and HEAD, whatever the
// path. It asks for no login.
func (b *Balancer) MetricsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_ = b.WriteMetrics(w) // the client has gone
	})
}
