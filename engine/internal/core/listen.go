package core

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/txlb/txlb/engine"
)

// ClearStale removes the file of a UNIX socket that nobody listens on any more. It
// keeps a socket that still answers, and any file that is not a socket.
func ClearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("listen on unix:%s: the file exists and is not a socket; choose another path", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
		return ListenError("unix:"+path, syscall.EADDRINUSE)
	}
	if errors.Is(err, syscall.EAGAIN) { // its queue is full
		return ListenError("unix:"+path, syscall.EADDRINUSE)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on unix:%s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("listen on unix:%s: remove the stale socket: %w", path, err)
	}
	return nil
}

// SocketFile is the file of a UNIX socket that we listen on; the zero value is none.
type SocketFile struct {
	Path string
	info os.FileInfo
}

// OurFile returns the file that bind(2) has just made.
func OurFile(path string) (SocketFile, error) {
	info, err := os.Lstat(path)
	return SocketFile{path, info}, err
}

// Remove removes the file, unless another one has taken its place, which belongs to
// somebody else. The socket must still be open: as long as it is, no other file can
// get the same identity.
func (f SocketFile) Remove() {
	if f.Path == "" {
		return
	}
	if info, err := os.Lstat(f.Path); err == nil && os.SameFile(info, f.info) {
		_ = os.Remove(f.Path)
	}
}

// NewSockets tells whether a listener with other options needs other sockets.
func NewSockets(a, b engine.ListenOptions) bool {
	return a.Interface != b.Interface || a.MPTCP != b.MPTCP
}

// ListenError adds what to do about the two usual errors.
func ListenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: the address is in use by another process: %w", address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: not allowed; ports below 1024 need root or CAP_NET_BIND_SERVICE: %w", address, err)
	}
	return fmt.Errorf("listen on %s: %w", address, err)
}

// NotOpened is the error of a service's listener that cannot be opened. It is an
// [engine.ListenError], unless one is open that it would have replaced.
func NotOpened(service, listen string, replaces bool, err error) error {
	if replaces {
		return fmt.Errorf("service %q: %w", service, err)
	}
	return &engine.ListenError{Service: service, Listen: listen, Err: err}
}
