//go:build unix

package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen makes the socket at path, with mode and group (a name or a number; "": not
// changed). The socket never has another mode at that path: it is made in a folder
// that only this user can enter, and then renamed. (The umask would not do: it
// belongs to the whole process, and other goroutines make files.)
//
// A socket that nobody listens on is replaced. One that somebody listens on, or
// another file, is an error. A missing folder is made, but not its parents. Close
// removes the socket, if it is still this one. Errors do not contain the path.
func Listen(path string, mode fs.FileMode, group string) (_ net.Listener, err error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path has %d bytes; a socket's has at most %d", len(path), maxPath)
	}
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".") // mode 0700
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(private) }()
	made := filepath.Join(private, "s")
	ln, err := bind(private, made)
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	defer func() {
		if err != nil {
			_ = ln.Close()
		}
	}()
	if gid >= 0 {
		if err := os.Chown(made, -1, gid); err != nil {
			return nil, fmt.Errorf("give it to the group %s: %w", group, err)
		}
	}
	if err := os.Chmod(made, mode.Perm()); err != nil {
		return nil, err
	}
	info, err := os.Lstat(made)
	if err != nil {
		return nil, err
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := free(path); err != nil {
		return nil, err
	}
	if err := os.Rename(made, path); err != nil {
		return nil, err
	}
	l := &listener{UnixListener: ln, path: path, file: info}
	l.remove = sync.OnceFunc(l.unlink)
	return l, nil
}

const (
	// maxPath is the longest path of a socket (unix(7)).
	maxPath = 107
	// maxBound is the longest one that works on every system.
	maxBound = 103
)

// bind makes a socket at made, in the folder private. If the path is too long for a
// socket, it goes through the descriptor of the folder.
func bind(private, made string) (*net.UnixListener, error) {
	if len(made) > maxBound {
		dir, err := os.Open(private)
		if err != nil {
			return nil, err
		}
		defer func() { _ = dir.Close() }()
		made = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(made))
	}
	return net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
}

// groupID returns the number of a group, -1 for none.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(group)
	if err == nil {
		return strconv.Atoi(g.Gid)
	}
	if n, numErr := strconv.ParseUint(group, 10, 31); numErr == nil {
		return int(n), nil
	}
	return 0, fmt.Errorf("unknown group %q", group)
}

// CheckGroup tells whether there is a group of that name or number; "" is none.
func CheckGroup(group string) error {
	_, err := groupID(group)
	return err
}

// lockFolder keeps two processes from taking the same path at once.
func lockFolder(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("lock the folder: %w", err)
	}
	return func() { _ = d.Close() }, nil
}

// free returns why the path cannot be taken.
func free(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("the file exists and is not a socket: move it away, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, greetTimeout)
	switch {
	case err == nil:
		_ = c.Close()
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil // whoever made it is gone
	}
	return errors.New("it is in use by another process; stop that, or choose another path")
}

// listener removes its file when it closes.
type listener struct {
	*net.UnixListener
	path   string
	file   fs.FileInfo // as it was made
	remove func()
}

// Addr is the path that the socket was renamed to.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket, unless there is another one in its place, and closes it.
// While it is open, no other file can have its inode number.
func (l *listener) Close() error {
	l.remove()
	return l.UnixListener.Close()
}

func (l *listener) unlink() {
	unlock, err := lockFolder(filepath.Dir(l.path))
	if err != nil {
		return // the folder is gone, or not ours any more
	}
	defer unlock()
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.file) {
		_ = os.Remove(l.path)
	}
}
