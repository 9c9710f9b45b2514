package health

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
)

const (
	maxStatusLine = 4 << 10
	maxExpect     = 64 << 10
	// shown is how much of an answer a result repeats.
	shown = 64
)

// askHTTP sends a request of HTTP/1.1 and reads the status line of the answer.
// What follows does not matter, and is cut off by the reset.
func askHTTP(conn net.Conn, p *Probe) Result {
	host := p.Host
	if host == "" {
		if host = p.Addr.IP().String(); p.Addr.Path() != "" {
			host = "localhost"
		}
	}
	request := "GET " + p.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: txlb\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return said(err, nil, p)
	}
	line, err := readUntil(conn, "\n", maxStatusLine)
	if err != nil {
		return said(err, line, p)
	}
	head, _, _ := bytes.Cut(line, []byte("\n"))
	status, text, ok := statusLine(strings.TrimSuffix(string(head), "\r"))
	if !ok {
		return Result{Code: L7Rsp, Text: "no HTTP answer: " + quoted(line)}
	}
	for _, s := range p.Status {
		if s.Low <= status && status <= s.High {
			return Result{Code: L7OK, Text: text}
		}
	}
	return Result{Code: L7Sts, Text: text}
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

// shakeHands does a TLS handshake. The certificate is not verified, and old
// versions are good enough: what is asked is whether the host answers.
func shakeHands(conn net.Conn, p *Probe) Result {
	name := p.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	c := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10})
	err := c.Handshake()
	switch {
	case err == nil:
		return Result{Code: L6OK}
	case timedOut(err):
		return Result{Code: L6Tout, Text: "no handshake within " + p.Timeout.String()}
	}
	return Result{Code: L6Rsp, Text: "handshake: " + why(err)}
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

// said is the result of an answer that did not come, or not as it should.
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

// why leaves out what the net package repeats of the address.
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
