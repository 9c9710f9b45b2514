package console

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// longestLine is the longest line of a script in bytes. It is more than a command may
// have, so that long ones get the command's own error.
const longestLine = 128 << 10

// lines reads a script.
type lines struct{ scan *bufio.Scanner }

func newLines(in io.Reader) lines {
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 0, 4<<10), longestLine)
	return lines{scan}
}

// next returns the next line, io.EOF after the last one.
func (l lines) next() (string, error) {
	if l.scan.Scan() {
		return l.scan.Text(), nil
	}
	switch err := l.scan.Err(); {
	case err == nil:
		return "", io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return "", fmt.Errorf("it has more than %d bytes", longestLine)
	default:
		return "", err
	}
}
