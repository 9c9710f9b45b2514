// Package socket serves the runtime verbs and HAProxy's runtime commands on a UNIX
// socket, and has the [Client] of both.
//
// [Listen] makes the socket. Its mode and group are the only access control: who can
// connect has the role full. The log has the user's name, as the kernel says.
// [Server.Serve] answers.
//
// A line is one or more commands separated by ; in the language of [words.Parse].
// Each answer ends with an empty line; an empty line within an answer becomes a
// blank. As with HAProxy, the connection closes after one line. After the command
// prompt it stays open, and the server writes "> " after each answer, until prompt
// again or quit. An error of a verb is a line that begins with "error: ", and the
// rest of the line is not executed. After an error of one of HAProxy's commands,
// which has HAProxy's wording, the rest is executed. A line without its end is not
// executed.
//
// Programs send ctl as their first line. Then each line, the first included, is
// answered by one line of JSON, an [Answer]. With --json, a single command gets that
// form without ctl. With --ask, a command that takes the last usable host of a
// service away is refused with kind confirm.
//
// HAProxy's commands are in haproxy.go. Those that change something are translated
// to verbs, so that roles, events and generations apply. Profiles of the Go runtime,
// which only the socket serves, are in profile.go.
//
// Limits: 64 KiB per line. When there are as many connections as [guard.Socket] may
// have, one more evicts the one idle longest. A connection that is idle for
// Options.Idle, or does not read for writeTimeout, is closed. No loop and no
// director waits for this package.
package socket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
)

// DefaultPath is the path of the socket without a configuration.
const DefaultPath = "/run/txlb/admin.sock"

// Options of a Server.
type Options struct {
	Admin      *admin.Admin       // required
	Director   *director.Director // required
	Engine     engine.Engine      // required
	Status     *status.Source     // required; it has rates while its Run runs
	PipesLimit int                // pipes at once; 0: not known

	Log  *slog.Logger  // nil: slog.Default
	Idle time.Duration // how long a connection may say nothing; 0: 5 minutes
}

const (
	defaultIdle = 5 * time.Minute
	// maxLine is the longest line, in bytes.
	maxLine = words.MaxLine
	// writeTimeout is how long a client may leave writeChunk bytes unread.
	writeTimeout = 10 * time.Second
	writeChunk   = 64 << 10
	// grace is how long an answer may take after the end of Serve.
	grace = time.Second
	// refuseTime is how long telling a client that there is no place may take.
	refuseTime = 100 * time.Millisecond
)

// Server answers on sockets. All methods may be called from any goroutine.
type Server struct {
	opt     Options
	log     *slog.Logger
	natives []native
}

// New returns a Server. It has nothing to close.
func New(opt Options) *Server {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Idle == 0 {
		opt.Idle = defaultIdle
	}
	return &Server{opt: opt, log: opt.Log, natives: natives()}
}

// Serve answers on a socket until ctx ends, then closes it and returns nil. It
// returns after its last connection has ended.
func Serve(ctx context.Context, ln net.Listener, opt Options) error { return New(opt).Serve(ctx, ln) }

// Serve is [Serve] of a Server. It may be called again for another socket.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	guarded := guard.On(guard.Socket, ln, s.log)
	guarded.Refuse = func(c net.Conn) {
		_ = c.SetWriteDeadline(time.Now().Add(refuseTime))
		_, _ = fmt.Fprint(c, "error: all connections are at work; try again later\n\n")
		_ = c.Close()
	}
	stop := context.AfterFunc(ctx, func() { _ = guarded.Close() })
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer stop()
	for {
		c, err := guarded.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			// This removes the file, before Serve returns.
			_ = guarded.Close()
			return nil
		case err != nil:
			return fmt.Errorf("admin socket: %w", err)
		}
		running.Go(func() { s.serve(ctx, c.(*guard.Conn)) })
	}
}

// conn is one connection. It belongs to its goroutine.
type conn struct {
	*Server
	net.Conn
	caller users.Caller
	in     *bufio.Reader
	ctx    context.Context // of serve
	idle   time.Duration
	prompt bool // stay, and say "> "
	frames bool // ctl
	ended  bool // quit
}

// serve is the goroutine of a connection.
func (s *Server) serve(ctx context.Context, nc *guard.Conn) {
	defer func() { _ = nc.Close() }()
	ctx = users.WithVia(ctx, "socket")
	// When ctx ends, no more lines are read. A command being executed, such as a
	// reload that moves this socket, still gets its answer.
	stop := context.AfterFunc(ctx, func() {
		_ = nc.SetReadDeadline(time.Unix(1, 0))
		_ = nc.SetWriteDeadline(time.Now().Add(grace))
	})
	defer stop()
	c := &conn{Server: s, Conn: nc, caller: callerOf(nc.Conn), in: bufio.NewReaderSize(nc, 4<<10), ctx: ctx, idle: s.opt.Idle}
	for ctx.Err() == nil && !c.ended {
		line, err := c.readLine(ctx)
		if err != nil {
			return
		}
		done := nc.Working()
		err = c.line(ctx, line)
		done()
		if err != nil {
			s.log.Debug("admin socket answer not read", "by", c.caller.Name, "from", c.caller.From, "err", err)
			return
		}
		if !c.prompt && !c.frames {
			return
		}
	}
}

// readLine returns the next line without its end. Of a line that is too long it
// returns just more than maxLine bytes, and reads the rest. A line without an end is
// an error.
func (c *conn) readLine(ctx context.Context) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return "", err
	}
	if ctx.Err() != nil { // it may have ended just before the deadline was set
		return "", ctx.Err()
	}
	var line []byte
	for {
		part, err := c.in.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, part...)
		}
		switch {
		case err == nil && len(line) > 0:
			return strings.TrimSuffix(string(line), "\n"), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			if errors.Is(err, io.EOF) && len(line) > 0 {
				_ = c.reply(answer{err: errors.New("the line is incomplete; nothing was done")})
			}
			return "", err
		}
	}
}

// line executes a line. The error is that of writing the answer.
func (c *conn) line(ctx context.Context, line string) error {
	if !c.prompt && !c.frames && strings.TrimSpace(line) == "ctl" {
		c.frames = true
		return c.reply(answer{text: "txlb " + c.opt.Status.Version})
	}
	commands, err := words.Parse(line)
	if len(line) > maxLine { // of which the rest was not kept
		err = fmt.Errorf("the line has more than %d bytes", maxLine)
	}
	if c.frames {
		if err != nil {
			return c.reply(answer{err: err})
		}
		return c.reply(c.all(ctx, commands))
	}
	switch {
	case err != nil:
		return c.say(answer{err: err})
	case len(commands) == 0:
		return c.say(answer{})
	}
	for i, command := range commands {
		a := c.command(ctx, command)
		rest := len(commands) - 1 - i
		stop := a.err != nil && !a.native
		if stop && rest > 0 {
			a.err = fmt.Errorf("%w; the rest of the line was not run", a.err)
		}
		if err := c.say(a); err != nil || stop || c.ended {
			return err
		}
	}
	return nil
}

// say writes an answer as text, and the prompt if it is on.
func (c *conn) say(a answer) error {
	if err := c.reply(a); err != nil || !c.prompt || c.ended {
		return err
	}
	return c.write([]byte("> "))
}

// all executes commands up to the first error and joins their answers.
func (c *conn) all(ctx context.Context, commands []words.Command) answer {
	var sum answer
	var texts []string
	var data []any
	for _, command := range commands {
		a := c.command(ctx, command)
		if a.text != "" {
			texts = append(texts, strings.TrimSuffix(a.text, "\n"))
		}
		data = append(data, a.data)
		sum.generation = max(sum.generation, a.generation)
		sum.raw = a.raw
		if sum.err = a.err; sum.err != nil || c.ended {
			break
		}
	}
	sum.text = strings.Join(texts, "\n")
	switch len(commands) {
	case 0:
	case 1:
		sum.data = data[0]
	default:
		sum.data = data
	}
	return sum
}

// command executes one command: of the connection, of HAProxy, or a verb.
func (c *conn) command(ctx context.Context, command words.Command) answer {
	switch {
	case command.Verb == "quit" && len(command.Words) == 0:
		c.ended = true
		return answer{silent: true}
	case command.Verb == "prompt" && len(command.Words) == 0 && c.frames:
		return answer{err: errors.New("prompt is for people; behind ctl every line is answered by one")}
	case command.Verb == "prompt" && len(command.Words) == 0:
		c.prompt = !c.prompt
		return answer{native: true}
	}
	return c.Server.command(ctx, c.caller, command, &c.idle)
}

// command executes one of HAProxy's commands or a verb. It may change idle.
func (s *Server) command(ctx context.Context, caller users.Caller, command words.Command, idle *time.Duration) answer {
	var a answer
	command, asJSON := withoutFlag(command, "json")
	command, ask := withoutFlag(command, "ask")
	if ask {
		ctx = admin.AskFirst(ctx)
	}
	if n, words := s.native(command); n != nil && n.destructive && ask {
		a = answer{err: fmt.Errorf("%s: %s (%w)", n.name, n.help, admin.ErrConfirm), native: !n.ours}
	} else if n != nil {
		a = n.run(&request{Server: s, ctx: ctx, caller: caller, words: words, idle: idle})
		a.native = !n.ours
	} else if err := s.nearly(command); err != nil {
		a = answer{err: err, native: true}
	} else {
		r, err := s.opt.Admin.Execute(ctx, caller, command)
		a = answer{text: r.Text, data: r.Data, generation: r.Generation, err: err}
	}
	if a.generation == 0 && a.err == nil {
		a.generation = s.opt.Director.State().Generation
	}
	a.json = asJSON
	return a
}

// withoutFlag removes a flag such as --json from a command.
func withoutFlag(c words.Command, flag string) (words.Command, bool) {
	for i, w := range c.Words {
		if w.Key == flag && w.Value == "yes" {
			rest := append([]words.Word(nil), c.Words[:i]...)
			c.Words = append(rest, c.Words[i+1:]...)
			return c, true
		}
	}
	return c, false
}

// reply writes an answer in the form of the connection.
func (c *conn) reply(a answer) error {
	switch {
	case a.silent && !c.frames:
		return nil
	case c.frames:
		return c.write(a.frame())
	case a.json:
		return c.write(append(a.frame(), '\n'))
	case a.raw != nil && c.prompt:
		a = answer{err: errors.New("this answer is binary: ask without prompt, or with txlb ctl, and write it to a file")}
	case a.raw != nil:
		return c.write(a.raw) // and nothing behind it
	}
	return c.write([]byte(a.plain()))
}

// write writes all of p. It fails if the client does not read.
func (c *conn) write(p []byte) error {
	for len(p) > 0 {
		if c.ctx.Err() == nil {
			if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return err
			}
		}
		n, err := c.Conn.Write(p[:min(len(p), writeChunk)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
