package handover

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// pair returns both ends.
func pair(t *testing.T) (here, there *Conn) {
	t.Helper()
	here, file, err := Pair()
	if err == nil {
		there, err = Open(file)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = here.Close()
		_ = there.Close()
	})
	return here, there
}

// files makes files that have their numbers in them.
func files(t *testing.T, n int) (list []*os.File) {
	t.Helper()
	for i := range n {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(strconv.Itoa(i)), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		list = append(list, f)
	}
	return list
}

// Messages come whole and in order, each with its own descriptors, also when several wait at
// once and bodies are larger than the kernel's buffer.
func TestMessagesAndTheirDescriptors(t *testing.T) {
	here, there := pair(t)
	all := files(t, MaxFiles)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	sent := make(chan error, 1)
	go func() {
		var problems []error
		problems = append(problems, here.Send(KindState, big), here.Send(KindSockets, []byte("one"), all[7]),
			here.Send(KindPrepare, nil), here.Send(KindSockets, nil, all...), here.Send(KindMove, big, all[1], all[0]))
		sent <- errors.Join(problems...)
	}()
	expect := func(kind Kind, body []byte, numbers ...int) {
		t.Helper()
		m, err := there.Receive()
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if m.Kind != kind || !bytes.Equal(m.Body, body) || len(m.Files) != len(numbers) {
			t.Fatalf("got %v of %d bytes with %d files, want %v of %d with %d", m.Kind, len(m.Body), len(m.Files), kind, len(body), len(numbers))
		}
		for i, f := range m.Files {
			text := make([]byte, 8)
			n, err := f.ReadAt(text, 0)
			if string(text[:n]) != strconv.Itoa(numbers[i]) {
				t.Errorf("file %d of %v is number %q: %v", i, kind, text[:n], err)
			}
		}
	}
	expect(KindState, big)
	expect(KindSockets, []byte("one"), 7)
	expect(KindPrepare, nil)
	var every []int
	for i := range all {
		every = append(every, i)
	}
	expect(KindSockets, nil, every...)
	expect(KindMove, big, 1, 0)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := here.Send(KindSockets, nil, append(all, all[0])...); err == nil || !strings.Contains(err.Error(), "at most 253") {
		t.Errorf("one descriptor too many: %v", err)
	}
	_ = here.Close()
	if _, err := there.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// A side that ends in the middle of a message, or sends rubbish, is an error, and the
// descriptors that came are closed: the test would find them.
func TestBrokenMessages(t *testing.T) {
	one := files(t, 1)
	fd := int(one[0].Fd())
	for name, bytes := range map[string][]byte{
		"cut in the header":    {0, 0, 0},
		"cut in the body":      header{KindState, 1, 9}.append(nil),
		"unknown kind":         header{99, 1, 0}.append(nil),
		"too long":             header{KindState, 1, MaxBody + 1}.append(nil),
		"descriptors missing":  header{KindSockets, 2, 0}.append(nil),
		"descriptors too many": header{KindSockets, 0, 0}.append(nil),
	} {
		here, there := pair(t)
		if _, _, err := here.conn.WriteMsgUnix(bytes, unix.UnixRights(fd), nil); err != nil {
			t.Fatal(err)
		}
		_ = here.Close()
		if m, err := there.Receive(); err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v, %v", name, m.Kind, err)
		}
	}
}

// Without room for descriptors a message is an error that says so.
func TestNoRoomForDescriptors(t *testing.T) {
	if os.Getenv("TXLB_TEST_RECEIVE") != "" {
		receiveWithoutRoom(t)
		return
	}
	here, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = here.Close() }()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoRoomForDescriptors$")
	cmd.Env = append(os.Environ(), "TXLB_TEST_RECEIVE=yes")
	cmd.ExtraFiles = []*os.File{file}
	if err := here.Send(KindSockets, nil, files(t, 100)...); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	_ = file.Close()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func receiveWithoutRoom(t *testing.T) {
	c, err := Open(os.NewFile(3, "handover"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	limit := unix.Rlimit{Cur: 50, Max: 50}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Receive(); err == nil || !strings.Contains(err.Error(), "limit of open files") {
		t.Errorf("got %v", err)
	}
}

// Each side learns who the other is, and of a program with another format that it is one.
func TestGreet(t *testing.T) {
	here, there := pair(t)
	got := make(chan error, 1)
	go func() {
		peer, err := there.Greet(Hello{Format, "new", 2, 0})
		if err == nil && peer != (Hello{Format, "old", 1, 0}) {
			err = errors.New("it is another")
		}
		got <- err
	}()
	if peer, err := here.Greet(Hello{Format, "old", 1, 0}); err != nil || peer != (Hello{Format, "new", 2, 0}) {
		t.Errorf("%v, %v", peer, err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}

	go func() {
		_, err := there.Greet(Hello{Format + 1, "newer", 2, 0})
		got <- err
	}()
	peer, err := here.Greet(Hello{Format, "old", 1, 0})
	if other := (*FormatError)(nil); !errors.As(err, &other) || peer.Version != "newer" {
		t.Errorf("%v, %v", peer, err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestAnswers(t *testing.T) {
	here, there := pair(t)
	for _, send := range []error{there.Send(KindDone, []byte("well")), there.Send(KindFailed, []byte("no")), there.Send(KindState, nil)} {
		if send != nil {
			t.Fatal(send)
		}
	}
	if body, err := here.Answer(); err != nil || string(body) != "well" {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := here.Answer(); err == nil || err.Error() != "no" {
		t.Error(err)
	}
	if _, err := here.Answer(); err == nil || !strings.Contains(err.Error(), "state instead of an answer") {
		t.Error(err)
	}
	_ = here.SetDeadline(time.Now())
	if _, err := here.Answer(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}
