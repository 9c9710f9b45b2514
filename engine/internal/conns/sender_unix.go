//go:build unix

package conns

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// sender writes to a socket of the system's for a patient, which learns when there is no room.
type sender struct {
	raw   syscall.RawConn
	of    *patient
	try   func(fd uintptr) (done bool)
	left  []byte
	n     int
	later bool // something was tried
	err   error
}

// senderTo returns nil for what is not exactly a connection of the system's: another type may have
// a Write of its own.
func senderTo(c net.Conn, of *patient) *sender {
	var raw syscall.RawConn
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	}
	if raw == nil || err != nil {
		return nil
	}
	s := &sender{raw: raw, of: of}
	s.try = s.once
	return s
}

// write writes all of b, or returns an error.
func (s *sender) write(b []byte) (int, error) {
	s.left, s.n, s.later, s.err = b, 0, false, nil
	err := s.raw.Write(s.try)
	s.left = nil
	if s.err != nil {
		err = s.err
	}
	return s.n, err
}

// once writes what there is room for.
func (s *sender) once(fd uintptr) bool {
	for len(s.left) > 0 {
		if s.later {
			s.of.again()
		}
		n, err := syscall.Write(int(fd), s.left)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			s.later = true
			s.of.waits()
			return false
		case err != nil:
			s.err = os.NewSyscallError("write", err)
			return true
		case n == 0:
			s.err = io.ErrUnexpectedEOF
			return true
		}
		s.n, s.left, s.later = s.n+n, s.left[n:], true
	}
	return true
}
