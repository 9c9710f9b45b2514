//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	bytewise "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/txlb/txlb/internal/admin/socket"
)

// TestB67BadLogs has the log go where nobody takes it. Clients are served, a
// change takes effect, a check takes a host down, a reload is done, and SIGTERM
// ends the program. What is not written is counted.
func TestB67BadLogs(t *testing.T) {
	for name, sink := range map[string]func(*testing.T) badSink{
		"FIFO that nobody reads": func(t *testing.T) badSink { return badSink{file: mkfifo(t)} },
		"FIFO whose reader stops": func(t *testing.T) badSink {
			path := mkfifo(t)
			cat := run(t, "cat", path)
			return badSink{file: path, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGSTOP) }}
		},
		"FIFO whose reader exits": func(t *testing.T) badSink {
			path := mkfifo(t)
			cat := run(t, "cat", path)
			return badSink{file: path, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGKILL); cat.wait() }}
		},
		"standard error whose reader stops": func(t *testing.T) badSink {
			cat, to := reader(t)
			return badSink{stderr: to, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGSTOP) }}
		},
		"standard error whose reader exits": func(t *testing.T) badSink {
			cat, to := reader(t)
			return badSink{stderr: to, breakIt: func() { cat.expect("msg=ready"); cat.signal(syscall.SIGKILL); cat.wait() }}
		},
		"full disk": func(*testing.T) badSink { return badSink{file: "/dev/full"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink(t).run(t)
		})
	}
}

// badSink is a log that goes bad.
type badSink struct {
	file    string
	stderr  *os.File
	breakIt func() // nil: it is bad from the start
}

func mkfifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// reader is a program that reads what is written to the pipe to.
func reader(t *testing.T) (cat *process, to *os.File) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	cmd := exec.Command("cat")
	cmd.Stdin = from
	cat = start(t, cmd)
	_ = from.Close()
	return cat, to
}

// naming is a backend that says its name.
type naming struct {
	ln net.Listener
}

func newNaming(t *testing.T, name string) *naming {
	t.Helper()
	ln := listenFree(t)
	b := &naming{ln: ln}
	t.Cleanup(b.stop)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_ = c.Close()
		}
	}()
	return b
}

func (b *naming) stop() { _ = b.ln.Close() }

func (s badSink) run(t *testing.T) {
	a, b := newNaming(t, "a"), newNaming(t, "b")
	admin := filepath.Join(socketFolder(t), "a.sock")
	doc := fmt.Sprintf(`<config><engine drain="1s"/>
		<service name="web"><listen ip="127.0.0.1:0"/>
			<group name="main" scheduler="roundr"><check type="tcp" interval="200ms" fall="1" rise="1"/>
				<host name="a" ip="%s"/><host name="b" ip="%s"/></group></service>
		<admin><socket path="%s"/></admin><logging file="%s" audit="%s"/></config>`, a.ln.Addr(), b.ln.Addr(), admin, s.file, mkfifo(t))
	path := write(t, doc)
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "run", "-c", path)
	if s.stderr != nil {
		cmd.Stderr = s.stderr
	}
	p := start(t, cmd)
	if s.stderr != nil {
		_ = s.stderr.Close()
	}
	var client *socket.Client
	eventually(t, "the socket", func() bool { client, err = socket.Dial(admin); return err == nil })
	defer func() { _ = client.Close() }()
	do := func(line string) socket.Answer {
		t.Helper()
		a, err := client.Do(t.Context(), line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return a
	}
	must := func(line string) string {
		t.Helper()
		a := do(line)
		if a.Err() != nil {
			t.Fatalf("%s: %v", line, a.Err())
		}
		return a.Text
	}
	front := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(must("show services web"))
	clients := func() string { // the hosts of four clients
		t.Helper()
		said := ""
		for range 4 {
			c, err := net.DialTimeout("tcp4", front, patience)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			text, err := io.ReadAll(c)
			_ = c.Close()
			if err != nil {
				t.Fatal(err)
			}
			said += string(text)
		}
		return said
	}
	if s.breakIt != nil {
		s.breakIt()
	}
	// More than fits into pipe and ring.
	long := "shutdownSession " + strings.Repeat("x", 7000)
	for range 200 {
		if a := do(long); a.Err() == nil {
			t.Fatal("a session with that name was closed")
		}
	}
	if got := clients(); strings.Count(got, "a") != 2 || strings.Count(got, "b") != 2 {
		t.Errorf("clients were served by %q", got)
	}
	must("setHost web main a state=drain")
	if got := clients(); got != "bbbb" {
		t.Errorf("after the change clients were served by %q", got)
	}
	b.stop()
	eventually(t, "host b is down", func() bool {
		return regexp.MustCompile(`(?m)^web +main +b .*\bdown: `).MatchString(must("show hosts web"))
	})
	if err := os.WriteFile(path, []byte(strings.Replace(doc, `<host name="a"`, `<host name="a" weight="7"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	eventually(t, "the reload", func() bool { return strings.Contains(must("show config"), `weight="7"`) })
	eventually(t, "the problem in status", func() bool {
		text := must("status")
		return regexp.MustCompile(`(?m)^The log has not been written for \S+: .*; \d+ lines were dropped`).MatchString(text) &&
			regexp.MustCompile(`(?m)^The audit file has not been written for \S+: nobody reads the FIFO; \d+ lines were dropped`).MatchString(text)
	})
	for _, log := range []string{"log", "audit"} {
		m := regexp.MustCompile(`(?m)^txlb_log_dropped_total\{log="` + log + `"\} (\d+)$`).FindStringSubmatch(must("show metrics"))
		if m == nil || m[1] == "0" {
			t.Errorf("the metric of dropped lines of %s: %q", log, m)
		}
	}
	p.signal(syscall.SIGUSR1)
	must("closeLog")
	if text := must("show log"); !strings.Contains(text, "msg=reloaded") || !strings.Contains(text, `msg="host down"`) {
		t.Error("the log in memory lacks what was not written")
	}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("the end took %v", took)
	}
}

// TestB67BadLogRecovers: a log that is read again goes on, says what is missing,
// and status has it.
func TestB67BadLogRecovers(t *testing.T) {
	path := mkfifo(t)
	admin := filepath.Join(socketFolder(t), "a.sock")
	doc := strings.Replace(socketDoc(admin, ""), "</config>", `<logging file="`+path+`" format="json" audit="`+path+`.audit"/></config>`, 1)
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, name, "run", "-c", write(t, doc))
	var client *socket.Client
	eventually(t, "the socket", func() bool { client, err = socket.Dial(admin); return err == nil })
	defer func() { _ = client.Close() }()
	for range 200 {
		if _, err := client.Do(t.Context(), "shutdownSession "+strings.Repeat("x", 7000)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	_ = f.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReader(f)
	dropped := 0
	for dropped == 0 {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var l struct {
			Msg   string
			Lines int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%.200q: %v", line, err)
		}
		dropped = l.Lines
	}
	eventually(t, "the gap in status", func() bool {
		a, err := client.Do(t.Context(), "status")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(a.Text, fmt.Sprintf("The log has gaps: %d lines were dropped, the last ", dropped))
	})
	go func() { _, _ = io.Copy(io.Discard, in) }()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// entry is a line of the audit file.
type entry struct {
	Time                                    time.Time
	Event, By, From, Via, Verb, Reason, Err string
	Method, Path, Role                      string
	Status, Generation                      int
}

// audited reads an audit file.
func audited(t *testing.T, path string) (list []entry) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Time.IsZero() || e.Event == "" {
			t.Errorf("%q: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}

// TestAudit has people log in, be refused, change and read, over each interface,
// and looks for all of it in the audit file.
func TestAudit(t *testing.T) {
	key, admin := sshUser(t)
	dir := t.TempDir()
	audit := filepath.Join(dir, "audit")
	page, shell := freePort(t), freePort(t)
	sock := filepath.Join(socketFolder(t), "a.sock")
	const password, secret = "Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
	doc := strings.Replace(socketDoc(sock, ""), `<user name="root" password="$6$salt$hash" access="full"/>`, fmt.Sprintf(`
		<user name="boss" password="%s" access="full"/><user name="guest" password="%s" access="readonly"/>%s
		<web listen="127.0.0.1:%d" secure="no"/><ssh listen="127.0.0.1:%d"/>`, secret, secret, admin, page, shell), 1)
	doc = strings.Replace(doc, "</config>", `<logging audit="`+audit+`"/></config>`, 1)
	p, path := txlbFile(t, doc)

	request := func(method, path, user, password string, change func(*http.Request)) int {
		t.Helper()
		r, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", page, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		if change != nil {
			change(r)
		}
		resp, err := (&http.Client{Timeout: patience}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	const drain = "/api/v1/setHost?service=web&group=main&name=a&state=drain"
	for _, try := range []struct {
		method, path, user, password string
		change                       func(*http.Request)
		status                       int
	}{
		{"GET", "/", "", "", nil, 401}, // what every browser asks first: not in the file
		{"GET", "/api/v1/status", "guest", password, nil, 200},
		{"GET", "/api/v1/status", "guest", password, nil, 200}, // the same login
		{"GET", "/api/v1/status", "guest", "wrong", nil, 401},
		{"POST", drain, "", "", nil, 401},
		{"POST", drain, "guest", password, nil, 403},
		{"POST", drain, "boss", password, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"POST", "/api/v1/nothing", "boss", password, nil, 404},
		{"POST", drain, "boss", password, nil, 200},
		{"POST", "/api/v1/addUser?name=new&hash=" + url.QueryEscape(secret) + "&access=full", "boss", password, nil, 200},
		{"POST", strings.Replace(drain, "name=a", "name=nobody", 1), "boss", password, nil, 404},
		{"GET", "/api/v1/config", "boss", password, nil, 200},
		{"GET", "/api/v1/config", "guest", password, nil, 200}, // without hashes
	} {
		if status := request(try.method, try.path, try.user, try.password, try.change); status != try.status {
			t.Errorf("%s %s by %q: status %d", try.method, try.path, try.user, status)
		}
	}
	if out, err := openssh(shell, key, filepath.Join(dir, "known"), "setHost web main b weight=3"); err != nil {
		t.Errorf("ssh: %v, %s", err, out)
	}
	ctlOf(t, "", "-s", sock, "show", "stored")
	ctlOf(t, "", "-s", sock, "show pprof heap")
	ctlOf(t, "", "-s", sock, "set weight web.main/b 2") // HAProxy's
	p.reload(path, strings.Replace(doc, `name="x"`, `name="y"`, 1))
	// logrotate
	if err := os.Rename(audit, audit+".1"); err != nil {
		t.Fatal(err)
	}
	if said := ctlOf(t, "", "-s", sock, "closeLog"); said.status != 0 {
		t.Fatal(said)
	}
	ctlOf(t, "", "-s", sock, "show", "config")
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}

	list := audited(t, audit+".1")
	var got []string
	for _, e := range list {
		got = append(got, strings.TrimSpace(fmt.Sprintln(e.Via, e.Event, e.By, e.Method, e.Verb, e.Status)))
	}
	user := list[len(list)-2].By // whoever runs the test
	want := []string{
		"web login guest   0",
		"web login failed guest   0",
		"web request refused unknown POST  401",
		"web request refused guest POST  403",
		"web request refused unknown POST  403",
		"web login boss   0",
		"web request refused boss POST  404",
		"web command boss  setHost web main a state=drain 0",
		"web command boss  addUser new *** full 0",
		"web command failed boss  setHost web main nobody state=drain 0",
		"web secrets read boss  show config 0",
		"ssh session opened admin   0",
		"ssh command admin  setHost web main b weight=3 0",
		"ssh session closed admin   0",
		"socket secrets read " + user + "  show stored 0",
		"socket secrets read " + user + "  show pprof heap 0",
		"socket command " + user + "  setHost web main b weight=2 0",
		"signal command SIGHUP  reload 0",
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("the audit file (-want +got):\n%s", diff)
	}
	if next := audited(t, audit); len(next) != 2 || next[0].Verb != "closeLog" || next[1].Verb != "show config" {
		t.Errorf("the next audit file has %+v", next)
	}
	for _, e := range list {
		if e.Via == "web" && !strings.HasPrefix(e.From, "127.0.0.1:") || e.Event == "command" && e.Generation == 0 {
			t.Errorf("%+v", e)
		}
	}
	for _, file := range []string{audit, audit + ".1"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		for _, no := range []string{"5B8vYYiY", "wrong\"", password} {
			if bytes.Contains(data, []byte(no)) {
				t.Errorf("%s has %s", file, no)
			}
		}
	}
	// A refused POST is in the log, too.
	if n := strings.Count(p.out.String(), `msg="request refused" method=POST path=/api/v1/setHost`); n != 3 {
		t.Errorf("the log has %d refused requests", n)
	}
}

// Under systemd standard error is a socket, which /dev/stderr does not open. Lines
// have priorities there, and no time of their own.
func TestLogToTheJournal(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer func() { _ = ours.Close() }()
	var is syscall.Stat_t
	if err := syscall.Fstat(pair[1], &is); err != nil {
		t.Fatal(err)
	}
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	doc := `<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main"/></service><logging file="/dev/stderr"/></config>`
	cmd := exec.Command(name, "run", "-c", write(t, doc))
	cmd.Stderr = theirs
	cmd.Env = append(os.Environ(), fmt.Sprintf("JOURNAL_STREAM=%d:%d", is.Dev, is.Ino))
	p := start(t, cmd)
	_ = theirs.Close()
	in := bufio.NewReader(ours)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "msg=ready") {
			if !strings.HasPrefix(line, "<6>level=INFO msg=ready ") {
				t.Errorf("the journal has %q", line)
			}
			break
		}
	}
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// A reload switches the audit file on, moves it, and switches it off; what cannot be
// opened leaves it where it is.
func TestAuditFollowsTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	sock := filepath.Join(socketFolder(t), "a.sock")
	doc := func(audit string) string {
		return strings.Replace(socketDoc(sock, ""), "</config>", `<logging audit="`+audit+`"/></config>`, 1)
	}
	p, path := txlbFile(t, doc(""))
	show := func() {
		t.Helper()
		if said := ctlOf(t, "", "-s", sock, "show", "config"); said.status != 0 {
			t.Fatal(said)
		}
	}
	entries := func(name string) int {
		data, _ := os.ReadFile(filepath.Join(dir, name)) // it may not be there yet
		return bytes.Count(data, []byte(`"secrets read"`))
	}
	show()
	for _, name := range []string{"one", "two"} {
		p.reload(path, doc(filepath.Join(dir, name)))
		eventually(t, "lines in the audit file "+name, func() bool { show(); return entries(name) > 0 })
	}
	p.reload(path, doc(filepath.Join(dir, "none", "three")))
	p.expect("msg=\"cannot reopen the log, writing to the old file\" err=\"open the audit: ")
	before := entries("two")
	eventually(t, "lines in the old audit file", func() bool { show(); return entries("two") > before })
	p.reload(path, doc(""))
	eventually(t, "no lines any more", func() bool {
		before := entries("two")
		show()
		if said := ctlOf(t, "", "-s", sock, "closeLog"); said.status != 0 {
			t.Fatal(said)
		}
		return entries("two") == before
	})
	p.signal(syscall.SIGTERM)
	p.wait()
}

// kexInit is a key exchange message of SSH whose first list of names is long.
func kexInit(names []byte) []byte {
	list := func(b []byte) []byte { return append(bytewise.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	payload := append([]byte{20}, make([]byte, 16)...)
	payload = append(payload, list(names)...)
	for range 9 {
		payload = append(payload, list([]byte("none"))...)
	}
	payload = append(payload, make([]byte, 5)...)
	padding := 8 - (5+len(payload))%8 + 8
	packet := bytewise.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	packet = append(append(packet, byte(padding)), payload...)
	return append([]byte("SSH-2.0-stranger\r\n"), append(packet, make([]byte, padding)...)...)
}

// TestStrangersCannotFloodTheLog sends what nobody has to log in for to each
// interface: long key exchange messages of control characters, requests that are
// refused, and rubbish. The log and the audit file grow by little, and say what they
// leave out.
func TestStrangersCannotFloodTheLog(t *testing.T) {
	dir := t.TempDir()
	page, shell, metrics := freePort(t), freePort(t), freePort(t)
	doc := fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main"/></service>
		<admin><web listen="127.0.0.1:%d"/><ssh listen="127.0.0.1:%d"/><metrics listen="127.0.0.1:%d"/>
		<user name="boss" password="$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5" access="full"/></admin>
		<logging level="debug" audit="%s/audit"/></config>`, page, shell, metrics, dir)
	p := txlb(t, doc)
	before, began := len(p.out.String()), time.Now()
	send := func(port int, what []byte, secure bool) {
		t.Helper()
		c, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), patience)
		if err != nil {
			return // refused, as connections come too fast
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		if secure {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		}
		_, _ = c.Write(what) // the other end may have had enough
		_, _ = io.Copy(io.Discard, c)
	}
	long := bytes.Repeat([]byte{1}, 20_000)
	post := []byte("POST /api/v1/setHost" + strings.Repeat("%01", 2000) + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	for range 60 {
		send(shell, kexInit(long), false)
		send(page, []byte("rubbish\x01\r\n\r\n"), false)
		send(page, post, true)
		send(metrics, []byte("rubbish\r\n\r\n"), false)
	}
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	text := p.out.String()[before:]
	if !strings.Contains(text, `msg="SSH login failed"`) || !strings.Contains(text, `msg="request refused"`) || !strings.Contains(text, `msg="TLS handshake failed"`) {
		t.Errorf("the log lacks one of them:\n%.5000s", text)
	}
	if !regexp.MustCompile(`msg="SSH login failed" .*no common algorithm.*…`).MatchString(text) {
		t.Errorf("no key exchange message was cut:\n%.3000s", text)
	}
	// Of each message there are 20 at once and one a second.
	seconds := int(time.Since(began) / time.Second)
	if len(text) > 60_000+2000*seconds {
		t.Errorf("the log has grown by %d bytes", len(text))
	}
	list := audited(t, filepath.Join(dir, "audit"))
	if info, err := os.Stat(filepath.Join(dir, "audit")); err != nil || info.Size() > int64(60_000+2000*seconds) || len(list) == 0 || len(list) > 60+seconds {
		t.Errorf("the audit file has %d bytes, %d lines, %v", info.Size(), len(list), err)
	}
	for message, most := range map[string]int{"SSH login failed": 40, "request refused": 40, "TLS handshake failed": 40} {
		if n := strings.Count(text, message); n > most+seconds {
			t.Errorf("%d lines of %q", n, message)
		}
	}
	for line := range strings.Lines(text) {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes: %.300s", len(line), line)
		}
	}
}
