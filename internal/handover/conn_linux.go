package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is one end of the pair. Send and Receive may be used by one goroutine each.
type Conn struct{ conn *net.UnixConn }

// Message is what has come. Its files belong to the receiver.
type Message struct {
	Kind  Kind
	Body  []byte
	Files []*os.File
}

// Close closes the files of a message that nobody has taken: those that are not nil.
func (m *Message) Close() {
	for i, file := range m.Files {
		if file != nil {
			_ = file.Close()
			m.Files[i] = nil
		}
	}
}

// Pair returns a connection and, as a file, its other end, which is for another process.
func Pair() (here *Conn, there *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	there = os.NewFile(uintptr(fds[1]), "handover")
	if here, err = Open(os.NewFile(uintptr(fds[0]), "handover")); err != nil {
		_ = there.Close()
		return nil, nil, err
	}
	return here, there, nil
}

// Open returns the connection of a socket of [Pair]. It closes the file, also on error.
func Open(file *os.File) (*Conn, error) {
	c, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("handover: the descriptor is not a UNIX socket")
	}
	return &Conn{u}, nil
}

// Close closes the connection. Who waits in Send or Receive gets an error.
func (c *Conn) Close() error { return c.conn.Close() }

// SetDeadline bounds Send and Receive, those that wait already too.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// Send sends a message. The files stay open in this process.
func (c *Conn) Send(kind Kind, body []byte, files ...*os.File) error {
	h := header{kind, len(files), len(body)}
	if err := h.check(); err != nil {
		return fmt.Errorf("handover: cannot send %v: %w", kind, err)
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, 0, len(files))
		for _, file := range files {
			raw, err := file.SyscallConn() // Fd would make it block
			if err == nil {
				err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
			}
			if err != nil {
				return fmt.Errorf("handover: cannot send %v: %w", kind, err)
			}
		}
		rights = unix.UnixRights(fds...)
	}
	first := h.append(make([]byte, 0, headerSize))
	n, _, err := c.conn.WriteMsgUnix(first, rights, nil)
	runtime.KeepAlive(files)
	if err == nil && n < len(first) {
		_, err = c.conn.Write(first[n:])
	}
	if err == nil && len(body) > 0 {
		_, err = c.conn.Write(body)
	}
	if err != nil {
		return fmt.Errorf("handover: cannot send %v: %w", kind, err)
	}
	return nil
}

// SendJSON is Send of a value as JSON.
func (c *Conn) SendJSON(kind Kind, value any, files ...*os.File) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("handover: cannot send %v: %w", kind, err)
	}
	return c.Send(kind, body, files...)
}

// Receive waits for a message. The error wraps io.EOF if the other side has closed between
// two messages, as it does when its process ends.
func (c *Conn) Receive() (m Message, err error) {
	var first [headerSize]byte
	// The kernel gives the descriptors with the first byte that they were sent with, and no
	// read goes beyond its message.
	if m.Files, err = c.readWithFiles(first[:]); err != nil {
		m.Close()
		return Message{}, fmt.Errorf("handover: %w", err)
	}
	h, err := parseHeader(first[:])
	if err == nil && h.files != len(m.Files) {
		err = fmt.Errorf("%d descriptors have come of %d; the limit of open files may be too low", len(m.Files), h.files)
	}
	if err == nil && h.body > 0 {
		m.Kind, m.Body = h.kind, make([]byte, h.body)
		if _, err = io.ReadFull(c.conn, m.Body); errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		m.Close()
		return Message{}, fmt.Errorf("handover: %w", err)
	}
	m.Kind = h.kind
	return m, nil
}

// readWithFiles fills b, and returns the descriptors that have come with it.
func (c *Conn) readWithFiles(b []byte) (files []*os.File, err error) {
	rights := make([]byte, unix.CmsgSpace(4*MaxFiles))
	for got := 0; got < len(b); {
		n, with, flags, _, err := c.conn.ReadMsgUnix(b[got:], rights)
		if err == nil {
			var some []*os.File
			some, err = filesOf(rights[:with])
			files = append(files, some...)
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return files, err
		case n == 0 && got == 0:
			return files, io.EOF
		case n == 0:
			return files, io.ErrUnexpectedEOF
		case flags&unix.MSG_CTRUNC != 0:
			return files, errors.New("descriptors were lost; the limit of open files may be too low")
		}
		got += n
	}
	return files, nil
}

// filesOf reads the descriptors of a message. It returns those that it has found also on
// error.
func filesOf(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	for i := range messages {
		fds, not := unix.ParseUnixRights(&messages[i])
		if not != nil {
			err = not
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handover"))
		}
	}
	return files, err
}

// Greet exchanges Hellos. The peer's is returned also with a *FormatError.
func (c *Conn) Greet(me Hello) (peer Hello, err error) {
	if err := c.SendJSON(KindHello, me); err != nil {
		return peer, err
	}
	m, err := c.Receive()
	if err != nil {
		return peer, err
	}
	defer m.Close()
	if m.Kind != KindHello {
		return peer, fmt.Errorf("handover: the other side begins with %v instead of %v", m.Kind, KindHello)
	}
	return readHello(m.Body)
}

// ReportedError is why the other side could not do what it was told.
type ReportedError struct{ Text string }

func (e *ReportedError) Error() string { return e.Text }

// Answer waits for the answer to what was sent last: the body of Done. Failed is a
// *ReportedError.
func (c *Conn) Answer() (body []byte, err error) {
	m, err := c.Receive()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	switch m.Kind {
	case KindDone:
		return m.Body, nil
	case KindFailed:
		return nil, &ReportedError{string(m.Body)}
	}
	return nil, fmt.Errorf("handover: %v instead of an answer", m.Kind)
}
