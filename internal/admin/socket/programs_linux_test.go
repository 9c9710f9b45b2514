package socket

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
)

func TestSocat(t *testing.T) {
	debian.NeedFor(t, "socat")
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	run := func(in string) string {
		cmd := exec.Command(debian.Path("socat"), "-t", "20", "-", "UNIX-CONNECT:"+r.path)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v: %s", in, err, out)
		}
		return string(out)
	}
	for in, want := range map[string]string{
		"show version\n":                               "9.9\n\n",
		"get weight web.main/b;show backend\n":         "4 (initial 4)\n\n# name\nweb.main\nweb.spare.one\nmail.only\n\n",
		"prompt\nshow version\nquit\n":                 "\n> 9.9\n\n> ",
		"set server web.main/a state drain":            "error: the line is incomplete; nothing was done\n\n",
		"ctl\nget weight web.main/a\n":                 `{"ok":true,"text":"txlb 9.9"}` + "\n" + `{"ok":true,"text":"1 (initial 1)","generation":1}` + "\n",
		"get weight web.main/z\nget weight web.main/a": "No such server.\n\n",
	} {
		if got := run(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestPrometheusHAProxyExporter(t *testing.T) {
	debian.NeedFor(t, "prometheus-haproxy-exporter")
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	_ = r.visit()
	_ = r.visit()
	r.ask("set server mail.only/m state maint")
	addr := nobody(t)
	exporter, err := servers.New(t.TempDir(), "exporter", addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	exporter.Argv = []string{debian.Path("prometheus-haproxy-exporter"), "--haproxy.scrape-uri=unix:" + r.path, "--web.listen-address=" + addr}
	exporter.RunFor(t)
	scrape := func() string {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			return ""
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		return string(text)
	}
	defer http.DefaultClient.CloseIdleConnections()
	for _, want := range []string{
		`haproxy_up 1`,
		`haproxy_version_info\{release_date="[^"]+",version="9.9"\} 1`,
		`haproxy_frontend_current_sessions\{frontend="web"\} 2`,
		`haproxy_frontend_sessions_total\{frontend="web"\} 2`,
		`haproxy_frontend_bytes_in_total\{frontend="web"\} 10`,
		`haproxy_frontend_limit_sessions\{frontend="web"\} 1000`,
		`haproxy_backend_up\{backend="web.main"\} 1`,
		`haproxy_backend_current_sessions\{backend="web.main"\} 2`,
		`haproxy_backend_weight\{backend="web.main"\} 5`,
		`haproxy_server_sessions_total\{backend="web.main",server="a"\} 1`,
		`haproxy_server_weight\{backend="web.main",server="b"\} 4`,
		`haproxy_server_up\{backend="web.main",server="a"\} 1`,
		`haproxy_server_up\{backend="web.spare.one",server="c"\} 0`,
		`haproxy_server_up\{backend="mail.only",server="m"\} 0`,
		`haproxy_server_check_failures_total\{backend="web.spare.one",server="c"\} \d+`,
		`haproxy_exporter_csv_parse_failures_total 0`,
	} {
		re := regexp.MustCompile(`(?m)^` + want + `$`)
		eventually(t, want, func() bool { return re.MatchString(scrape()) })
	}
	if t.Failed() {
		t.Log(scrape())
	}
}

// screen keeps what a program writes on its terminal.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) fill(r io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		s.mu.Lock()
		s.text.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// shows returns all that was written, without what moves the cursor.
func (s *screen) shows() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return regexp.MustCompile(`\x1b(\[[0-9;?]*[a-zA-Z]|[()][A-Z0-9]|[=>78])`).ReplaceAllString(s.text.String(), " ")
}

// terminal opens a pseudoterminal of 40 lines.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if e := raw.Control(func(fd uintptr) {
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
			err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		}
		if err == nil {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120})
		}
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// hatop draws, takes servers out and in, and its shell gives commands.
func TestHatop(t *testing.T) {
	debian.NeedFor(t, "hatop")
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	_ = r.visit()
	master, slave := terminal(t)
	cmd := exec.Command(debian.Path("hatop"), "-s", r.path, "-i", "1")
	cmd.Env = append(os.Environ(), "TERM=xterm", "LINES=40", "COLUMNS=120")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	var s screen
	var drawing sync.WaitGroup
	drawing.Go(func() { s.fill(master) })
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = master.Close()
		drawing.Wait()
		if t.Failed() {
			t.Logf("hatop shows:\n%.6000s", s.shows())
		}
	})
	press := func(keys string) {
		t.Helper()
		if _, err := io.WriteString(master, keys); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(what string) {
		t.Helper()
		eventually(t, "hatop shows "+what, func() bool { return strings.Contains(s.shows(), what) })
	}
	for _, what := range []string{"web.main", "web.spare.one", "mail.only", "FRONTEND", "BACKEND"} {
		shows(what)
	}
	// The keys of an xterm.
	const down, f4, f7, f9, f10 = "\x1bOB", "\x1bOS", "\x1b[18~", "\x1b[20~", "\x1b[21~"
	is := func(name, want string) bool { return strings.HasSuffix(r.is("web", "main", name), want) }
	key := func(keys, want string) {
		t.Helper()
		press(keys)
		eventually(t, "a is "+want, func() bool { return is("a", want) })
	}
	// Above a are four lines: of the frontend, the name of the backend, and an empty one.
	key(strings.Repeat(down, 4)+f10, " maint false")
	key(f9, " 1 ready false")
	key(f7, " 2 ready false")
	key(f4, " 1 ready false")
	// Its shell.
	press("\x1b5")
	shows("Welcome on the embedded interactive HAProxy shell!")
	press("set weight web.main/b 9\r")
	eventually(t, "b has weight 9", func() bool { return is("b", " 9 ready false") })
	press("get weight web.main/b\r")
	shows("9 (initial 4)")
	press("\x1b1")
	press("q")
	if err := <-ended; err != nil {
		t.Errorf("hatop ended with %v", err)
	}
}

// The mode says who may come in, and the kernel says who has.
func TestWhoMayComeIn(t *testing.T) {
	debian.NeedFor(t, "socat")
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	if err := os.Chmod(filepath.Dir(r.path), 0o755); err != nil {
		t.Fatal(err)
	}
	const uid, gid = 65534, 65534 // nobody
	as := func(line string) (string, error) {
		cmd := exec.Command(debian.Path("socat"), "-t", "20", "-", "UNIX-CONNECT:"+r.path)
		cmd.Dir = "/"
		cmd.Stdin = strings.NewReader(line + "\n")
		cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := as("set server web.main/a state maint"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("mode 0600: %v, %q", err, out)
	}
	if got := r.is("web", "main", "a"); !strings.HasSuffix(got, "ready false") {
		t.Errorf("a is %s", got)
	}
	// What the group may, its members may.
	if err := os.Chown(r.path, -1, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.path, 0o660); err != nil {
		t.Fatal(err)
	}
	if out, err := as("set server web.main/a state maint"); err != nil || out != "\n" {
		t.Errorf("mode 0660: %v, %q", err, out)
	}
	events := r.changes()
	if len(events) == 0 || events[0].By != "nobody" || !regexp.MustCompile(`^socket pid \d+$`).MatchString(events[0].From) {
		t.Errorf("events: %+v", events)
	}
}
