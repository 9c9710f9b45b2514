package console

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Local is the terminal that a program was started on.
type Local struct {
	*Terminal
	in, out *os.File
	was     *term.State
}

// OpenLocal puts the terminal behind in and out into raw mode, until Close. It
// is read as long as the process lives.
func OpenLocal(in, out *os.File, color bool) (*Local, error) {
	if !term.IsTerminal(int(in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return nil, errors.New("standard input and output must be a terminal")
	}
	was, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	l := &Local{in: in, out: out, was: was}
	l.Terminal = New(struct {
		io.Reader
		io.Writer
	}{in, out}, Options{Color: color})
	l.Measure()
	return l, nil
}

// Measure reads the current size of the terminal.
func (l *Local) Measure() {
	if width, height, err := term.GetSize(int(l.out.Fd())); err == nil {
		l.Resize(width, height)
	}
}

// Close restores the terminal.
func (l *Local) Close() error {
	l.input.abandon()
	if err := term.Restore(int(l.in.Fd()), l.was); err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	return nil
}
