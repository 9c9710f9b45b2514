package ssh

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// options are those of OpenSSH's programs for the server of the rig: its host
// key alone is right, and nothing of the user's own counts.
func (r *rig) options(more ...string) []string {
	host, port, _ := net.SplitHostPort(r.addr)
	known := write(r.t, filepath.Join(r.dirs, "known"), fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(r.key.PublicKey())))
	return append([]string{
		"-F", "/dev/null", "-o", "Port=" + port, "-o", "UserKnownHostsFile=" + known, "-o", "StrictHostKeyChecking=yes",
		"-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes", "-o", "IdentityFile=" + filepath.Join(r.dirs, "id"), "-o", fmt.Sprintf("ConnectTimeout=%.0f", patience.Seconds()),
	}, more...)
}

// openssh runs ssh with words behind the user's name, and input.
func (r *rig) openssh(input string, opts []string, words ...string) (out, errs string, status int) {
	r.t.Helper()
	args := append(r.options(append([]string{"-o", "BatchMode=yes"}, opts...)...), "admin@127.0.0.1")
	return run(r.t, input, "ssh", append(args, words...)...)
}

func run(t testing.TB, input, name string, args ...string) (out, errs string, status int) {
	t.Helper()
	cmd := exec.Command(debian.Path(name), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	timer := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func TestOpenSSHRunsLines(t *testing.T) {
	debian.NeedFor(t, "ssh")
	r := newRig(t)
	for _, c := range []struct {
		words, out, errs string
		status           int
	}{
		{"status", "txlb 1.2, generation 1, 1 service, 3 hosts, 0 sessions, up ", "", 0},
		{"show hosts web spare --json", `{"text":"service  group`, "", 0},
		{"addGroup web new; status", "generation 2", "", 0},
		{"hostAdminDown web main nix", "", `error: hostAdminDown: unknown host "nix" in group "main"`, 1},
		{"frobnicate", "", `error: unknown verb "frobnicate"`, 2},
		{"hostAdminDown web", "", "error: hostAdminDown: GROUP is missing", 2},
		{`"`, "", "error: column 1: the quote is not closed", 2},
		{"top", "", "error: top needs a terminal", 1},
		{"quit", "", "", 0},
	} {
		out, errs, status := r.openssh("", nil, c.words)
		if status != c.status || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) || c.errs == "" && errs != "" || strings.Contains(out, "\x1b") {
			t.Errorf("%s: status %d\nout %q\nerr %q", c.words, status, out, errs)
		}
	}
	wants(t, r.log.String(), "by=admin from=127.0.0.1:")
}

func TestOpenSSHScript(t *testing.T) {
	debian.NeedFor(t, "ssh")
	r := newRig(t)
	out, errs, status := r.openssh("# a script\nhostAdminDown web main a\r\n\nshow hosts web main --json; status", []string{"-T"})
	if status != 0 || errs != "" || !strings.HasPrefix(out, "generation 2: ") || !strings.Contains(out, `"state":"maint"`) || !strings.Contains(out, "\ntxlb 1.2, generation 2") {
		t.Errorf("status %d\n%s\n%s", status, out, errs)
	}
	out, errs, status = r.openssh("status\nhostAdminDown web main nix\nhostAdminDown web main b\n", []string{"-T"})
	if status != 1 || !strings.HasPrefix(errs, "line 2: error: ") || !strings.HasPrefix(out, "txlb 1.2, generation 2") || strings.Contains(out, "set host") {
		t.Errorf("status %d\n%s\n%s", status, out, errs)
	}
	// With a pty it is as typed: errors end nothing, and there are questions.
	out, errs, status = r.openssh("nix\nstatus\ndelHost web main b\nn\nhostAdminDown web main b\n", []string{"-tt", "-o", "LogLevel=ERROR"})
	if status != 0 || errs != "" || !strings.Contains(out, "nothing was done") || !strings.Contains(out, "state ready -> maint") {
		t.Errorf("with a pty: status %d\n%s\n%s", status, out, errs)
	}
	out, errs, status = r.openssh(strings.Repeat("help\n", 3000), []string{"-T"})
	if status != 0 || errs != "" || strings.Count(out, "show state and problems") != 3000 {
		t.Errorf("status %d, %d bytes\n%s", status, len(out), errs)
	}
}

func TestOpenSSHLogins(t *testing.T) {
	debian.NeedFor(t, "ssh", "ssh-keygen", "sshpass")
	r := newRig(t)
	password := func(user, password string, words ...string) (string, string, int) {
		args := append([]string{"-p", password, debian.Path("ssh")}, r.options("-o", "PubkeyAuthentication=no", user+"@127.0.0.1")...)
		return run(t, "", "sshpass", append(args, words...)...)
	}
	for _, c := range []struct {
		user, password, words string
		status                int
		want                  string
	}{
		{"admin", "right", "status", 0, "generation 1"},
		{"looker", "look", "status", 0, "generation 1"},
		{"looker", "look", "hostAdminDown web main a", 1, "hostAdminDown needs the role full; this user has readonly"},
		{"admin", "wrong", "status", 5, ""},
		{"nobody", "right", "status", 5, ""},
	} {
		if out, errs, status := password(c.user, c.password, c.words); status != c.status || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s %s: status %d\n%s\n%s", c.user, c.words, status, out, errs)
		}
	}
	for _, kind := range [][]string{{"ed25519"}, {"ecdsa"}, {"rsa", "-b", "3072"}} {
		file := filepath.Join(t.TempDir(), "key")
		if _, errs, status := run(t, "", "ssh-keygen", append([]string{"-q", "-N", "", "-C", "a comment", "-f", file, "-t"}, kind...)...); status != 0 {
			t.Fatal(errs)
		}
		use := []string{"-o", "IdentityFile=" + file}
		with := func() (string, string, int) {
			args := append(r.options("-o", "BatchMode=yes", "-o", "PreferredAuthentications=publickey"), "admin@127.0.0.1", "status")
			for i, a := range args {
				if strings.HasPrefix(a, "IdentityFile=") {
					args[i] = use[1]
				}
			}
			return run(t, "", "ssh", args...)
		}
		if _, errs, status := with(); status != 255 || !strings.Contains(errs, "Permission denied") {
			t.Errorf("%s, not known: status %d\n%s", kind, status, errs)
		}
		public, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Join(strings.Fields(string(public))[:2], " ")
		if _, err := r.dir.Do(t.Context(), director.Change{Verb: "test", Apply: func(c *config.Config) error {
			c.Admin.Users[0].Keys = append(c.Admin.Users[0].Keys, line)
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
		if out, errs, status := with(); status != 0 || !strings.Contains(out, "generation") {
			t.Errorf("%s: status %d\n%s\n%s", kind, status, out, errs)
		}
	}
}

func TestOpenSSHForwardsNothing(t *testing.T) {
	debian.NeedFor(t, "ssh", "sftp")
	r := newRig(t)
	for _, c := range []struct {
		opts []string
		want string
	}{
		{[]string{"-o", "ExitOnForwardFailure=yes", "-N", "-R", "127.0.0.1:0:127.0.0.1:1"}, "remote port forwarding failed"},
		{[]string{"-W", "127.0.0.1:1"}, "only sessions are available"},
		{[]string{"-s"}, "subsystem request failed"},
	} {
		words := []string{}
		if c.opts[0] == "-s" {
			words = append(words, "netconf")
		}
		if _, errs, status := r.openssh("", c.opts, words...); status != 255 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: status %d\n%s", c.opts, status, errs)
		}
	}
	if _, errs, status := run(t, "ls\n", "sftp", append(r.options("-b", "-"), "admin@127.0.0.1")...); status == 0 || !strings.Contains(errs, "subsystem request failed") {
		t.Errorf("sftp: status %d\n%s", status, errs)
	}
	// An agent and X11 are asked for and not given; the session goes on.
	cmd := append([]string{"-A", "-X", "-v", "-o", "ForwardX11Timeout=1m"}, "-o", "XAuthLocation=/bin/true")
	if out, errs, status := r.openssh("", cmd, "status"); status != 0 || !strings.Contains(out, "generation 1") {
		t.Errorf("with -A -X: status %d\n%s\n%s", status, out, errs)
	}
}

// TestAuditFindsNothing has Debian's ssh-audit look at what is offered. What it
// warns of are names that are newer than it is.
func TestAuditFindsNothing(t *testing.T) {
	debian.NeedFor(t, "ssh-audit")
	r := newRig(t)
	_, port, _ := net.SplitHostPort(r.addr)
	out, errs, status := run(t, "", "ssh-audit", "-n", "-p", port, "127.0.0.1")
	if status == 1 || !strings.Contains(out, "curve25519-sha256") {
		t.Fatalf("status %d\n%s\n%s", status, out, errs)
	}
	for line := range strings.Lines(out) {
		newer := strings.Contains(line, "mlkem768x25519-sha256") || strings.Contains(line, "kex-strict-s-v00@openssh.com")
		if strings.Contains(line, "[fail]") || strings.Contains(line, "[warn]") && !newer {
			t.Error(line)
		}
	}
}

// pane is a terminal of tmux with a program in it.
type pane struct {
	t      *testing.T
	socket string
}

// tmux runs a command line in a terminal of its own; when it has ended, the
// terminal shows "ended STATUS", and whether its settings are as they were.
func tmux(t *testing.T, width, height int, env []string, words ...string) *pane {
	t.Helper()
	debian.NeedFor(t, "tmux")
	dir, err := os.MkdirTemp("", "txlb-tmux") // a short path, as sockets need
	if err != nil {
		t.Fatal(err)
	}
	p := &pane{t, filepath.Join(dir, "s")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the terminal:\n%s", p.shows())
		}
		p.tmux("kill-server")
		_ = os.RemoveAll(dir)
	})
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	script := write(t, filepath.Join(dir, "script"), fmt.Sprintf(`before=$(stty -g)
%s
status=$?
test "$before" = "$(stty -g)" && echo "ended $status, restored" || echo "ended $status, CHANGED"
exec sleep 1000
`, strings.Join(quoted, " ")))
	args := []string{"-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height)}
	for _, e := range env {
		args = append(args, "-e", e)
	}
	p.tmux(append(args, "sh "+script)...)
	return p
}

func (p *pane) tmux(args ...string) string {
	cmd := exec.Command(debian.Path("tmux"), append([]string{"-S", p.socket}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil && args[0] != "kill-server" {
		p.t.Fatalf("tmux %s: %v\n%s", args, err, out)
	}
	return string(out)
}

func (p *pane) shows() string { return p.tmux("capture-pane", "-p") }

func (p *pane) press(keys ...string) { p.tmux(append([]string{"send-keys"}, keys...)...) }

// expect waits until the terminal shows what matches.
func (p *pane) expect(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	text := ""
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if text = p.shows(); re.MatchString(text) {
			return text
		}
		if time.Now().After(end) {
			p.t.Fatalf("the terminal does not show %s but\n%s", pattern, text)
		}
	}
}

// sshPane runs OpenSSH's client in a terminal.
func (r *rig) sshPane(t *testing.T, width, height int, env []string, words ...string) *pane {
	t.Helper()
	debian.NeedFor(t, "ssh")
	args := append([]string{debian.Path("ssh")}, r.options("-t", "-o", "SendEnv=NO_COLOR", "admin@127.0.0.1")...)
	return tmux(t, width, height, env, append(args, words...)...)
}

// TestTerminalPrompt is a person at the prompt: greeting, completion, history,
// a question, Ctrl-C, a paste, Ctrl-D.
func TestTerminalPrompt(t *testing.T) {
	r := newRig(t)
	p := r.sshPane(t, 80, 50, nil)
	p.expect(`txlb 1\.2, generation 1, 1 service, 3 hosts, 0 sessions, up \d+s\nhelp lists[^\n]*\ntxlb> *\n`)
	p.press("hostAdminD", "Tab", "w", "Tab", "s", "Tab", "c", "Enter")
	p.expect(`\ntxlb> hostAdminDown web spare c\ngeneration 2: set host`)
	p.press("delHost web spare c", "Enter")
	p.expect(`\nDelete host c\? [^\n]*No session is open on it\.\ndelHost web spare c: continue\? \(y/N\) *\n`)
	p.press("n", "Enter")
	p.expect(`\(y/N\) n\nnothing was done\ntxlb>`)
	p.press("half a line", "C-c")
	p.expect(`\ntxlb> half a line\^C\ntxlb> *\n`)
	p.press("Up", "Enter")
	p.expect(`(?s)continue.*txlb> delHost web spare c\nDelete host c\?[^\n]*\ndelHost web spare c: continue`)
	p.press("yes", "Enter")
	p.expect(`\ngeneration 3: `)

	// tmux pastes with marks, as the prompt has asked for that.
	p.tmux("set-buffer", "addHost web spare x 127.0.0.1:2\naddHost web spare y 127.0.0.1:3\nshow hosts web spare\n")
	p.tmux("paste-buffer", "-p")
	text := p.expect(`\nweb      spare \(off\)  y +127`)
	if a, b := strings.Index(text, "generation 4: "), strings.Index(text, "generation 5: "); a < 0 || b < a {
		t.Errorf("the answers are not in order:\n%s", text)
	}
	p.press("C-d")
	p.expect(`ended 0, restored`)
}

// TestTerminalTop is the live view in a window that changes its size, on the
// way in and out of the prompt.
func TestTerminalTop(t *testing.T) {
	r := newRig(t)
	p := r.sshPane(t, 80, 24, nil)
	p.expect(`txlb>`)
	p.press("top", "Enter")
	p.expect(`(?s)^txlb \d\d:.*\nweb > main .*\n  main/b .*\n  spare/c .*q quit`)
	p.tmux("resize-window", "-x", "40", "-y", "8")
	text := p.expect(`(?s)^txlb [^\n]*…\nname +health +sess +new/s.*\nq quit`)
	for line := range strings.Lines(text) {
		if len([]rune(strings.TrimSpace(line))) > 40 {
			t.Errorf("a line is too wide: %q", line)
		}
	}
	p.press("/spare", "Enter")
	p.expect(`(?s)\[/spare\]\nname.*\nweb.*\n  spare/c`)
	p.tmux("resize-window", "-x", "120", "-y", "24")
	p.expect(`\nname .* state  +address`)
	p.press("s")
	p.expect(`sess↓`)
	p.press("q")
	p.expect(`Ctrl-D leaves\ntxlb> top\ntxlb> *\n`)
	p.press("top", "Enter")
	p.expect(`^txlb \d\d:`)
	p.press("C-c")
	p.expect(`(?s)\ntxlb> top\ntxlb> top\ntxlb> *\n`)
	p.press("quit", "Enter")
	p.expect(`ended 0, restored`)
}

func TestTerminalRunsOneLine(t *testing.T) {
	r := newRig(t)
	p := r.sshPane(t, 80, 24, nil, "top")
	p.expect(`^txlb \d\d:`)
	p.press("q")
	p.expect(`ended 0, restored`)

	p = r.sshPane(t, 80, 24, nil, "show hosts; nix")
	p.expect(`(?s)service +group.*error: unknown verb.*ended 2, restored`)
	if coloured := p.tmux("capture-pane", "-p", "-e"); !strings.Contains(coloured, "\x1b[32m") || !strings.Contains(coloured, "\x1b[31m") {
		t.Errorf("no colours: %q", coloured)
	}
	p = r.sshPane(t, 80, 24, []string{"NO_COLOR=1"}, "show hosts; nix")
	p.expect(`(?s)service +group.*error: unknown verb.*ended 2, restored`)
	if bare := p.tmux("capture-pane", "-p", "-e"); strings.Contains(bare, "\x1b[32m") || strings.Contains(bare, "\x1b[31m") {
		t.Errorf("colours in spite of NO_COLOR: %q", bare)
	}
}

// TestTerminalIsToldTheEnd ends the server under a client in its live view: the
// terminal is as it was, and shows why.
func TestTerminalIsToldTheEnd(t *testing.T) {
	r := newRig(t)
	p := r.sshPane(t, 80, 24, nil)
	p.expect(`txlb>`)
	p.press("top", "Enter")
	p.expect(`^txlb \d\d:`)
	r.stop()
	p.expect(`(?s)\ntxlb> top\n.*txlb is shutting down.*ended 1, restored`)
	r.ended()
}

// TestADyingClientLeavesNothing kills clients in every state: nothing of them is
// left in the server, as the end of the tests finds out for descriptors and
// goroutines.
func TestADyingClientLeavesNothing(t *testing.T) {
	debian.NeedFor(t, "ssh")
	r := newRig(t)
	for _, c := range []struct {
		opts  []string
		words string
		input string
		ready string
	}{
		{[]string{"-tt"}, "", "", "txlb> "},
		{[]string{"-tt"}, "", "top\r", "q quit"},
		{[]string{"-tt"}, "top", "", "q quit"},
		{[]string{"-T"}, "", "status\n", "generation"},
		{[]string{"-T"}, strings.Repeat("help;", 10_000), "", "status"},
	} {
		before := r.logouts()
		args := append(r.options(append([]string{"-o", "BatchMode=yes"}, c.opts...)...), "admin@127.0.0.1")
		if c.words != "" {
			args = append(args, c.words)
		}
		cmd := exec.Command(debian.Path("ssh"), args...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = in.Write([]byte(c.input))
		var seen []byte
		buf := make([]byte, 4096)
		for !bytes.Contains(seen, []byte(c.ready)) {
			n, err := out.Read(buf)
			if seen = append(seen, buf[:n]...); err != nil {
				t.Fatalf("%v: %v\n%s", c, err, seen)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		eventually(t, "the server notices", func() bool { return r.logouts() == before+1 })
	}
}

func TestHostKeyOfKeygen(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "ssh-keygen")
	dir := t.TempDir()
	path := filepath.Join(dir, "made")
	key, err := HostKey(path)
	if err != nil {
		t.Fatal(err)
	}
	// What is made here is what ssh-keygen reads.
	out, errs, status := run(t, "", "ssh-keygen", "-y", "-f", path)
	if status != 0 || !strings.HasPrefix(out, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))) {
		t.Errorf("ssh-keygen reads it as %q\n%s", out, errs)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"rsa":      {[]string{"-t", "rsa", "-b", "3072", "-N", ""}, ""},
		"old form": {[]string{"-t", "rsa", "-b", "3072", "-m", "PEM", "-N", ""}, ""},
		"ecdsa":    {[]string{"-t", "ecdsa", "-N", ""}, ""},
		"short":    {[]string{"-t", "rsa", "-b", "2048", "-N", ""}, "is an RSA key of 2048 bits; want at least 3072, or better Ed25519"},
		"locked":   {[]string{"-t", "ed25519", "-N", "secret"}, "is protected by a passphrase; want a key without one"},
	} {
		path := filepath.Join(dir, name)
		if _, errs, status := run(t, "", "ssh-keygen", append([]string{"-q", "-f", path}, c.args...)...); status != 0 {
			t.Fatal(errs)
		}
		switch _, err := HostKey(path); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v", name, err)
		}
	}
}
