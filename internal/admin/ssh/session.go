package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/txlb/txlb/internal/admin/console"
)

// session is one session channel.
type session struct {
	conn    *connection
	channel ssh.Channel
	idle    *time.Timer

	// What the client has asked for before the session began.
	pty     *ptyRequest // but for its size, which mu guards
	noColor bool

	mu   sync.Mutex
	term *console.Terminal // once it runs on a pty
}

// ptyRequest is the payload of pty-req (RFC 4254, 6.2).
type ptyRequest struct {
	Term          string
	Columns, Rows uint32
	Width, Height uint32
	Modes         string
}

// windowChange is the payload of window-change (6.7).
type windowChange struct{ Columns, Rows, Width, Height uint32 }

func newSession(c *connection, channel ssh.Channel) *session {
	return &session{conn: c, channel: channel}
}

// errIdle ends a session that nobody uses.
var errIdle = errors.New("session closed: no input or output for too long")

// serve answers the requests of the channel until it is closed, and runs what
// they ask for.
func (s *session) serve(ctx context.Context, requests <-chan *ssh.Request) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.idle = time.AfterFunc(s.conn.server.limits.idle, func() { end(errIdle) })
	defer s.idle.Stop()
	var running sync.WaitGroup
	started := false
	start := func(line string, script bool) {
		started = true
		running.Go(func() { s.run(ctx, line, script) })
	}
	for r := range requests {
		ok := false
		var command struct{ Line string }
		begin := func() {}
		switch r.Type {
		case "pty-req":
			ok = !started && s.askPTY(r.Payload)
		case "window-change":
			ok = s.resize(r.Payload)
		case "env":
			ok = !started && s.setenv(r.Payload)
		case "shell":
			if ok = !started; ok {
				begin = func() { start("", s.pty == nil) }
			}
		case "exec":
			if ok = !started && ssh.Unmarshal(r.Payload, &command) == nil; ok {
				begin = func() { start(command.Line, false) }
			}
		case "signal":
			ok = s.signal(r.Payload, end)
		}
		if r.WantReply {
			_ = r.Reply(ok, nil) // fails only if the client has gone
		}
		begin()
	}
	end(errClientGone)
	running.Wait()
	_ = s.channel.Close()
}

func (s *session) askPTY(payload []byte) bool {
	var p ptyRequest
	if ssh.Unmarshal(payload, &p) != nil {
		return false
	}
	s.pty = &p
	return true
}

// harmless are the variables that a client may set. Only the last one has an effect;
// clients send the others by default.
func (s *session) setenv(payload []byte) bool {
	var v struct{ Name, Value string }
	if ssh.Unmarshal(payload, &v) != nil {
		return false
	}
	switch {
	case v.Name == "NO_COLOR":
		s.noColor = v.Value != ""
	case v.Name == "LANG" || v.Name == "TERM" || v.Name == "COLORTERM" || strings.HasPrefix(v.Name, "LC_"):
	default:
		return false
	}
	return true
}

func (s *session) resize(payload []byte) bool {
	var w windowChange
	if s.pty == nil || ssh.Unmarshal(payload, &w) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pty.Columns, s.pty.Rows = w.Columns, w.Rows
	if s.term != nil {
		s.term.Resize(int(w.Columns), int(w.Rows))
	}
	return true
}

// signal handles signals of the client: INT is Ctrl-C, others end the session.
func (s *session) signal(payload []byte, end context.CancelCauseFunc) bool {
	var sig struct{ Name string }
	if ssh.Unmarshal(payload, &sig) != nil {
		return false
	}
	s.mu.Lock()
	term := s.term
	s.mu.Unlock()
	switch {
	case sig.Name == "INT" && term != nil:
		term.Interrupt()
	case sig.Name == "INT" || sig.Name == "TERM" || sig.Name == "HUP" || sig.Name == "KILL":
		end(errClientGone)
	default:
		return false
	}
	return true
}

// run executes the line or, without one, the script from the client's input or the
// prompt. It sends the exit status and closes the channel.
func (s *session) run(ctx context.Context, line string, script bool) {
	out := &output{session: s, to: s.channel}
	errs := &output{session: s, to: s.channel.Stderr()}
	var status int
	switch {
	case s.pty != nil:
		term := s.terminal(out)
		if line != "" {
			status = term.Line(ctx, s.conn.user, line)
		} else if err := term.Shell(ctx, s.conn.user); err != nil {
			status = console.StatusFailed
			for _, told := range []error{errStopping, errIdle} {
				if errors.Is(err, told) {
					_, _ = fmt.Fprintf(out, "\r\n%v\r\n", told)
				}
			}
		}
		defer term.Wait()
	case script:
		in, feed := io.Pipe()
		defer context.AfterFunc(ctx, func() { _ = feed.CloseWithError(context.Cause(ctx)) })()
		var reading sync.WaitGroup
		reading.Go(func() { s.feed(feed) })
		defer reading.Wait()
		status = console.Script(ctx, s.conn.user, in, out, errs, console.Style{})
		_ = in.Close()
	default:
		status = console.Run(ctx, s.conn.user, line, out, errs, console.Style{})
	}
	_, _ = s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(max(status, 0))}))
	_ = s.channel.Close()
}

// terminal makes the terminal of a session on a pty.
func (s *session) terminal(out io.Writer) *console.Terminal {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = console.New(struct {
		io.Reader
		io.Writer
	}{&typing{s}, out}, console.Options{
		Width: int(s.pty.Columns), Height: int(s.pty.Rows), Color: !s.noColor && s.pty.Term != "" && s.pty.Term != "dumb",
	})
	return s.term
}

// feed passes a script on as it arrives.
func (s *session) feed(to *io.PipeWriter) {
	_, err := io.Copy(to, &typing{s})
	_ = to.CloseWithError(err)
}

// typing is what the client sends.
type typing struct{ *session }

func (t *typing) Read(p []byte) (int, error) {
	n, err := t.channel.Read(p)
	t.conn.raw.Used()
	t.idle.Reset(t.conn.server.limits.idle)
	return n, err
}

// output writes to the client, piece by piece. If the client does not read a piece in
// time, the connection ends.
type output struct {
	*session
	to io.Writer
}

func (o *output) Write(p []byte) (n int, err error) {
	const piece = 16 << 10
	for len(p) > 0 {
		stalled := time.AfterFunc(o.conn.server.limits.stall, o.stalled)
		m, err := o.to.Write(p[:min(piece, len(p))])
		stalled.Stop()
		n += m
		if err != nil {
			return n, err
		}
		p = p[m:]
		o.idle.Reset(o.conn.server.limits.idle)
	}
	return n, nil
}

func (o *output) stalled() {
	o.conn.log.Warn("SSH connection closed, client does not read its output")
	_ = o.conn.client.Close()
}
