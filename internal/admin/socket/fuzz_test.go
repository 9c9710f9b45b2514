//go:build unix

package socket

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/words"
)

// FuzzLine gives lines to a server. None may make it fail or leave an answer
// out, and nothing may change what runs but a command that can.
func FuzzLine(f *testing.F) {
	for _, seed := range []string{
		"status", "show stat -1 4 -1", "show stat web.main 1 x up", "set server web.main/a weight 50%", "set server web.main/a addr ::1 port 80",
		"add server web.main/n 127.0.0.1:1 weight 3 backup enabled", "shutdown session 0x55", "prompt;quit;ctl", `help "set server"`,
		"show servers state web.main; show info; show sess 1", "set timeout cli 5", "setHost web main a weight=3 --json", "get weight a/b/c/\"d",
		"enable server web.main/a --dry-run", "\x00\xff;", "show hosts #", "--json", "show pprof heap text",
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	r := newRig(f, doc("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))
	f.Fuzz(func(t *testing.T, text string, frames bool) {
		if strings.Contains(strings.ToLower(text), "profile") || len(text) > 4<<10 {
			t.Skip("takes its time")
		}
		before := r.dir.State().Generation
		here, there := net.Pipe()
		c := &conn{Server: r.server, Conn: here, caller: users.Caller{Name: "fuzz", From: "here", Role: users.Full}, ctx: t.Context(), frames: frames, idle: time.Minute}
		said := make(chan string, 1)
		go func() {
			var all strings.Builder
			buf := make([]byte, 4096)
			for {
				n, err := there.Read(buf)
				all.Write(buf[:n])
				if err != nil {
					said <- all.String()
					return
				}
			}
		}()
		line := strings.ReplaceAll(text, "\n", " ")
		if err := c.line(t.Context(), line); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		_ = here.Close()
		answer := <-said
		_ = there.Close()
		commands, err := words.Parse(line)
		switch {
		case frames || strings.TrimSpace(line) == "ctl":
			var a Answer
			if json.Unmarshal([]byte(answer), &a) != nil || !strings.HasSuffix(answer, "\n") || strings.Count(answer, "\n") != 1 || a.OK == (a.Error != "") {
				t.Errorf("%q: %.500q is no answer", line, answer)
			}
		case len(commands) > 0 && commands[0].Verb == "quit" && len(commands[0].Words) == 0:
		case strings.Contains(line, "pprof"): // a file
		case !strings.HasSuffix(strings.TrimSuffix(answer, "> "), "\n"):
			t.Errorf("%q: %.500q has no end", line, answer)
		case strings.Contains("\n"+strings.TrimRight(answer, "\n> "), "\n\n") && len(commands) < 2:
			t.Errorf("%q: there is an empty line in %.500q", line, answer)
		}
		if now := r.dir.State().Generation; now != before && (err != nil || !mayChange(commands)) {
			t.Errorf("%q has changed what runs: generation %d, was %d", line, now, before)
		}
	})
}

// mayChange tells whether a command is among them that can change what runs.
func mayChange(commands []words.Command) bool {
	for _, c := range commands {
		switch words := c.Texts(); words[0] {
		case "set", "add", "del", "enable", "disable":
			if len(words) > 2 && (words[1] == "server" || words[1] == "weight") && strings.Contains(words[2], ".") {
				return true
			}
		}
		for _, v := range admin.Verbs() {
			for _, name := range append([]string{v.Name}, v.Aliases...) {
				if v.Changes && strings.EqualFold(name, c.Verb) {
					return true
				}
			}
		}
	}
	return false
}
