package admin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
)

// Verbs say of access rules what the file can say: their order, networks and files, and
// show diff says them as verbs.
func TestAccessByVerb(t *testing.T) {
	a := serve(t, "a")
	r := newRig(t, doc(a.addr, a.addr, a.addr))
	first, _ := r.dial()
	rejected := func() bool {
		c, err := dial(r.addr)
		if err != nil {
			return true
		}
		defer func() { _ = c.Close() }()
		_, err = c.ask()
		return err != nil
	}
	for _, step := range []struct {
		line, says string
		rejected   bool
	}{
		{`addAccess web deny net=*`, `add access rule 1 to service "web": deny every address`, true},
		{`addAccess web allow net=10.0.0.0/8`, "warning: the rule is never reached: rule 1 matches every client; at=1 puts the new one before it", true},
		{`addAccess web allow net="127.0.0.0/8 192.0.2.7" at=1`, `add access rule 1 to service "web": allow 127.0.0.0/8 192.0.2.7`, false},
		{`show access web`, "web      1     allow   127.0.0.0/8 192.0.2.7/32", false},
		{`show diff`, "addAccess web allow net=\"127.0.0.0/8 192.0.2.7/32\"\naddAccess web deny net=*\naddAccess web allow net=10.0.0.0/8", false},
		{`delAccess web 1 --dry-run`, `would delete access rule 1 of service "web"`, false},
		{`delAccess web 1`, `delete access rule 1 of service "web": allow 127.0.0.0/8`, true},
		{`rollback`, "", false},
		{`delAccess web 1; delAccess web 1`, "", false},
		{`addAccess web deny net=127.0.0.1`, "", true},
		{`delAccess web 2`, "", false}, // what was denied last comes behind the one that allows 10.0.0.0/8
	} {
		if text := r.do(step.line); !strings.Contains(text, step.says) {
			t.Errorf("%s: %s\nwant %s", step.line, text, step.says)
		}
		if got := rejected(); got != step.rejected {
			t.Errorf("%s: a new client is rejected: %v", step.line, got)
		}
	}
	if _, err := first.ask(); err != nil {
		t.Errorf("the session from before: %v", err)
	}
	r.refused("addAccess web deny", "either net=NETWORKS", "or file=PATH")
	r.refused("addAccess web deny net=* file=/x", "either net=NETWORKS")
	r.refused("addAccess web deny net=10.0.0.1/8", "10.0.0.1/8")
	r.refused("addAccess web maybe net=*", "allow, deny")
	r.refused("addAccess web deny net=* at=9", "at most number 2")
	r.refused("delAccess web 2", `has no access rule 2; the last is number 1`)
	r.refused("delAccess web", "NUMBER is missing")
}

// A file is named by verbs only where <admin targets> allows it; what it has wrong is
// said, and changes nothing.
func TestAccessFilesByVerb(t *testing.T) {
	list := filepath.Join(t.TempDir(), "foes")
	if err := os.WriteFile(list, []byte("127.0.0.0/8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, plainDoc())
	r.refused("addAccess web deny file="+list, "admin targets", "lets commands name only TCP addresses")
	r = newRig(t, strings.Replace(plainDoc(), "<admin>", `<admin targets="any">`, 1))
	r.do("addAccess web deny file=" + list)
	c, err := dial(r.addr)
	if err == nil {
		if _, err = c.ask(); err == nil {
			t.Error("a client that the file denies is let in")
		}
		_ = c.Close()
	}
	r.refused("addAccess web deny file="+list+"2", "no such file")
	if err := os.WriteFile(list+"3", []byte("what\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.refused("addAccess web deny file="+list+"3", "foes3:1")
}

// A reload keeps the rules that were set at run time, unless the file has changed them.
func TestAccessAndReload(t *testing.T) {
	r := newRig(t, plainDoc())
	r.do("addAccess web deny net=192.0.2.0/24")
	rules := func(service int) []config.AccessRule { return r.dir.State().Config.Services[service].Access }
	text, err := os.ReadFile(r.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.file, []byte(strings.Replace(string(text), `<allow net="*"/>`, `<deny net="*"/>`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := r.do("reload"); !strings.Contains(text, "addAccess mail deny net=*") || !strings.Contains(text, "delAccess mail 2") {
		t.Errorf("said %s", text)
	}
	if len(rules(0)) != 1 || rules(0)[0].Nets != "192.0.2.0/24" || len(rules(1)) != 1 || !rules(1)[0].Deny {
		t.Errorf("rules %+v, %+v", rules(0), rules(1))
	}
	r.do("saveConfig; reload --discard")
	if len(rules(0)) != 1 || r.do("show diff") == "" {
		t.Errorf("rules %+v", rules(0))
	}
}
