package socket

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/words"
)

// native is a command that is not a verb: one of HAProxy's or, with ours, one that
// only the socket has.
type native struct {
	name        string // its first words
	args, help  string
	ours        bool
	destructive bool
	run         func(*request) answer
}

// natives returns the commands in the order in which help shows them.
func natives() []native {
	return []native{
		{name: "show pprof", args: "PROFILE [SECONDS|text]", help: "a profile of the Go runtime, for go tool pprof", ours: true, run: showPprof},
		{name: "show runtime", help: "memory and goroutines of the Go runtime", ours: true, run: showRuntime},

		{name: "add server", args: "<bk>/<srv> <addr> [weight <n>] [backup] [enabled]", help: "a new server, in maintenance unless enabled", run: addServer},
		{name: "del server", args: "<bk>/<srv>", help: "remove a server that is in maintenance", destructive: true, run: delServer},
		{name: "disable server", args: "<bk>/<srv>", help: "put a server into maintenance", run: stateTo("maint")},
		{name: "enable server", args: "<bk>/<srv>", help: "give a server new clients again", run: stateTo("ready")},
		{name: "get weight", args: "<bk>/<srv>", help: "a server's weight, and its initial weight", run: getWeight},
		{name: "set server", args: "<bk>/<srv> addr|state|weight …", help: "change a server's address, state or weight", run: setServer},
		{name: "set timeout cli", args: "<seconds>", help: "idle timeout of this connection", run: setTimeout},
		{name: "set weight", args: "<bk>/<srv> <n>|<n>%", help: "change a server's weight", run: setWeight},
		{name: "show backend", help: "the names of the backends", run: showBackend},
		{name: "show info", help: "facts and counters of the process", run: showInfo},
		{name: "show servers state", args: "[<backend>]", help: "the state of servers, in format version 1", run: showServersState},
		{name: "show sess", args: "[<id>]", help: "open sessions, or one of them", run: showSess},
		{name: "show stat", args: "[<iid>|<proxy> <type> <sid>] [no-maint|up]", help: "counters of frontends, backends and servers, as CSV", run: showStat},
		{name: "show version", help: "the version of txlb", run: showVersion},
		{name: "shutdown session", args: "<id>", help: "close a session", destructive: true, run: shutdownSession},
		{name: "shutdown sessions server", args: "<bk>/<srv>", help: "close the sessions of a server", destructive: true, run: shutdownServer},
	}
}

// ofConnection are HAProxy's commands that conn executes.
func ofConnection() []native {
	return []native{
		{name: "help", args: "[<command>]", help: "all commands, or those that begin so"},
		{name: "prompt", help: "keep the connection open, with the prompt \"> \"; again: turn that off"},
		{name: "quit", help: "close the connection"},
	}
}

// request is a command being executed.
type request struct {
	*Server
	ctx    context.Context
	caller users.Caller
	words  []string // behind its name
	idle   *time.Duration
}

// begins tells whether words begin with those of name.
func begins(words []string, name string) bool {
	first := strings.Fields(name)
	return len(words) >= len(first) && slices.Equal(words[:len(first)], first)
}

// native returns the native command that c is, and its further words; nil if it is
// not one.
func (s *Server) native(c words.Command) (*native, []string) {
	words := c.Texts()
	if words[0] == "help" {
		return &native{ours: true, run: s.help}, words[1:]
	}
	for i := range s.natives {
		if n := &s.natives[i]; begins(words, n.name) {
			return n, words[len(strings.Fields(n.name)):]
		}
	}
	return nil, nil
}

// nearly is the error of an unknown command that begins like one of HAProxy's; nil
// for others.
func (s *Server) nearly(c words.Command) error {
	switch c.Verb {
	case "add", "del", "disable", "enable", "get", "set":
	case "shutdown":
		if !ofSessions(c) {
			return nil
		}
	default:
		return nil
	}
	var known []string
	for _, n := range s.natives {
		if begins(strings.Fields(n.name), c.Verb) {
			known = append(known, n.usage())
		}
	}
	return sentencef("Unknown command. What begins with %s: %s", c.Verb, strings.Join(known, "; "))
}

// ofSessions tells whether a shutdown is one of HAProxy's, "shutdown session …" and
// "shutdown sessions …": the verb of txlb has options alone.
func ofSessions(c words.Command) bool {
	return slices.ContainsFunc(c.Words, func(w words.Word) bool { return w.Key == "" })
}

func (n *native) usage() string { return strings.TrimSpace(n.name + " " + n.args) }

// help shows the verbs, and HAProxy's commands below.
func (s *Server) help(r *request) answer {
	var lines []string
	prefix := strings.Join(r.words, " ")
	for _, n := range slices.Concat(s.natives, ofConnection()) {
		if strings.HasPrefix(n.name, prefix) {
			lines = append(lines, fmt.Sprintf("  %-60s : %s", n.usage(), n.help))
		}
	}
	text := strings.Join(lines, "\n")
	c := words.Command{Verb: "help"}
	for _, w := range r.words {
		c.Words = append(c.Words, words.Word{Value: w})
	}
	a, err := s.opt.Admin.Execute(r.ctx, r.caller, c)
	switch {
	case err != nil && text == "":
		return answer{err: err}
	case err != nil:
		return answer{text: text}
	case text == "":
		return answer{text: a.Text, data: a.Data}
	case len(r.words) > 0:
		return answer{text: a.Text + "\n" + text, data: a.Data}
	}
	return answer{text: a.Text + "\n\nof the socket, and of HAProxy (<bk> is SERVICE.GROUP):\n" + text, data: a.Data}
}

// Destructive returns the first command of a line that people should confirm.
func Destructive(line string) (command string, yes bool) {
	commands, err := words.Parse(line)
	if err != nil {
		return "", false
	}
	verbs, own := admin.Verbs(), natives()
	for _, c := range commands {
		if slices.ContainsFunc(c.Words, func(w words.Word) bool { return w.Key == "dry-run" && w.Value == "yes" }) {
			continue
		}
		is := func(name string) bool { return strings.EqualFold(name, c.Verb) }
		for _, v := range verbs {
			if v.Destructive && slices.ContainsFunc(append(v.Aliases, v.Name), is) && (v.Name != "shutdown" || !ofSessions(c)) {
				return c.String(), true
			}
		}
		for _, n := range own {
			if n.destructive && begins(c.Texts(), n.name) {
				return c.String(), true
			}
		}
	}
	return "", false
}

// sentence is an error in HAProxy's wording, which scripts look for.
type sentence string

func (s sentence) Error() string { return string(s) }

func sentencef(format string, args ...any) sentence { return sentence(fmt.Sprintf(format, args...)) }

const (
	errNoBackend = sentence("No such backend.")
	errNoServer  = sentence("No such server.")
	errNoName    = sentence("Require 'backend/server'.")
)

// maxIdle is the longest idle timeout that a client may set.
const maxIdle = time.Hour

func setTimeout(r *request) answer {
	if len(r.words) != 1 {
		return answer{err: sentence("Expects an integer value.")}
	}
	n, err := strconv.ParseUint(r.words[0], 10, 31)
	if err != nil || n == 0 || time.Duration(n)*time.Second > maxIdle {
		return answer{err: sentencef("Expects an integer value, of 1 to %d seconds.", int(maxIdle.Seconds()))}
	}
	*r.idle = time.Duration(n) * time.Second
	return answer{}
}

func showVersion(r *request) answer { return answer{text: r.opt.Status.Version} }

func showBackend(r *request) answer {
	var b strings.Builder
	b.WriteString("# name\n")
	for _, s := range r.opt.Director.State().Services {
		for _, g := range s.Groups {
			b.WriteString(csv(proxyName(s, g)) + "\n")
		}
	}
	return answer{text: b.String()}
}
