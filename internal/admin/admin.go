// Package admin defines the runtime verbs, each once, in one table. Page, API,
// SSH and socket only carry commands to [Admin.Execute] and results back.
//
// A verb of the table has a name, parameters, a role and a line of help; help,
// completion and documentation are made from it. A verb that changes something is
// refused to a readonly user before its words are read. A change is one
// [director.Director.Do]: it is whole or not at all, whatever comes in at the same
// moment, and an error leaves everything as it was. Every error is one line that
// says what is wrong and what would be right.
//
// Password hashes are shown by show config to users with the role full, and
// nowhere else: not in the log, not in the description of a change, not in an
// error.
//
// Limits: a deadline for draining lives in this process. Sessions on a host that has been
// deleted can be ended by its deadline, one by one, or with all sessions of the service, not
// by its name.
package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/config/changes"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/logs"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
)

// Result is the answer to a command.
type Result struct {
	Text       string `json:"text"`           // for people: lines, tables aligned
	Data       any    `json:"data,omitempty"` // the same for programs
	Generation uint64 `json:"generation"`     // of the configuration after the command
}

// Process is what verbs do to the process itself. All may be called at the same
// time.
type Process interface {
	// Upgrade starts the installed program and hands over to it. It returns what has become
	// of it, or why this process goes on. by and from say who asks.
	Upgrade(ctx context.Context, by, from string) (string, error)
	// CloseLog reopens the log files.
	CloseLog() error
	// Shutdown starts to drain and shut down the process. It does not wait.
	Shutdown()
}

// Fleet is what verbs do to the nodes of a fleet.
type Fleet interface {
	// Order makes nodes do what [Process] has, by the name of its verb: one after the other,
	// each when the one before is ready again. No nodes: all. It returns what has become of it,
	// when that is over or when ctx ends, for people and for programs.
	Order(ctx context.Context, verb string, nodes []string, by, from string) (text string, data any, err error)
	// Cancel keeps nodes that have not begun what they were told from beginning, and forgets an
	// order that has stopped. id is that of the order which is meant; "": whichever is there.
	Cancel(ctx context.Context, id, by string) (text string, data any, err error)
}

// Report makes the answer of a reading verb.
type Report func(context.Context) (text string, data any, err error)

// Options are what an Admin works on.
type Options struct {
	Director *director.Director // needed
	Engine   engine.Engine      // needed
	Process  Process            // nil: its verbs are not served
	Fleet    Fleet              // nil: this process is in no fleet
	// Reports answer the reading verbs that other parts have the data for, by
	// the verb's name, such as "show metrics". A verb without one is not served.
	Reports map[string]Report
	Status  *status.Source // what runs; nil: made of Director, Engine and Version
	Version string         // of the program
	Log     *slog.Logger   // nil: slog.Default
	Audit   *slog.Logger   // of who did what; nil: none
}

// Admin executes verbs. All methods may be called from any goroutine.
type Admin struct {
	opt Options
	log *slog.Logger
	// refusals is log, and strangers the audit file, for what anybody can cause.
	refusals, strangers *slog.Logger

	verbs []Verb
	rows  int // that show sessions shows at most
}

// New returns an Admin.
func New(opt Options) *Admin {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Status == nil {
		opt.Status = &status.Source{Director: opt.Director, Engine: opt.Engine, Version: opt.Version, Started: time.Now()}
	}
	if opt.Audit == nil {
		opt.Audit = slog.New(slog.DiscardHandler)
	}
	return &Admin{
		opt: opt, log: opt.Log, refusals: logs.Strangers(opt.Log), strangers: logs.AuditStrangers(opt.Audit),
		verbs: Verbs(), rows: mostSessions,
	}
}

// Audit writes an event to the audit file: what a caller has done, read or was
// refused. attrs are as those of slog. Of callers without a role it writes so many
// only.
func (a *Admin) Audit(ctx context.Context, caller users.Caller, event string, attrs ...any) {
	to := a.opt.Audit
	if caller.Role == users.NoRole {
		to = a.strangers
	}
	to.Info(event, append([]any{"by", caller.Name, "from", caller.From, "via", users.Via(ctx)}, attrs...)...)
}

// callerKey is where a context holds the Caller.
type callerKey struct{}

// CallerOf returns who gave the command that ctx belongs to.
func CallerOf(ctx context.Context) (c users.Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(users.Caller)
	return c, ok
}

// askKey marks a context of AskFirst.
type askKey struct{}

// AskFirst returns a context with which a destructive command, and one that takes
// the last usable host of a service away, is not done but refused with
// ErrConfirm, which says what would follow. Without it the answer warns; --force
// leaves the second question out.
func AskFirst(ctx context.Context) context.Context { return context.WithValue(ctx, askKey{}, true) }

// Run parses a line and executes its commands in turn, up to the first error,
// which comes with the results of those before it.
func (a *Admin) Run(ctx context.Context, caller users.Caller, line string) ([]Result, error) {
	commands, err := words.Parse(line)
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, c := range commands {
		r, err := a.Execute(ctx, caller, c)
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

// Question returns what to ask before a command that is destructive, in one line;
// "" if nothing is to be asked, or nothing is known to say.
func (a *Admin) Question(c words.Command) string {
	verb, given, err := a.resolve(c)
	if err != nil || !verb.Destructive {
		return ""
	}
	args, err := verb.bind(given)
	if err != nil || args.set("dry-run") {
		return ""
	}
	return a.question(verb, args.words())
}

func (a *Admin) question(verb *Verb, given []words.Word) string {
	s, err := NewScene(a.opt.Status.Read(), verb, given...)
	if err != nil {
		return ""
	}
	o := verb.Asked(s)
	if o == nil {
		return ""
	}
	s.Last = lastChange(a.opt.Director.Events())
	return printable(o.Question(s).String())
}

// lastChange tells what a rollback would undo.
func lastChange(events []director.Event) string {
	for _, e := range slices.Backward(events) {
		if e.Kind == director.ConfigEvent {
			return fmt.Sprintf("At %s, %s ran: %s.", e.Time.Format("15:04:05"), e.By, e.Verb)
		}
	}
	return ""
}

// Execute does one command. It returns when the change is made, with the
// generation of the configuration that has it; when ctx ends before, a change
// that waits for names is dropped.
func (a *Admin) Execute(ctx context.Context, caller users.Caller, c words.Command) (Result, error) {
	verb, given, err := a.resolve(c)
	if err != nil {
		return Result{}, err
	}
	if caller.Role < verb.Role || caller.Role == users.NoRole {
		a.refusals.Warn("command refused", "verb", verb.Name, "by", caller.Name, "from", caller.From, "role", caller.Role.String())
		a.Audit(ctx, caller, "command refused", "verb", verb.Name, "role", caller.Role.String())
		return Result{}, refuse(ErrNotAllowed, "%s needs the role %s; this user has %s", verb.Name, verb.Role, caller.Role)
	}
	args, err := verb.bind(given)
	if err != nil {
		return Result{}, refuse(ErrUsage, "%s: %v", verb.Name, err)
	}
	if verb.Destructive && ctx.Value(askKey{}) != nil && !args.set("dry-run") {
		return Result{}, refuse(ErrConfirm, "%s", cmp.Or(a.question(verb, args.words()), verb.describe(args)))
	}
	k := &call{
		ctx: context.WithValue(ctx, callerKey{}, caller), admin: a, caller: caller, verb: verb, args: args,
	}
	var result Result
	if verb.edit != nil {
		result, err = k.change()
	} else {
		result, err = k.order()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", verb.Name, oneLine(err))
	}
	switch {
	case verb.Role == users.Full && err != nil:
		a.Audit(ctx, caller, "command failed", "verb", verb.describe(args), "err", err)
	case verb.Role == users.Full:
		attrs := []any{"verb", verb.describe(args), "generation", a.opt.Director.State().Generation}
		if within, given := args.duration("confirm"); given {
			attrs = append(attrs, "confirm", within.String())
		}
		a.Audit(ctx, caller, "command", attrs...)
	case k.secrets:
		a.Audit(ctx, caller, "secrets read", "verb", verb.describe(args))
	}
	if err != nil {
		return Result{}, err
	}
	if result.Generation == 0 {
		result.Generation = a.opt.Director.State().Generation
	}
	return result, nil
}

// call is one command on its way.
type call struct {
	ctx    context.Context
	admin  *Admin
	caller users.Caller
	verb   *Verb
	args   args
	// secrets tells that the answer has password hashes.
	secrets bool
	// changed tells that the order was a change of the configuration, which is an
	// event already.
	changed bool
}

func (k *call) state() *director.State { return k.admin.opt.Director.State() }

// current refuses a command that was meant for another generation.
func (k *call) current() error {
	if want, ok := k.args.number("generation"); ok {
		return k.admin.opt.Director.At(uint64(want))
	}
	return nil
}

// change makes an edit of the model through the director.
func (k *call) change() (Result, error) {
	dry := k.args.set("dry-run")
	want, _ := k.args.number("generation")
	within, err := k.within()
	if err != nil {
		return Result{}, err
	}
	var e *edit
	apply := func(c *config.Config) error {
		// This runs where changes are made, one after the other: what state
		// returns is what c was copied from.
		e = &edit{edits.Edit{Config: c, State: k.state(), Listeners: k.admin.opt.Engine.Listeners, Force: k.args.set("force")}, k.args}
		if within, given := k.args.duration("drain"); given {
			e.Within = &within
		}
		if err := k.verb.edit(e); err != nil {
			return err
		}
		changes.Share(c, e.State.Config) // what follows looks at what has changed
		if err := k.named(e); err != nil {
			return err
		}
		if err := e.NoNewLoop(); err != nil {
			return err
		}
		return k.strands(e)
	}
	if dry {
		if err := k.current(); err != nil {
			return Result{}, err
		}
		c := k.state().Config.Clone()
		err := apply(c)
		if err == nil {
			err = c.Check("configuration").Err()
		}
		if err != nil && !errors.Is(err, edits.ErrSame) {
			return Result{}, err
		}
		return Result{Text: e.text("would ") + k.wouldUndo(e)}, nil
	}
	generation, err := k.admin.opt.Director.Do(k.ctx, director.Change{
		By: k.caller.Name, From: k.caller.From, Verb: k.verb.describe(k.args), Apply: apply, Generation: uint64(want), Confirm: within,
	})
	switch {
	case err != nil && !errors.Is(err, edits.ErrSame):
		return Result{}, err
	}
	if deadline, ok := k.args.duration("drain"); ok {
		e.Drain.Within = deadline
		if err := k.admin.opt.Director.Drain(k.ctx, e.Drain); err != nil {
			return Result{}, err
		}
	}
	if err != nil {
		if !e.Same {
			k.admin.opt.Director.Note(k.caller.Name, k.caller.From, k.verb.describe(k.args), e.text(""))
		}
		return Result{Text: e.text("")}, nil
	}
	return k.unconfirmed(Result{Text: fmt.Sprintf("generation %d: %s", generation, e.text("")), Generation: generation}), nil
}

// named refuses an edit that names what <admin targets> keeps for the file.
func (k *call) named(e *edit) error {
	var file *config.Config
	if doc := k.admin.opt.Director.Stored(); doc != nil {
		file = doc.Config
	}
	if err := e.Config.Named(e.State.Config, file); err != nil {
		return refuse(ErrNotAllowed, "%v", err)
	}
	return nil
}

// strands warns of, or with AskFirst refuses, an edit that takes the last usable
// host of a service away.
func (k *call) strands(e *edit) error {
	ask := k.ctx.Value(askKey{}) != nil && !k.args.set("force") && !k.args.set("dry-run")
	for _, s := range e.State.Strands(e.Config) {
		if ask {
			return refuse(ErrConfirm, "%v", s)
		}
		if s.Down > 0 { // else the verb has said so
			e.Warn("%v", s)
		}
	}
	return nil
}

// order does a verb that is no edit of the model.
func (k *call) order() (Result, error) {
	if err := k.current(); err != nil {
		return Result{}, err
	}
	if k.verb.Role != users.Full {
		return k.verb.call(k)
	}
	verb := k.verb.describe(k.args)
	k.admin.log.Info("command", "verb", verb, "by", k.caller.Name, "from", k.caller.From)
	result, err := k.verb.call(k)
	if err == nil && !k.changed && !k.args.set("dry-run") {
		k.admin.opt.Director.Note(k.caller.Name, k.caller.From, verb, result.Text)
	}
	return result, err
}

// resolve finds the verb of a command and the words that are left for it.
func (a *Admin) resolve(c words.Command) (*Verb, []words.Word, error) { return resolve(a.verbs, c) }
