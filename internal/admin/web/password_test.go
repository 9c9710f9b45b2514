package web

import (
	"net/http"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/passwd"
)

// The page asks for a password twice and keeps its hash. What goes wrong changes
// nothing and shows no password.
func TestPasswordsOfForms(t *testing.T) {
	r := newRig(t, twoHosts)
	find := func(name string) *config.User {
		for _, u := range r.dir.State().Config.Admin.Users {
			if u.Name == name {
				return u
			}
		}
		return nil
	}
	is := func(name, password, access string) {
		t.Helper()
		u := find(name)
		if u == nil {
			t.Fatalf("no user %s", name)
		}
		if ok, err := passwd.Verify(u.Password, password); !ok || err != nil || u.Access != access {
			t.Errorf("%s: %v, %v, %s", name, ok, err, u.Access)
		}
	}
	page := r.get("/manage")
	if a := r.post("/upgrade"); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "upgraded") || !strings.Contains(page, "Hand over to the installed program.") {
		t.Errorf("an upgrade: %s\n%s", a.Status, a.body)
	}
	for _, want := range []string{`<input type="password" name="password" autocomplete="new-password" required>`, `action="setUser"`, `<option value="" selected>as it is</option>`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if a := r.post("/addUser", "name", "ann", "password", "U*U*", "password", "U*U*", "access", "readonly"); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "unless saveConfig") {
		t.Fatal(a.Status, a.body)
	}
	is("ann", "U*U*", "readonly")
	if a := r.post("/setUser", "name", "ann", "password", "other one", "password", "other one", "access", ""); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status, a.body)
	}
	is("ann", "other one", "readonly")
	if a := r.post("/setUser", "name", "ann", "password", "", "password", "", "access", "full"); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status, a.body)
	}
	is("ann", "other one", "full")
	if a := r.post("/setUser", "name", "ann", "password", bossHash); a.StatusCode != http.StatusOK {
		t.Fatal(a.Status, a.body)
	}
	is("ann", "wonder", "full")
	before := r.dir.State()
	long := strings.Repeat("x", passwd.MaxPassword+1)
	for _, c := range []struct {
		path, says string
		words      []string
	}{
		{"/setUser", "do not match", []string{"name", "ann", "password", "secretly", "password", "secretly2"}},
		{"/setUser", "do not match", []string{"name", "ann", "password", "secretly"}},
		{"/setUser?password=secretly", "address", []string{"name", "ann", "password", "secretly"}},
		{"/addUser", "neither a password nor a DES hash", []string{"name", "bob", "hash", "secretly", "access", "full"}},
		{"/setUser", "at most 256", []string{"name", "ann", "password", long, "password", long}},
	} {
		if a := r.post(c.path, c.words...); a.StatusCode != http.StatusBadRequest || !strings.Contains(a.body, c.says) || strings.Contains(a.body, "secretly") {
			t.Errorf("%s %v: %s %s", c.path, c.words, a.Status, a.body)
		}
	}
	// Programs give hashes: there a password is a mistake.
	if status, a := r.api("setUser", map[string]any{"name": "ann", "password": "secretly"}); status != http.StatusBadRequest {
		t.Errorf("the API takes a password: %d %v", status, a)
	}
	if r.dir.State() != before {
		t.Error("something has changed")
	}
	if log := r.log.String(); strings.Contains(log, "secretly") || strings.Contains(log, "other one") || strings.Contains(log, "$y$") {
		t.Errorf("the log has a secret:\n%s", log)
	}
}
