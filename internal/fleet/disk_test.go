package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// stillOurs is for a memory of a node that hands over to nobody.
func stillOurs() bool { return false }

// A hand-over does not wait for a disk that hangs, and what is written there later comes to
// nothing.
func TestHandOverOnADiskThatHangs(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		a := join(t, newMemoryStore(), "a", folder(t, oneService))
		a.keeping <- struct{}{}
		began := time.Now()
		a.HandOver()
		if took := time.Since(began); took > handOverWithin || !a.isHandedOver() {
			t.Errorf("handed over %v after %v", a.isHandedOver(), took)
		}
		<-a.keeping
		before, err := os.ReadFile(a.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := (memory{ID: "late"}).keep(a.path, a.isHandedOver); !errors.Is(err, errNotOurs) {
			t.Error(err)
		}
		if after, err := os.ReadFile(a.path); err != nil || string(after) != string(before) {
			t.Errorf("it has %s (%v), and had %s", after, err, before)
		}
	})
}

// Nobody waits for a node that locks its place. If it is handed over meanwhile, it gives the place
// up at once.
func TestPlaceOnADiskThatHangs(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		goes := make(chan struct{})
		a := begin(t, newMemoryStore().link(), "a", folder(t, oneService), func(n *Node) {
			n.lock = func(path string) (*os.File, place, error) {
				<-goes
				return lockPlace(path)
			}
		})
		synctest.Wait()
		if !a.Node.mu.TryLock() {
			t.Error("it is locked meanwhile")
		} else {
			a.Node.mu.Unlock()
			a.HandOver()
		}
		close(goes)
		synctest.Wait()
		f, _, err := lockPlace(filepath.Join(filepath.Dir(a.file), "fleet-edge@a.lock"))
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	})
}

// A node shares limits, and hands its parts over, while its disk hangs: the others wait for what it
// gives, and clients for an upgrade.
func TestB107LimitsOnADiskThatHangs(t *testing.T) {
	store, doc := newMemoryStore(), limitService(keeper(t), `sessions="90" scope="fleet"`)
	a := limit(t, store, "a", doc)
	parts(t, "sessions", 90, a)
	a.keeping <- struct{}{}
	defer func() { <-a.keeping }()
	b := limit(t, store, "b", doc) // a has to remember that they are two
	parts(t, "sessions", 90, a, b)
	if a.Parts(true) == nil {
		t.Error("it hands nothing over")
	}
	a.Keep()
}

// A node whose disk hangs still joins, follows the fleet, holds and renews its lease, and says what
// is wrong. When the disk answers, it has what the node knows by then.
func TestFollowsOnADiskThatHangs(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		b := join(t, store, "b", folder(t, oneService))
		a := begin(t, store.link(), "a", folder(t, oneService), func(n *Node) { n.keeping <- struct{}{} })
		must(t)(b.weigh("a", 3))
		must(t)(b.weigh("a", 4))
		if _, err := b.hold(time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lease)
		synctest.Wait()
		a.runs(3, "a4 b1")
		if g := a.dir.State().Services[0].Groups[0]; g.Hold() == nil {
			t.Error("it does not hold")
		}
		const why = "cannot keep what this node knows of its fleet: the disk has not answered within 1s"
		if s := b.Status(); len(s.Nodes) != 2 || s.Nodes[0].Problem != why {
			t.Errorf("another node sees\n%s", s)
		}
		<-a.keeping
		time.Sleep(2*retryEvery + lease)
		synctest.Wait()
		if s := a.Status(); strings.Contains(s.String(), "cannot keep") {
			t.Errorf("it says\n%s", s)
		}
		if m, err := recall(a.path, a.before); err != nil || m.Generation != 3 {
			t.Errorf("the file has generation %d (%v)", m.Generation, err)
		}
	})
}
