package logs

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// Everything that was written is in one of the files, whole, whenever the file
// is moved away and opened again.
func TestReopenLosesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := NewSwitch(f, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(handler)
	const writers, lines = 4, 250
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range lines {
				log.Info("line", "i", i)
				log.Debug("not this one")
			}
		})
	}
	for i := range 20 {
		if err := os.Rename(path, path+"."+string(rune('a'+i))); err != nil {
			t.Error(err)
		}
		if err := f.Reopen(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	files, _ := filepath.Glob(path + "*")
	total := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			var v struct{ Msg string }
			if err := json.Unmarshal([]byte(line), &v); err != nil || v.Msg != "line" {
				t.Errorf("broken line %q", line)
			}
			total++
		}
	}
	if total != writers*lines || len(files) != 21 {
		t.Errorf("%d lines in %d files", total, len(files))
	}
}

// A file that is opened again while lines are to go to another one does not bring them back.
// One that cannot be opened does not stay what a later Reopen opens.
func TestReopenDuringAMove(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		path := filepath.Join(dir, strconv.Itoa(i))
		var both sync.WaitGroup
		for _, change := range []func() error{func() error { return f.Move(path) }, f.Reopen} {
			both.Go(func() {
				if err := change(); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if is := f.Stats().Path; is != path {
			t.Fatalf("lines go to %s; want %s", is, path)
		}
	}
	if err := f.Move(filepath.Join(dir, "none", "log")); err == nil {
		t.Error("a file in no folder was opened")
	}
	if err := f.Reopen(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// A log that is switched on while lines are written has them, from one of them on. It is off
// until the file is open, and nothing is given to what it was before.
func TestSwitchedOnWhileLinesAreWritten(t *testing.T) {
	w, err := OpenAccess("")
	if err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = w.Write([]byte("line\n"))
			}
		}
	}()
	dir := t.TempDir()
	for i := range 50 {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := w.Move(path); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "lines in "+path, func() bool {
			info, err := os.Stat(path)
			return err == nil && info.Size() > 0
		})
		if err := w.Move(""); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-ended
	_ = w.Close() // lines may have come faster than they were written
}

func TestFailedReopenGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := Open(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	moved := dir + ".moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(); err == nil {
		t.Error("a file in a folder that is gone was opened")
	}
	if _, err := f.Write([]byte("still here\n")); err != nil {
		t.Error(err)
	}
	_ = f.Close()
	if data, _ := os.ReadFile(filepath.Join(moved, "log")); string(data) != "still here\n" {
		t.Errorf("the file has %q", data)
	}
}

func TestRefusals(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no", "log")); err == nil {
		t.Error("opened a file in no folder")
	}
	if _, err := NewSwitch(os.Stderr, "loud", "text"); err == nil {
		t.Error("took level loud")
	}
	if _, err := NewSwitch(os.Stderr, "info", "xml"); err == nil {
		t.Error("took format xml")
	}
	f, err := Open("")
	if err != nil || f.Reopen() != nil || f.Close() != nil {
		t.Error("standard error is no file to reopen or close")
	}
}
