package ssh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/console"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/words"
)

// connection is a client that has logged in.
type connection struct {
	server *server
	raw    *guard.Conn
	client *ssh.ServerConn
	log    *slog.Logger
	user   *user

	sessions atomic.Int32
	used     atomic.Pointer[time.Time] // when the last session has ended

	mu     sync.Mutex
	closed bool // there will be no more sessions
}

// serve returns when the connection has ended, or after ctx ends and the sessions
// have told their users.
func (c *connection) serve(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	// When the client leaves, the work of its sessions ends. When the server ends,
	// sessions tell their users, so the connection stays for a moment.
	c.touch()
	work, end := context.WithCancelCause(ctx)
	defer end(nil)
	var running, sessions sync.WaitGroup
	running.Go(func() { c.requests(requests) })
	running.Go(func() { c.watch(work) })
	running.Go(func() {
		for ch := range channels {
			c.open(work, &sessions, ch)
		}
		end(errClientGone)
	})
	<-work.Done()
	c.noMore()
	told := make(chan struct{})
	running.Go(func() {
		sessions.Wait()
		close(told)
	})
	select {
	case <-told:
	case <-time.After(c.server.limits.goodbye):
	}
	_ = c.client.Close()
	running.Wait()
}

// errClientGone is the end of a connection by the client.
var errClientGone = errors.New("the client has gone")

// requests answers global requests: it refuses forwarding and answers keep-alives.
func (c *connection) requests(requests <-chan *ssh.Request) {
	for r := range requests {
		switch r.Type {
		case "no-more-sessions@openssh.com":
			c.noMore()
		case "keepalive@openssh.com":
			_ = r.Reply(true, nil) // the client's own end is seen elsewhere
			continue
		}
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
}

// noMore refuses further sessions.
func (c *connection) noMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// touch marks the connection as in use.
func (c *connection) touch() {
	now := time.Now()
	c.used.Store(&now)
	c.raw.Used()
}

// watch sends keep-alives. It closes the connection if the client does not answer, or
// has had no session for long.
func (c *connection) watch(ctx context.Context) {
	const unanswered = 3
	tick := time.NewTicker(c.server.limits.alive)
	defer tick.Stop()
	// The request waits for its answer, so another goroutine measures the time.
	var asked, answered atomic.Int64
	var asking sync.WaitGroup
	defer asking.Wait()
	questions := make(chan struct{}, 1)
	defer close(questions)
	asking.Go(func() {
		for range questions {
			if _, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
				return
			}
			answered.Store(asked.Load())
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.sessions.Load() == 0 && time.Since(*c.used.Load()) > c.server.limits.idle {
			c.log.Info("SSH connection closed, no session opened")
			_ = c.client.Close()
			return
		}
		if asked.Add(1)-answered.Load() > unanswered {
			c.log.Warn("SSH connection closed, client does not answer")
			_ = c.client.Close()
			return
		}
		select {
		case questions <- struct{}{}:
		default:
		}
	}
}

// open serves a new channel, if it is a session.
func (c *connection) open(ctx context.Context, sessions *sync.WaitGroup, ch ssh.NewChannel) {
	reject := func(reason ssh.RejectionReason, why string) {
		_ = ch.Reject(reason, why) // fails only if the client has gone
	}
	if ch.ChannelType() != "session" {
		reject(ssh.Prohibited, "only sessions are available")
		return
	}
	c.mu.Lock() // so that none begins behind noMore
	defer c.mu.Unlock()
	switch {
	case c.closed:
		reject(ssh.Prohibited, "no more sessions allowed")
		return
	case int(c.sessions.Add(1)) > c.server.limits.channels:
		c.sessions.Add(-1)
		reject(ssh.ResourceShortage, fmt.Sprintf("at most %d sessions in one connection", c.server.limits.channels))
		return
	case !c.server.take(c.user.caller.Name):
		c.sessions.Add(-1)
		reject(ssh.ResourceShortage, fmt.Sprintf("at most %d sessions of one user", c.server.limits.perUser))
		return
	}
	left := func() {
		c.server.give(c.user.caller.Name)
		c.sessions.Add(-1)
	}
	c.touch()
	channel, requests, err := ch.Accept()
	if err != nil {
		left()
		return
	}
	sessions.Go(func() {
		defer func() {
			c.touch()
			left()
		}()
		newSession(c, channel).serve(ctx, requests)
	})
}

// take counts a session of a user; false if the limit is reached.
func (s *server) take(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user] >= s.limits.perUser {
		return false
	}
	s.users[user]++
	return true
}

// give ends a session of a user.
func (s *server) give(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user]--; s.users[user] == 0 {
		delete(s.users, user)
	}
}

// user is the Executor of one connection.
type user struct {
	admin  Admin
	users  *users.Users
	caller users.Caller
}

// Execute first looks up whether the user still exists, and with which role.
func (u *user) Execute(ctx context.Context, c words.Command) (admin.Result, error) {
	now, ok := u.users.Still(u.caller)
	if !ok {
		return admin.Result{}, fmt.Errorf("user %q was deleted, or has another password or key: %w", u.caller.Name, console.ErrEnd)
	}
	return u.admin.Execute(ctx, now, c)
}

// Question says what follows from a destructive command.
func (u *user) Question(c words.Command) string {
	if _, ok := u.users.Still(u.caller); !ok {
		return ""
	}
	return u.admin.Question(c)
}

// Reminder tells of changes that wait to be confirmed.
func (u *user) Reminder() string {
	if now, ok := u.users.Still(u.caller); !ok || now.Role != users.Full {
		return ""
	}
	return u.admin.Reminder()
}

// Hash makes the hash of a password that was typed.
func (u *user) Hash(ctx context.Context, password string) (string, error) {
	return u.users.Hash(ctx, password)
}

func (u *user) Complete(line string) []string {
	if _, ok := u.users.Still(u.caller); !ok {
		return nil
	}
	return u.admin.Complete(line)
}
