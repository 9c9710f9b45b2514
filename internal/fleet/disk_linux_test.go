package fleet

import (
	"log/slog"
	"os"
	"syscall"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// Nobody waits for a node that reads again what it could not read: status would hang with the disk.
func TestReadsAgainFromADiskThatHangs(t *testing.T) {
	dir := t.TempDir()
	path := memoryIn(dir, "a")
	if err := os.WriteFile(path, []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := New(Options{
		Config:   config.Fleet{Name: "edge", Node: "a", Store: []string{"http://127.0.0.1:1"}, Lease: lease},
		StateDir: dir, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil || n.unread == nil {
		t.Fatal(err, n.unread)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil { // it hangs until somebody writes
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { read <- n.recollect() }()
	var pipe *os.File
	testkit.Eventually(t, "it reads", func() bool { // without a reader this fails
		pipe, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		return err == nil
	})
	free := n.mu.TryLock()
	if free {
		n.mu.Unlock()
	}
	if _, err := pipe.WriteString(`{"id":"x"}`); err != nil {
		t.Error(err)
	}
	_ = pipe.Close()
	if err := <-read; err != nil {
		t.Error(err)
	}
	if !free {
		t.Error("it is locked meanwhile")
	}
}
