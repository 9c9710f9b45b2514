package director

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// withAccess is a document whose service has access rules.
func withAccess(rules string) string {
	return strings.Replace(with(""), "<group", "<access>"+rules+"</access><group", 1)
}

// denies asks what the engine has been told.
func (w *world) denies(address string) bool {
	denied := w.lastPlan().Services[0].Route.Denied
	return denied != nil && denied(netip.MustParseAddr(address))
}

// Access rules reach the engine, and a reload takes up what the rules and their files
// have become. A file with a mistake changes nothing.
func TestB89AccessListsFollowReloads(t *testing.T) { testkit.Bubble(t, accessListsFollowReloads) }

func accessListsFollowReloads(t *testing.T) {
	w := newWorld()
	list := filepath.Join(t.TempDir(), "foes.txt")
	writeFile(t, list, "# foes\n192.0.2.0/24\n\n198.51.100.7 # one\n")
	rules := fmt.Sprintf(`<allow net="192.0.2.1"/><deny file="%s"/>`, list)
	d, path := startFile(t, w, withAccess(rules))
	expect := func(when string, denied ...string) {
		t.Helper()
		for _, a := range []string{"192.0.2.1", "192.0.2.2", "198.51.100.7", "198.51.100.8", "2001:db8::1"} {
			if want := strings.Contains(" "+strings.Join(denied, " ")+" ", " "+a+" "); w.denies(a) != want {
				t.Errorf("%s: %s: denied is %v", when, a, !want)
			}
		}
	}
	reload := func(dry bool) (Reloaded, error) {
		return d.Reload(t.Context(), ReloadRequest{By: "tester", DryRun: dry})
	}
	expect("at the start", "192.0.2.2", "198.51.100.7")

	if r, err := reload(false); err != nil || len(r.Lists) != 0 || !strings.Contains(r.String(), "nothing has changed") {
		t.Errorf("the same again: %v, %v", r, err)
	}
	table := w.lastPlan().Services[0].Route
	writeFile(t, list, "198.51.100.8\n")
	expect("before the reload", "192.0.2.2", "198.51.100.7")
	if r, err := reload(true); err != nil || len(r.Lists) != 1 {
		t.Errorf("a dry run: %v, %v", r, err)
	}
	expect("after a dry run", "192.0.2.2", "198.51.100.7")
	if r, err := reload(false); err != nil || len(r.Lists) != 1 || !strings.Contains(r.String(), "list changed: "+list) {
		t.Errorf("another list: %v, %v", r, err)
	}
	expect("another list", "198.51.100.8")
	if w.lastPlan().Services[0].Route == table {
		t.Error("the route has not changed")
	}

	// A change of health keeps the rules as they are.
	list1 := d.routes["web"].who
	do(t, d, weight(0, 7))
	expect("another weight", "198.51.100.8")
	if d.routes["web"].who != list1 {
		t.Error("the list was made again for a weight")
	}

	writeFile(t, list, "198.51.100.8\n192.0.2.1/24\nnobody\n")
	_, err := reload(false)
	for _, want := range []string{list + ":2: 192.0.2.1/24 is an address within a network", list + `:3: "nobody" is not a network`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a list with mistakes: %v, want %s", err, want)
		}
	}
	expect("a list with mistakes", "198.51.100.8")
	if !d.ReloadFailed() {
		t.Error("the reload has not failed")
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	if _, err := reload(false); err == nil || !strings.Contains(err.Error(), list+`: cannot read the networks for <access> of service "web": no such file`) {
		t.Errorf("no list: %v", err)
	}
	expect("no list", "198.51.100.8")

	writeFile(t, path, with(""))
	if _, err := reload(false); err != nil {
		t.Fatal(err)
	}
	if w.lastPlan().Services[0].Route.Denied != nil {
		t.Error("without <access> the engine still asks")
	}
}

// A list that is wrong at the start is an error of the start.
func TestAccessListAtTheStart(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ file, want string }{
		{dir, "it is not a regular file"}, {filepath.Join(dir, "none"), "no such file"},
	} {
		c, problems := config.Parse("c.xml", []byte(withAccess(`<deny file="`+test.file+`"/>`)))
		if c == nil {
			t.Fatal(problems)
		}
		w := newWorld()
		if _, err := New(c, w, Options{Log: w.logger(), Resolver: w, Probe: w.probe}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.file, err)
		}
		if err := CheckLists(c); err == nil {
			t.Errorf("%s: the check finds nothing", test.file)
		}
	}
}
