package admin

import (
	"errors"
	"fmt"
	"slices"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/passwd"
)

func userName(u *config.User) string { return u.Name }

func addUser(e *edit) error {
	name := e.args.text("name")
	if err := edits.Fresh(e.Config.Admin.Users, userName, name, "user", ""); err != nil {
		return err
	}
	u := &config.User{Name: name, Password: e.args.text("hash"), Access: e.args.text("access")}
	e.Config.Admin.Users = append(e.Config.Admin.Users, u)
	e.Named(name)
	e.password(u)
	e.unsaved()
	return e.Do("add user %s with access %s", show(name), u.Access)
}

// password warns of a hash that nobody can log in with.
func (e *edit) password(u *config.User) {
	if err := passwd.Check(u.Password); err != nil {
		e.Warn("user %s cannot log in with a password: %v", show(u.Name), err)
	}
}

// unsaved reminds of what a restart would bring back.
func (e *edit) unsaved() {
	if !e.Config.Manager.ConfigCheck.Enable {
		e.Warn("this is lost when txlb stops, unless saveConfig saves it")
	}
}

func setUser(e *edit) error {
	if !e.args.given("hash") && !e.args.given("access") {
		return errors.New("nothing to set; give at least one of: hash=HASH, access=full|readonly")
	}
	u, _, err := edits.Find(e.Config.Admin.Users, userName, e.args.text("name"), ErrUnknownName, "user", "")
	if err != nil {
		return err
	}
	var changes []string
	if hash := e.args.text("hash"); e.args.given("hash") && hash != u.Password {
		u.Password = hash
		changes = append(changes, "password")
		e.password(u)
	}
	if access := e.args.text("access"); e.args.given("access") && access != u.Access {
		if err := lastFull(e.Config.Admin.Users, u); err != nil {
			return err
		}
		changes = append(changes, edits.Assign(config.Find("user", "access"), u, access)...)
	}
	if len(changes) > 0 {
		e.unsaved()
	}
	return e.Told("user "+show(u.Name), changes)
}

// lastFull refuses to take full access from the only user who has it.
func lastFull(all []*config.User, u *config.User) error {
	others := func(o *config.User) bool { return o != u && o.Access == "full" }
	if u.Access == "full" && !slices.ContainsFunc(all, others) {
		return fmt.Errorf("user %s is the last user with full access; add another first", show(u.Name))
	}
	return nil
}

func delUser(e *edit) error {
	users := e.Config.Admin.Users
	u, _, err := edits.Find(users, userName, e.args.text("name"), ErrUnknownName, "user", "")
	if err != nil {
		return err
	}
	if err := lastFull(users, u); err != nil {
		return err
	}
	e.unsaved()
	e.Config.Admin.Users = slices.DeleteFunc(users, func(o *config.User) bool { return o == u })
	return e.Do("delete user %s", show(u.Name))
}
