package director

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/config/document"
	"github.com/txlb/txlb/internal/testkit"
)

// In a fleet, a file that lacks what the nodes have changed meanwhile is not made the
// configuration of all by --discard alone.
func TestDiscardInAFleet(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "c.xml")
		says := func(doc string) {
			if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		says(with(""))
		doc, problems := document.Open(path)
		if doc == nil {
			t.Fatal(problems)
		}
		w := newWorld()
		accept := func(_ context.Context, p Proposal) (uint64, error) { return p.Generation + 1, nil }
		d, err := New(doc.Config, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe, Document: doc, Commit: accept})
		if err != nil {
			t.Fatal(err)
		}
		runDirector(t, d)
		do(t, d, address(0, "10.0.0.7:80"))
		says(strings.Replace(with(""), `ip="10.0.0.2:80"`, `ip="10.0.0.9:80"`, 1))
		before := d.State()
		_, err = d.Reload(t.Context(), ReloadRequest{Discard: true})
		if err == nil || !strings.Contains(err.Error(), path+" lacks what the fleet has changed") || !strings.Contains(err.Error(), "10.0.0.7") || !strings.Contains(err.Error(), "--force") {
			t.Errorf("error %v", err)
		}
		if d.State() != before {
			t.Error("it was made")
		}
		dry, err := d.Reload(t.Context(), ReloadRequest{Discard: true, DryRun: true})
		if text := dry.String(); err != nil || !strings.Contains(text, "lost: ") || !strings.Contains(text, "fleet: what the file says becomes the configuration of all nodes") {
			t.Errorf("dry run: %v\n%s", err, text)
		}
		if _, err := d.Reload(t.Context(), ReloadRequest{Discard: true, Force: true}); err != nil {
			t.Error(err)
		}
		h := d.State().Config.Services[0].Groups[0].Hosts
		if h[0].Address != "10.0.0.1:80" || h[1].Address != "10.0.0.9:80" {
			t.Errorf("hosts at %s and %s", h[0].Address, h[1].Address)
		}
		// Where nothing is lost, nothing has to be forced.
		says(with(""))
		if _, err := d.Reload(t.Context(), ReloadRequest{Discard: true}); err != nil {
			t.Error(err)
		}
	})
}
