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
//
// Nothing below the folder of path follows a symbolic link. Users who can write
// there cannot make the change of mode and group hit another file: both folders are
// held open, and the socket is reached through them.
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
	folder, err := openFolder(unix.AT_FDCWD, dir, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(folder) }()
	private, err := os.MkdirTemp(dir, ".") // mode 0700
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(private) }()
	own, err := openFolder(folder, filepath.Base(private), unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(own) }()
	ln, err := bind(own, filepath.Join(private, made))
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
		if err := unix.Fchownat(own, made, -1, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, fmt.Errorf("give it to the group %s: %w", group, err)
		}
	}
	if err := unix.Fchmodat(own, made, uint32(mode.Perm()), 0); err != nil { // in own nobody else makes links
		return nil, fmt.Errorf("set its mode: %w", err)
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := free(path); err != nil {
		return nil, err
	}
	if err := unix.Renameat(own, made, folder, filepath.Base(path)); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return listenerOf(ln, path, info), nil
}

func listenerOf(ln *net.UnixListener, path string, info fs.FileInfo) *listener {
	l := &listener{UnixListener: ln, path: path, file: info}
	l.remove = sync.OnceFunc(l.unlink)
	return l
}

// Inherit is [Listen] with the socket of another process, which was made by Listen and is
// at path. The file stays open.
func Inherit(path string, file *os.File) (net.Listener, error) {
	ln, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		_ = ln.Close()
		return nil, fmt.Errorf("it is a listener of %s", ln.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	info, err := os.Lstat(path)
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	return listenerOf(u, path, info), nil
}

// made is the name that a socket is made with, in a folder of its own.
const made = "s"

// openFolder opens a folder so that names in it can be used whatever its own name
// leads to later.
func openFolder(at int, path string, flags int) (int, error) {
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// maxPath is the longest path of a socket (unix(7)).
const maxPath = 107

// bind makes a socket in the folder own; path is its path. Where the system has
// /proc, it goes through the descriptor of the folder: then neither a folder that was
// replaced matters, nor a path that is too long for a socket.
func bind(own int, path string) (*net.UnixListener, error) {
	if by := fmt.Sprintf("/proc/self/fd/%d", own); sameFolder(by, own) {
		path = filepath.Join(by, made)
	}
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}

// sameFolder tells whether a path leads to an open folder.
func sameFolder(path string, fd int) bool {
	var a, b unix.Stat_t
	return unix.Stat(path, &a) == nil && unix.Fstat(fd, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
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
		return nil // its owner has exited
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

// Leave closes the listener and does not remove the socket, because another process
// listens on it.
func (l *listener) Leave() error { return l.UnixListener.Close() }

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
