package accesslog

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
)

// A change that fails leaves the log as it was, its format too.
func TestChangeThatFailsChangesNothing(t *testing.T) {
	rec := engine.NewRecorder()
	lane := rec.Attach(1, time.Now())[0]
	path := filepath.Join(t.TempDir(), "log")
	l, err := Open(rec, path, "tcplog")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Change(filepath.Join(path, "none"), "json"); err == nil {
		t.Error("a file below a file was opened")
	}
	h, table := host(t, "main", "a", "10.0.0.1:80")
	lane.Put(func(r *engine.Record) {
		r.Service, r.Table, r.Host, r.How = "web", table, h, "--"
		r.Client = netip.MustParseAddrPort("192.0.2.7:35856")
		r.Accepted, r.Picked, r.Connected, r.Ended = 1, 1, 2, 3
	})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), " web web.main/a ") {
		t.Errorf("%v: want a line of tcplog: %s", err, b)
	}
}
