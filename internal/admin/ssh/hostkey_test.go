package ssh

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestHostKeyIsMadeOnce makes it from many at once: all have the same, and
// nothing else is left.
func TestHostKeyIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	var all sync.WaitGroup
	keys := make([][]byte, 20)
	for i := range keys {
		all.Go(func() {
			key, err := HostKey(path)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = key.PublicKey().Marshal()
		})
	}
	all.Wait()
	again, err := HostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if !bytes.Equal(k, again.PublicKey().Marshal()) {
			t.Errorf("call %d has another key", i)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestHostKeyMistakes(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if _, err := HostKey(open); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		write(t, filepath.Join(dir, "text"), "no key"):                    "is not a PEM private key",
		write(t, filepath.Join(dir, "empty"), ""):                         "is not a PEM private key",
		write(t, filepath.Join(dir, "cut"), "-----BEGIN OPENSSH PRIVATE"): "is not a PEM private key",
		filepath.Join(dir, "none", "key"):                                 "make the SSH host key",
	} {
		if _, err := HostKey(path); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := HostKey(open); runtime.GOOS != "windows" && (err == nil || !strings.Contains(err.Error(), "is readable by others (mode 0644); want 0600")) {
		t.Errorf("a key that others may read: %v", err)
	}
}
