//go:build unix

package debian

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// told is a test that notes how it was ended.
type told struct{ how string }

func (t *told) Helper()          {}
func (t *told) Skip(why ...any)  { t.how += "skipped: " + fmt.Sprint(why...) }
func (t *told) Fatal(why ...any) { t.how += "failed: " + fmt.Sprint(why...) }

// TestNothingIsInstalledUnasked looks for a program that is nowhere, where the
// machine must not change and where it cannot.
func TestNothingIsInstalledUnasked(t *testing.T) {
	// Any apt-get that ran would leave a trace.
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte("#!/bin/sh\necho ran >>"+trace+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	stamp := func() string {
		info, err := os.Stat(policy)
		if err != nil {
			return err.Error()
		}
		return info.ModTime().String()
	}
	before := stamp()
	for _, asked := range []string{"", "no", "1"} {
		t.Setenv("TXLB_INSTALL", asked)
		var got told
		NeedFor(&got, "nosuchprogram", "ab")
		want := "skipped: missing: install it with apt-get install nosuchprogram apache2-utils"
		if Path("ab") != "" { // root's search path may find it
			want = "skipped: missing: install it with apt-get install nosuchprogram"
		}
		if !strings.HasPrefix(got.how, want) {
			t.Errorf("TXLB_INSTALL=%q: %s", asked, got.how)
		}
	}
	if _, err := os.Stat(trace); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("apt-get ran: %v", err)
	}

	t.Setenv("TXLB_INSTALL", "yes")
	t.Setenv("PATH", t.TempDir()) // no apt-get
	var got told
	if NeedFor(&got, "nosuchprogram"); !strings.HasPrefix(got.how, "failed: missing: install it with apt-get install nosuchprogram") {
		t.Errorf("where it cannot be installed: %s", got.how)
	}
	if after := stamp(); after != before {
		t.Errorf("%s was written", policy)
	}
}
