package logs

import (
	"errors"
	"io"
	"os"
)

// mode of a new log file: it names clients, so others need not read it.
const mode = 0o640

// sink is where lines go. Its goroutine alone waits for the system.
type sink struct {
	path    string
	file    io.WriteCloser // nil: nothing is written, for it is off or absent
	absent  bool           // nobody reads the FIFO
	shared  bool           // standard error or output, which stay open
	journal bool           // systemd's journal reads it
	lasting bool           // a write that failed is tried again on it: a file, or a server
	in      chan []byte
	out     chan written
}

// written is how a write ended.
type written struct {
	n   int
	err error
}

// newSink makes a sink and starts its goroutine; end or leave ends it.
func newSink(file io.WriteCloser, path string) *sink {
	s := &sink{path: path, file: file, in: make(chan []byte, 1), out: make(chan written, 1)}
	if file != nil {
		go s.run()
	}
	return s
}

// run writes what it is given.
func (s *sink) run() {
	for p := range s.in {
		n, err := s.file.Write(p)
		s.out <- written{n, err}
	}
	if !s.shared {
		_ = s.file.Close() // what was written is with the system, and nothing else can be done
	}
}

// end closes an idle sink. It does not wait for that.
func (s *sink) end() { close(s.in) }

// abandon makes a sink end that hangs: closing ends a write to a FIFO.
func (s *sink) abandon() {
	if !s.shared {
		go closeFile(s.file)
	}
}

// off tells whether what is written is thrown away.
func (s *sink) off() bool { return s.file == nil && !s.absent }

func closeFile(c io.Closer) { _ = c.Close() }

// openSink opens the sink at path. A FIFO without a reader is absent.
func openSink(path string) (*sink, error) {
	if std := standard(path); std != nil {
		s := newSink(std, path)
		s.shared, s.journal = true, isJournal(std)
		return s, nil
	}
	if server, is, err := openRemote(path); is {
		if err != nil {
			return nil, err
		}
		s := newSink(server, path)
		s.lasting = true
		return s, nil
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|withoutWaiting, mode)
	if err != nil {
		if info, bad := os.Stat(path); bad == nil && info.Mode()&os.ModeNamedPipe != 0 && errors.Is(err, noReader) {
			s := newSink(nil, path)
			s.absent = true
			return s, nil
		}
		return nil, err
	}
	info, err := file.Stat()
	s := newSink(file, path)
	s.lasting = err == nil && info.Mode().IsRegular()
	return s, nil
}

// standard returns the stream of the process that a path names, else nil. Under
// systemd they are sockets, which cannot be opened.
func standard(path string) *os.File {
	switch path {
	case "", "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2":
		return os.Stderr
	case "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1":
		return os.Stdout
	}
	return nil
}
