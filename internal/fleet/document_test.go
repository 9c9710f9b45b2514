package fleet

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
)

// hosts makes a configuration with many hosts.
func hosts(t testing.TB, n int, pad string) *config.Config {
	t.Helper()
	var b strings.Builder
	b.WriteString(`<config><service name="web"><listen ip="unix:/run/web"/><group name="g">`)
	for i := range n {
		fmt.Fprintf(&b, `<host name="h%d%s" ip="10.%d.%d.%d:8080" weight="%d" maxSessions="500"/>`, i, pad, i>>16, i>>8&255, i&255, i%97)
	}
	b.WriteString(`</group></service></config>`)
	c, problems := config.Parse("c", []byte(b.String()))
	if c == nil {
		t.Fatal(problems)
	}
	return c
}

// A document is read as it was written, small or compressed, and people can read a small one.
func TestDocument(t *testing.T) {
	for _, n := range []int{1, 10_000} {
		d := &document{Fleet: "edge", Version: "1.2.3", Generation: 7, ID: "id", Config: hosts(t, n, ""), History: []change{
			{6, "a", "ops", "ssh 10.0.0.9", `setHost web g "h <&> 1" weight=3`, time.Date(2026, 11, 29, 1, 2, 3, 0, time.UTC), 5, "not confirmed within 1m0s"},
			{7, "b", "ann", "", "reload", time.Date(2026, 11, 29, 1, 2, 4, 0, time.UTC), 0, ""},
		}}
		value, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d hosts: %d bytes", n, len(value))
		if n == 1 && !bytes.Contains(value, []byte("\n<config>\n")) {
			t.Errorf("not legible:\n%s", value)
		}
		got, err := decode(value, "edge")
		if err != nil {
			t.Fatal(err)
		}
		if got.Generation != 7 || got.ID != "id" || got.Version != "1.2.3" || len(got.History) != 2 || got.History[0] != d.History[0] || !sameShared(got.Config, d.Config) {
			t.Errorf("%+v", got)
		}
	}
}

// The history is bounded, and so is every text in it.
func TestHistoryIsBounded(t *testing.T) {
	d := &document{Fleet: "edge", Generation: 1, ID: "id", Config: hosts(t, 1, "")}
	for range 50 {
		d = d.next(change{Node: "a", By: "ops", Verb: strings.Repeat("ä", 10_000), Time: time.Now()}, d.Config, "1")
	}
	value, err := d.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(value, "edge")
	if err != nil || len(got.History) != maxHistory || got.last().Generation != 51 || len(value) > 16<<10 {
		t.Errorf("%d bytes, %d changes, %v", len(value), len(got.History), err)
	}
}

// What the store would not take is refused with the sizes.
func TestTooLarge(t *testing.T) {
	long := func(int) string { return strings.Repeat("x", 3000) }
	_, err := (&document{Fleet: "edge", Generation: 1, Config: withHosts(hosts(t, 1, ""), 3000, long)}).encode()
	refused(t, err, "the configuration has", "a fleet takes at most 8388608")
}

// A compressed value cannot fill the memory.
func TestCompressedBomb(t *testing.T) {
	d := &document{Fleet: "edge", Generation: 1, ID: "id", Config: hosts(t, 10_000, strings.Repeat("x", 20))}
	value, err := d.encode()
	if err != nil {
		t.Fatal(err)
	}
	var many []byte
	for range 100 { // members of one gzip stream are read one after the other
		many = append(many, value...)
	}
	_, err = decode(many, "edge")
	refused(t, err, "has more than the 8388608 bytes")
}

// Whatever the store has, decoding it ends, and what it accepts can be written again.
func FuzzDocument(f *testing.F) {
	for _, n := range []int{1, 1000} {
		value, err := (&document{Fleet: "edge", Version: "1", Generation: 7, ID: "id", Config: hosts(f, n, ""), History: []change{{Node: "a"}}}).encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	c := hosts(f, 2, "")
	u := &unconfirmed{change{Generation: 7, Node: "a"}, time.Minute, hosts(f, 1, ""), c}
	value, err := (&document{Fleet: "edge", Version: "1", Generation: 7, ID: "id", Config: c, Unconfirmed: []*unconfirmed{u}, Confirmed: []confirmed{{6, "a", "ops", time.Now()}}, Dropped: []uint64{5}}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	for _, value := range garbage() {
		if len(value) < 1000 {
			f.Add([]byte(value))
		}
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		d, err := decode(value, "edge")
		if err != nil {
			return
		}
		again, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		e, err := decode(again, "edge")
		if err != nil || e.Generation != d.Generation || !sameShared(d.Config, e.Config) {
			t.Fatalf("%v\n%s", err, again)
		}
	})
}

// What a node runs is its own to say: no program that is run goes into a store, and none
// comes from there.
func TestProgramsAreNotShared(t *testing.T) {
	of := func(command string) *config.Config {
		c := config.New()
		s, g := config.NewService("db"), config.NewGroup("main")
		g.OnHold = command
		s.Groups = append(s.Groups, g)
		c.Services = append(c.Services, s)
		return c
	}
	own, evil := of("start it"), of("do evil")
	if got := shared(own).Services[0].Groups[0].OnHold; got != "" || own.Services[0].Groups[0].OnHold != "start it" {
		t.Errorf("%q goes into the store", got)
	}
	if !sameShared(own, evil) {
		t.Error("programs of nodes differ, and so does what they share")
	}
	take(own, evil)
	if got := own.Services[0].Groups[0].OnHold; got != "start it" {
		t.Errorf("the node runs %q", got)
	}
}
