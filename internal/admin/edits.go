package admin

import (
	"fmt"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/edits"
)

// edit is one change of the model by a verb, while it is made. What it may do is decided by
// package edits; here the words of the command become its arguments.
type edit struct {
	edits.Edit
	args args
}

// text tells what was done, or with "would " what would be.
func (e *edit) text(would string) string {
	if e.Same {
		return "nothing to change: " + e.Did
	}
	text := would + e.Did
	for _, n := range e.Notes {
		text += "\nwarning: " + n
	}
	return text
}

// names returns the service, the group and the host that the command names.
func (e *edit) names() (service, group, host string) {
	return e.args.text("service"), e.args.text("group"), e.args.text("name")
}

func (e *edit) service() (*config.Service, error) {
	return edits.Service(e.Config, e.args.text("service"))
}

func (e *edit) group() (*config.Service, *config.Group, error) {
	service, group, _ := e.names()
	return e.Group(service, group)
}

func addService(e *edit) error {
	s := config.NewService(e.args.text("name"))
	s.Listen = []config.Listen{e.listener()}
	return e.AddService(s)
}

func delService(e *edit) error { return e.DeleteService(e.args.text("service")) }

func addListen(e *edit) error { return e.AddListener(e.args.text("service"), e.listener()) }

// listener is a new listener as the command says it.
func (e *edit) listener() config.Listen {
	l := config.Listen{Address: e.args.text("address")}
	e.assign("listen", &l)
	return l
}

func delListen(e *edit) error {
	return e.DeleteListener(e.args.text("service"), e.args.text("address"))
}

func switchPort(e *edit) error {
	return e.SwitchPort(e.args.text("service"), e.args.text("address"), e.args.text("old"))
}

func addGroup(e *edit) error {
	g := config.NewGroup(e.args.text("name"))
	e.assign("group", g)
	return e.AddGroup(e.args.text("service"), g)
}

func delGroup(e *edit) error {
	service, group, _ := e.names()
	return e.DeleteGroup(service, group)
}

func enableGroup(e *edit) error {
	service, group, _ := e.names()
	return e.EnableGroup(service, group)
}

func changeScheduler(e *edit) error {
	service, group, _ := e.names()
	return e.SetScheduler(service, group, e.args.text("scheduler"))
}

// assign gives the attributes of an element, which p points to, the values that
// the command has for them, and returns what that changed.
func (e *edit) assign(element string, p any) (changes []string) {
	rows := config.Attributes(element)
	for i := range rows {
		if a := &rows[i]; a.Runtime && e.args.given(a.Name) {
			changes = append(changes, edits.Assign(a, p, e.args.text(a.Name))...)
		}
	}
	return changes
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
	return e.Told("service "+show(s.Name), changes)
}

func setGroup(e *edit) error {
	if err := e.some("group"); err != nil {
		return err
	}
	s, g, err := e.group()
	if err != nil {
		return err
	}
	return e.Told(fmt.Sprintf("group %s of service %s", show(g.Name), show(s.Name)), e.assign("group", g))
}

func addHost(e *edit) error {
	service, group, name := e.names()
	h := config.NewHost(name, "")
	e.assign("host", h)
	return e.AddHost(service, group, h)
}

func delHost(e *edit) error {
	service, group, name := e.names()
	return e.DeleteHost(service, group, name)
}

func delAllHosts(e *edit) error {
	service, group, _ := e.names()
	return e.DeleteHosts(service, group)
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
	return e.set(func(h *config.Host) []string { return edits.Assign(config.Find("host", "state"), h, state) })
}

// set changes one host.
func (e *edit) set(change func(*config.Host) []string) error {
	service, group, name := e.names()
	return e.SetHost(service, group, name, change)
}
