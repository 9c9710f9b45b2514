//go:build unix

package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/words"
)

// is tells what the configuration says of a host.
func (r *rig) is(service, group, name string) string {
	r.t.Helper()
	h := r.host(service, group, name).Config
	return fmt.Sprintf("%s %d %s %v", h.Address, h.Weight, h.State, h.Backup)
}

func TestHAProxysCommandsAreVerbs(t *testing.T) {
	a, b := backendServer(t), backendServer(t)
	r := newRig(t, doc(a, b, nobody(t)))
	_, port, err := net.SplitHostPort(a)
	if err != nil {
		t.Fatal(err)
	}
	verbs := 0
	for _, c := range []struct{ line, says, is string }{
		{"set server web.main/a state drain", "", a + " 1 drain false"},
		{"set server web.main/a state maint", "", a + " 1 maint false"},
		{"set server web.main/a state ready", "", a + " 1 ready false"},
		{"disable server web.main/a", "", a + " 1 maint false"},
		{"enable server web.main/a", "", a + " 1 ready false"},
		{"set server web.main/a weight 200", "", a + " 200 ready false"},
		{"set weight web.main/a 65535", "", a + " 65535 ready false"},
		{"set weight web.main/a 300%", "", a + " 3 ready false"},
		{"set server web.main/a weight 0", "", a + " 0 ready false"},
		{"set server web.main/a weight 1%", "", a + " 1 ready false"},
		{"set server web.main/a weight 0%", "", a + " 0 ready false"},
		{"set server web.main/a weight 100%", "", a + " 1 ready false"},
		{"set server web.main/a addr 127.0.0.7", "IP changed from '127.0.0.1' to '127.0.0.7' by 'stats socket command'\n", "127.0.0.7:" + port + " 1 ready false"},
		{"set server web.main/a addr 127.0.0.7 port 99", "no need to change the addr, port changed from '" + port + "' to '99' by 'stats socket command'\n", "127.0.0.7:99 1 ready false"},
		{"set server web.main/a addr 127.0.0.8 port 99", "IP changed from '127.0.0.7' to '127.0.0.8', no need to change the port by 'stats socket command'\n", "127.0.0.8:99 1 ready false"},
		{"set server web.main/a addr ::1 port 80", "IP changed from '127.0.0.8' to '::1', port changed from '99' to '80' by 'stats socket command'\n", "[::1]:80 1 ready false"},
		{"set server web.main/a addr 127.0.0.1 port " + port, "IP changed from '::1' to '127.0.0.1', port changed from '80' to '" + port + "' by 'stats socket command'\n", a + " 1 ready false"},
	} {
		if got := r.ask(c.line); got != c.says {
			t.Errorf("%s: %q, want %q", c.line, got, c.says)
		}
		verbs++
		if got := r.is("web", "main", "a"); got != c.is {
			t.Errorf("%s: a is %s, want %s", c.line, got, c.is)
		}
	}
	// Each is a change as any other: an event, with who made it.
	if events := r.changes(); len(events) < verbs || events[0].By == "" || !strings.HasPrefix(events[0].From, "socket") || events[0].Verb != "setHost web main a state=drain" {
		t.Errorf("%d events of %d changes; the first: %+v", len(events), verbs, events[0])
	}
	if got := r.ask("set server web.main/a state ready"); got != "" {
		t.Errorf("nothing to change: %q", got)
	}

	c := nobody(t)
	for _, add := range []struct{ line, is string }{
		{"add server web.spare.one/n1 " + c, c + " 1 maint false"},
		{"add server web.spare.one/n2 " + c + " weight 7 backup enabled check", c + " 7 ready true"},
		{"add server web.main/n3 ipv4@" + c + " enabled disabled", c + " 1 maint false"},
	} {
		if got := r.ask(add.line); got != "New server registered.\n" {
			t.Errorf("%s: %q", add.line, got)
		}
		words := strings.Fields(add.line)
		group, name, _ := strings.Cut(strings.TrimPrefix(words[2], "web."), "/")
		if got := r.is("web", group, name); got != add.is {
			t.Errorf("%s: it is %s, want %s", add.line, got, add.is)
		}
	}
	if got := r.ask("add server web.main/n4 unix@/run/x.sock"); !strings.Contains(got, `<admin targets="tcp"> lets commands name only TCP addresses`) {
		t.Errorf("a UNIX socket: %q", got)
	}
	if got := r.ask("get weight web.spare.one/n2"); got != "7 (initial 7)\n" {
		t.Errorf("got %q", got)
	}
	if got := r.raw("set weight web.spare.one/n2 50%;get weight web.spare.one/n2;del server web.spare.one/n2;disable server web.spare.one/n2;del server web.spare.one/n2"); got !=
		"\n3 (initial 7)\n\nOnly servers in maintenance mode can be deleted.\n\n\nServer deleted.\n\n" {
		t.Errorf("got %q", got)
	}
	// The rules of the verbs hold.
	if got := r.raw("disable server mail.only/m; del server mail.only/m"); !strings.Contains(got, "is the last host of the active group") {
		t.Errorf("got %q", got)
	}

	one, two := r.visit(), r.visit()
	eventually(t, "both are there", func() bool { return strings.Count(r.ask("show sess"), "fe=web be=web.main srv=") == 2 })
	line := ""
	for l := range strings.Lines(r.ask("show sess")) {
		if strings.Contains(l, "src="+one.LocalAddr().String()+" ") {
			line = l
		}
	}
	id, rest, _ := strings.Cut(line, ":")
	if !strings.HasPrefix(rest, " proto=tcpv4 src=") {
		t.Fatalf("session: %q", line)
	}
	if got := r.ask("show sess " + id); !strings.Contains(got, "source="+one.LocalAddr().String()) || !strings.Contains(got, "backend=web.main") {
		t.Errorf("show sess %s: %q", id, got)
	}
	if got := r.ask("shutdown session " + id); got != "" {
		t.Errorf("shutdown session %s: %q", id, got)
	}
	gone(t, one)
	if got := r.ask("show sess " + id); got != "Session not found.\n" {
		t.Errorf("got %q", got)
	}
	if got := r.raw("shutdown sessions server web.main/a; shutdown sessions server web.main/b"); got != "\n\n" {
		t.Errorf("got %q", got)
	}
	gone(t, two)
}

// gone waits until a session has ended.
func gone(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the session goes on: %v", err)
	}
}

// What is wrong changes nothing, and is told as HAProxy tells it.
func TestHAProxysErrors(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	before := r.dir.State()
	for line, want := range map[string]string{
		"set server": "Require 'backend/server'.", "set server web.main": "Require 'backend/server'.",
		"set server /": "No such backend.", "set server web.main/": "No such server.", "set server x/": "No such backend.",
		"set server web.main/a":                           "usage: set server <backend>/<server> addr | state | weight",
		"set server web.main/a fqdn x":                    "usage: set server <backend>/<server> addr | state | weight",
		"set server web.main/a state":                     "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
		"set server web.main/a state up":                  "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
		"set server web.main/a state=up":                  "usage: set server <backend>/<server> addr | state | weight",
		"set server nob/a state maint":                    "No such backend.",
		"set server web.main/z state up":                  "No such server.",
		"set server web.spare.one/a":                      "No such server.",
		"set server WEB.main/a weight 1":                  "No such backend.",
		"set server web.main/a weight":                    "Require <weight> or <weight%>.",
		"set server web.main/a weight x":                  "'x' is not a weight: want a number, or one with % for a share of the initial weight",
		"set server web.main/a weight -1":                 "'-1' is not a weight: want a number, or one with % for a share of the initial weight",
		"set server web.main/a weight %":                  "'%' is not a weight: want a number, or one with % for a share of the initial weight",
		"set weight web.main/a 65536":                     "Absolute weight can only be between 0 and 65535 inclusive.",
		"set weight web.main/a 9999999%":                  "9999999% of the initial weight 1 is more than 65535",
		"set weight web.main/a 1 2":                       "'2' is one word too many",
		"set weight":                                      "Require 'backend/server'.",
		"get weight":                                      "Require 'backend/server'.",
		"get weight web.main/z":                           "No such server.",
		"get weight web.main/a b":                         "'b' is one word too many",
		"set server web.main/a addr":                      "set server <b>/<s> addr requires an address and optionally a port.",
		"set server web.main/a addr 1 2 3":                "set server <b>/<s> addr requires an address and optionally a port.",
		"set server web.main/a addr foo":                  "Invalid addr 'foo' by 'stats socket command'",
		"set server web.main/a addr 127.0.0.1 port 0":     "invalid port '0' by 'stats socket command'",
		"set server web.main/a addr 127.0.0.1 port 65536": "invalid port '65536' by 'stats socket command'",
		"enable server":                                   "Require 'backend/server'.", "disable server x": "Require 'backend/server'.",
		"enable server web.main/a,b": "No such server.", "disable server web.main/a now": "'now' is one word too many",
		"add server":                                     "Require 'backend/server'.",
		"add server web.main/n":                          "'server' expects <name> and <addr>[:<port>] as arguments.",
		"add server nob/n 127.0.0.1:1":                   "No such backend.",
		"add server web.main/a 127.0.0.1:1":              "Already exists a server with the same name in backend.",
		"add server web.main/n 127.0.0.1:1 weight":       "'weight' expects an argument",
		"add server web.main/n 127.0.0.1:1 weight 99999": "Absolute weight can only be between 0 and 65535 inclusive.",
		"add server web.main/n 127.0.0.1:1 maxconn 3":    "unknown keyword 'maxconn'; there are weight, backup, enabled, disabled, check",
		"add server web.main/n 127.0.0.1:1 check":        "the hosts of this backend have no <check>, which is said of all of them together; leave 'check' out",
		"del server":                          "Require 'backend/server'.",
		"del server web.main/a":               "Only servers in maintenance mode can be deleted.",
		"del server web.main/z":               "No such server.",
		"shutdown session":                    "Session pointer expected (use 'show sess').",
		"shutdown session x":                  "No such session (use 'show sess').",
		"shutdown session 0x55":               "No such session (use 'show sess').",
		"shutdown sessions server web.main/z": "No such server.",
		"show servers state nob":              "Can't find backend.",
		"show stat nob 1 1":                   "No such proxy.",
		"show stat x y z":                     "usage: show stat [<iid>|<proxy> <type> <sid>] [no-maint|up]",
		"show stat json":                      "show stat has no form 'json' here; there are CSV, no-maint and up, and for JSON show hosts --json and show services --json",
		"show info json":                      "show info has no form 'json' here; for JSON there is status --json",
	} {
		if got := r.ask(line); got != want+"\n" {
			t.Errorf("%s:\n got %q\nwant %q", line, got, want)
		}
	}
	for _, line := range []string{
		"shutdown sessions", "shutdown sessions web", "shutdown frontend web", "shutdown now", "enable", "enable frontend web", "disable foo",
		"add", "del", "set", "get", "set timeout", "set maxconn global 5", "add acl x y",
	} {
		if got := r.ask(line); !strings.HasPrefix(got, "Unknown command. What begins with "+strings.Fields(line)[0]+": ") {
			t.Errorf("%s: %q", line, got)
		}
	}
	for line, want := range map[string]string{
		"add server web.main/n 127.0.0.1":             "port",
		"add server web.main/n 127.0.0.1:1:2":         "write host:port",
		"add server web.main/ 127.0.0.1:1":            "empty",
		"set server \"web.main/\\\"\" addr 127.0.0.1": "No such server.",
	} {
		if got := r.ask(line); !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q", line, got)
		}
	}
	if now := r.dir.State(); now != before {
		t.Errorf("the state has changed: generation %d", now.Generation)
	}
}

// Names may have dots, slashes and blanks; where that makes a name that two
// have, neither is taken for the other.
func TestNamesAreFoundExactly(t *testing.T) {
	addr := backendServer(t)
	one := func(name string, groups ...string) string {
		s := fmt.Sprintf(`<service name="%s"><listen ip="127.0.0.1:0"/>`, name)
		for i, g := range groups {
			s += fmt.Sprintf(`<group name="%s" enable="%v"><host name="h" ip="%s"/><host name="x/y z,&quot;" ip="%s"/></group>`, g, i == 0, addr, addr)
		}
		return s + `</service>`
	}
	r := newRig(t, `<config>`+one("a", "b.c", "b", "d/e")+one("a.b", "c", "d")+`</config>`)
	for _, c := range []struct{ line, want string }{
		{"get weight a.b.c/h", "a.b.c is the name of two groups; use the verbs of txlb, which name service and group apart"},
		{"set server a.b.c/h weight 9", "a.b.c is the name of two groups; use the verbs of txlb, which name service and group apart"},
		{"get weight a.b/h", "1 (initial 1)"},
		{"get weight a.b.d/h", "1 (initial 1)"},
		{"get weight a.d/e/h", "1 (initial 1)"},
		{`get weight "a.d/e/x/y z,\""`, "1 (initial 1)"},
		{`set weight "a.b.d/x/y z,\"" 5`, ""},
		{`get weight "a.b.d/x/y z,\""`, "5 (initial 1)"},
		{"get weight a.d/h", "No such backend."},
		{"get weight .b/h", "No such backend."},
		{"show servers state a.b.d.nosuch", "Can't find backend."},
	} {
		if got := strings.TrimSuffix(r.ask(c.line), "\n"); got != c.want {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
	stat := r.ask("show stat")
	if !strings.Contains(stat, "\n"+`a.b.d,"x/y z,""",`) {
		t.Errorf("show stat: %s", stat)
	}
	for i, l := range strings.Split(strings.TrimSuffix(stat, "\n"), "\n") {
		if n := strings.Count(l, ",") - strings.Count(l, `z,"`); n != strings.Count(statHeader, ",") {
			t.Errorf("line %d has %d commas", i, n)
		}
	}
	for l := range strings.Lines(r.ask("show servers state")) {
		if n := len(strings.Fields(l)); n != 1 && n != 25 && n != 26 {
			t.Errorf("%d fields: %q", n, l)
		}
	}
}

// A caller who may only look is refused by whatever carries his command here.
func TestRolesHoldForHAProxysCommands(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	before := r.dir.State()
	session := r.visit()
	guest := users.Caller{Name: "guest", From: "here", Role: users.Readonly}
	idle := time.Minute
	for _, line := range []string{
		"set server web.main/a state maint", "set weight web.main/a 3", "enable server web.main/a", "disable server web.main/a",
		"set server web.main/a addr 127.0.0.9", "add server web.main/n 127.0.0.1:1", "shutdown sessions server web.main/a",
		"shutdown session 800000", "show pprof heap", "show runtime", "delHost web main a",
	} {
		commands, err := words.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		a := r.server.command(t.Context(), guest, commands[0], &idle)
		if !errors.Is(a.err, admin.ErrNotAllowed) || kindOf(a.err) != "forbidden" {
			t.Errorf("%s: %v", line, a.err)
		}
	}
	for _, line := range []string{"show stat", "show info", "show sess", "get weight web.main/a", "status"} {
		commands, _ := words.Parse(line)
		if a := r.server.command(t.Context(), guest, commands[0], &idle); a.err != nil {
			t.Errorf("%s: %v", line, a.err)
		}
	}
	if r.dir.State() != before {
		t.Error("the state has changed")
	}
	if _, err := session.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := session.Read(make([]byte, 1)); err != nil {
		t.Errorf("the session has ended: %v", err)
	}
}

// A change that depends on what runs is right although others change at the
// same time.
func TestChangesBesideOthers(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	ctx, cancel := context.WithCancel(t.Context())
	other := make(chan int)
	c := r.client()
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if a, err := c.Do(t.Context(), fmt.Sprintf("setHost mail only m weight=%d", n%9+1)); err != nil || !a.OK {
				t.Errorf("%+v, %v", a, err)
				break
			}
		}
		other <- n
	}()
	for i := range 30 {
		if got := r.ask(fmt.Sprintf("set server web.main/a addr 127.0.0.%d", i%200+2)); !strings.HasPrefix(got, "IP changed from ") {
			t.Errorf("got %q", got)
		}
		if got := r.raw("add server web.main/n 127.0.0.1:1; del server web.main/n"); got != "New server registered.\n\nServer deleted.\n\n" {
			t.Errorf("got %q", got)
		}
	}
	cancel()
	if n := <-other; n < 10 {
		t.Errorf("the other made %d changes", n)
	}
}

func TestDestructive(t *testing.T) {
	for line, want := range map[string]bool{
		"status": false, "delService web": true, "show hosts; DELHOST web main a": true, "delHost web main a --dry-run": false,
		"shutdown": true, "shutdown session 5": true, "shutdown sessions server a.b/c": true, "shutdown sessions": false,
		"set server a.b/c state maint": false, "del server a.b/c": true, "rollback": true, `del"`: false, "": false, "shutdownSessions web": true,
		"shutdown node=lb2": true, "shutdown wait=5s": true,
	} {
		if what, got := Destructive(line); got != want || got == (what == "") {
			t.Errorf("%q: %v, %q", line, got, what)
		}
	}
	// What a verb of the table says of itself is what counts.
	for _, v := range admin.Verbs() {
		if _, got := Destructive(v.Name); got != v.Destructive {
			t.Errorf("%s: %v", v.Name, got)
		}
	}
}

// No verb of the table is taken for a command of HAProxy, whatever its options.
func TestVerbsAreNotHAProxys(t *testing.T) {
	s := New(Options{})
	for _, v := range admin.Verbs() {
		lines := []string{v.Name}
		for _, p := range v.Params {
			if p.Option || p.Kind == admin.Flag {
				lines = append(lines, v.Name+" "+p.Name+"=x", v.Name+" --"+p.Name)
			}
		}
		for _, line := range lines {
			all, err := words.Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := s.native(all[0]); n != nil && !n.ours {
				t.Errorf("%s is taken for %s", line, n.name)
			} else if err := s.nearly(all[0]); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

func TestHelp(t *testing.T) {
	r := newRig(t, doc(backendServer(t), backendServer(t), nobody(t)))
	all := r.ask("help")
	for _, n := range slices.Concat(natives(), ofConnection()) {
		if !strings.Contains(all, "  "+n.usage()+" ") {
			t.Errorf("help does not have %s", n.usage())
		}
	}
	for _, v := range admin.Verbs() {
		if v.Part == "" && !strings.Contains("\n"+all, "\n"+v.Name) {
			t.Errorf("help does not have %s", v.Name)
		}
	}
	for line, want := range map[string]string{
		"help setHost": "setHost SERVICE GROUP NAME", "help set server": "  set server <bk>/<srv> addr", "help show": "  show stat [",
		"help show sessions": "show sessions [SERVICE]", "help frob": "error: help: unknown verb",
	} {
		if got := r.ask(line); !strings.HasPrefix(got, want) && !strings.Contains(got, "\n"+want) {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// No command of HAProxy's begins as a verb does, but for show and help, and no
// verb is hidden by one.
func TestNoCommandHidesAVerb(t *testing.T) {
	s := &Server{natives: natives()}
	for _, v := range admin.Verbs() {
		for _, name := range append([]string{v.Name}, v.Aliases...) {
			parts := strings.Fields(name)
			c := words.Command{Verb: parts[0]}
			for _, w := range parts[1:] {
				c.Words = append(c.Words, words.Word{Value: w})
			}
			if n, _ := s.native(c); n != nil && name != "help" {
				t.Errorf("the verb %s is taken for %s", name, n.name)
			}
			if err := s.nearly(c); err != nil {
				t.Errorf("the verb %s: %v", name, err)
			}
		}
	}
	if config.MaxWeight != 65535 {
		t.Error("the documentation says 65535")
	}
}

// What is served is documented.
func TestCommandsAreDocumented(t *testing.T) {
	for _, n := range slices.Concat(natives(), ofConnection()) {
		page := "docs/haproxy-commands.md"
		if n.ours {
			page = "docs/commands.md"
		}
		text, err := os.ReadFile("../../../" + page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "`"+n.name+"`") && !strings.Contains(string(text), "`"+n.name+" ") {
			t.Errorf("%s does not have %s", page, n.name)
		}
	}
}
