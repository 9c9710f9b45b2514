package document

import (
	"path/filepath"
	"syscall"
	"testing"
)

// namedPipe makes a pipe that nobody writes to: opening it would wait for ever.
func namedPipe(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
