package admin

import (
	"context"
	"errors"
	"flag"
	"reflect"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/internal/words"
)

// samples are words that are right for the verbs of the table, on a rig over
// doc.
var samples = map[string]string{
	"status": "", "show services": "web", "show hosts": "web main", "show sessions": "web main a max=5", "show clients": "web max=5", "show config": "", "show stored": "",
	"show diff": "", "show metrics": "", "show events": "", "show log": "", "show fleet": "", "help": "show hosts",
	"addService": "new 127.0.0.1:0", "delService": "mail drain=1m", "addListen": "web 127.0.0.1:0", "delListen": "mail 127.0.0.1:0 drain=1m",
	"switchPort": "web localhost:0 127.0.0.1:0 drain=1m", "addGroup": "web new p2c allDown=try", "delGroup": "web spare drain=1m",
	"addAccess": "web deny net=192.0.2.0/24 at=1", "delAccess": "mail 1", "show access": "mail",
	"addRoute": "mail only percent=5 at=1", "setRoute": "mail 1 percent=7", "delRoute": "mail 1", "show routes": "mail",
	"addMirror": "web main 127.0.0.1:1 percent=5 proxyProtocol=v2", "setMirror": "mail only 127.0.0.1:9 percent=7", "delMirror": "mail only 127.0.0.1:9", "show mirrors": "web",
	"enableGroup": "web spare drain=1m --force", "changeScheduler": "web main p2c",
	"hold": "web main for=1m max=5", "release": "web main over=10s",
	"shutdownSession": "1e00400003", "explain": "1e00400003", "confirm": "2",
	"addHost": "web main new 127.0.0.1:1 weight=3 state=drain backup=yes slowStart=5s resolve=1m", "delHost": "web main a drain=1m --force",
	"delAllHosts": "web spare drain=1m", "setService": "web idle=5m tries=3", "setGroup": "web main scheduler=rand maxFails=3",
	"setHost":       "web main a weight=3 state=drain backup=yes slowStart=5s resolve=1m ip=127.0.0.1:1 drain=1m",
	"hostAdminDown": "web main a drain=1m", "hostAdminUp": "web main a", "retryHost": "web main a", "forgetClients": "web main a", "shutdownSessions": "web main a", "moveSessions": "web main a percent=20",
	"addUser": "new $6$salt$newhash full", "setUser": "looker hash=$6$salt$newhash access=full", "delUser": "looker",
	"saveConfig": "", "reload": "--discard", "rollback": "2", "closeLog": "", "upgrade": "", "shutdown": "",
}

// sample returns the right command of a verb, with every word named, so that
// each can be left out.
func sample(t *testing.T, v *Verb) words.Command {
	t.Helper()
	given, ok := samples[v.Name]
	if !ok {
		t.Fatalf("verb %s has no sample", v.Name)
	}
	commands, err := words.Parse("x " + given)
	if err != nil {
		t.Fatal(err)
	}
	first, second, two := strings.Cut(v.Name, " ")
	c := words.Command{Verb: first}
	if two {
		c.Words = append(c.Words, words.Word{Value: second})
	}
	n := 0
	for _, w := range commands[0].Words {
		if w.Key == "" {
			w.Key = v.Params[n].Name
			n++
		}
		c.Words = append(c.Words, w)
	}
	return c
}

func plainDoc() string { return doc("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3") }

// fakeProcess notes what it was asked for.
type fakeProcess struct{ calls []string }

func (p *fakeProcess) CloseLog() error { p.calls = append(p.calls, "closeLog"); return nil }
func (p *fakeProcess) Upgrade(_ context.Context, by, from string) (string, error) {
	p.calls = append(p.calls, "upgrade "+by+" "+from)
	return "done", nil
}
func (p *fakeProcess) Shutdown() { p.calls = append(p.calls, "shutdown") }

// Every verb of the table is whole: it has a role, help and one way to be done.
func TestTableIsWhole(t *testing.T) {
	taken := map[string]bool{}
	for _, v := range Verbs() {
		for _, name := range append([]string{v.Name}, v.Aliases...) {
			if taken[strings.ToLower(name)] {
				t.Errorf("two verbs are called %s", name)
			}
			taken[strings.ToLower(name)] = true
		}
		switch {
		case v.Help == "" || strings.Contains(v.Help, "\n") || strings.HasSuffix(v.Help, "."):
			t.Errorf("%s: help %q", v.Name, v.Help)
		case v.Role != users.Readonly && v.Role != users.Full:
			t.Errorf("%s: role %v", v.Name, v.Role)
		case v.Changes != (v.Role == users.Full):
			t.Errorf("%s: it changes something: %v, but its role is %v", v.Name, v.Changes, v.Role)
		case v.Destructive && !v.Changes:
			t.Errorf("%s: destructive, but changes nothing", v.Name)
		case (v.edit == nil) == (v.call == nil):
			t.Errorf("%s: not done in one way", v.Name)
		case v.Changes != (len(v.Offers) > 0):
			t.Errorf("%s: it changes something: %v, but people are offered %v", v.Name, v.Changes, v.Offers)
		}
		for _, o := range v.Offers {
			switch {
			case o.Label == "", v.Destructive && (o.Title == "" || len(o.Lines) == 0):
				t.Errorf("%s: offered without a label, or a question: %+v", v.Name, o)
			case o.Title == "" && (o.Warn != nil || len(o.Lines) > 0), o.Title != "" && !strings.HasSuffix(o.Title, "?"):
				t.Errorf("%s: the question is not whole: %+v", v.Name, o)
			}
			for _, name := range o.Fields {
				paramOf(t, &v, name)
			}
			for _, w := range o.Set {
				if _, err := v.bind([]words.Word{w}); err != nil && !strings.Contains(err.Error(), "is missing") {
					t.Errorf("%s: offered with %v: %v", v.Name, w, err)
				}
			}
		}
		keys := map[string]bool{}
		optional := ""
		for _, p := range v.Params {
			for _, name := range append([]string{p.Name}, p.Aliases...) {
				if keys[strings.ToLower(name)] {
					t.Errorf("%s: two parameters are called %s", v.Name, name)
				}
				keys[strings.ToLower(name)] = true
			}
			if !p.Option && !p.Required {
				optional = p.Name
			}
			if !p.Option && p.Required && optional != "" {
				t.Errorf("%s: %s is required behind %s, which is not", v.Name, p.Name, optional)
			}
			if p.Kind == Flag && !p.Option || p.Kind == Choice && len(p.Choices) == 0 || p.Kind == Number && p.High == 0 {
				t.Errorf("%s: parameter %+v", v.Name, p)
			}
		}
	}
}

// A readonly user may look and nothing else, whatever the words are; somebody
// without a role may not even look.
func TestRolesOfEveryVerb(t *testing.T) {
	op := &fakeProcess{}
	r := newRig(t, plainDoc(), func(o *Options) { o.Process = op })
	before := r.dir.State()
	for _, v := range Verbs() {
		for _, c := range []words.Command{sample(t, &v), {Verb: v.Name}} {
			if !v.Changes && c.Verb == v.Name && strings.Contains(v.Name, " ") {
				continue // the name of such a verb is two words
			}
			if _, err := r.a.Execute(t.Context(), users.Caller{Name: "nobody"}, c); !errors.Is(err, ErrNotAllowed) {
				t.Errorf("%v by nobody: %v", c, err)
			}
			_, err := r.a.Execute(t.Context(), guest, c)
			switch {
			case v.Changes && (!errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), "needs the role full")):
				t.Errorf("%v by a readonly user: %v", c, err)
			case v.Name == "explain" && (errors.Is(err, ErrUnknownName) || errors.Is(err, ErrUsage)): // there is no session
			case !v.Changes && err != nil && !errors.Is(err, ErrNotServed):
				t.Errorf("%v by a readonly user: %v", c, err)
			}
		}
		for _, alias := range v.Aliases {
			if _, err := r.a.Execute(t.Context(), guest, words.Command{Verb: alias}); !errors.Is(err, ErrNotAllowed) {
				t.Errorf("%s by a readonly user: %v", alias, err)
			}
		}
	}
	if r.dir.State() != before || len(op.calls) > 0 {
		t.Errorf("the state has changed, or %v was called", op.calls)
	}
}

// What is destructive is asked about, with what would follow, wherever people are
// asked, and nothing is done before.
func TestAskFirst(t *testing.T) {
	op := &fakeProcess{}
	r := newRig(t, plainDoc(), func(o *Options) { o.Process = op })
	r.do("setHost web main b weight=2")
	before := r.dir.State()
	for _, v := range Verbs() {
		c := sample(t, &v)
		q := r.a.Question(c)
		if v.Destructive != (q != "") || strings.ContainsAny(q, "{}\n") {
			t.Errorf("%v is asked %q", c, q)
		}
		if !v.Destructive {
			continue
		}
		_, err := r.a.Execute(AskFirst(t.Context()), boss, c)
		if !errors.Is(err, ErrConfirm) || err.Error() != q {
			t.Errorf("%v with AskFirst: %v; want %q", c, err, q)
		}
		if _, err := r.a.Execute(AskFirst(t.Context()), guest, c); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%v with AskFirst by a readonly user: %v", c, err)
		}
	}
	if r.dir.State() != before || len(op.calls) > 0 {
		t.Errorf("the state has changed, or %v was called", op.calls)
	}
	for line, want := range map[string]string{
		"delHost web main a":                    "Delete host a? It is removed from the configuration. No session is open on it. Only one host is left",
		"delGroup web spare":                    "Delete group spare of service web? Its 1 host will be deleted too.",
		"shutdownSessions web":                  "Close the sessions of service web now?",
		"rollback":                              "ran: setHost web main b weight=2",
		"delHost web main none":                 "",
		"delHost web main a --dry-run":          "",
		"setHost web main a state=drain":        "",
		"delUser looker":                        "Delete user looker?",
		"delListen mail 127.0.0.1:0":            "Close listener 127.0.0.1:0 of service mail?",
		"delHost host=a group=main service=web": "Delete host a?",
	} {
		c, err := words.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if q := r.a.Question(c[0]); !strings.Contains(q, want) || want == "" && q != "" {
			t.Errorf("%s is asked %q; want %q", line, q, want)
		}
	}
}

// garbage are words that no parameter of the kind takes.
func garbage(v *Verb, p *Param) []string {
	long := strings.Repeat("x", 10_000)
	all := []string{"a\x00b", "a\nb", "\xff\xfe", "a\u0085b"}
	switch p.Kind {
	case Text, Session:
		if v.Name == "help" {
			return append(all, "", "nope", long)
		}
		if p.Name == "address" {
			return append(all, "", "nope", "127.0.0.1", "127.0.0.1:-1", "99999", long)
		}
		return append(all, "")
	case Service, Group, Host, User, VerbName:
		return append(all, "", "nope", "<b>", `"`, long)
	case Address, Listen, Listener:
		return append(all, "", "nope", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "[::1:80", "256.1.1.1:80", "unix:x", "-", long)
	case Scheduler, Choice:
		return append(all, "", "nope", long)
	case Number, Unconfirmed:
		return append(all, "", "nope", "-1", "1.5", "0x10", "99999999999999999999", " 1", long)
	case Duration:
		return append(all, "", "nope", "5", "-5s", "1ns", "1000000h", long)
	case Bool, Flag:
		return append(all, "", "nope", "2", long)
	case Hash:
		return append(all, "", "secret", "my password", "$")
	}
	return nil
}

// Every verb, with every parameter missing, garbled, doubled or unknown, says
// what is wrong on one line and leaves everything as it was.
func TestGarbledVerbsChangeNothing(t *testing.T) {
	op := &fakeProcess{}
	r := newRig(t, plainDoc(), func(o *Options) { o.Process = op })
	before := r.dir.State()
	refused := func(c words.Command) {
		t.Helper()
		_, err := r.a.Execute(t.Context(), boss, c)
		switch {
		case err == nil:
			t.Errorf("%v: not refused", c)
		case r.dir.State() != before:
			t.Fatalf("%v: the state has changed", c)
		case len(op.calls) > 0:
			t.Fatalf("%v: %v was called", c, op.calls)
		case strings.ContainsAny(err.Error(), "\n\r\x00") || len(err.Error()) > 1000:
			t.Errorf("%v: not a line of text: %q", c, err)
		}
	}
	for _, v := range Verbs() {
		right := sample(t, &v)
		first := len(strings.Fields(v.Name)) - 1
		refused(words.Command{Verb: right.Verb, Words: append(right.Words[:len(right.Words):len(right.Words)], words.Word{Key: "colour", Value: "red"})})
		refused(words.Command{Verb: right.Verb, Words: append(right.Words[:len(right.Words):len(right.Words)], words.Word{Value: "x"}, words.Word{Value: "x"}, words.Word{Value: "x"})})
		for i := first; i < len(right.Words); i++ {
			p := paramOf(t, &v, right.Words[i].Key)
			without := append(append([]words.Word{}, right.Words[:i]...), right.Words[i+1:]...)
			if p.Required {
				refused(words.Command{Verb: right.Verb, Words: without})
			}
			refused(words.Command{Verb: right.Verb, Words: append(without, right.Words[i], right.Words[i])})
			for _, g := range garbage(&v, p) {
				refused(words.Command{Verb: right.Verb, Words: append(without, words.Word{Key: p.Name, Value: g})})
			}
		}
		for _, p := range v.Params {
			if p.Name != "generation" {
				continue
			}
			for _, g := range append(garbage(&v, &p), "0", "2") {
				refused(words.Command{Verb: right.Verb, Words: append(right.Words[:len(right.Words):len(right.Words)], words.Word{Key: "generation", Value: g})})
			}
		}
	}
}

func paramOf(t *testing.T, v *Verb, key string) *Param {
	t.Helper()
	for i := range v.Params {
		if v.Params[i].named(key) {
			return &v.Params[i]
		}
	}
	t.Fatalf("%s has no parameter %s", v.Name, key)
	return nil
}

// Every verb takes its sample; a dry run changes nothing before.
func TestEveryVerbWorks(t *testing.T) {
	for _, v := range Verbs() {
		t.Run(v.Name, func(t *testing.T) {
			op := &fakeProcess{}
			r := newRig(t, plainDoc(), func(o *Options) { o.Process = op })
			if v.Name == "hostAdminUp" || v.Name == "rollback" {
				r.do("hostAdminDown web main a; setHost web main b weight=2")
			}
			if v.Name == "confirm" {
				r.do("setHost web main b weight=2 confirm=1h")
			}
			before := r.dir.State()
			c := sample(t, &v)
			if v.edit != nil {
				dry := words.Command{Verb: c.Verb, Words: append(c.Words[:len(c.Words):len(c.Words)], words.Word{Key: "dry-run", Value: "yes"})}
				got, err := r.a.Execute(t.Context(), boss, dry)
				if err != nil || !strings.HasPrefix(got.Text, "would ") || r.dir.State() != before || got.Generation != before.Generation {
					t.Errorf("dry run: %+v, %v", got, err)
				}
			}
			got, err := r.a.Execute(t.Context(), boss, c)
			switch {
			case v.Name == "shutdownSession", v.Name == "explain": // TestShutdownSession ends one, TestExplain has some
				if err == nil || !strings.Contains(err.Error(), "ended") {
					t.Errorf("without a session: %v", err)
				}
			case v.Part != "" && !v.Changes:
				if !errors.Is(err, ErrNotServed) {
					t.Errorf("without a source: %v", err)
				}
			case err != nil || got.Text == "":
				t.Errorf("%v: %+v, %v", c, got, err)
			case v.edit != nil && (got.Generation != before.Generation+1 || reflect.DeepEqual(r.dir.State().Config, before.Config)):
				t.Errorf("generation %d after %d", got.Generation, before.Generation)
			case v.edit != nil && !strings.Contains(r.log.String(), "by=boss"):
				t.Errorf("the log does not say who:\n%s", r.log.String())
			case v.Name == "rollback":
				if got.Generation != before.Generation+1 {
					t.Errorf("generation %d after %d", got.Generation, before.Generation)
				}
			case v.edit == nil && r.dir.State().Config != before.Config:
				t.Error("the model has changed")
			case v.Part != "" && len(op.calls) != 1:
				t.Errorf("called %v", op.calls)
			}
		})
	}
}

func TestVerbsOfTheProcess(t *testing.T) {
	op := &fakeProcess{}
	r := newRig(t, plainDoc(), func(o *Options) { o.Process = op })
	r.do("closeLog; shutdown")
	if got := strings.Join(op.calls, ", "); got != "closeLog, shutdown" {
		t.Errorf("called %s", got)
	}
	r.refused("shutdown session 5", `unexpected argument "session"`)
	r.refused("shutdown --force", `unknown option "force"`)
	if n := len(op.calls); n != 2 {
		t.Errorf("called %v", op.calls[2:])
	}
	r.a.opt.Process = nil
	r.refused("closeLog", "it needs")
}

var update = flag.Bool("update", false, "write the table of verbs into docs/commands.md")

// docs/commands.md has the table of verbs as it is (go test ./internal/admin -update).
func TestDocumentationHasTheTable(t *testing.T) {
	testkit.Tables(t, "../../docs/commands.md", *update, "go test ./internal/admin -run TestDocumentation -update",
		map[string]string{"verbs": Reference()})
}
