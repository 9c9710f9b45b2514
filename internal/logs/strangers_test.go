package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// Whatever strangers send, they write a bounded number of lines of a bounded
// length, and the log says what it leaves out.
func TestStrangersAreBounded(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		for _, format := range []string{"text", "json"} {
			var b testkit.Log
			h, err := NewSwitch(&b, "info", format)
			if err != nil {
				t.Fatal(err)
			}
			log := Strangers(slog.New(h))
			evil := errors.New(strings.Repeat("\x00\u202e\xff\"", 60_000))
			for range 10_000 {
				log.With("user", evil.Error()).Info("SSH login failed", "err", evil)
			}
			log.Warn("another message")
			list := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			if len(list) != 21 || !strings.Contains(list[20], "another message") {
				t.Fatalf("%s: %d lines, the last %q", format, len(list), list[len(list)-1])
			}
			for _, l := range list {
				if len(l) > 2*strangersValue+200 {
					t.Errorf("%s: a line of %d bytes", format, len(l))
				}
			}
			if !strings.Contains(list[0], "… (+") {
				t.Errorf("%s: %s", format, list[0])
			}
			before := len(b.String())
			time.Sleep(sumAfter) // and the line about the rest
			synctest.Wait()
			if got := b.String()[before:]; strings.Count(got, "\n") != 1 || !strings.Contains(got, "SSH login failed") || !strings.Contains(got, "9980") {
				t.Errorf("%s: after a while %q", format, got)
			}
		}
	})
}

func TestCutFitsWhateverItIs(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("a", 300), strings.Repeat("é", 300), strings.Repeat("\x01", 100), strings.Repeat("\xff", 200),
		strings.Repeat("\U0010fffd", 100), strings.Repeat("\"\\\n", 100), strings.Repeat("\u2028", 100), strings.Repeat("x", 256), strings.Repeat("x", 257)} {
		short := cut(s, strangersValue)
		quoted, err := json.Marshal(short)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		_ = slog.NewTextHandler(&b, nil).WithAttrs([]slog.Attr{slog.String("v", short)}).Handle(t.Context(), slog.Record{})
		text := strings.TrimSpace(b.String()[strings.Index(b.String(), "v=")+2:])
		if len(quoted) > strangersValue+2 || len(text) > strangersValue+2 {
			t.Errorf("%.20q… becomes %d bytes in JSON, %d as text", s, len(quoted), len(text))
		}
		if len(s) <= strangersValue && !strings.ContainsFunc(s, func(r rune) bool { return r < 'a' || r > 'z' }) && short != s {
			t.Errorf("%q was cut to %q", s, short)
		}
	}
}

func TestLongValuesAreCut(t *testing.T) {
	var b bytes.Buffer
	h, err := NewSwitch(&b, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	slog.New(h).Info("m", "any", []string{strings.Repeat("x", 1<<20)}, "list", []string{"a", "b"}, slog.Group("g", "s", strings.Repeat("\x01", 1<<20)))
	var got struct {
		Any  string
		List []string
		G    struct{ S string }
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got.List) != 2 || got.Any == "" || got.G.S == "" || b.Len() > 3*longestValue {
		t.Errorf("%d bytes: %.300s, %v", b.Len(), b.String(), err)
	}
}

// The audit file has JSON lines, and one without a path takes nothing.
func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	w, err := OpenAudit("")
	if err != nil {
		t.Fatal(err)
	}
	audit := NewAudit(w)
	audit.Info("nobody sees this")
	if err := w.Move(path); err != nil {
		t.Fatal(err)
	}
	audit.Warn("login failed", "by", "boss", "from", "::1")
	if err := w.Move(""); err != nil {
		t.Fatal(err)
	}
	audit.Info("nor this")
	if err := w.Close(); err != nil || w.Stats().Dropped != 0 {
		t.Errorf("%v, %+v", err, w.Stats())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Time            time.Time
		Event, By, From string
		Level, Msg      *string
	}
	if err := json.Unmarshal(data, &got); err != nil || got.Time.IsZero() || got.Event != "login failed" || got.By != "boss" || got.From != "::1" || got.Level != nil || got.Msg != nil {
		t.Errorf("the audit file has %q", data)
	}
}
