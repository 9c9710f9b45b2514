package admin

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/words"
)

// No verb names a UNIX socket or a file, whichever of its words says so.
func TestNoVerbNamesASocketOrAFile(t *testing.T) {
	const secret = "unix:/run/root-only.sock"
	r := newRig(t, plainDoc())
	for _, v := range Verbs() {
		if v.edit == nil {
			continue
		}
		whole := sample(t, &v)
		for i := range whole.Words {
			for _, word := range []string{secret, strings.TrimPrefix(secret, "unix:")} {
				c := words.Command{Verb: whole.Verb, Words: slices.Clone(whole.Words)}
				c.Words[i].Value = word
				for _, dry := range []bool{true, false} {
					d := c
					if dry {
						d.Words = append(slices.Clone(c.Words), words.Word{Key: "dry-run", Value: "yes"})
					}
					before := r.dir.State()
					_, err := r.a.Execute(t.Context(), boss, d)
					if why := r.dir.State().Config.Named(before.Config, nil); why != nil {
						t.Errorf("%s: %v", d, why)
					}
					// Where the word can be an address, the rule is why it is refused.
					for _, p := range v.Params {
						address := p.Kind == Address || p.Kind == Listen || v.Name == "switchPort" && p.Name == "address"
						if p.Name == c.Words[i].Key && address && word == secret && !errors.Is(err, ErrNotAllowed) {
							t.Errorf("%s: %v", d, err)
						}
					}
				}
			}
		}
	}
}

// The file may name any, and what it names verbs may name in the same place. A
// rollback brings back what was, but not the rule.
func TestTheFileMayNameAny(t *testing.T) {
	const socket = "unix:/run/php.sock"
	text := doc(socket, "127.0.0.1:2", "127.0.0.1:3")
	r := newRig(t, text)
	r.do("setHost web main a ip=127.0.0.1:9")
	r.do("setHost web main a ip=" + socket)
	r.do("delHost web main a")
	r.do("addHost web main a " + socket)
	r.do("setHost web main a weight=3")
	r.refused("addHost web main x "+socket, `"unix:/run/php.sock": <admin targets="tcp"> lets commands name only TCP addresses`, "reload", "targets")
	r.refused("addHost web spare a "+socket, "targets")
	r.refused("addHost web main x "+socket+" --dry-run", "targets")

	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.do("reload --discard")
	}
	write(strings.Replace(text, "<admin>", `<admin targets="any">`, 1))
	r.do("addHost web main x unix:/run/x.sock")
	r.do("delHost web main x")
	write(strings.Replace(text, "<admin>", `<admin targets="10.0.0.0/8">`, 1))
	r.refused("addHost web main x unix:/run/x.sock", "targets")
	r.refused("addHost web main x 127.0.0.1:1", "addresses in 10.0.0.0/8")
	r.refused("addHost web main x localhost:1", "addresses in 10.0.0.0/8")
	r.do("addHost web main x 10.9.9.9:1 state=maint")
	r.do("addListen web 127.0.0.1:0")
	write(text)
	r.do("rollback 3")
	if got := r.dir.State().Config.Admin.Targets; got != "tcp" {
		t.Errorf("a rollback has made targets %q", got)
	}
	r.do("rollback 1")
	if got := r.dir.State().Config.Admin.Targets; got != config.New().Admin.Targets {
		t.Errorf("a rollback has made targets %q", got)
	}
}
