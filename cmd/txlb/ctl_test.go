//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/passwd"
	"github.com/txlb/txlb/internal/testkit"
)

// said is how a call of txlb ctl has ended.
type said struct {
	status   int
	out, err string
}

// ctlOf calls txlb ctl, with in as its standard input.
func ctlOf(t *testing.T, in string, args ...string) said {
	t.Helper()
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, append([]string{"ctl"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	cmd.WaitDelay = patience
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	} else if ok && !exit.Exited() {
		t.Fatalf("txlb ctl %v: %v", args, err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// socketDoc is a configuration with a socket, and a spare service that can go.
func socketDoc(path, more string) string {
	return fmt.Sprintf(`<config>
		<service name="web"><listen ip="127.0.0.1:0"/><group name="main"><host name="a" ip="127.0.0.1:1"/><host name="b" ip="127.0.0.1:2"/></group></service>
		<service name="spare"><listen ip="127.0.0.1:0"/><group name="main"><host name="x" ip="127.0.0.1:1"/></group></service>
		<admin><socket path="%s"%s/><user name="root" password="$6$salt$hash" access="full"/></admin>
	</config>`, path, more)
}

// socketFolder returns a folder whose path is short.
func socketFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestCtl(t *testing.T) {
	path := filepath.Join(socketFolder(t), "a.sock")
	p, file := txlbFile(t, socketDoc(path, ""))
	for _, c := range []struct {
		in       string
		args     []string
		status   int
		out, err string // that they have
	}{
		{"", []string{"-s", path, "status"}, 0, "generation 1, 2 services, 3 hosts", ""},
		{"", []string{"-c", file, "show", "hosts", "web"}, 0, "127.0.0.1:2", ""},
		{"", []string{"-s", path, "show hosts web; show services"}, 0, "scheduler", ""},
		{"", []string{"-s", path, "setHost", "web", "main", "a", "weight=3"}, 0, "generation 2: set host", ""},
		{"", []string{"-s", path, "setHost", "web", "main", "a", "--dry-run", "weight=4"}, 0, "would set host", ""},
		{"", []string{"-s", path, "addHost", "web", "main", "my host", "127.0.0.1:3"}, 0, `add host \"my host\"`, ""},
		{"", []string{"-s", path, "setHost", "web", "main", "name=my host", "state=drain"}, 0, "drain", ""},
		{"", []string{"-s", path, "set", "server", "web.main/a", "weight", "100%"}, 0, "", ""},
		{"", []string{"-s", path, "get", "weight", "web.main/a"}, 0, "1 (initial 1)", ""},
		{"", []string{"-s", path, "--json", "get", "weight", "web.main/a"}, 0, `{"ok":true,"text":"1 (initial 1)"`, ""},
		{"", []string{"-s", path, "show", "hosts", "web", "--json"}, 0, `"data":[{"service":"web"`, ""},
		{"", []string{"-s", path, "frobnicate"}, 1, "", "txlb ctl: unknown verb \"frobnicate\""},
		{"", []string{"-s", path, "set", "server", "web.main/z", "weight", "1"}, 1, "", "txlb ctl: No such server."},
		{"", []string{"-s", path, "--json", "delHost", "web", "main", "z"}, 1, `{"ok":false,"text":"","error":"delHost: unknown host`, "unknown host"},
		{"", []string{"-s", path, "status; frobnicate; status"}, 1, "generation", "unknown verb"},
		{"", []string{"-s", path, "delService", "nobody"}, 1, "", "unknown service"}, // without a question
		{"y\n", []string{"-s", path, "delService", "spare", "--yes"}, 0, "delete service", ""},
		{"show services\nget weight web.main/a\n", []string{"-s", path}, 0, "1 (initial 1)", ""},
		{"status\n\nfrobnicate\nsetHost web main a weight=9\n", []string{"-s", path}, 1, "generation", "unknown verb"},
		{"quit\nfrobnicate\n", []string{"-s", path}, 0, "", ""},
		{"get weight web.main/a", []string{"-s", path}, 0, "1 (initial 1)", ""},
		{"", []string{"-s", path}, 0, "", ""},
		{"", []string{"-s", path + "x", "status"}, 1, "", "is txlb running"},
		{"", []string{"-c", file + "x", "status"}, 2, "", "is not a valid configuration"},
		{"", []string{"-c", write(t, strings.ReplaceAll(socketDoc(path, ""), `<socket path="`+path+`"/>`, "")), "status"}, 2, "", "has no <socket>; add <socket path="},
		{"", []string{"--frob"}, 2, "", "For help: txlb ctl -h\ntxlb ctl: unknown flag -frob\n"},
		{"", []string{"-h"}, 0, "usage: txlb ctl [-c FILE] [--json] [-s SOCKET] [--yes] WORDS…", ""},
	} {
		got := ctlOf(t, c.in, c.args...)
		switch {
		case got.status != c.status || !strings.Contains(got.out, c.out) && !strings.Contains(got.out, strings.ReplaceAll(c.out, `\"`, `"`)) || !strings.Contains(got.err, c.err):
			t.Errorf("txlb ctl %q < %q: %+v", c.args, c.in, got)
		case c.err == "" && got.err != "":
			t.Errorf("txlb ctl %q: on standard error: %q", c.args, got.err)
		case c.status == 1 && strings.Count(got.err, "\n") != 1:
			t.Errorf("txlb ctl %q: the error is not one line: %q", c.args, got.err)
		}
	}
	if got := ctlOf(t, "", "-s", path, "get", "weight", "web.main/a"); got.out != "1 (initial 1)\n" {
		t.Errorf("behind an error a line was done: %+v", got)
	}
	var a struct {
		Data []struct{ Verb, By, From string }
	}
	if got := ctlOf(t, "", "-s", path, "--json", "show", "events"); json.Unmarshal([]byte(got.out), &a) != nil || !strings.Contains(got.out, "socket pid ") {
		t.Errorf("events: %+v", got)
	}
	if got := ctlOf(t, "", "-s", path, "show", "pprof", "heap"); !strings.HasPrefix(got.out, "\x1f\x8b") || got.status != 0 {
		t.Errorf("a profile: %d, %.20q, %q", got.status, got.out, got.err)
	}
	for in, args := range map[string][]string{"": {"shutdown"}, "status; shutdown": nil} {
		if got := ctlOf(t, in, append([]string{"-s", path}, args...)...); got.status != exitUsage || !strings.Contains(got.err, "add --yes") {
			t.Errorf("shutdown unasked: %+v", got)
		}
	}
	if got := ctlOf(t, "", "-s", path, "--yes", "shutdown"); got.status != 0 {
		t.Errorf("shutdown: %+v", got)
	}
	if status := p.wait(); status != exitOK {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket has outlived the program: %v", err)
	}
}

// A change that txlb ctl makes, and that nobody confirms, is undone when the program that made
// it has long ended. Until then it is in no file.
func TestB80UnconfirmedChangeOfCtl(t *testing.T) {
	path := filepath.Join(socketFolder(t), "a.sock")
	host := backend(t, echo)
	_, file := txlbFile(t, fmt.Sprintf(`<config>
<service name="web"><listen ip="127.0.0.1:0"/><group name="blue" enable="yes"><host name="a" ip="%s"/></group><group name="green"><host name="b" ip="%[1]s"/></group></service>
<admin><socket path="%s"/></admin></config>`, host, path))
	ctl := func(want string, words ...string) string {
		t.Helper()
		got := ctlOf(t, "", append([]string{"-s", path}, words...)...)
		if got.status != 0 || !strings.Contains(got.out, want) {
			t.Fatalf("txlb ctl %q: %+v; want %q", words, got, want)
		}
		return got.out
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const waits = "generation 2 (enableGroup web green) is undone at "
	if got := ctlOf(t, "", "-s", path, "confirm"); got.status != 1 || !strings.Contains(got.err, "confirm: no change waits to be confirmed") {
		t.Errorf("without a change: %+v", got)
	}
	if got := ctlOf(t, "", "-s", path, "enableGroup", "web", "green", "confirm=60"); got.status != 1 || !strings.Contains(got.err, "confirm: ") {
		t.Errorf("a time without a unit: %+v", got)
	}
	ctl("would undo it after 1h0m0s unless confirmed", "enableGroup", "web", "green", "confirm=1h", "--dry-run")
	ctl(waits, "enableGroup", "web", "green", "confirm=1h")
	ctl("Generation 2 (enableGroup web green) by ", "status")
	ctl(`"pending":[{"generation":2,`, "--json", "status")
	ctl("# "+waits, "show", "diff")
	ctl("warning: not saved: "+waits, "saveConfig")
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("%v: the file has\n%s", err, after)
	}
	ctl("generation 2 stays: enableGroup web green; saveConfig writes it to the file", "confirm", "2")
	ctl("written with 1 change", "saveConfig")

	ctl("is undone at ", "enableGroup", "web", "blue", "confirm=1s")
	eventually(t, "green is active again", func() bool {
		return regexp.MustCompile(`(?m)^web .* green `).MatchString(ctl("", "show", "services"))
	})
	ctl("undo 3: not confirmed within 1s: enableGroup web green", "show", "events")
	ctl("is the same as the running configuration", "show", "diff")
}

// On a terminal, and only there, what cannot be undone is asked about.
func TestCtlAsksOnATerminal(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	path := filepath.Join(socketFolder(t), "a.sock")
	txlbFile(t, socketDoc(path, ""))
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	onTerminal := func(in, words string) (string, error) {
		cmd := exec.Command("script", "-qec", name+" ctl -s "+path+" "+words, "/dev/null")
		cmd.Stdin = strings.NewReader(in)
		cmd.WaitDelay = patience
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := onTerminal("n\n", "delService spare"); err == nil || !strings.Contains(out, "delService spare: continue? [y/N]") || !strings.Contains(out, "nothing was done") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("n\n", "delService spare"); err == nil || !strings.Contains(out, "Delete service spare? Its listeners close and new clients are refused. No session is open") {
		t.Errorf("what would follow is not said: %v: %q", err, out)
	}
	if out, err := onTerminal("n\n", "'shutdown sessions server spare.main/x'"); err == nil || !strings.Contains(out, "shutdown sessions server spare.main/x: continue? [y/N]") || !strings.Contains(out, "nothing was done") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("n\n", "rollback"); err == nil || !strings.Contains(out, "Undo the last change?") || !strings.Contains(out, "rollback: continue? [y/N]") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("", "get weight spare.main/x"); err != nil || !strings.Contains(out, "1 (initial 1)") || strings.Contains(out, "continue?") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("", "show pprof heap"); err == nil || !strings.Contains(out, "binary file") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("y\n", "delService spare"); err != nil || !strings.Contains(out, "delete service") {
		t.Errorf("%v: %q", err, out)
	}
	// So is what leaves a service without a usable host, also in HAProxy's words;
	// with --yes, --force or without a terminal it is done and said.
	for _, words := range []string{"setHost web main b state=drain", "set server web.main/b state maint", "hostAdminDown web main b"} {
		if out, err := onTerminal("", "'"+words+"'"); err != nil || strings.Contains(out, "continue?") {
			t.Errorf("%s: %v: %q", words, err, out)
		}
	}
	last := `no host of group "main" takes clients: those of service "web" will be rejected`
	for _, words := range []string{"setHost web main a state=drain", "setHost web main a weight=0", "hostAdminDown web main a"} {
		if out, err := onTerminal("n\n", "'"+words+"'"); err == nil || !strings.Contains(out, last+": continue? [y/N]") || !strings.Contains(out, "nothing was done") {
			t.Errorf("%s: %v: %q", words, err, out)
		}
	}
	if out, err := onTerminal("n\n", "'disable server web.main/a'"); err == nil || !strings.Contains(out, last+": continue? [y/N]") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("", "'setHost web main a state=drain --dry-run; get weight web.main/a'"); err != nil || !strings.Contains(out, "warning: "+last) || !strings.Contains(out, "1 (initial 1)") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("y\n", "'setHost web main a backup=yes; setHost web main a state=drain'"); err != nil || !strings.Contains(out, "generation 6: set host") || !strings.Contains(out, "warning: "+last) {
		t.Errorf("%v: %q", err, out)
	}
	if got := ctlOf(t, "", "-s", path, "hostAdminUp web main a; setHost web main a weight=0"); got.status != 0 || !strings.Contains(got.out, "warning: "+last) {
		t.Errorf("without a terminal: %+v", got)
	}
	if out, err := onTerminal("", "--yes 'setHost web main a weight=1; setHost web main a weight=0'"); err != nil || strings.Contains(out, "continue?") {
		t.Errorf("%v: %q", err, out)
	}
	// A password is asked for, twice, where a command lacks one.
	if out, err := onTerminal("secret word\nsecret word\n", "addUser ann readonly"); err != nil || !strings.Contains(out, "Again: ") || !strings.Contains(out, `add user "ann"`) {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("one\ntwo\n", "setUser ann"); err == nil || !strings.Contains(out, "the passwords do not match") {
		t.Errorf("%v: %q", err, out)
	}
	if got := ctlOf(t, "", "-s", path, "setUser ann"); got.status == 0 || !strings.Contains(got.err, "give at least one of: hash=HASH") {
		t.Errorf("without a terminal: %+v", got)
	}
	hash := regexp.MustCompile(`name="ann" password="([^"]+)"`).FindStringSubmatch(ctlOf(t, "", "-s", path, "show config").out)
	if ok, err := passwd.Verify(append(hash, "", "")[1], "secret word"); !ok || err != nil {
		t.Errorf("the hash %q: %v, %v", hash, ok, err)
	}
	// What would turn text around is not shown.
	if out, err := onTerminal("", "'addUser \"x\u202ey\" $6$salt$hash readonly'"); err != nil || strings.Contains(out, "\u202e") {
		t.Errorf("%v: %q", err, out)
	}
	if out, err := onTerminal("frobnicate\nget weight web.main/b\nquit\n", ""); err != nil || !strings.Contains(out, "unknown verb") || !strings.Contains(out, "1 (initial 1)") {
		t.Errorf("%v: %q", err, out)
	}
}

// A reload moves the socket, and who asked for it by the socket hears of it.
func TestSocketFollowsReload(t *testing.T) {
	dir := socketFolder(t)
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	p, file := txlbFile(t, socketDoc(one, ""))
	mode := func(path string) os.FileMode {
		info, err := os.Lstat(path)
		if err != nil {
			return 0
		}
		return info.Mode().Perm()
	}
	if got := mode(one); got != 0o600 {
		t.Errorf("the mode is %o", got)
	}
	replace(t, file, socketDoc(two, ` mode="0660"`))
	if got := ctlOf(t, "", "-s", one, "reload"); got.status != 0 || !strings.Contains(got.out, "changed: # <admin><socket>") {
		t.Errorf("reload: %+v", got)
	}
	eventually(t, "the new socket is there, and the old one is not", func() bool { return mode(two) == 0o660 && mode(one) == 0 })
	if got := ctlOf(t, "", "-s", two, "show", "stat"); got.status != 0 || !strings.Contains(got.out, "web.main,a,") {
		t.Errorf("%+v", got)
	}
	// Where it cannot be, the reload is refused with the reason, and it stays.
	for _, bad := range []string{
		socketDoc(filepath.Join(dir, "no", "such", "folder"), ""), socketDoc(file, ""), socketDoc(two, ` group="no-such-group"`),
	} {
		p.reloads(file, bad, "reload failed, keeping the current configuration")
		if got := ctlOf(t, "", "-s", two, "status"); got.status != 0 {
			t.Errorf("after a reload that was refused: %+v", got)
		}
	}
	p.reload(file, socketDoc(two, ""))
	eventually(t, "it has the other mode", func() bool { return mode(two) == 0o600 })
	p.reload(file, strings.ReplaceAll(socketDoc(two, ""), `<socket path="`+two+`"/>`, ""))
	eventually(t, "it is gone", func() bool { return mode(two) == 0 })
}

// A second txlb takes no socket from the first: it runs without one.
func TestSocketIsNotTaken(t *testing.T) {
	path := filepath.Join(socketFolder(t), "a.sock")
	p, _ := txlbFile(t, socketDoc(path, ""))
	second, _ := txlbFile(t, socketDoc(path, ""))
	second.expect(`admin interface did not start" part=socket err=.*in use by another process`)
	second.kill()
	if got := ctlOf(t, "", "-s", path, "status"); got.status != 0 {
		t.Errorf("the first: %+v", got)
	}
	// One that was killed has left its socket behind.
	p.kill()
	_, _ = txlbFile(t, socketDoc(path, ""))
	begun := time.Now()
	if got := ctlOf(t, "", "-s", path, "status"); got.status != 0 || time.Since(begun) > patience {
		t.Errorf("the next: %+v", got)
	}
}
