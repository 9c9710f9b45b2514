package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/txlb/txlb/internal/guard"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// TestHundredSessions has a hundred at the prompt at the same time, all of
// which work, and half of which leave without a word.
func TestHundredSessions(t *testing.T) {
	r := newRig(t, restrict(limits{perUser: 100}))
	const sessions = 100
	ready, gone := make(chan struct{}), make(chan struct{})
	var there, all sync.WaitGroup
	there.Add(sessions)
	for i := range sessions {
		all.Go(func() {
			c, err := ssh.Dial("tcp", r.addr, r.config())
			if err != nil {
				t.Error(err)
				there.Done()
				return
			}
			defer func() { _ = c.Close() }()
			s, err := c.NewSession()
			if err != nil {
				t.Error(err)
				there.Done()
				return
			}
			sh := &shell{t: t, Session: s, out: &screen{more: make(chan struct{}, 1)}}
			s.Stdout = sh.out
			sh.keys, _ = s.StdinPipe()
			if err := errors.Join(s.RequestPty("xterm", 24, 80, nil), s.Shell()); err != nil {
				t.Error(err)
			}
			there.Done()
			<-ready
			for n := range 3 {
				_, _ = fmt.Fprintf(s2w{sh.keys}, "show hosts web main; nix%d\r", n)
				end := time.Now().Add(patience)
				for !strings.Contains(sh.out.String(), fmt.Sprintf("unknown verb \"nix%d\"", n)) {
					if time.Now().After(end) {
						t.Errorf("session %d has no answer: %q", i, sh.out.String())
						return
					}
					select {
					case <-sh.out.more:
					case <-time.After(time.Second):
					}
				}
			}
			<-gone
			if i%2 == 0 {
				sh.press("quit\r")
				if err := s.Wait(); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
		})
	}
	there.Wait()
	close(ready)
	close(gone)
	all.Wait()
	eventually(t, "all logged out", func() bool { return r.logouts() == sessions })
}

type s2w struct {
	w interface{ Write([]byte) (int, error) }
}

func (s s2w) Write(p []byte) (int, error) { return s.w.Write(p) }

// lazy is a connection that reads no more once it is asked to.
type lazy struct {
	net.Conn
	stopped atomic.Bool
	closed  chan struct{}
	once    sync.Once
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.stopped.Load() {
		<-l.closed
		return 0, io.EOF
	}
	return l.Conn.Read(p)
}

func (l *lazy) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// dialLazy logs in on a connection that can stop reading.
func (r *rig) dialLazy() (*lazy, *ssh.Client) {
	r.t.Helper()
	raw, err := net.DialTimeout("tcp", r.addr, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	l := &lazy{Conn: raw, closed: make(chan struct{})}
	r.t.Cleanup(func() { _ = l.Close() })
	conn, channels, requests, err := ssh.NewClientConn(l, r.addr, r.config())
	if err != nil {
		r.t.Fatal(err)
	}
	return l, ssh.NewClient(conn, channels, requests)
}

// TestWhoNeverReadsHoldsUpNothing has clients that ask for a lot and take none
// of it: by the window of the channel, and by that of TCP. A change from
// another session goes through at once, their own change was made, and in the
// end they are closed.
func TestWhoNeverReadsHoldsUpNothing(t *testing.T) {
	testkit.Long(t)
	r := newRig(t, restrict(limits{stall: 2 * time.Second}))
	lot := strings.Repeat("help;", 12_000)
	start := func(c *ssh.Client, host string) {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.StdoutPipe(); err != nil { // which nobody reads
			t.Fatal(err)
		}
		if err := s.Start("hostAdminDown web main " + host + ";" + lot); err != nil {
			t.Fatal(err)
		}
	}
	start(r.dial(), "a")
	l, c := r.dialLazy()
	start(c, "b")
	l.stopped.Store(true)
	maint := func(group, host string) bool {
		for _, g := range r.dir.State().Config.Services[0].Groups {
			for _, h := range g.Hosts {
				if g.Name == group && h.Name == host {
					return h.State == "maint"
				}
			}
		}
		return false
	}
	eventually(t, "their own changes", func() bool { return maint("main", "a") && maint("main", "b") })

	sh := r.shell(r.dial())
	// The best of a few counts: the machine may be busy with other things.
	best, clock := time.Hour, testkit.NewClock(t)
	for i := 0; i < 5 && best > time.Second; i++ {
		began := clock.Now()
		sh.press("hostAdminDown web spare c\r")
		sh.expect(fmt.Sprintf("generation %d: ", 4+2*i))
		best = min(best, clock.Since(began))
		if !maint("spare", "c") {
			t.Error("the change was not made")
		}
		sh.press("hostAdminUp web spare c\r")
		sh.expect(fmt.Sprintf("generation %d: ", 5+2*i))
	}
	if best > time.Second {
		t.Errorf("the change took %v", best)
	}
	eventually(t, "who takes nothing is closed", func() bool { return r.logouts() == 2 })
	sh.press("quit\r")
	if err := sh.Wait(); err != nil {
		t.Error(err)
	}
}

// TestOutputLargerThanTheWindow takes many megabytes, slowly at first.
func TestOutputLargerThanTheWindow(t *testing.T) {
	r := newRig(t)
	s, err := r.dial().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	const times = 2000
	if err := s.Start(strings.Repeat("help;", times)); err != nil {
		t.Fatal(err)
	}
	n, line := 0, "status\n    show state"
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	n = strings.Count(string(text), line)
	if err := s.Wait(); err != nil || n != times || len(text) < 4<<20 {
		t.Errorf("%d answers of %d in %d bytes, %v", n, times, len(text), err)
	}
}

func TestTheEndIsTold(t *testing.T) {
	testkit.Long(t)
	r := newRig(t, restrict(limits{goodbye: 5 * time.Second})) // enough to be told on a busy machine
	prompt := r.shell(r.dial())
	top := r.shell(r.dial())
	top.press("top\r")
	top.expect("\x1b[?1049h")
	script, err := r.dial().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := script.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := script.Shell(); err != nil {
		t.Fatal(err)
	}
	// Some that cannot be told: in the handshake, and one that does not read.
	raw, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	l, c := r.dialLazy()
	silent, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := silent.Start(strings.Repeat("help;", 12_000)); err != nil {
		t.Fatal(err)
	}
	l.stopped.Store(true)
	r.stop()
	r.ended()
	for _, s := range []*shell{prompt, top} {
		s.expect(errStopping.Error())
		var exit *ssh.ExitError
		if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 1 {
			t.Errorf("the session ends with %v", err)
		}
	}
	wants(t, top.out.String(), "\x1b[?1049l")
	if err := script.Wait(); err == nil {
		t.Error("the script ends well")
	}
}

// TestUsersLoseTheirPowers has sessions of users that are demoted, deleted, or
// get another password.
func TestUsersLoseTheirPowers(t *testing.T) {
	r := newRig(t)
	change := func(apply func(*config.Config)) {
		t.Helper()
		if _, err := r.dir.Do(t.Context(), director.Change{Verb: "test", Apply: func(c *config.Config) error { apply(c); return nil }}); err != nil {
			t.Fatal(err)
		}
	}
	change(func(c *config.Config) {
		second := *c.Admin.Users[0]
		second.Name = "second"
		c.Admin.Users = append(c.Admin.Users, &second)
	})
	c, err := r.login("127.0.0.1", "second", "right")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	sh := r.shell(c)
	sh.press("hostAdminDown web spare c\r")
	sh.expect("state ready -> maint")
	change(func(c *config.Config) { c.Admin.Users[2].Access = "readonly" })
	sh.press("hostAdminUp web spare c\r")
	sh.expect("error: hostAdminUp needs the role full; this user has readonly")
	change(func(c *config.Config) { c.Admin.Users = c.Admin.Users[:2] })
	sh.press("sta\t")
	sh.press("tus\r")
	sh.expect(`user "second" was deleted, or has another password or key`)
	var exit *ssh.ExitError
	if err := sh.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 1 {
		t.Errorf("the session ends with %v", err)
	}
	if _, err := r.login("127.0.0.1", "second", "right"); err == nil {
		t.Error("the deleted user logs in")
	}
	wants(t, r.log.String(), "by=second from=127.0.0.1:")
}

// An upgrade is offered, and the answer is shown.
func TestUpgrade(t *testing.T) {
	r := newRig(t)
	sh := r.shell(r.dial())
	sh.press("upg\t\r")
	sh.expect("upgraded by admin")
}

// The prompt asks for a password that a command lacks, and does not show it.
func TestPromptAsksForPasswords(t *testing.T) {
	r := newRig(t)
	sh := r.shell(r.dial())
	sh.press("addUser second readonly\r")
	sh.expect("Password: ")
	sh.press("topsecret\r")
	sh.expect("Again: ")
	sh.press("topsecret\r")
	sh.expect("unless saveConfig saves it")
	c, err := r.login("127.0.0.1", "second", "topsecret")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for _, text := range []string{sh.out.String(), r.log.String()} {
		if strings.Contains(text, "topsecret") || strings.Contains(text, "$y$") {
			t.Errorf("a secret is shown:\n%s", text)
		}
	}
}

func TestWrongPasswordsAreThrottled(t *testing.T) {
	r := newRig(t)
	// On a busy machine the second of waiting may be over when the right one comes.
	for end := time.Now().Add(patience); ; {
		for i := range 6 {
			if _, err := r.login("127.0.0.1", "admin", fmt.Sprint("wrong", i)); err == nil {
				t.Fatal("a wrong password is right")
			}
		}
		began := time.Now()
		c, err := r.login("127.0.0.1", "admin", "right")
		if err != nil {
			break
		}
		_ = c.Close()
		if time.Since(began) < time.Second/4 || time.Now().After(end) {
			t.Error("it need not wait after six wrong passwords")
			break
		}
	}
	wants(t, r.log.String(), "too many failed logins")
	// Neither another source nor a key has to wait.
	c, err := r.login("127.0.0.2", "admin", "right")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	r.dial()
	for _, secret := range []string{"wrong0", "right", "$1$"} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

func TestOnlySessions(t *testing.T) {
	r := newRig(t)
	c := r.dial()
	for _, kind := range []string{"direct-tcpip", "direct-streamlocal@openssh.com", "x11", "auth-agent@openssh.com", "forwarded-tcpip", "tun@openssh.com", ""} {
		_, _, err := c.OpenChannel(kind, nil)
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) || refused.Reason != ssh.Prohibited {
			t.Errorf("channel %q: %v", kind, err)
		}
	}
	for _, kind := range []string{"tcpip-forward", "cancel-tcpip-forward", "streamlocal-forward@openssh.com", "hostkeys-prove-00@openssh.com", ""} {
		if ok, _, err := c.SendRequest(kind, true, nil); ok || err != nil {
			t.Errorf("request %q: %v, %v", kind, ok, err)
		}
	}
	if ok, _, err := c.SendRequest("keepalive@openssh.com", true, nil); !ok || err != nil {
		t.Errorf("keepalive: %v, %v", ok, err)
	}
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	str := func(s ...string) (b []byte) {
		for _, w := range s {
			b = append(b, ssh.Marshal(struct{ S string }{w})...)
		}
		return b
	}
	for _, c := range []struct {
		kind    string
		payload []byte
		want    bool
	}{
		{"subsystem", str("sftp"), false},
		{"auth-agent-req@openssh.com", nil, false},
		{"x11-req", make([]byte, 32), false},
		{"env", str("LD_PRELOAD", "x"), false},
		{"env", str("NO_COLOR", "1"), true},
		{"env", str("LC_ALL", "C"), true},
		{"env", str("torn"), false},
		{"window-change", ssh.Marshal(windowChange{Columns: 1}), false}, // there is no pty
		{"pty-req", str("xterm"), false},
		{"exec", nil, false},
		{"break", nil, false},
		{"signal", str("USR1"), false},
		{"shell", nil, true},
		{"shell", nil, false}, // once is enough
		{"exec", str("status"), false},
		{"pty-req", ssh.Marshal(ptyRequest{Term: "xterm"}), false},
		{"env", str("NO_COLOR", "1"), false},
	} {
		if ok, err := ch.SendRequest(c.kind, true, c.payload); ok != c.want || err != nil {
			t.Errorf("%s %q: %v, %v", c.kind, c.payload, ok, err)
		}
	}
	_ = ch.Close()
	if _, _, err := c.SendRequest("no-more-sessions@openssh.com", false, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil { // its answer: the other was taken in
		t.Fatal(err)
	}
	if _, err := c.NewSession(); err == nil {
		t.Error("a session after the last one")
	}
}

func TestSignals(t *testing.T) {
	r := newRig(t)
	sh := r.shell(r.dial())
	sh.press("top\r")
	sh.expect("\x1b[?1049h")
	if err := sh.Signal(ssh.SIGINT); err != nil {
		t.Fatal(err)
	}
	sh.expect("\x1b[?1049l")
	sh.press("status\r")
	sh.expect("txlb 1.2, generation 1")
	if err := sh.Signal(ssh.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := sh.Wait(); err == nil {
		t.Error("it ends well")
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	r := newBoundedRig(t, guard.Limits{Conns: 3, PerSource: 2}, restrict(limits{channels: 2}))
	// login returns when the server has seen that the user is one: a session of
	// his is open.
	login := func(from string) (*ssh.Client, <-chan struct{}) {
		t.Helper()
		c, err := r.login(from, "admin", "right")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.NewSession(); err != nil {
			t.Fatal(err)
		}
		end := make(chan struct{})
		go func() {
			_ = c.Wait()
			close(end)
		}()
		return c, end
	}
	ends := func(what string, end <-chan struct{}) {
		t.Helper()
		select {
		case <-end:
		case <-time.After(patience):
			t.Fatalf("%s is not evicted", what)
		}
	}
	a, first := login("127.0.0.1")
	_, second := login("127.0.0.1")
	if _, err := a.NewSession(); err != nil { // so the second is the one idle longest
		t.Fatal(err)
	}
	third, _ := login("127.0.0.1")
	ends("the second of the source", second)
	login("127.0.0.2")
	// Strangers take each other's place, and no user's but one.
	stranger := func() net.Conn {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.3")}}).Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	s := stranger()
	ends("the first of all", first)
	for range 3 {
		next := stranger()
		_ = s.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, s); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a stranger keeps his place")
		}
		s = next
	}
	if _, err := third.NewSession(); err != nil {
		t.Fatal(err)
	}
	if _, err := third.NewSession(); err == nil {
		t.Error("a third session in one connection")
	}
	wants(t, r.log.String(), "admin connections rejected", "part=ssh", "evicted=1")

	r = newRig(t, restrict(limits{perUser: 2}))
	c := r.dial()
	one, err := c.NewSession()
	if err == nil {
		_, err = c.NewSession()
	}
	if err != nil {
		t.Fatal(err)
	}
	other := r.dial()
	if _, err := other.NewSession(); err == nil || !strings.Contains(err.Error(), "at most 2 sessions of one user") {
		t.Errorf("a third session of the user: %v", err)
	}
	_ = one.Close()
	eventually(t, "there is room again", func() bool {
		_, err := other.NewSession()
		return err == nil
	})
}

func TestDeadlines(t *testing.T) {
	testkit.Long(t)
	const idle = 5 * time.Second // enough to begin a session on a busy machine
	closed := func(t *testing.T, c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Error("it is open still")
		}
	}
	t.Run("login", func(t *testing.T) {
		t.Parallel()
		r := newBoundedRig(t, guard.Limits{Conns: 3, Login: 200 * time.Millisecond})
		raw, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = raw.Close() }()
		closed(t, raw)
	})
	t.Run("idle prompt", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, restrict(limits{idle: idle}))
		sh := r.shell(r.dial())
		sh.expect(errIdle.Error())
		if err := sh.Wait(); err == nil {
			t.Error("it ends well")
		}
	})
	t.Run("idle script", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, restrict(limits{idle: idle}))
		s, err := r.dial().NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Shell(), s.Wait()); err == nil {
			t.Error("it ends well")
		}
	})
	t.Run("no session", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, restrict(limits{idle: 300 * time.Millisecond, alive: 100 * time.Millisecond}))
		if err := r.dial().Wait(); err == nil {
			t.Error("it ends well")
		}
	})
	t.Run("top is in use", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, restrict(limits{idle: idle}))
		sh := r.shell(r.dial())
		sh.press("top\r")
		began := time.Now()
		time.Sleep(idle + time.Second) // longer than idle: the screen changes meanwhile
		sh.press("q")
		sh.expect("\x1b[?1049l")
		if strings.Contains(sh.out.String(), errIdle.Error()) {
			t.Errorf("it was ended after %v", time.Since(began))
		}
	})
	t.Run("no answer to the question whether it lives", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, restrict(limits{alive: 100 * time.Millisecond}))
		l, _ := r.dialLazy()
		l.stopped.Store(true)
		eventually(t, "it is closed", func() bool { return strings.Contains(r.log.String(), "does not answer") && r.logouts() == 1 })
	})
	t.Run("answers keep it", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, restrict(limits{alive: time.Second}))
		sh := r.shell(r.dial())
		time.Sleep(6 * time.Second) // six questions
		sh.press("status\r")
		sh.expect("generation 1")
	})
}
