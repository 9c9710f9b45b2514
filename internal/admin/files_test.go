package admin

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/txlb/txlb/internal/director"
	balancer "github.com/txlb/txlb/internal/rig"
)

// write makes the rig's file another one.
func (r *rig) write(doc string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(doc), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stored() string {
	r.t.Helper()
	text, err := os.ReadFile(r.file)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// contains fails unless text has all of want.
func (r *rig) contains(text string, want ...string) {
	r.t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			r.t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func TestSaveWritesWhatRuns(t *testing.T) {
	r := newRig(t, plainDoc())
	before := r.stored()
	r.contains(r.do("show diff"), "is the same as the running configuration")
	r.contains(r.do("saveConfig"), "is already the same as the running configuration")
	r.do("setHost web main a weight=7")
	r.contains(r.do("show diff"), "setHost web main a weight=7")
	r.contains(r.do("saveConfig --dry-run"), "would write: setHost web main a weight=7")
	if r.stored() != before {
		t.Fatal("a dry run has written the file")
	}
	r.refused("saveConfig generation=1", "has changed from generation 1 to 2", "2 by boss: setHost web main a weight=7")
	r.contains(r.do("saveConfig generation=2"), "written with 1 change")
	r.contains(r.stored(), `weight="7"`)
	r.contains(r.do("show stored"), `weight="7"`)
	r.contains(r.do("show diff"), "is the same as the running configuration")

	r.do("setHost web main a weight=8")
	r.write(before + "<!-- by hand -->")
	r.refused("save", "changed by hand")
	if got := r.stored(); got != before+"<!-- by hand -->" {
		t.Errorf("a file that was edited has been overwritten:\n%s", got)
	}
}

func TestReloadByVerb(t *testing.T) {
	r := newRig(t, plainDoc())
	before := r.stored()
	r.contains(r.do("reload"), "nothing has changed")
	r.do("setHost web main a weight=7")
	r.write(strings.Replace(before, `name="b"`, `name="b" weight="3"`, 1))
	dry := r.do("reload --dry-run")
	r.contains(dry, "dry run: changed: setHost web main b weight=3", "dry run: kept, not in the file: setHost web main a weight=7")
	if g := r.dir.State().Generation; g != 2 {
		t.Fatalf("generation %d after a dry run", g)
	}
	r.refused("reload generation=1", "has changed")
	r.contains(r.do("reload generation=2"), "changed: setHost web main b weight=3", "kept, not in the file: setHost web main a weight=7")
	r.contains(r.do("reload --discard"), "changed: setHost web main a weight=1")

	r.write(strings.Replace(before, "roundr", "rondr", 1))
	line := 1 + strings.Count(before[:strings.Index(before, "roundr")], "\n")
	r.refused("reload", r.file+":"+strconv.Itoa(line)+": ", "rondr", "roundr")
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.refused("reload", "no such file")
}

func TestRollbackByVerb(t *testing.T) {
	r := newRig(t, plainDoc())
	r.refused("rollback", "nothing to undo")
	r.do("setHost web main a weight=7; setHost web main b weight=8; setHost web spare c state=drain")
	was := r.dir.State()
	r.contains(r.do("rollback 2 --dry-run"), "would setHost web spare c state=ready", "would setHost web main b weight=1")
	if r.dir.State() != was {
		t.Fatal("a dry run has changed something")
	}
	r.refused("rollback generation=3", "has changed")
	r.refused("rollback 4", "the number of remembered changes is 3; 4 cannot be undone")
	r.contains(r.do("rollback 2 generation=4"), "generation 5: setHost web main b weight=1")
	r.contains(r.do("rollback"), "setHost web main b weight=8") // the rollback itself
}

// What is a change and an order is one event.
func TestAnOrderThatChangesIsOneEvent(t *testing.T) {
	r := newRig(t, plainDoc())
	write := func(weight string) {
		doc := strings.Replace(plainDoc(), `name="a"`, `name="a" weight="`+weight+`"`, 1)
		if err := os.WriteFile(r.file, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for _, c := range []struct{ line, kind, verb string }{
		{"setHost web main b weight=8", "change", "setHost web main b weight=8"},
		{"rollback", "change", "rollback 1"},
		{"reload", "change", "reload"},
		{"reload", "order", "reload"}, // nothing to change
	} {
		if c.line == "reload" {
			write("7")
		}
		r.do(c.line)
		want = append(want, c.kind+" "+c.verb)
	}
	var got []string
	for _, e := range r.dir.Events() {
		got = append(got, string(e.Kind)+" "+e.Verb)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the events are %q, want %q", got, want)
	}
}

// What happens is remembered with who did it, secrets left out; a host that
// fails is there with its reason.
func TestEventsTellWhoAndWhat(t *testing.T) {
	r := newRig(t, plainDoc())
	r.contains(r.do("show events"), "no events")
	const hash = "$6$salt$abcdefghij"
	r.do("setHost web main a weight=7; addUser eve " + hash + " readonly; retryHost web main a; shutdownSessions web")
	if _, err := r.a.Run(t.Context(), boss, "setHost web main a weight=nine; retryHost web main a --dry-run"); err == nil {
		t.Error("a wrong number was taken")
	}
	c, err := dial(r.addr) // both hosts refuse
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Read(make([]byte, 1))
	_ = c.Close()
	var list []director.Event
	eventually(t, "both hosts are down", func() bool {
		list = r.dir.Events()
		return len(list) == 6
	})
	var kinds []string
	for i, e := range list {
		kinds = append(kinds, string(e.Kind))
		if e.Seq != uint64(i+1) {
			t.Errorf("event %d has the number %d", i+1, e.Seq)
		}
	}
	if want := []string{"change", "change", "order", "order", "health", "health"}; !slices.Equal(kinds, want) {
		t.Fatalf("events %v, want %v: %+v", kinds, want, list)
	}
	if n := r.dir.LastEvent(); n != 6 {
		t.Errorf("the last event is %d", n)
	}
	text := r.do("show events")
	r.contains(text, "setHost web main a weight=7", "addUser eve *** readonly", "retryHost web main a", "shutdownSessions web: 0 sessions closed",
		"boss", "127.0.0.1:999", "host down: web main ", "connection refused")
	if strings.Contains(text, hash) {
		t.Errorf("a secret is shown:\n%s", text)
	}
	if got := strings.Count(r.do("show events max=2"), "\n"); got != 2 {
		t.Errorf("max=2 gives %d lines", got)
	}
}

// A readonly user sees no hash of the stored file, not even one in a comment.
func TestStoredFileHidesHashes(t *testing.T) {
	const hash = "$6$salt$secrethash"
	text := strings.Replace(plainDoc(), "</config>", "<!-- was "+hash+" --></config>", 1)
	text = strings.Replace(text, `<group name="spare">`, `<group name="spare"><check type="expect" send="AUTH topsecret" expect="OK"/>`, 1)
	r := newRig(t, text)
	r.contains(r.do("show stored"), "<!-- was "+hash, `password="`+hash)
	r.contains(r.do("show config"), "AUTH topsecret")
	r.do("delUser looker")
	r.do("delGroup web spare")
	r.do("rollback")
	if err := os.WriteFile(r.file, []byte(strings.Replace(text, "topsecret", "topsecret2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := r.do("reload"); strings.Contains(text, "topsecret") {
		t.Errorf("a reload shows what checks send:\n%s", text)
	}
	for _, line := range []string{"show stored", "show diff", "show events", "show config"} {
		results, err := r.a.Run(t.Context(), guest, line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		data, err := json.Marshal(results)
		if err != nil {
			t.Fatal(err)
		}
		if text := results[0].Text + string(data); strings.Contains(text, "$6$salt") || strings.Contains(text, "topsecret") {
			t.Errorf("%s shows a secret to a readonly user:\n%s", line, results[0].Text)
		}
	}
}

func TestWithoutAFile(t *testing.T) {
	r := newRig(t, plainDoc())
	a := New(Options{Director: balancer.Hold(t, plainDoc()), Engine: r.eng})
	for _, line := range []string{"saveConfig", "saveConfig --dry-run", "reload", "show diff", "show stored"} {
		if _, err := a.Run(t.Context(), boss, line); !errors.Is(err, director.ErrNoFile) {
			t.Errorf("%s: %v", line, err)
		}
	}
}
