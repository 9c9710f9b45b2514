// Package ssh serves the runtime verbs over SSH: the prompt and the live view of
// package console to people, one command line to scripts.
//
//	ssh -p 2222 admin@host                      the prompt
//	ssh -p 2222 admin@host show hosts --json    one line, and its exit status
//	ssh -T -p 2222 admin@host <commands         one command a line, up to the first that fails
//	ssh -t -p 2222 admin@host top               the live view
//
// Users are those of the running configuration, with password or key. The role is
// looked up at each command. There are only sessions: no forwarding, no agent, no
// file transfer, no system shell.
//
// A client can delay only itself. A command is executed before its answer is written.
// Deadlines end answers that are not read and clients that are silent. Connections are those of a [guard.Listener], which bounds their
// number, the time and the bytes of a login, and lets few exchange keys at once.
//
// Only algorithms without known weaknesses are offered, and none that costs the server
// much more than a stranger: ML-KEM with X25519, X25519, AES-GCM, ChaCha20 and
// AES-256-CTR, encrypt-then-MAC. The host key is Ed25519, unless a file has another
// one.
//
// Limits: bad logins are throttled by the Admin, and a user has 64 sessions, 8
// in one connection.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/words"
)

// Admin is what the server needs of an [admin.Admin].
type Admin interface {
	Execute(context.Context, users.Caller, words.Command) (admin.Result, error)
	// Question returns what to ask before a command, "" for nothing.
	Question(words.Command) string
	Complete(line string) []string
	// Reminder returns for the prompt which changes wait to be confirmed, "" for none.
	Reminder() string
	// Audit writes to the audit file.
	Audit(ctx context.Context, caller users.Caller, event string, attrs ...any)
}

// Options of a server.
type Options struct {
	Admin Admin        // needed
	Users *users.Users // needed
	Key   ssh.Signer   // the host key, of HostKey; needed
	Log   *slog.Logger

	limits limits // zero: those of defaults
}

// limits of clients. Zero fields mean the defaults.
type limits struct {
	channels int           // sessions in one connection
	perUser  int           // sessions of one user, in all connections
	stall    time.Duration // for a piece of output to be taken
	idle     time.Duration // nothing typed and nothing shown
	alive    time.Duration // between questions whether the client lives; it ends at the third without answer
	goodbye  time.Duration // for sessions to end when the server does
}

func (l limits) withDefaults() limits {
	set := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	wait := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&l.channels, 8)
	set(&l.perUser, 64)
	wait(&l.stall, 2*time.Minute)
	wait(&l.idle, 30*time.Minute)
	wait(&l.alive, 30*time.Second)
	wait(&l.goodbye, 2*time.Second)
	return l
}

// maxTries is how many wrong passwords and keys a connection may send.
const maxTries = 6

// errStopping tells sessions that the server ends.
var errStopping = errors.New("session closed: txlb is shutting down, or SSH was switched off")

// server is one call of Serve.
type server struct {
	opt    Options
	limits limits
	log    *slog.Logger
	config *ssh.ServerConfig

	mu    sync.Mutex
	users map[string]int // sessions by user

	running sync.WaitGroup
}

// Serve accepts connections until ctx ends. Then it tells the sessions, closes ln, and
// returns nil when everything that it started has ended. An error says why it could
// not go on.
func Serve(ctx context.Context, ln net.Listener, opt Options) error {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	s := &server{opt: opt, limits: opt.limits.withDefaults(), log: opt.Log, users: map[string]int{}}
	s.config = s.serverConfig()
	outer := ctx
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(outer))
	defer s.running.Wait()
	defer cancel(errStopping)
	guarded := guard.On(guard.SSH, ln, s.log)
	defer context.AfterFunc(outer, func() {
		cancel(errStopping)
		_ = guarded.Close()
	})()
	defer func() { _ = guarded.Close() }()
	for {
		conn, err := guarded.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case err != nil:
			return fmt.Errorf("accept SSH connections: %w", err)
		}
		s.running.Go(func() { s.connection(ctx, conn.(*guard.Conn)) })
	}
}

// loggedIn is where the permissions of a connection hold its caller.
type loggedIn struct{}

func (s *server) serverConfig() *ssh.ServerConfig {
	permit := func(c users.Caller, err error) (*ssh.Permissions, error) {
		if err != nil {
			return nil, err
		}
		return &ssh.Permissions{ExtraData: map[any]any{loggedIn{}: c}}, nil
	}
	c := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519},
			Ciphers:      []string{ssh.CipherAES256GCM, ssh.CipherAES128GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES256CTR},
			MACs:         []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM},
		},
		PublicKeyAuthAlgorithms: []string{
			ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
			ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512,
		},
		MaxAuthTries:  maxTries,
		ServerVersion: "SSH-2.0-txlb",
		PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			return permit(s.opt.Users.LoginKey(conn.User(), key.Marshal(), conn.RemoteAddr().String()))
		},
	}
	c.AddHostKey(s.opt.Key)
	return c
}

// connection serves one client, from the handshake to the end.
func (s *server) connection(ctx context.Context, raw *guard.Conn) {
	from := raw.RemoteAddr().String()
	conn := &deadlined{Conn: raw, limit: s.limits.stall}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(users.WithVia(ctx, "ssh"))
	defer cancel()
	// The end of ctx ends a handshake at once.
	stopHandshake := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stopHandshake()
	raw.Handshake()
	config := *s.config
	password := false // was tried
	config.PasswordCallback = func(meta ssh.ConnMetadata, word []byte) (*ssh.Permissions, error) {
		password = true
		raw.Yield() // the hash enters the gate by itself
		c, err := s.opt.Users.Login(ctx, meta.User(), string(word), from)
		if err != nil {
			return nil, err
		}
		return &ssh.Permissions{ExtraData: map[any]any{loggedIn{}: c}}, nil
	}
	client, channels, requests, err := ssh.NewServerConn(conn, &config)
	if err != nil {
		s.log.Info("SSH login failed", "from", from, "err", cut(err.Error()))
		if _, auth := errors.AsType[*ssh.ServerAuthError](err); auth && !password { // wrong passwords are in the file
			s.opt.Admin.Audit(ctx, users.Caller{Name: "unknown", From: from}, "login failed", "reason", "no key of a user")
		}
		return
	}
	caller := client.Permissions.ExtraData[loggedIn{}].(users.Caller)
	if !stopHandshake() {
		return // the server has ended meanwhile
	}
	raw.LoggedIn()
	log := s.log.With("user", caller.Name, "from", from)
	log.Info("SSH login", "client", cut(string(client.ClientVersion())))
	s.opt.Admin.Audit(ctx, caller, "session opened", "client", cut(string(client.ClientVersion())))
	c := &connection{
		server: s, raw: raw, client: client, log: log, user: &user{admin: s.opt.Admin, users: s.opt.Users, caller: caller},
	}
	c.serve(ctx, channels, requests)
	log.Info("SSH logout")
	s.opt.Admin.Audit(ctx, caller, "session closed")
}

// cut shortens text from strangers for the log.
func cut(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// deadlined is a connection whose writes have a deadline, for clients that do not
// read.
type deadlined struct {
	net.Conn
	limit time.Duration
}

func (d *deadlined) Write(p []byte) (int, error) {
	if err := d.SetWriteDeadline(time.Now().Add(d.limit)); err != nil {
		return 0, err
	}
	return d.Conn.Write(p)
}
