//go:build unix

package splice

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// readiness waits until a connection has something to read, without a buffer for it.
type readiness struct {
	raw  syscall.RawConn
	into *Source
	try  func(fd uintptr) (done bool)
	n    int
	err  error
}

// readinessOf returns nil for what is not exactly a connection of the system's: another
// type may have a Read of its own.
func readinessOf(conn net.Conn) *readiness {
	var raw syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	}
	if raw == nil || err != nil {
		return nil
	}
	r := &readiness{raw: raw}
	r.try = r.once
	return r
}

// read reads into the large buffer of s, which it takes for that. Without one nothing
// was read.
func (r *readiness) read(s *Source) (int, error) {
	r.into, r.n, r.err = s, 0, nil
	if err := r.raw.Read(r.try); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// once reads if there is something.
func (r *readiness) once(fd uintptr) bool {
	r.into.takeLarge()
	for {
		n, err := syscall.Read(int(fd), r.into.large[:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			r.into.dropLarge() // it may be long
			return false
		case err != nil:
			r.err = err
		case n == 0:
			r.err = io.EOF
		default:
			r.n = n
		}
		return true
	}
}
