package fleet

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// whole is for the proofs that take too long for every day: make fleet.
var whole = flag.Bool("whole", false, "test with the full numbers, see make fleet")

// withHosts is a configuration with the first host of another so many times. None of it has
// been parsed, so it may have more than a file.
func withHosts(of *config.Config, n int, name func(int) string) *config.Config {
	c := of.Clone()
	g := c.Services[0].Groups[0]
	first := *g.Hosts[0]
	g.Hosts = nil
	for i := range n {
		h := first
		h.Name, h.Address = name(i), fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255)
		g.Hosts = append(g.Hosts, &h)
	}
	return c
}

// What no node could read is not accepted, though the store would take it: a file has bounds.
func TestUnreadableIsRefused(t *testing.T) {
	d := &document{Fleet: "edge", Generation: 1, ID: "id", Config: withHosts(hosts(t, 1, ""), 1, func(int) string { return strings.Repeat("x", 70_000) })}
	_, err := d.encode()
	refused(t, err, "no node could read it", "a tag of more than 64 KiB", "divide it among several fleets")
}

// Compression carries as many hosts as a configuration may have, which is 100,000 elements. One
// more is refused.
func TestHundredThousandHosts(t *testing.T) {
	if !*whole {
		t.Skip("a part of make fleet")
	}
	const most = 99_980 // and what is around them
	name := func(i int) string { return fmt.Sprint("host", i) }
	d := &document{Fleet: "edge", Generation: 1, ID: "id", Config: withHosts(hosts(t, 1, ""), most, name)}
	began := time.Now()
	value, err := d.encode()
	if err != nil {
		t.Fatal(err)
	}
	written := time.Now()
	got, err := decode(value, "edge")
	if err != nil || len(got.Config.Services[0].Groups[0].Hosts) != most {
		t.Fatal(err)
	}
	t.Logf("%d hosts: %d bytes, written in %v, read in %v", most, len(value), written.Sub(began), time.Since(written))
	d.Config = withHosts(d.Config, 100_000, name)
	_, err = d.encode()
	refused(t, err, "no node could read it", "more than 100000 elements", "divide it among several fleets")
}

// A change that makes the configuration too large is refused where it is made: nothing runs it,
// and the store does not see it.
func TestTooLargeChangeIsRefused(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		b := join(t, store, "b", folder(t, oneService))
		random := rand.New(rand.NewPCG(1, 2)) // does not compress
		_, err := a.dir.Do(t.Context(), director.Change{By: "ops", Verb: "reload", Apply: func(c *config.Config) error {
			*c = *withHosts(c, 4000, func(i int) string {
				name := fmt.Appendf(nil, "h%d-", i)
				for range 50 {
					name = fmt.Appendf(name, "%016x", random.Uint64())
				}
				return string(name)
			})
			return nil
		}})
		refused(t, err, "the configuration has", "when compressed; the store of a fleet takes at most 1400000: divide it among several fleets")
		a.runs(1, "a1 b1")
		must(t)(a.weigh("a", 2))
		synctest.Wait()
		b.runs(2, "a2 b1")
	})
}

// What a node has written itself, it does not read: with 10,000 hosts that takes a tenth of a
// second. Here the answer of the store is lost, and only the watch brings the document.
func TestOwnDocumentIsNotRead(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		store.set(func() { a.link.lostReply = true })
		if _, err := a.weigh("a", 2); err == nil {
			t.Fatal("the answer was not lost")
		}
		synctest.Wait()
		a.runs(2, "a2 b1")
		if a.newest != a.offered.document {
			t.Error("it has read its own document")
		}
	})
}

// A change that is refused was never sent, so it has no unknown end: also not if the node has
// left because it does not know what became of its own key.
func TestRefusedChangeIsKnown(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		a.left(&UnknownError{errCut})
		_, err := a.weigh("a", 2)
		refused(t, err, "takes no changes from this node now", errCut.Error())
		if errors.As(err, new(*UnknownError)) {
			t.Errorf("it may still take effect, says %v", err)
		}
	})
}

func BenchmarkDocument(b *testing.B) {
	d := &document{Fleet: "edge", Version: "1", Generation: 1, ID: newID(), Config: hosts(b, 10_000, "")}
	value, err := d.encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			if _, err := d.encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := decode(value, "edge"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
