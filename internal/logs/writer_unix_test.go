//go:build unix

package logs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func logger(t *testing.T, w *Writer) *slog.Logger {
	t.Helper()
	h, err := NewSwitch(w, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	return slog.New(h)
}

// lines reads lines from a log and returns those that it has until it has seen one
// with the text last.
func lines(t *testing.T, from io.Reader, last string) (list []string) {
	t.Helper()
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d lines: %v", len(list), err)
		}
		if list = append(list, strings.TrimSuffix(line, "\n")); strings.Contains(line, last) {
			return list
		}
	}
}

// reader opens a FIFO to read it. With flag 0 it waits for who writes to it.
func reader(t *testing.T, path string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|flag, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	return f
}

// account checks that the lines n=0, n=1, … of a log are there in their order, or
// reported as missing just where they are.
func account(t *testing.T, list []string, upTo int) (dropped int) {
	t.Helper()
	next := 0
	number, gaps := regexp.MustCompile(` n=(\d+)`), regexp.MustCompile(`level=WARN msg="log lines dropped" lines=(\d+) since=\S+ reason=.`)
	for _, line := range list {
		if m := gaps.FindStringSubmatch(line); m != nil {
			lost, _ := strconv.Atoi(m[1])
			next += lost
			dropped += lost
			continue
		}
		m := number.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("unexpected line %q", line)
		}
		if m[1] != strconv.Itoa(next) {
			t.Fatalf("line %s stands where %d should", m[1], next)
		}
		next++
	}
	if next != upTo {
		t.Errorf("%d lines are accounted for, %d were written", next, upTo)
	}
	return dropped
}

// A FIFO that nobody reads makes nobody wait. What does not fit into the ring is
// dropped, and reported where it is missing. With a reader the log goes on.
func TestFIFOWithoutReader(t *testing.T) {
	path := fifo(t)
	w, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	log := logger(t, w)
	const many = 50_000
	for n := range many {
		log.Info("line", "n", n)
	}
	s := w.Stats()
	if s.Dropped == 0 || s.Dropped >= many || s.Reason != errNoReader.Error() || s.Since.IsZero() || s.Last.IsZero() || s.Path != path || s.Name != "log" {
		t.Errorf("stats %+v", s)
	}
	// A warning still finds room.
	log.Warn("line", "n", many)
	if now := w.Stats().Dropped; now != s.Dropped {
		t.Errorf("a warning was dropped: %d lines, before it %d", now, s.Dropped)
	}
	from := reader(t, path, 0)
	list := lines(t, from, " n=50000")
	if dropped := account(t, list, many+1); uint64(dropped) != s.Dropped {
		t.Errorf("the log reports %d lines, the stats %d", dropped, s.Dropped)
	}
	testkit.Eventually(t, "what the stats say", func() bool { return w.Stats().Reason == "" })
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// A reader that exits and comes back misses no line that it had not been given.
func TestFIFOWhoseReaderExits(t *testing.T) {
	path := fifo(t)
	w, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	log := logger(t, w)
	log.Info("line", "n", 0)
	first := reader(t, path, 0)
	if got := lines(t, first, " n=0"); len(got) != 1 {
		t.Errorf("the first reader has %q", got)
	}
	_ = first.Close()
	log.Info("line", "n", 1)
	testkit.Eventually(t, "what the stats say", func() bool { return w.Stats().Reason != "" })
	log.Info("line", "n", 2)
	second := reader(t, path, 0)
	if got := lines(t, second, " n=2"); len(got) != 2 || !strings.Contains(got[0], " n=1") {
		t.Errorf("the second reader has %q", got)
	}
	if err := w.Close(); err != nil || w.Stats().Dropped != 0 {
		t.Errorf("close: %v, %+v", err, w.Stats())
	}
}

// A sink that hangs is left for another one, and nothing is missing there.
func TestMoveFromASinkThatHangs(t *testing.T) {
	path := fifo(t)
	from := reader(t, path, syscall.O_NONBLOCK) // who does not read
	w, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	log := logger(t, w)
	const many = 2000 // more than a FIFO takes, less than the ring
	for n := range many {
		log.Info("line", "n", n)
	}
	testkit.Eventually(t, "what the stats say", func() bool { return w.Stats().Reason != "" })
	began := time.Now()
	if err := w.Reopen(); err != nil {
		t.Errorf("reopen: %v", err)
	}
	file := filepath.Join(t.TempDir(), "log")
	if err := w.Move(file); err != nil {
		t.Errorf("move: %v", err)
	}
	if took := time.Since(began); took > testkit.Patience/2 {
		t.Errorf("reopen and move took %v", took)
	}
	log.Info("line", "n", many)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	inFile := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	// The FIFO has the beginning; the file begins with a whole line of it, or
	// just behind it.
	first := regexp.MustCompile(` n=(\d+)`).FindStringSubmatch(inFile[0])
	if first == nil {
		t.Fatalf("the file begins with %q", inFile[0])
	}
	begin, _ := strconv.Atoi(first[1])
	var read bytes.Buffer
	if _, err := io.Copy(&read, from); err != nil {
		t.Fatal(err)
	}
	if inFIFO := strings.Count(read.String(), "\n"); begin > inFIFO {
		t.Errorf("the FIFO has %d lines, the file begins with %d", inFIFO, begin)
	}
	if len(inFile) != many+1-begin || !strings.Contains(inFile[len(inFile)-1], fmt.Sprint(" n=", many)) {
		t.Errorf("the file has %d lines from %d on, ending with %q", len(inFile), begin, inFile[len(inFile)-1])
	}
}

// A full disk loses what does not fit into the ring, and Close does not wait.
func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full")
	}
	w, err := Open("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	logger(t, w).Info("line")
	testkit.Eventually(t, "what the stats say", func() bool { return strings.Contains(w.Stats().Reason, "no space left on device") })
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "lost 1 lines: write /dev/full: no space left on device") {
		t.Errorf("close: %v", err)
	}
}

// What was wrong with one sink is not said of the next.
func TestMoveFromAFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full")
	}
	w, err := Open("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	logger(t, w).Info("line", "n", 0)
	testkit.Eventually(t, "what the stats say", func() bool { return w.Stats().Reason != "" })
	file := filepath.Join(t.TempDir(), "log")
	if err := w.Move(file); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the line", func() bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.HasSuffix(string(data), " n=0\n")
	})
	testkit.Eventually(t, "what the stats say", func() bool { return w.Stats().Reason == "" })
	if err := w.Close(); err != nil || w.Stats().Dropped != 0 {
		t.Errorf("close: %v, %+v", err, w.Stats())
	}
}

// The program ends in time beside a pipe that nobody reads, and a process that
// shares the pipe with us finds it as it was.
func TestCloseBesideASharedPipeThatHangs(t *testing.T) {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		t.Fatal(err)
	}
	from, to := os.NewFile(uintptr(ends[0]), "read"), os.NewFile(uintptr(ends[1]), "write")
	stderr := os.Stderr
	os.Stderr = to
	w, err := Open("")
	os.Stderr = stderr
	if err != nil {
		t.Fatal(err)
	}
	log := logger(t, w)
	const many = 2000
	for n := range many {
		log.Info("line", "n", n)
	}
	testkit.Eventually(t, "what the stats say", func() bool { return w.Stats().Reason != "" })
	began := time.Now()
	if err := w.Close(); err == nil {
		t.Error("closed without an error")
	}
	if took := time.Since(began); took > flushTime+testkit.Patience/2 {
		t.Errorf("close took %v", took)
	}
	// The write that hangs ends when there is a reader.
	list := lines(t, from, fmt.Sprint(" n=", many/8))
	for n, line := range list {
		if !strings.HasSuffix(line, fmt.Sprint(" n=", n)) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	_ = from.Close()
	_ = to.Close()
}

// Under the journal lines have a priority, and no time of their own.
func TestJournal(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	info, err := to.Stat()
	if err != nil {
		t.Fatal(err)
	}
	is := info.Sys().(*syscall.Stat_t)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", is.Dev, is.Ino))
	stderr := os.Stderr
	os.Stderr = to
	defer func() { os.Stderr = stderr }()
	for _, path := range []string{"", "/dev/stderr"} {
		w, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		h, err := NewSwitch(w, "debug", "text")
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(h).With("a", 1)
		log.Debug("one")
		log.Info("two")
		log.Warn("three")
		if err := h.Set("debug", "json"); err != nil {
			t.Fatal(err)
		}
		log.Error("four")
		want := []string{"<7>level=DEBUG msg=one a=1", "<6>level=INFO msg=two a=1", "<4>level=WARN msg=three a=1", `<3>{"level":"ERROR","msg":"four","a":1}`}
		if got := lines(t, from, "four"); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q: lines %q", path, got)
		}
		file := filepath.Join(t.TempDir(), "log")
		if err := w.Move(file); err != nil {
			t.Fatal(err)
		}
		log.Info("five")
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if data, _ := os.ReadFile(file); !regexp.MustCompile(`^\{"time":"[^"]+","level":"INFO","msg":"five","a":1\}\n$`).Match(data) {
			t.Errorf("the file has %q", data)
		}
	}
	_ = to.Close()
	if rest, _ := io.ReadAll(from); len(rest) > 0 {
		t.Errorf("the journal has %q as well", rest)
	}
	_ = from.Close()
}

// BenchmarkLogCall compares a call with a file, with a sink that takes nothing,
// and with a handler that writes for itself.
func BenchmarkLogCall(b *testing.B) {
	call := func(b *testing.B, log *slog.Logger) {
		b.ReportAllocs()
		for b.Loop() {
			log.Warn("host down", "service", "web", "group", "main", "host", "a", "addr", "10.0.0.1:80", "reason", "connection refused")
		}
	}
	through := func(b *testing.B, path string) {
		w, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		h, err := NewSwitch(w, "info", "text")
		if err != nil {
			b.Fatal(err)
		}
		call(b, slog.New(h))
		b.ReportMetric(float64(w.Stats().Dropped)/float64(b.N), "dropped/op")
		_ = w.Close()
	}
	b.Run("file", func(b *testing.B) { through(b, filepath.Join(b.TempDir(), "log")) })
	b.Run("nobody reads", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "fifo")
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			b.Fatal(err)
		}
		through(b, path)
	})
	b.Run("without a writer", func(b *testing.B) {
		f, err := os.OpenFile(filepath.Join(b.TempDir(), "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, mode)
		if err != nil {
			b.Fatal(err)
		}
		call(b, slog.New(slog.NewTextHandler(f, nil)))
		_ = f.Close()
	})
}
