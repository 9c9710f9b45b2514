package health

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

const (
	maxStatusLine = 4 << 10
	// maxAnswer is how much of interim answers and of the status line is read.
	maxAnswer = 64 << 10
	maxExpect = 64 << 10
	// shown is how much of an answer a result repeats.
	shown = 64
)

// askHTTP sends a request of HTTP/1.1 and reads the status line of the answer.
// What follows does not matter, and is cut off by the reset. Interim answers
// (RFC 9110, 15.2) say nothing yet, but for 101, after which no HTTP follows.
func askHTTP(conn net.Conn, p *Probe) Result {
	host := p.Host
	if host == "" {
		// The server knows no zone and would reject it.
		to := p.Addr.IP()
		if host = netip.AddrPortFrom(to.Addr().WithZone(""), to.Port()).String(); p.Addr.Path() != "" {
			host = "localhost"
		}
	}
	request := "GET " + p.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: txlb\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return said(err, nil, p)
	}
	answer := lines{in: bufio.NewReaderSize(conn, maxStatusLine), left: maxAnswer}
	for {
		line, err := answer.next()
		if err != nil {
			return said(err, line, p)
		}
		status, text, ok := statusLine(string(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))))
		if !ok {
			return Result{Code: L7Rsp, Text: "not an HTTP answer: " + quoted(answer.rest(line))}
		}
		if status < 200 && status != http101 {
			interim := bytes.Clone(line)
			if err := answer.skipHeader(); err != nil {
				return said(err, interim, p)
			}
			continue
		}
		for _, s := range p.Status {
			if s.Low <= status && status <= s.High {
				return Result{Code: L7OK, Text: text}
			}
		}
		return Result{Code: L7Sts, Text: text}
	}
}

// http101 is Switching Protocols.
const http101 = 101

// lines reads an answer by lines, as many bytes as are left at most.
type lines struct {
	in   *bufio.Reader
	left int
}

// next returns the next line with its end, valid until the call after; with an
// error, what there is of it.
func (l *lines) next() ([]byte, error) {
	line, err := l.in.ReadSlice('\n')
	l.left -= len(line)
	if err == bufio.ErrBufferFull || err == nil && l.left < 0 {
		err = errTooMuch
	}
	return line, err
}

// skipHeader reads on to the empty line that ends a header.
func (l *lines) skipHeader() error {
	for {
		line, err := l.next()
		if err != nil {
			return err
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return nil
		}
	}
}

// rest returns a line and everything that was read after it.
func (l *lines) rest(line []byte) []byte {
	line = bytes.Clone(line)
	more, _ := l.in.Peek(l.in.Buffered())
	return append(line, more...)
}

// statusLine reads the first line of an HTTP answer; text is the status with
// its reason (RFC 9112, 4).
func statusLine(line string) (status int, text string, ok bool) {
	version, text, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(text, " ")
	status, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil || len(code) != 3 || status < 100 {
		return 0, "", false
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
		text = code
	}
	return status, text[:min(len(text), shown)], true
}

// await sends what there is to send and waits for what has to come.
func await(conn net.Conn, p *Probe) Result {
	if p.Send != "" {
		if _, err := io.WriteString(conn, p.Send); err != nil {
			return said(err, nil, p)
		}
	}
	answer, err := readUntil(conn, p.Expect, maxExpect)
	if err != nil {
		return said(err, answer, p)
	}
	return Result{Code: L7OK}
}

// errTooMuch ends a read that has not found what it looks for.
var errTooMuch = errors.New("too much")

// readUntil reads until text has come, and returns all that has.
func readUntil(conn net.Conn, text string, most int) ([]byte, error) {
	var all []byte
	for {
		if len(all) == cap(all) {
			grown := make([]byte, len(all), min(max(512, 2*cap(all)), most))
			copy(grown, all)
			all = grown
		}
		n, err := conn.Read(all[len(all):cap(all)])
		// What was there before holds at most the beginning of the text.
		from := max(0, len(all)-len(text)+1)
		all = all[:len(all)+n]
		switch {
		case bytes.Contains(all[from:], []byte(text)):
			return all, nil
		case err != nil:
			return all, err
		case len(all) == most:
			return all, errTooMuch
		}
	}
}

// said is the result of an answer that is missing or wrong.
func said(err error, answer []byte, p *Probe) Result {
	so := ""
	if len(answer) > 0 {
		so = "; it said " + quoted(answer)
	}
	switch {
	case timedOut(err):
		return Result{Code: L7Tout, Text: silent(p.Timeout) + so}
	case errors.Is(err, errTooMuch):
		return Result{Code: L7Rsp, Text: fmt.Sprintf("not what was expected in %d bytes", len(answer)) + so}
	case err == io.EOF:
		return Result{Code: L7Rsp, Text: "the connection ended" + so}
	}
	return Result{Code: L7Rsp, Text: why(err) + so}
}

// why is the text of an error without the address, which the net package repeats.
func why(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if err == io.EOF {
		return "the connection ended"
	}
	return err.Error()
}

// quoted shows the beginning of an answer, on one line.
func quoted(answer []byte) string {
	if len(answer) > shown {
		return strconv.QuoteToASCII(string(answer[:shown])) + "…"
	}
	return strconv.QuoteToASCII(string(answer))
}
