// Package edits changes a configuration that runs: it has the rules that verbs of the admin
// and programs that embed txlb share.
//
// An [Edit] works on a copy of the model, in a change of the director. A method checks what
// the change needs, makes it, notes what was done and which hosts take no new sessions any
// more. An error changes nothing, because the copy is then dropped.
package edits

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/words"
)

// Kinds of errors, see [Refusal].
var (
	ErrUnknownName = errors.New("unknown name")  // of what should be there
	ErrTaken       = errors.New("already there") // a name that is given already
	ErrNotReady    = errors.New("no host is up and ready")
	ErrInUse       = errors.New("in use") // what clients are led to
	// ErrSame drops a change that would change nothing.
	ErrSame = errors.New("nothing to change")
)

// Kinds of ErrUnknownName.
var (
	ErrUnknownService = Refuse(ErrUnknownName, "unknown service")
	ErrUnknownGroup   = Refuse(ErrUnknownName, "unknown group")
	ErrUnknownHost    = Refuse(ErrUnknownName, "unknown host")
)

// Refusal is an error of a kind, with its own text.
type Refusal struct {
	Kind error
	Text string
}

func (r Refusal) Error() string { return r.Text }

func (r Refusal) Unwrap() error { return r.Kind }

// Refuse makes a Refusal.
func Refuse(kind error, format string, args ...any) error {
	return Refusal{kind, fmt.Sprintf(format, args...)}
}

// Edit is one change of the model, while it is made.
type Edit struct {
	Config    *config.Config           // the copy to change
	State     *director.State          // what runs, and Config is a copy of
	Listeners func() []engine.Listener // that are open
	// Program tells that a program asks, and not a person. It means what it says: it may
	// take away the last host of a group, the last listener and the last service.
	Program bool
	Force   bool           // do it even if clients may find no host
	Within  *time.Duration // when the sessions of what leaves are closed; nil: they may finish

	Did   string         // what was done, as "add …"
	Notes []string       // what the user should know of it
	Drain director.Drain // what takes no new sessions any more
	Same  bool           // nothing was to be done
}

// Do ends an edit with what it has done.
func (e *Edit) Do(format string, args ...any) error {
	e.Did = fmt.Sprintf(format, args...)
	return nil
}

// Nothing ends an edit that is done already.
func (e *Edit) Nothing(format string, args ...any) error {
	e.Did, e.Same = fmt.Sprintf(format, args...), true
	return ErrSame
}

// Warn notes what the user should know.
func (e *Edit) Warn(format string, args ...any) {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
}

// Named warns of a name that has to be quoted.
func (e *Edit) Named(name string) {
	if !words.Plain(name) {
		e.Warn("the name has to be quoted in commands; names of 1 to 64 letters, digits and _ . : - need not")
	}
}

// anyway is how to insist.
func (e *Edit) anyway() string {
	if e.Program {
		return "txlb.Force"
	}
	return "--force"
}

// Find returns the element of list with that name, and its index. kind is the error of an
// unknown one.
func Find[T any](list []*T, name func(*T) string, want string, kind error, what, of string) (*T, int, error) {
	i := slices.IndexFunc(list, func(v *T) bool { return name(v) == want })
	if i >= 0 {
		return list[i], i, nil
	}
	var names []string
	for _, v := range list {
		names = append(names, name(v))
	}
	return nil, -1, Refuse(kind, "unknown %s %s%s%s", what, Show(want), of, Suggest(want, names))
}

func serviceName(s *config.Service) string { return s.Name }
func groupName(g *config.Group) string     { return g.Name }
func hostName(h *config.Host) string       { return h.Name }

// Service finds a service.
func Service(c *config.Config, name string) (*config.Service, error) {
	s, _, err := Find(c.Services, serviceName, name, ErrUnknownService, "service", "")
	return s, err
}

// Group finds a group of a service.
func Group(s *config.Service, name string) (*config.Group, error) {
	g, _, err := Find(s.Groups, groupName, name, ErrUnknownGroup, "group", fmt.Sprintf(" in service %s", Show(s.Name)))
	return g, err
}

// Host finds a host of a group by its name.
func Host(g *config.Group, name string) (*config.Host, error) {
	h, _, err := Find(g.Hosts, hostName, name, ErrUnknownHost, "host", fmt.Sprintf(" in group %s", Show(g.Name)))
	return h, err
}

// Group finds a group and its service.
func (e *Edit) Group(service, group string) (*config.Service, *config.Group, error) {
	s, err := Service(e.Config, service)
	if err != nil {
		return nil, nil, err
	}
	g, err := Group(s, group)
	return s, g, err
}

// Host finds a host with its group and its service.
func (e *Edit) Host(service, group, host string) (*config.Service, *config.Group, *config.Host, error) {
	s, g, err := e.Group(service, group)
	if err != nil {
		return nil, nil, nil, err
	}
	h, err := Host(g, host)
	return s, g, h, err
}

// Fresh refuses a name that is taken.
func Fresh[T any](list []*T, name func(*T) string, want, what, of string) error {
	if slices.ContainsFunc(list, func(v *T) bool { return name(v) == want }) {
		return Refuse(ErrTaken, "%s %s%s already exists; choose another name", what, Show(want), of)
	}
	return nil
}

// Told ends an edit that sets attributes of what.
func (e *Edit) Told(what string, changes []string) error {
	if len(changes) == 0 {
		return e.Nothing("%s has these values", what)
	}
	return e.Do("set %s: %s", what, strings.Join(changes, ", "))
}

// Assign sets one attribute of what p points to, and returns what that changed. The value
// must have been read before: one that is wrong panics.
func Assign(a *config.Attribute, p any, value string) (changes []string) {
	was := a.Get(p)
	if err := a.Set(p, value); err != nil {
		panic(err)
	}
	if is := a.Get(p); is != was {
		return []string{fmt.Sprintf("%s %s -> %s", a.Name, words.Quote(was), words.Quote(is))}
	}
	return nil
}

// NoNewLoop refuses an edit that makes connections go round through this process. What goes
// round already is no reason.
func (e *Edit) NoNewLoop() error {
	if e.Config.NoNewLoop(e.State.Config) {
		return nil
	}
	loops := config.Loops(e.Config, nil)
	if len(loops) == 0 {
		return nil
	}
	before := config.Loops(e.State.Config, nil)
	for _, l := range loops {
		if !slices.ContainsFunc(before, l.Same) {
			return errors.New(l.String())
		}
	}
	return nil
}

// unserved warns when the clients of a service find no host any more.
func (e *Edit) unserved(s *config.Service, g *config.Group) {
	takes := func(h *config.Host) bool { return h.State == "ready" && h.Weight > 0 }
	if (g.Enabled || s.RouteTo(g.Name) > 0) && len(g.Hosts) > 0 && !slices.ContainsFunc(g.Hosts, takes) {
		e.Warn("no host of group %s takes clients: those of service %s will be rejected", Show(g.Name), Show(s.Name))
	}
}

// leave notes hosts that get no more sessions.
func (e *Edit) leave(hosts ...*director.Host) {
	for _, h := range hosts {
		for t := range h.All() {
			e.Drain.Hosts = append(e.Drain.Hosts, t.Host)
		}
	}
}

// sessions says what becomes of the sessions of hosts that leave.
func (e *Edit) sessions(on string) string {
	n := int64(0)
	for _, h := range e.Drain.Hosts {
		n += h.Stats().Active
	}
	return count(int(n), "session") + " on " + on + " " + e.fate()
}

// fate says what becomes of the sessions of what leaves.
func (e *Edit) fate() string {
	switch {
	case e.Within == nil:
		return "may finish"
	case *e.Within == 0:
		return "end now"
	}
	return fmt.Sprintf("may finish for %v", e.Within.Round(time.Millisecond))
}

// deadline is Within as a command says it.
func (e *Edit) deadline() string {
	text := e.Within.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return text
}

// closes notes that a listener closes. If its sessions have a deadline, it says so.
func (e *Edit) closes(s *config.Service, address string) string {
	if e.Within == nil {
		return ""
	}
	for _, l := range e.Listeners() {
		if l.Service == s.Name && l.Listen == address {
			e.Drain.Listeners = append(e.Drain.Listeners, l)
		}
	}
	return "; sessions that came by it " + e.fate()
}

// count says how many of something there are.
func count(n int, what string) string { return words.Count(n, what) }

// StateGroup returns a running group of a name that the model has.
func StateGroup(s *director.State, service, group string) *director.Group {
	for _, svc := range s.Services {
		if svc.Config.Name != service {
			continue
		}
		for _, g := range svc.Groups {
			if g.Config.Name == group {
				return g
			}
		}
	}
	return &director.Group{}
}

// StateHost returns a running host of a name that the model has.
func StateHost(s *director.State, service, group, host string) *director.Host {
	for _, h := range StateGroup(s, service, group).Hosts {
		if h.Config.Name == host {
			return h
		}
	}
	return &director.Host{}
}
