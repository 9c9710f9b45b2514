package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Targets that are not files. A line becomes one message.
const (
	journalTarget = "journal" // systemd's journal, in its own protocol
	syslogTarget  = "syslog:" // then udp:HOST:PORT, tcp:HOST:PORT or unix:PATH
)

const (
	// journalSocket takes messages in the native protocol of the journal, see "Native
	// Journal Protocol" of systemd.
	journalSocket = "/run/systemd/journal/socket"
	// firstPause and longestPause bound how long a server that cannot be reached is left
	// alone. The pause doubles with each failure.
	firstPause   = 250 * time.Millisecond
	longestPause = 10 * time.Second
	// reachTime bounds a connect, and takeTime a write to a server that does not read.
	reachTime = 5 * time.Second
	takeTime  = 30 * time.Second
	// syslogPriority is facility local0 and severity info.
	syslogPriority = "<134>"
)

// remote sends lines as messages to a log server. Write is for one goroutine.
type remote struct {
	network, address string
	frame            func(b, line []byte, now time.Time) []byte // appends the message of a line

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	conn   net.Conn
	gone   *atomic.Bool // the server has closed conn
	unbind func() bool  // of conn from ctx
	pause  time.Duration
	next   time.Time // no connect before
	why    error     // the last failure
	buf    []byte
}

// openRemote returns the sender of a target; ok is false if it is a file.
func openRemote(target string) (r *remote, ok bool, err error) {
	r = &remote{pause: firstPause}
	syslog, isSyslog := strings.CutPrefix(target, syslogTarget)
	network, address, _ := strings.Cut(syslog, ":")
	switch {
	case target == journalTarget:
		r.network, r.address, r.frame = "unixgram", journalSocket, journalMessage(os.Getpid())
	case !isSyslog:
		return nil, false, nil
	case network == "unix":
		r.network, r.address, r.frame = "unixgram", address, localMessage(os.Getpid())
	case network == "udp" || network == "tcp":
		host, err := os.Hostname()
		if err != nil || host == "" {
			host = "-"
		}
		r.network, r.address, r.frame = network, address, syslogMessage(host, os.Getpid())
		if network == "tcp" {
			r.frame = counted(r.frame)
		}
	default:
		return nil, true, fmt.Errorf("%s: want syslog:udp:HOST:PORT, syslog:tcp:HOST:PORT or syslog:unix:PATH", target)
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, true, nil
}

// syslogMessage makes messages of RFC 5424.
func syslogMessage(host string, pid int) func(b, line []byte, now time.Time) []byte {
	after := fmt.Sprintf(" %s txlb %d access - ", host, pid)
	return func(b, line []byte, now time.Time) []byte {
		b = append(b, syslogPriority...)
		b = now.AppendFormat(append(b, "1 "...), "2006-01-02T15:04:05.000000Z07:00")
		return append(append(b, after...), line...)
	}
}

// localMessage makes messages as syslog(3) does. The sockets of rsyslog, syslog-ng and
// the journal on this machine expect these: they take RFC 5424's for text.
func localMessage(pid int) func(b, line []byte, now time.Time) []byte {
	after := fmt.Sprintf(" txlb[%d]: ", pid)
	return func(b, line []byte, now time.Time) []byte {
		b = now.AppendFormat(append(b, syslogPriority...), time.Stamp)
		return append(append(b, after...), line...)
	}
}

// counted puts each message's length before it: the octet counting of RFC 6587.
func counted(frame func(b, line []byte, now time.Time) []byte) func(b, line []byte, now time.Time) []byte {
	var one []byte
	return func(b, line []byte, now time.Time) []byte {
		one = frame(one[:0], line, now)
		b = strconv.AppendInt(b, int64(len(one)), 10)
		return append(append(b, ' '), one...)
	}
}

// journalMessage makes entries of the journal. A line has no line break, so its field
// needs no length.
func journalMessage(pid int) func(b, line []byte, now time.Time) []byte {
	after := fmt.Sprintf("\nPRIORITY=6\nSYSLOG_FACILITY=16\nSYSLOG_IDENTIFIER=txlb\nSYSLOG_PID=%d\n", pid)
	return func(b, line []byte, _ time.Time) []byte {
		return append(append(append(b, "MESSAGE="...), line...), after...)
	}
}

// Write sends whole lines. With an error, n bytes were sent, which are whole lines.
func (r *remote) Write(lines []byte) (n int, err error) {
	now := time.Now()
	if r.conn != nil && r.gone.Load() {
		r.leave(io.EOF, now)
	}
	if r.conn == nil {
		if now.Before(r.next) {
			return 0, r.why
		}
		if err := r.reach(); err != nil {
			r.leave(err, time.Now())
			return 0, r.why
		}
	}
	_ = r.conn.SetWriteDeadline(now.Add(takeTime))
	if r.network == "tcp" {
		n, err = r.stream(lines, now)
	} else {
		n, err = r.datagrams(lines, now)
	}
	if err != nil {
		r.leave(err, time.Now())
		return n, r.why
	}
	r.pause = firstPause
	return n, nil
}

// reach connects to the server.
func (r *remote) reach() error {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(r.ctx, reachTime)
	defer cancel()
	conn, err := d.DialContext(ctx, r.network, r.address)
	if err != nil {
		return err
	}
	r.conn, r.gone = conn, new(atomic.Bool)
	r.unbind = context.AfterFunc(r.ctx, func() { _ = conn.Close() })
	if r.network == "tcp" {
		go watch(conn, r.gone)
	}
	return nil
}

// watch notes when a server has closed a connection: writing to it would succeed once
// more. Servers of logs say nothing.
func watch(c net.Conn, gone *atomic.Bool) {
	_, _ = io.Copy(io.Discard, c)
	gone.Store(true)
}

// leave gives the connection up and leaves the server alone for a while.
func (r *remote) leave(why error, now time.Time) {
	if r.conn != nil {
		r.unbind()
		_ = r.conn.Close()
		r.conn = nil
	}
	switch {
	case errors.Is(why, io.EOF):
		why = errors.New("the server has closed the connection")
		r.next = now // it is new, or another one has its address
	default:
		r.next = now.Add(r.pause)
		r.pause = min(2*r.pause, longestPause)
	}
	r.why = fmt.Errorf("send to %s %s: %w", r.network, r.address, cause(why))
}

// cause takes the addresses off an error of package net, which the caller says better.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// datagrams sends each line for itself.
func (r *remote) datagrams(lines []byte, now time.Time) (n int, err error) {
	for line := range bytes.Lines(lines) {
		r.buf = r.frame(r.buf[:0], bytes.TrimSuffix(line, newline), now)
		if _, err := r.conn.Write(r.buf); err != nil {
			return n, err
		}
		n += len(line)
	}
	return n, nil
}

// stream sends all lines at once. Of a message that was cut off, the rest is worth
// nothing on another connection, so its line is sent again.
func (r *remote) stream(lines []byte, now time.Time) (n int, err error) {
	r.buf = r.buf[:0]
	var ends []int // of the messages
	for line := range bytes.Lines(lines) {
		r.buf = r.frame(r.buf, bytes.TrimSuffix(line, newline), now)
		ends = append(ends, len(r.buf))
	}
	sent, err := r.conn.Write(r.buf)
	if err == nil {
		return len(lines), nil
	}
	i := 0
	for line := range bytes.Lines(lines) {
		if ends[i] > sent {
			break
		}
		n += len(line)
		i++
	}
	return n, err
}

// Close closes the connection, which ends a Write that waits. Any goroutine may call it.
func (r *remote) Close() error {
	r.cancel()
	return nil
}
