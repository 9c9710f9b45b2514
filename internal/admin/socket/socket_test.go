//go:build unix

package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func TestOneLineAndTheConnectionCloses(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	if got := r.raw("show version\nshow version"); got != "9.9\n\n" {
		t.Errorf("got %q", got)
	}
	if got := r.raw("show version; set weight web.main/a 1 ;show version # not this: ; show version\r"); got != "9.9\n\n\n9.9\n\n" {
		t.Errorf("got %q", got)
	}
	for _, nothing := range []string{"", "   ", "# nothing", ";;"} {
		if got := r.raw(nothing); got != "\n" {
			t.Errorf("%q: got %q", nothing, got)
		}
	}
	if got := r.raw("quit; show version"); got != "" {
		t.Errorf("after quit: %q", got)
	}
	// What a client sends before it closes its side is answered.
	p := r.dial()
	p.say("show version\n")
	if err := p.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := p.rest(); got != "9.9\n\n" {
		t.Errorf("got %q", got)
	}
}

func TestPromptKeepsTheConnection(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	p := r.dial()
	steps := []struct{ say, want string }{
		{"prompt\n", "\n> "},
		{"show version\n", "9.9\n\n> "},
		{"show version; show version\n", "9.9\n\n> 9.9\n\n> "},
		{"\n", "\n> "},
		{"frobnicate\n", "error: unknown verb \"frobnicate\"; N exist, such as status, show, help\n\n> "},
		{"show backend\n", "# name\nweb.main\nweb.spare.one\nmail.only\n\n> "},
		{"set timeout cli 60\n", "\n> "},
		{"set timeout cli never\n", "Expects an integer value, of 1 to 3600 seconds.\n\n> "},
		{"show pprof heap\n", "error: this answer is binary: ask without prompt, or with txlb ctl, and write it to a file\n\n> "},
	}
	number := regexp.MustCompile(`\d+ exist`) // of verbs
	for _, s := range steps {
		p.say(s.say)
		got := p.until("> ")
		for range strings.Count(s.want, "> ") - 1 {
			got += p.until("> ")
		}
		if got = number.ReplaceAllString(got, "N exist"); got != s.want {
			t.Errorf("%q: got %q, want %q", s.say, got, s.want)
		}
	}
	// Once more, and the next line is the last.
	p.say("prompt; show version\nshow version\n")
	if got := p.rest(); got != "\n9.9\n\n" {
		t.Errorf("got %q", got)
	}
	p = r.dial()
	p.say("prompt;show version\nshow version;quit;show version\nshow version\n")
	if got := p.rest(); got != "\n> 9.9\n\n> 9.9\n\n> " {
		t.Errorf("got %q", got)
	}
}

func TestErrorsOfVerbsEndTheLineAndHAProxysDoNot(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	got := r.raw("delHost web main zz; setHost web main a weight=7; show version")
	if want := "error: delHost: unknown host \"zz\" in group \"main\"; possible: a, b; the rest of the line was not run\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := r.raw("set server web.main/zz state maint; set server web.main/a weight 7"), "No such server.\n\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if w := r.host("web", "main", "a").Config.Weight; w != 7 {
		t.Errorf("weight %d: the rest of the line was not done", w)
	}
	// A line that cannot be read is not done in part.
	if got := r.ask(`setHost web main a weight=9; show "hosts`); !strings.HasPrefix(got, "error: column 35") || r.host("web", "main", "a").Config.Weight != 7 {
		t.Errorf("got %q, weight %d", got, r.host("web", "main", "a").Config.Weight)
	}
}

// An empty line ends an answer, and is not within one.
func TestAnswersHaveNoEmptyLines(t *testing.T) {
	document := strings.Replace(doc(backendServer(t), backendServer(t), nobody(t)), "<admin>", "\n\r\n\n<admin>", 1)
	r := newRig(t, document)
	for _, line := range []string{"show stored", "help", "show config", "show pprof goroutine text", "status"} {
		if body := r.ask(line); strings.Contains(body, "\n\n") || len(body) < 10 {
			t.Errorf("%s: %q", line, body)
		}
	}
}

func TestHalfLinesAndRubbish(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	before := r.dir.State().Generation
	half := func(text string) string {
		p := r.dial()
		p.say(text)
		if err := p.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		return p.rest()
	}
	if got := half("setHost web main a weight=9"); got != "error: the line is incomplete; nothing was done\n\n" {
		t.Errorf("half a line: %q", got)
	}
	if got := half(""); got != "" {
		t.Errorf("no line: %q", got)
	}
	for name, line := range map[string]string{
		"binary":       "\x00\x01\xff\xfe\x80setHost web main a weight=9",
		"a TLS client": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"too long":     "setHost web main a weight=9" + strings.Repeat(" ", maxLine),
		"a megabyte":   strings.Repeat("setHost web main a weight=9;", 1<<20/28),
		"a word":       strings.Repeat("x", maxLine-1),
		"HTTP":         "GET /?a=b HTTP/1.1",
		"a NUL":        "setHost web main a weight=9\x00",
	} {
		if got := r.ask(line); !strings.HasPrefix(got, "error: ") || strings.Count(got, "\n") != 1 || len(got) > 1000 {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	// Behind a line that is too long the connection is as it was.
	p := r.dial()
	p.say("prompt\n")
	p.until("> ")
	p.say(strings.Repeat("y", 3*maxLine) + "\nshow version\n")
	if got := p.until("> ") + p.until("> "); got != fmt.Sprintf("error: the line has more than %d bytes\n\n> 9.9\n\n> ", maxLine) {
		t.Errorf("got %q", got)
	}
	if now := r.dir.State().Generation; now != before {
		t.Errorf("rubbish has changed the configuration: generation %d, was %d", now, before)
	}
}

func TestHundredConnectionsAtOnce(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	var peers []*peer
	for range 100 {
		p := r.dial()
		p.say("prompt\n")
		peers = append(peers, p)
	}
	for _, p := range peers {
		p.until("> ")
	}
	var asking sync.WaitGroup
	for i, p := range peers {
		asking.Go(func() {
			p.say(fmt.Sprintf("set weight web.main/a %d\nshow hosts\nget weight web.main/a\n", i+1))
			if got := p.until("> "); got != "\n> " {
				t.Errorf("set weight: %q", got)
			}
			if got := p.until("> "); !strings.Contains(got, "spare.one (off)") {
				t.Errorf("show hosts: %q", got)
			}
			if got := p.until("> "); !strings.HasSuffix(got, " (initial 1)\n\n> ") {
				t.Errorf("get weight: %q", got)
			}
		})
	}
	asking.Wait()
	if g := r.dir.State().Generation; g < 100 {
		t.Errorf("generation %d after 100 changes", g)
	}
}

// One connection too many takes the place of the one idle longest. One that is
// at work keeps its place.
func TestConnectionsAreBounded(t *testing.T) {
	r := newBoundedRig(t, 3, doc(backendServer(t), backendServer(t), nobody(t)))
	prompt := func() *peer {
		p := r.dial()
		p.say("prompt\n")
		p.until("> ")
		return p
	}
	first, second, third := prompt(), prompt(), prompt()
	for range 20 { // whoever has just had an answer is still at work for a moment
		for _, p := range []*peer{third, first} {
			p.say("help\n")
			p.until("> ")
		}
	}
	fourth := prompt()
	if rest := second.rest(); rest != "" {
		t.Errorf("the one idle longest is told %q", rest)
	}
	for name, p := range map[string]*peer{"one that asked": first, "the third": third, "the fourth": fourth} {
		p.say("help\n")
		if got := p.until("> "); got == "" {
			t.Errorf("%s has no answer", name)
		}
	}
	one := newBoundedRig(t, 1, doc(backendServer(t), backendServer(t), nobody(t)))
	eventually(t, "the only connection is at work", func() bool {
		one.dial().say("show pprof profile 1\n")
		c, err := Dial(one.path)
		if err == nil {
			_ = c.Close()
		}
		return err != nil && strings.Contains(err.Error(), "all connections are at work")
	})
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)), func(o *Options) { o.Idle = 500 * time.Millisecond })
	p := r.dial()
	if got := p.rest(); got != "" {
		t.Errorf("got %q", got)
	}
	// Half a line does not keep one open either.
	p = r.dial()
	_, _ = io.WriteString(p, "show ver") // on a slow machine it is closed already
	if got := p.rest(); got != "" {
		t.Errorf("got %q", got)
	}
}

// Whoever asks for patience has it.
func TestPatienceThatIsAskedFor(t *testing.T) {
	testkit.Long(t)
	const idle = 5 * time.Second // enough to ask on a busy machine
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)), func(o *Options) { o.Idle = idle })
	p := r.dial()
	p.say("prompt;set timeout cli 20\n")
	p.until("> ")
	p.until("> ")
	time.Sleep(idle + time.Second) // longer than the patience that it would have had
	p.say("show version\n")
	if got := p.until("> "); got != "9.9\n\n> " {
		t.Errorf("got %q", got)
	}
}

// Whoever asks much and reads nothing holds nobody up: neither changes, nor
// other admins, nor the end.
func TestAnAdminThatNeverReads(t *testing.T) {
	testkit.Long(t)
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	var deaf []*peer
	for range 8 {
		p := r.dial()
		p.say("prompt\n")
		_ = p.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		for { // until it is full in both directions
			if _, err := io.WriteString(p, strings.Repeat("show stat; show config; set weight web.main/b 3; set weight web.main/b 4\n", 20)); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				break
			}
		}
		deaf = append(deaf, p)
	}
	c := r.client()
	begun := time.Now()
	for i := range 20 {
		r.do(c, fmt.Sprintf("setHost web main a weight=%d", i+1))
	}
	session := r.visit()
	_ = session.Close()
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("20 changes took %v", took)
	}
	begun = time.Now()
	r.stop()
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("the end took %v", took)
	}
	for _, p := range deaf {
		_ = p.Close()
	}
}

func TestTheEndOfServe(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	p := r.dial()
	p.say("prompt\n")
	p.until("> ")
	r.stop()
	if _, err := p.in.ReadByte(); err != io.EOF {
		t.Errorf("the connection has not ended cleanly: %v", err)
	}
	if _, err := os.Lstat(r.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A Server goes from one socket to another, and what it has seen stays.
func TestServeOnAnotherSocket(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	ln, err := Listen(filepath.Join(folder(t), "other"), 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(ctx, ln) }()
	c, err := Dial(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := r.ask("show version"); got != "9.9\n" {
		t.Errorf("the first socket says %q", got)
	}
	// A listener that somebody else closes is an error.
	ln, err = Listen(filepath.Join(folder(t), "third"), 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if err := r.server.Serve(t.Context(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
