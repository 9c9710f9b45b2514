//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// session is a connection to PostgreSQL, as far as writing a row needs it: without TLS, for a
// user without a password.
type session struct{ net.Conn }

// errSaid is an error that the server has told.
type errSaid struct{ text string }

func (e errSaid) Error() string { return e.text }

// connect opens a session of the user postgres.
func connect(ctx context.Context, addr string, within time.Duration) (*session, error) {
	c, err := (&net.Dialer{Timeout: within}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &session{c}
	_ = c.SetDeadline(time.Now().Add(within))
	b := binary.BigEndian.AppendUint32(nil, 0)
	b = binary.BigEndian.AppendUint32(b, 3<<16)
	b = append(b, "user\x00postgres\x00database\x00postgres\x00\x00"...)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	if _, err = c.Write(b); err == nil {
		_, err = s.ready()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}

// query returns the first column of the first row that a statement gives.
func (s *session) query(statement string, within time.Duration) (string, error) {
	_ = s.SetDeadline(time.Now().Add(within))
	b := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(statement)+1))
	if _, err := s.Write(append(append(b, statement...), 0)); err != nil {
		return "", err
	}
	return s.ready()
}

// end ends the session as it should be.
func (s *session) end() {
	_, _ = s.Write([]byte{'X', 0, 0, 0, 4})
	_ = s.Close()
}

// ready reads until the server is ready for a statement.
func (s *session) ready() (first string, err error) {
	var said error
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(s, head); err != nil {
			return "", errors.Join(said, err)
		}
		size := binary.BigEndian.Uint32(head[1:])
		if size < 4 || size > 1<<20 {
			return "", fmt.Errorf("a message of %d bytes", size)
		}
		body := make([]byte, size-4)
		if _, err := io.ReadFull(s, body); err != nil {
			return "", errors.Join(said, err)
		}
		switch head[0] {
		case 'Z':
			return first, said
		case 'E':
			said = errSaid{errorOf(body)}
		case 'R':
			if len(body) < 4 || binary.BigEndian.Uint32(body) != 0 {
				return "", errors.New("the server asks for a password")
			}
		case 'D':
			if len(body) >= 6 && first == "" {
				if n := int32(binary.BigEndian.Uint32(body[2:])); n >= 0 && int(n) <= len(body)-6 {
					first = string(body[6 : 6+n])
				}
			}
		}
	}
}

// errorOf returns the severity and the text of an ErrorResponse.
func errorOf(body []byte) string {
	var severity, text string
	for _, field := range strings.Split(string(body), "\x00") {
		switch {
		case strings.HasPrefix(field, "V"):
			severity = field[1:]
		case strings.HasPrefix(field, "M"):
			text = field[1:]
		}
	}
	return severity + ": " + text
}
