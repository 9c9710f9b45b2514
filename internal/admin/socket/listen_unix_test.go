//go:build unix

package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func listenOn(t *testing.T, path string, mode fs.FileMode) net.Listener {
	t.Helper()
	ln, err := Listen(path, mode, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// The mode is as asked for whatever the umask is, and under its path the socket
// never had another.
func TestListenHasItsModeFromTheFirstMoment(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "a.sock")
	for _, umask := range []int{0, 0o777, 0o022} {
		was := unix.Umask(umask)
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
			// Somebody looks all the time.
			stop, looked := make(chan struct{}), make(chan fs.FileMode)
			go func() {
				seen := mode
				for {
					if info, err := os.Lstat(path); err == nil && info.Mode().Perm() != mode {
						seen = info.Mode().Perm()
					}
					select {
					case <-stop:
						looked <- seen
						return
					default:
					}
				}
			}()
			for range 20 {
				ln, err := Listen(path, mode, "")
				if err != nil {
					t.Fatal(err)
				}
				if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != mode || info.Mode().Type() != fs.ModeSocket {
					t.Errorf("umask %o: %v, %v", umask, info.Mode(), err)
				}
				if err := ln.Close(); err != nil {
					t.Error(err)
				}
			}
			close(stop)
			if seen := <-looked; seen != mode {
				t.Errorf("umask %o: for a moment the mode was %o, not %o", umask, seen, mode)
			}
		}
		unix.Umask(was)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListenReplacesNobody(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "a.sock")
	refused := func(want string) {
		t.Helper()
		before, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := Listen(path, 0o600, "")
		if err == nil {
			_ = ln.Close()
			t.Fatal("it was taken")
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
		if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
			t.Errorf("it is not what it was: %v", err)
		}
	}
	ln := listenOn(t, path, 0o600)
	refused("in use by another process")
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the one that was there does not answer: %v", err)
	}
	_ = c.Close()
	_ = ln.Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("not a socket")
	_ = os.Remove(path)
	if err := os.Symlink("elsewhere", path); err != nil {
		t.Fatal(err)
	}
	refused("not a socket")
	_ = os.Remove(path)

	// One that nobody answers on any more is replaced.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	ln = listenOn(t, path, 0o600)
	_ = ln.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}

	// At the end, what somebody else has put there stays.
	ln = listenOn(t, path, 0o600)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	other := listenOn(t, path, 0o600)
	_ = ln.Close()
	_ = ln.Close() // nothing more happens
	if c, err = net.Dial("unix", path); err != nil {
		t.Errorf("the other's socket is gone: %v", err)
	} else {
		_ = c.Close()
	}
	_ = other.Close()
}

func TestOnlyOneOfManyListens(t *testing.T) {
	path := filepath.Join(folder(t), "a.sock")
	for range 20 {
		var starting sync.WaitGroup
		won := make(chan net.Listener, 8)
		for range 8 {
			starting.Go(func() {
				if ln, err := Listen(path, 0o600, ""); err == nil {
					won <- ln
				} else if !strings.Contains(err.Error(), "in use") {
					t.Error(err)
				}
			})
		}
		starting.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listen on the same path", len(won))
		}
		_ = (<-won).Close()
	}
}

// Who may write the folder of a socket leads nobody to another file by links: not in
// place of the socket, nor of the folder in which it is made.
func TestListenFollowsNoLinks(t *testing.T) {
	dir := folder(t)
	victim, elsewhere := filepath.Join(dir, "victim"), filepath.Join(dir, "elsewhere")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.sock")
	for _, to := range []string{victim, filepath.Join(dir, "nothing")} {
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		if ln, err := Listen(path, 0o666, ""); err == nil {
			_ = ln.Close()
			t.Errorf("a link to %s was followed or replaced", to)
		}
		if _, err := os.Lstat(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what the link leads to was made: %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}

	// Somebody puts a link in place of each new folder, as fast as he can.
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(elsewhere, made)); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan int)
	go func() {
		swapped := 0
		for {
			select {
			case <-stop:
				ended <- swapped
				return
			default:
			}
			hidden, _ := filepath.Glob(filepath.Join(dir, ".[0-9]*"))
			for _, private := range hidden {
				away := filepath.Join(dir, fmt.Sprint("away", swapped))
				if os.Rename(private, away) == nil && os.Symlink(elsewhere, private) == nil {
					swapped++
				}
			}
		}
	}()
	for range 300 {
		if ln, err := Listen(path, 0o666, ""); err == nil {
			_ = ln.Close()
		}
	}
	close(stop)
	swapped := <-ended
	if info, err := os.Lstat(victim); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("after %d swaps the other file has mode %v, %v", swapped, info.Mode(), err)
	}
	t.Logf("%d swaps", swapped)
}

func TestListenInPlaces(t *testing.T) {
	dir := folder(t)
	// The folder is made, but not those above.
	ln := listenOn(t, filepath.Join(dir, "new", "a.sock"), 0o600)
	_ = ln.Close()
	if _, err := Listen(filepath.Join(dir, "no", "such", "a.sock"), 0o600, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	// As long as a path can be; and longer.
	if runtime.GOOS == "linux" {
		long := filepath.Join(dir, "new", strings.Repeat("x", 107))[:107-2] + "/s"
		ln := listenOn(t, long, 0o600)
		if c, err := net.Dial("unix", long); err != nil {
			t.Error(err)
		} else {
			_ = c.Close()
		}
		_ = ln.Close()
		_ = os.Remove(filepath.Dir(long))
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 107)), 0o600, ""); err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("a path that is too long: %v", err)
	}
	if _, err := Listen(filepath.Join(dir, "a.sock"), 0o600, "no-such-group-here"); err == nil || !strings.Contains(err.Error(), `unknown group "no-such-group-here"`) {
		t.Errorf("got %v", err)
	}
	if os.Geteuid() == 0 {
		path := filepath.Join(dir, "g.sock")
		ln, err := Listen(path, 0o660, "4711")
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Gid != 4711 || st.Mode&0o777 != 0o660 {
			t.Errorf("group %d, mode %o: %v", st.Gid, st.Mode, err)
		}
		_ = ln.Close()
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "new" {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
