// Package accesslog writes a line for each session that has ended, and reads such lines.
//
// The loops of an engine leave records in an [engine.Recorder]. The goroutine of a [Log]
// takes them out, formats them, as HAProxy's tcplog or as JSON, and gives the lines to a
// [logs.Writer]. Nothing waits for it: records that find no room are dropped and
// counted, and so are lines that the file or server does not take. [Explain] says in
// sentences what lines mean.
package accesslog

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/sched"
)

const (
	// busyEvery is how often records are taken while sessions end, idleEvery otherwise. A
	// loop's ring holds what ends in 25 ms at 160,000 sessions a second, and wakes the log
	// when half of it is full.
	busyEvery = 25 * time.Millisecond
	idleEvery = 100 * time.Millisecond
	// pieceBytes is how many bytes of lines are handed over at once: what has no room is
	// dropped as a whole.
	pieceBytes = 16 << 10
)

// Log is an access log. All methods may be called from any goroutine.
type Log struct {
	rec *engine.Recorder
	out *logs.Writer

	mu      sync.Mutex // held by whoever takes records
	to      string     // "": off
	w       writer
	buf     []byte
	groups  map[*sched.Table]int64 // sessions of groups, in one take
	changed chan struct{}          // has a token after the log was turned on

	closing chan struct{}
	done    chan struct{}
}

// Open starts the access log of a recorder: to is a path, "stderr",
// "journal", "syslog:udp:HOST:PORT", "syslog:tcp:HOST:PORT", "syslog:unix:PATH", or "",
// which is off.
// Close ends it.
func Open(rec *engine.Recorder, to, format string) (*Log, error) {
	out, err := logs.OpenAccess("")
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	l := &Log{
		rec: rec, out: out, groups: map[*sched.Table]int64{}, changed: make(chan struct{}, 1),
		w:       writer{process: fmt.Sprintf(" %s txlb[%d]: ", host, os.Getpid()), zone: time.Local},
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	go l.run()
	if err := l.Change(to, format); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// Change makes lines go elsewhere or have another format. Sessions that ended before
// have theirs as it was. If a file cannot be opened, lines go on where they went, as they were.
func (l *Log) Change(to, format string) error {
	f, known := FormatNamed(format)
	if !known {
		return fmt.Errorf("unknown access log format %q: want tcplog or json", format)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take()
	if to != l.to {
		if to == "" {
			l.rec.Switch(false)
			l.take() // what ended meanwhile
		}
		if err := l.out.Move(target(to)); err != nil {
			return err
		}
		l.to = to
		l.w.prefix = IsFile(to)
	}
	l.w.format = f
	if to != "" {
		l.rec.Switch(true)
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

// IsFile tells whether the configuration's access names a file.
func IsFile(to string) bool {
	return to != "" && to != "stderr" && to != "journal" && !strings.HasPrefix(to, "syslog:")
}

// target returns what package logs calls a target.
func target(to string) string {
	if to == "stderr" {
		return "/dev/stderr"
	}
	return to
}

// Reopen opens the file again, so that it can have been moved away. Lines of sessions
// that ended before are in the old one.
func (l *Log) Reopen() error {
	l.mu.Lock()
	l.take()
	l.mu.Unlock()
	return l.out.Reopen()
}

// Stats returns what the log has to say of itself; on is false if it is off.
func (l *Log) Stats() (s logs.Stats, on bool) {
	l.mu.Lock()
	on = l.to != ""
	l.mu.Unlock()
	s = l.out.Stats()
	s.Dropped += l.rec.Dropped()
	return s, on
}

// Close writes what there is, as [logs.Writer.Close] does, and ends the log. It is for
// when the engine has ended its last session.
func (l *Log) Close() error {
	close(l.closing)
	<-l.done
	l.rec.Switch(false)
	l.mu.Lock()
	l.take()
	l.mu.Unlock()
	return l.out.Close()
}

// run takes records until the log is closed. While the log is off it sleeps.
func (l *Log) run() {
	defer close(l.done)
	timer := time.NewTimer(idleEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-l.rec.Due():
		case <-l.changed:
		case <-l.closing:
			return
		}
		l.mu.Lock()
		wait, on := idleEvery, l.to != ""
		if l.take() > 0 {
			wait = busyEvery
		}
		l.mu.Unlock()
		if on {
			timer.Reset(wait)
		}
	}
}

// take writes the lines of the sessions that have ended, and returns how many there are.
// mu is held.
func (l *Log) take() int {
	now := time.Now()
	clear(l.groups)
	n := l.rec.Take(func(r *engine.Record) {
		l.buf = l.w.line(l.buf, r, now, l.rec.Wall(now, r.Accepted), l.group(r.Table))
		if len(l.buf) >= pieceBytes {
			l.hand()
		}
	})
	l.hand()
	return n
}

// hand hands the lines over.
func (l *Log) hand() {
	if len(l.buf) > 0 {
		_, _ = l.out.Write(l.buf) // never fails
		l.buf = l.buf[:0]
	}
}

// group returns how many sessions the hosts of a group have, counted once a take: there
// may be thousands of hosts.
func (l *Log) group(t *sched.Table) int64 {
	if t == nil {
		return 0
	}
	n, counted := l.groups[t]
	if !counted {
		n = t.Sessions()
		l.groups[t] = n
	}
	return n
}
