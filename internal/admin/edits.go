package admin

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/words"
)

// edit is one change of the model, while it is made.
type edit struct {
	config *config.Config  // the copy to change
	state  *director.State // what runs, and config is a copy of
	args   args

	did   string         // what was done, as "add …"
	notes []string       // what the user should know of it
	drain director.Drain // what takes no new sessions any more
	same  bool           // nothing was to be done

	listeners func() []engine.Listener // that are open
}

// text tells what was done, or with "would " what would be.
func (e *edit) text(would string) string {
	if e.same {
		return "nothing to change: " + e.did
	}
	text := would + e.did
	for _, n := range e.notes {
		text += "\nwarning: " + n
	}
	return text
}

func (e *edit) do(format string, args ...any) error {
	e.did = fmt.Sprintf(format, args...)
	return nil
}

// nothing ends an edit that is done already.
func (e *edit) nothing(format string, args ...any) error {
	e.did, e.same = fmt.Sprintf(format, args...), true
	return errSame
}

func (e *edit) warn(format string, args ...any) {
	e.notes = append(e.notes, fmt.Sprintf(format, args...))
}

// named warns of a name that has to be quoted.
func (e *edit) named(name string) {
	if !words.Plain(name) {
		e.warn("the name has to be quoted in commands; names of 1 to 64 letters, digits and _ . : - need not")
	}
}

// find returns the element of list with that name, and its index.
func find[T any](list []*T, name func(*T) string, want, what, of string) (*T, int, error) {
	i := slices.IndexFunc(list, func(v *T) bool { return name(v) == want })
	if i >= 0 {
		return list[i], i, nil
	}
	var names []string
	for _, v := range list {
		names = append(names, name(v))
	}
	return nil, -1, refuse(ErrUnknownName, "unknown %s %s%s%s", what, show(want), of, suggest(want, names))
}

func serviceName(s *config.Service) string { return s.Name }
func groupName(g *config.Group) string     { return g.Name }
func hostName(h *config.Host) string       { return h.Name }
func userName(u *config.User) string       { return u.Name }

func findService(c *config.Config, name string) (*config.Service, error) {
	s, _, err := find(c.Services, serviceName, name, "service", "")
	return s, err
}

func findGroup(s *config.Service, name string) (*config.Group, error) {
	g, _, err := find(s.Groups, groupName, name, "group", fmt.Sprintf(" in service %s", show(s.Name)))
	return g, err
}

func findHost(g *config.Group, name string) (*config.Host, error) {
	h, _, err := find(g.Hosts, hostName, name, "host", fmt.Sprintf(" in group %s", show(g.Name)))
	return h, err
}

func (e *edit) service() (*config.Service, error) {
	return findService(e.config, e.args.text("service"))
}

func (e *edit) group() (*config.Service, *config.Group, error) {
	s, err := e.service()
	if err != nil {
		return nil, nil, err
	}
	g, err := findGroup(s, e.args.text("group"))
	return s, g, err
}

func (e *edit) host() (*config.Service, *config.Group, *config.Host, error) {
	s, g, err := e.group()
	if err != nil {
		return nil, nil, nil, err
	}
	h, err := findHost(g, e.args.text("name"))
	return s, g, h, err
}

// fresh refuses a name that is taken.
func fresh[T any](list []*T, name func(*T) string, want, what, of string) error {
	if slices.ContainsFunc(list, func(v *T) bool { return name(v) == want }) {
		return fmt.Errorf("%s %s%s already exists; choose another name", what, show(want), of)
	}
	return nil
}

func addService(e *edit) error {
	name, listen := e.args.text("name"), e.args.text("address")
	if err := fresh(e.config.Services, serviceName, name, "service", ""); err != nil {
		return err
	}
	s := config.NewService(name)
	s.Listen = []config.Listen{e.listener()}
	e.config.Services = append(e.config.Services, s)
	e.named(name)
	e.warn("service %s has no group: its clients will be rejected until addGroup and addHost", show(name))
	return e.do("add service %s on %s", show(name), listen)
}

func delService(e *edit) error {
	s, err := e.service()
	if err != nil {
		return err
	}
	if len(e.config.Services) == 1 {
		return fmt.Errorf("service %s is the last service; a configuration needs at least one", show(s.Name))
	}
	e.config.Services = slices.DeleteFunc(e.config.Services, func(o *config.Service) bool { return o == s })
	for _, g := range s.Groups {
		e.leave(stateGroup(e.state, s.Name, g.Name).Hosts...)
	}
	return e.do("delete service %s; %s", show(s.Name), e.sessions("its hosts"))
}

// sameAddress compares addresses as they are written, but for the case of
// letters in host names.
func sameAddress(a, b string) bool {
	if strings.HasPrefix(a, "unix:") {
		return a == b
	}
	return strings.EqualFold(a, b)
}

func addListen(e *edit) error {
	s, err := e.service()
	if err != nil {
		return err
	}
	l := e.listener()
	s.Listen = append(s.Listen, l)
	return e.do("listen on %s for service %s", l.Address, show(s.Name))
}

// listener is a new listener as the command says it.
func (e *edit) listener() config.Listen {
	l := config.Listen{Address: e.args.text("address")}
	e.assign("listen", &l)
	return l
}

// listener returns the place of a listener of the service.
func listener(s *config.Service, address string) (int, error) {
	i := slices.IndexFunc(s.Listen, func(l config.Listen) bool { return sameAddress(l.Address, address) })
	if i >= 0 {
		return i, nil
	}
	var all []string
	for _, l := range s.Listen {
		all = append(all, l.Address)
	}
	return 0, fmt.Errorf("service %s does not listen on %s%s", show(s.Name), show(address), suggest(address, all))
}

func delListen(e *edit) error {
	s, err := e.service()
	if err != nil {
		return err
	}
	i, err := listener(s, e.args.text("address"))
	if err != nil {
		return err
	}
	if len(s.Listen) == 1 {
		return fmt.Errorf("%s is the last address of service %s; add another first, or delete the service", s.Listen[i].Address, show(s.Name))
	}
	address := s.Listen[i].Address
	s.Listen = slices.Delete(s.Listen, i, i+1)
	return e.do("stop listening on %s for service %s%s", address, show(s.Name), e.closes(s, address))
}

func switchPort(e *edit) error {
	s, err := e.service()
	if err != nil {
		return err
	}
	i := 0
	switch {
	case e.args.given("old"):
		if i, err = listener(s, e.args.text("old")); err != nil {
			return err
		}
	case len(s.Listen) > 1:
		return fmt.Errorf("service %s listens on %d addresses; say which to leave: switchPort SERVICE ADDRESS OLD", show(s.Name), len(s.Listen))
	}
	was, address := s.Listen[i].Address, e.args.text("address")
	if strings.Trim(address, "0123456789") == "" { // a bare port
		host, _, err := net.SplitHostPort(was)
		if err != nil {
			return fmt.Errorf("%s has no port to switch; give the whole address", was)
		}
		address = net.JoinHostPort(host, address)
	}
	if err := config.CheckAddress(address, true); err != nil {
		return fmt.Errorf("address: %w", shorten(err))
	}
	if sameAddress(was, address) {
		return e.nothing("service %s listens on %s", show(s.Name), was)
	}
	s.Listen[i].Address = address
	return e.do("listen on %s instead of %s for service %s%s", address, was, show(s.Name), e.closes(s, was))
}

func addGroup(e *edit) error {
	s, err := e.service()
	if err != nil {
		return err
	}
	name := e.args.text("name")
	if err := fresh(s.Groups, groupName, name, "group", " in service "+show(s.Name)); err != nil {
		return err
	}
	g := config.NewGroup(name)
	e.assign("group", g)
	g.Enabled = len(s.Groups) == 0
	s.Groups = append(s.Groups, g)
	e.named(name)
	e.warn("group %s is empty: it can take no clients until addHost", show(name))
	if g.Enabled {
		return e.do("add group %s (%s) to service %s and enable it", show(name), g.Scheduler, show(s.Name))
	}
	return e.do("add group %s (%s) to service %s", show(name), g.Scheduler, show(s.Name))
}

func delGroup(e *edit) error {
	s, g, err := e.group()
	if err != nil {
		return err
	}
	if g.Enabled {
		return fmt.Errorf("group %s is active in service %s; enable another group first", show(g.Name), show(s.Name))
	}
	if err := routed(s, g); err != nil {
		return err
	}
	s.Groups = slices.DeleteFunc(s.Groups, func(o *config.Group) bool { return o == g })
	e.leave(stateGroup(e.state, s.Name, g.Name).Hosts...)
	return e.do("delete group %s of service %s with its %s; %s", show(g.Name), show(s.Name), count(len(g.Hosts), "host"), e.sessions("them"))
}

func enableGroup(e *edit) error {
	s, g, err := e.group()
	if err != nil {
		return err
	}
	if g.Enabled {
		return e.nothing("group %s takes the clients of service %s", show(g.Name), show(s.Name))
	}
	running := stateGroup(e.state, s.Name, g.Name)
	ready := slices.ContainsFunc(running.Hosts, func(h *director.Host) bool {
		return h.Config.State == "ready" && h.Config.Weight > 0 && h.Up()
	})
	if !ready {
		if !e.args.set("force") {
			return fmt.Errorf("group %s has no host that is up and ready; use --force to enable it anyway", show(g.Name))
		}
		e.warn("group %s has no host that is up and ready", show(g.Name))
	}
	was := s.Enabled()
	was.Enabled, g.Enabled = false, true
	if s.RouteTo(was.Name) == 0 { // else it goes on taking clients
		e.leave(stateGroup(e.state, s.Name, was.Name).Hosts...)
	}
	return e.do("make group %[2]s active in service %[1]s instead of %[3]s; %[4]s", show(s.Name), show(g.Name), show(was.Name), e.sessions("it"))
}

func changeScheduler(e *edit) error {
	s, g, err := e.group()
	if err != nil {
		return err
	}
	was := g.Scheduler
	g.Scheduler = e.args.text("scheduler")
	if g.Scheduler == was {
		return e.nothing("group %s of service %s is scheduled by %s", show(g.Name), show(s.Name), was)
	}
	return e.do("schedule group %s of service %s by %s instead of %s", show(g.Name), show(s.Name), g.Scheduler, was)
}

// assign gives the attributes of an element, which p points to, the values that
// the command has for them, and returns what that changed.
func (e *edit) assign(element string, p any) (changes []string) {
	rows := config.Attributes(element)
	for i := range rows {
		if a := &rows[i]; a.Runtime && e.args.given(a.Name) {
			changes = append(changes, assign(a, p, e.args.text(a.Name))...)
		}
	}
	return changes
}

// assign sets one attribute to a value that has been read.
func assign(a *config.Attribute, p any, value string) (changes []string) {
	was := a.Get(p)
	if err := a.Set(p, value); err != nil { // the parameter would have refused it
		panic(err)
	}
	if is := a.Get(p); is != was {
		return []string{fmt.Sprintf("%s %s -> %s", a.Name, words.Quote(was), words.Quote(is))}
	}
	return nil
}

// told ends an edit that sets attributes of what.
func (e *edit) told(what string, changes []string) error {
	if len(changes) == 0 {
		return e.nothing("%s has these values", what)
	}
	return e.do("set %s: %s", what, strings.Join(changes, ", "))
}

// some refuses a command that sets nothing.
func (e *edit) some(elements ...string) error {
	var all []string
	for _, p := range settings(elements...) {
		if e.args.given(p.Name) {
			return nil
		}
		all = append(all, p.Name+"="+p.placeholder())
	}
	return fmt.Errorf("nothing to set; give at least one of: %s", strings.Join(all, ", "))
}

func setService(e *edit) error {
	if err := e.some("timeouts", "limits"); err != nil {
		return err
	}
	s, err := e.service()
	if err != nil {
		return err
	}
	changes := append(e.assign("timeouts", &s.Timeouts), e.assign("limits", &s.Limits)...)
	return e.told("service "+show(s.Name), changes)
}

func setGroup(e *edit) error {
	if err := e.some("group"); err != nil {
		return err
	}
	s, g, err := e.group()
	if err != nil {
		return err
	}
	return e.told(fmt.Sprintf("group %s of service %s", show(g.Name), show(s.Name)), e.assign("group", g))
}

func addHost(e *edit) error {
	s, g, err := e.group()
	if err != nil {
		return err
	}
	h := config.NewHost(e.args.text("name"), "")
	if err := fresh(g.Hosts, hostName, h.Name, "host", " in group "+show(g.Name)); err != nil {
		return err
	}
	e.assign("host", h)
	g.Hosts = append(g.Hosts, h)
	e.named(h.Name)
	return e.do("add host %s (%s) to group %s of service %s", show(h.Name), describeHost(h), show(g.Name), show(s.Name))
}

// describeHost tells what a host has that is not the default.
func describeHost(h *config.Host) string {
	text := h.Address
	rows := config.Attributes("host")
	for i := range rows {
		if a := &rows[i]; a.Runtime && a.Name != "ip" && a.Get(h) != a.Default {
			text += fmt.Sprintf(", %s %s", a.Name, words.Quote(a.Get(h)))
		}
	}
	return text
}

func delHost(e *edit) error {
	s, g, err := e.group()
	if err != nil {
		return err
	}
	want := e.args.text("name")
	h, err := findHost(g, want)
	if err != nil {
		var names []string
		for _, o := range g.Hosts {
			if sameAddress(o.Address, want) {
				h = o
				names = append(names, o.Name)
			}
		}
		switch {
		case len(names) == 0:
			return err
		case len(names) > 1:
			return fmt.Errorf("%d hosts of group %s have the address %s; give one by name: %s", len(names), show(g.Name), want, strings.Join(names, ", "))
		}
	}
	takes := g.Enabled || s.RouteTo(g.Name) > 0
	if takes && len(g.Hosts) == 1 {
		what := "the active group"
		if !g.Enabled {
			what = fmt.Sprintf("group %s, to which route %d leads", show(g.Name), s.RouteTo(g.Name))
		} else {
			what += " " + show(g.Name)
		}
		if !e.args.set("force") {
			return fmt.Errorf("host %s is the last host of %s; use --force to delete it anyway", show(h.Name), what)
		}
		e.warn("group %s is empty: the clients of service %s will be rejected", show(g.Name), show(s.Name))
	}
	e.leave(stateHost(e.state, s.Name, g.Name, h.Name))
	g.Hosts = slices.DeleteFunc(g.Hosts, func(o *config.Host) bool { return o == h })
	e.unserved(s, g)
	return e.do("delete host %s (%s) of group %s of service %s; %s", show(h.Name), h.Address, show(g.Name), show(s.Name), e.sessions("it"))
}

func delAllHosts(e *edit) error {
	s, g, err := e.group()
	if err != nil {
		return err
	}
	if g.Enabled {
		return fmt.Errorf("group %s is active in service %s; enable another group first", show(g.Name), show(s.Name))
	}
	if err := routed(s, g); err != nil {
		return err
	}
	n := len(g.Hosts)
	if n == 0 {
		return e.nothing("group %s of service %s is empty", show(g.Name), show(s.Name))
	}
	g.Hosts = nil
	e.leave(stateGroup(e.state, s.Name, g.Name).Hosts...)
	return e.do("delete all %s of group %s of service %s; %s", count(n, "host"), show(g.Name), show(s.Name), e.sessions("them"))
}

func setHost(e *edit) error {
	if err := e.some("host"); err != nil {
		return err
	}
	return e.set(func(h *config.Host) []string { return e.assign("host", h) })
}

func hostAdminDown(e *edit) error { return e.setState("maint") }

func hostAdminUp(e *edit) error { return e.setState("ready") }

func (e *edit) setState(state string) error {
	return e.set(func(h *config.Host) []string { return assign(config.Find("host", "state"), h, state) })
}

// set changes one host.
func (e *edit) set(change func(*config.Host) []string) error {
	s, g, h, err := e.host()
	if err != nil {
		return err
	}
	changes := change(h)
	if len(changes) > 0 {
		e.unserved(s, g)
	}
	what := fmt.Sprintf("host %s of group %s of service %s", show(h.Name), show(g.Name), show(s.Name))
	if !e.args.given("drain") {
		return e.told(what, changes)
	}
	if h.State == "ready" {
		return fmt.Errorf("drain=%s is for a host that takes no new sessions; add state=drain or state=maint", e.args.text("drain"))
	}
	e.leave(stateHost(e.state, s.Name, g.Name, h.Name))
	if len(changes) == 0 { // it drains already, and gets a deadline
		_ = e.do("%s is in state %s; %s", what, h.State, e.sessions("it"))
		return errSame
	}
	return e.do("set %s: %s; %s", what, strings.Join(changes, ", "), e.sessions("it"))
}

// unserved warns when the clients of a service find no host any more.
func (e *edit) unserved(s *config.Service, g *config.Group) {
	takes := func(h *config.Host) bool { return h.State == "ready" && h.Weight > 0 }
	if (g.Enabled || s.RouteTo(g.Name) > 0) && len(g.Hosts) > 0 && !slices.ContainsFunc(g.Hosts, takes) {
		e.warn("no host of group %s takes clients: those of service %s will be rejected", show(g.Name), show(s.Name))
	}
}

// leave notes hosts that get no more sessions.
func (e *edit) leave(hosts ...*director.Host) {
	for _, h := range hosts {
		for t := range h.All() {
			e.drain.Hosts = append(e.drain.Hosts, t.Host)
		}
	}
}

// sessions says what becomes of the sessions of hosts that leave.
func (e *edit) sessions(on string) string {
	n := int64(0)
	for _, h := range e.drain.Hosts {
		n += h.Stats().Active
	}
	return count(int(n), "session") + " on " + on + " " + e.fate()
}

// fate says what becomes of the sessions of what leaves.
func (e *edit) fate() string {
	deadline, ok := e.args.duration("drain")
	switch {
	case !ok:
		return "may finish"
	case deadline == 0:
		return "end now"
	}
	return fmt.Sprintf("may finish for %v", deadline.Round(time.Millisecond))
}

// closes notes that a listener closes. If its sessions have a deadline, it says so.
func (e *edit) closes(s *config.Service, address string) string {
	if !e.args.given("drain") {
		return ""
	}
	for _, l := range e.listeners() {
		if l.Service == s.Name && l.Listen == address {
			e.drain.Listeners = append(e.drain.Listeners, l)
		}
	}
	return "; sessions that came by it " + e.fate()
}

// count says how many of something there are.
func count(n int, what string) string { return words.Count(n, what) }

// stateGroup returns a running group of a name that the model has.
func stateGroup(s *director.State, service, group string) *director.Group {
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

// stateHost returns a running host of a name that the model has.
func stateHost(s *director.State, service, group, host string) *director.Host {
	for _, h := range stateGroup(s, service, group).Hosts {
		if h.Config.Name == host {
			return h
		}
	}
	return &director.Host{}
}
