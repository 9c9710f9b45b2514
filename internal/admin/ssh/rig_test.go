package ssh

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
	balancer "github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = testkit.Patience

var eventually = testkit.Eventually

// process is what verbs do to the process, in tests nothing.
type process struct{}

func (process) CloseLog() error { return nil }
func (process) Shutdown()       {}

func (process) Upgrade(_ context.Context, by, _ string) (string, error) {
	return "upgraded by " + by, nil
}

// rig is a server over a real Admin, director and engine. Its users are admin
// (password right, and the key of signer), and looker (readonly, password look).
type rig struct {
	t      testing.TB
	admin  *admin.Admin
	dir    *director.Director
	log    *testkit.Log
	addr   string
	dirs   string // for files
	key    ssh.Signer
	signer ssh.Signer
	served chan error
	stop   context.CancelFunc // ends the server alone
}

// newRig starts everything. change edits the options of the server.
func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	return newBoundedRig(t, guard.Limits{Conns: 256}, change...)
}

// newBoundedRig is newRig with other limits of the connections. By themselves
// tests are not slowed down.
func newBoundedRig(t testing.TB, limits guard.Limits, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, dirs: t.TempDir(), served: make(chan error, 1)}
	var err error
	if r.key, err = HostKey(filepath.Join(r.dirs, "host")); err != nil {
		t.Fatal(err)
	}
	if r.signer, err = HostKey(filepath.Join(r.dirs, "id")); err != nil {
		t.Fatal(err)
	}
	run := balancer.Start(t, fmt.Sprintf(`<config>
	<service name="web"><listen ip="127.0.0.1:0"/>
		<group name="main" enable="yes"><host name="a" ip="127.0.0.1:1"/><host name="b" ip="127.0.0.1:1"/></group>
		<group name="spare"><host name="c" ip="127.0.0.1:1"/></group>
	</service>
	<manager><hostCheck enable="no"/></manager>
	<admin>
		<user name="admin" password="$1$abcdefgh$vdBSIIpG7R8DPkuUogsqU0" access="full"><key>%s</key></user>
		<user name="looker" password="$1$abcdefgh$c6uo0PewpMwwEv7Ib6afk0" access="readonly"/>
	</admin></config>`, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(r.signer.PublicKey())))))
	r.dir, r.log = run.Director, run.Log
	r.admin = admin.New(admin.Options{Director: r.dir, Engine: run.Engine, Log: run.Logger, Version: "1.2", Process: process{}})

	opt := Options{Admin: r.admin, Users: users.New(func() []*config.User { return r.dir.State().Config.Admin.Users }, nil, run.Logger, nil), Key: r.key, Log: run.Logger}
	for _, c := range change {
		c(&opt)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	serving, stop := context.WithCancel(context.Background())
	r.stop = stop
	g := guard.New(guard.Options{Log: run.Logger, Change: func(_ guard.Kind, l *guard.Limits) { *l = limits }})
	go func() { r.served <- Serve(serving, g.Listen(guard.SSH, ln, nil), opt) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-r.served:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the server does not end")
		}
		if t.Failed() {
			t.Logf("log:\n%s", r.log.String())
		}
	})
	return r
}

// ended waits for the server to end.
func (r *rig) ended() {
	r.t.Helper()
	select {
	case err := <-r.served:
		if err != nil {
			r.t.Error(err)
		}
		r.served <- nil
	case <-time.After(patience):
		r.t.Fatal("the server does not end")
	}
}

// restrict makes the limits of a server.
func restrict(l limits) func(*Options) { return func(o *Options) { o.limits = l } }

func (r *rig) config(auth ...ssh.AuthMethod) *ssh.ClientConfig {
	if len(auth) == 0 {
		auth = []ssh.AuthMethod{ssh.PublicKeys(r.signer)}
	}
	return &ssh.ClientConfig{User: "admin", Auth: auth, HostKeyCallback: ssh.FixedHostKey(r.key.PublicKey()), Timeout: patience}
}

// dial logs in with the key.
func (r *rig) dial() *ssh.Client {
	r.t.Helper()
	c, err := ssh.Dial("tcp", r.addr, r.config())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// login tries a password from an address of this machine.
func (r *rig) login(from, user, password string) (*ssh.Client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	raw, err := d.Dial("tcp", r.addr)
	if err != nil {
		return nil, err
	}
	c := r.config(ssh.Password(password))
	c.User = user
	conn, channels, requests, err := ssh.NewClientConn(raw, r.addr, c)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// shell is a session at the prompt.
type shell struct {
	t testing.TB
	*ssh.Session
	keys interface{ Write([]byte) (int, error) }
	out  *screen
}

// screen is what a session has shown.
type screen struct {
	testkit.Log
	more chan struct{}
}

func (s *screen) Write(p []byte) (int, error) {
	n, err := s.Log.Write(p)
	select {
	case s.more <- struct{}{}:
	default:
	}
	return n, err
}

func (r *rig) shell(c *ssh.Client) *shell {
	r.t.Helper()
	s, err := c.NewSession()
	if err != nil {
		r.t.Fatal(err)
	}
	sh := &shell{t: r.t, Session: s, out: &screen{more: make(chan struct{}, 1)}}
	s.Stdout, s.Stderr = sh.out, sh.out
	if sh.keys, err = s.StdinPipe(); err != nil {
		r.t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		r.t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		r.t.Fatal(err)
	}
	sh.expect("txlb> ")
	return sh
}

// expect waits until a text has been shown.
func (s *shell) expect(text string) {
	s.t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(s.out.String(), text) {
		select {
		case <-s.out.more:
		case <-timeout:
			s.t.Fatalf("no %q in:\n%s", text, s.out.String())
		}
	}
}

func (s *shell) press(keys string) {
	s.t.Helper()
	if _, err := s.keys.Write([]byte(keys)); err != nil {
		s.t.Fatal(err)
	}
}

// logouts counts the connections that have ended.
func (r *rig) logouts() int { return strings.Count(r.log.String(), "SSH logout") }

func wants(t testing.TB, text string, all ...string) {
	t.Helper()
	for _, w := range all {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
