//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// completed calls the hidden command in this process.
func completed(t *testing.T, words ...string) (mode string, values []string) {
	t.Helper()
	var out bytes.Buffer
	if status := completeCommand(t.Context(), console{&answers{to: &out}, &out}, words); status != exitOK {
		t.Fatalf("%q: status %d", words, status)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, l := range lines[1:] {
		value, _, _ := strings.Cut(l, "\t")
		values = append(values, value)
	}
	return lines[0], values
}

func TestCompleteCommandsAndFlags(t *testing.T) {
	nowhere := "-s=" + filepath.Join(t.TempDir(), "none")
	for _, test := range []struct {
		words  []string
		mode   string
		values string // joined by blanks
	}{
		{[]string{"ch"}, "words", "check"},
		{[]string{"che", "x"}, "words", ""},
		{[]string{"-"}, "words", "-c --help --version"},
		{[]string{"-c", ""}, "files", ""},
		{[]string{"run", ""}, "words", "-c"},
		{[]string{"run", "-"}, "words", "-c"},
		{[]string{"run", "-c", ""}, "files", ""},
		{[]string{"run", "--c", ""}, "files", ""},
		{[]string{"run", "-c", "x", ""}, "words", ""},
		{[]string{"diff", ""}, "files", ""},
		{[]string{"diff", "a", ""}, "files", ""},
		{[]string{"diff", "a", "b", ""}, "words", ""},
		{[]string{"completion", ""}, "words", "bash zsh fish"},
		{[]string{"completion", "z"}, "words", "zsh"},
		{[]string{"con"}, "words", "convert"},
		{[]string{"convert", ""}, "words", "haproxy nginx"},
		{[]string{"convert", "nginx", ""}, "files", ""},
		{[]string{"explain", ""}, "files", ""},
		{[]string{"ctl", "-"}, "words", "--json --yes -c -s"},
		{[]string{"ctl", "-s", ""}, "files", ""},
		{[]string{"ctl", "--json", "-y"}, "words", ""},
		{[]string{"ctl", "--json", "--y"}, "words", "--yes"},
		{[]string{"ctl", nowhere, "addh"}, "words", "addHost"},
		{[]string{"ctl", nowhere, "show", "s"}, "words", "services sessions stored"},
		{[]string{"ctl", nowhere, "setHost", "web", "main", "a", "state=d"}, "words", "state=drain"},
		{[]string{"ctl", nowhere, "setHost", "web", "main", "a", "we"}, "nospace", "weight="},
		{[]string{"ctl", nowhere, "setHost", "web", ""}, "words", "--dry-run backup= ca= confirm= drain= eject= generation= interface= ip= maxSessions= proxyProtocol= resolve= slowStart= sni= source= state= tls= weight= zone="},
	} {
		mode, values := completed(t, append([]string{"fish"}, test.words...)...)
		if got := strings.Join(values, " "); mode != test.mode || got != test.values {
			t.Errorf("%q: %s: %s\nwant %s: %s", test.words, mode, got, test.mode, test.values)
		}
	}
	_, all := completed(t, "zsh", "")
	for _, cmd := range commands() {
		if !slices.Contains(all, cmd.name) {
			t.Errorf("there is no %s among %q", cmd.name, all)
		}
	}
	if slices.Contains(all, completeWord) {
		t.Errorf("%s is shown", completeWord)
	}
}

// bash breaks words at = and :, and what it replaces is the last piece alone.
func TestCompleteForBash(t *testing.T) {
	nowhere := "-s " + filepath.Join(t.TempDir(), "none")
	for _, test := range []struct{ line, piece, want string }{
		{"txlb ch", "ch", "check"},
		{"cd /x; txlb ch", "ch", "check"},
		{"  txlb   'ch", "'ch", "check"},
		{"txlb ctl " + nowhere + " setHost web main a state=d", "d", "drain"},
		{"txlb ctl " + nowhere + " setHost web main a state=", "", "drain maint ready"},
		{"txlb ctl " + nowhere + ` setHost "web site" main a we`, "we", "weight="},
	} {
		if _, values := completed(t, "bash", "txlb", test.piece, test.line); strings.Join(values, " ") != test.want {
			t.Errorf("%s: %q, want %s", test.line, values, test.want)
		}
	}
}

// The shells themselves: what is typed with Tab in it becomes a command that a
// running txlb does.
func TestCompletionInTheShells(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	debian.NeedFor(t, "bash", "zsh", "fish")
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "txlb") // a path that fits into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	doc := fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="main">`+
		`<host name="a:1" ip="127.0.0.1:1"/><host name="two $words" ip="127.0.0.1:2"/></group></service><admin><socket path="%s/sock"/></admin></config>`, dir)
	if err := os.WriteFile(filepath.Join(dir, "my config.xml"), []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	hosts := func() string {
		_, out := call(t, "ctl", "-s", dir+"/sock", "show", "hosts")
		return out
	}
	for _, shell := range []struct {
		name, args, source, end string
	}{
		{"bash", "--norc --noprofile -i", "source <(txlb completion bash)", "echo fin''ished $?"},
		{"zsh", "-f -i", "autoload -U compinit; compinit -u -D; source <(txlb completion zsh)", "echo fin''ished $?"},
		{"fish", "--no-config -i", "txlb completion fish | source", "echo fin''ished $status"},
	} {
		t.Run(shell.name, func(t *testing.T) {
			txlb := run(t, name, "run", "-c", filepath.Join(dir, "my config.xml"))
			txlb.expect("msg=ready")
			x := newTerminal(t)
			cmd := exec.Command(shell.name, strings.Fields(shell.args)...)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + filepath.Dir(name) + ":/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "TERM=xterm", "LC_ALL=C.UTF-8"}
			cmd.Stdin = x.line
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			p := start(t, cmd)
			do := func(line string) string {
				t.Helper()
				x.types(t, line+"\n")
				before := strings.Count(p.out.String(), "finished")
				x.types(t, shell.end+"\n")
				status := p.expect(fmt.Sprintf(`(?s)(?:.*finished (\d)){%d}`, before+1))
				return status
			}
			do("")
			if status := do(shell.source); status != "0" {
				t.Fatalf("%s: status %s", shell.source, status)
			}
			for _, step := range []struct{ typed, then string }{
				{"txlb che\t-c my\t", ""},
				{"txlb ct\t-s so\thostAdminD\tw\tm\ttw\t", `two \$words +127\.0\.0\.1:2 +maint`},
				{"txlb ctl -s sock setH\tweb\tm\ta\tsta\tdr\t", `a:1 +127\.0\.0\.1:1 +drain`},
				{"txlb ctl -s sock setH\tweb\tm\t'two $w\t wei\t7", `two \$words +127\.0\.0\.1:2 +maint .*\b7\b`},
				{"txlb ctl -s sock show ser\t", ""},
			} {
				if status := do(step.typed); status != "0" {
					t.Errorf("%q: status %s", step.typed, status)
				}
				if step.then != "" && !regexp.MustCompile(step.then).MatchString(hosts()) {
					t.Errorf("%q has not done it:\n%s", step.typed, hosts())
				}
			}
			x.types(t, "exit\n")
			txlb.signal(syscall.SIGTERM)
			txlb.wait()
		})
	}
}
