package logs

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func TestTail(t *testing.T) {
	var file bytes.Buffer
	handler, err := NewSwitch(&file, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	tail := NewTail(handler)
	log := slog.New(tail)
	if lines := tail.Lines(0); len(lines) != 0 {
		t.Errorf("before the first: %q", lines)
	}
	log.Debug("too fine")
	log.Info("first", "n", 1)
	log.With("service", "web").WithGroup("host").Warn("second", "name", "a\nb")
	want := []string{"level=INFO msg=first n=1", `level=WARN msg=second service=web host.name="a\nb"`}
	lines := tail.Lines(0)
	if len(lines) != 2 || !strings.HasSuffix(lines[0], want[0]) || !strings.HasSuffix(lines[1], want[1]) {
		t.Errorf("lines %q", lines)
	}
	if got := tail.Lines(1); len(got) != 1 || got[0] != lines[1] {
		t.Errorf("the last line: %q", got)
	}
	if got := file.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"host":{"name":"a\nb"}`) {
		t.Errorf("the log itself has %s", got)
	}
	if err := handler.Set("debug", "text"); err != nil {
		t.Fatal(err)
	}
	log.Debug("fine")
	if got := tail.Lines(0); len(got) != 3 || !strings.HasSuffix(got[2], "level=DEBUG msg=fine") {
		t.Errorf("lines %q", got)
	}
}

func TestTailIsBounded(t *testing.T) {
	handler, err := NewSwitch(io.Discard, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	tail := NewTail(handler)
	log := slog.New(tail)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 1000 {
				log.Info("line", "writer", w, "i", i)
				if lines := tail.Lines(10); len(lines) == 0 {
					t.Error("no line after one was written")
				}
			}
		})
	}
	writers.Wait()
	if lines := tail.Lines(0); len(lines) != tailLines {
		t.Errorf("%d lines are remembered", len(lines))
	}
	log.Info(strings.Repeat("é", tailLine))
	if lines := tail.Lines(1); len(lines[0]) > tailLine+4 || !strings.HasSuffix(lines[0], "é…") {
		t.Errorf("a long line has %d bytes: …%q", len(lines[0]), lines[0][len(lines[0])-8:])
	}
	for i := range 200 {
		log.Info(fmt.Sprint(i, strings.Repeat("x", tailLine)))
	}
	total := 0
	for _, l := range tail.Lines(0) {
		total += len(l)
	}
	if total > tailBytes || total < tailBytes/2 {
		t.Errorf("%d bytes are remembered", total)
	}
}
