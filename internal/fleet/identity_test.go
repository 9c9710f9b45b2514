package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// memoryIn is the file of a node in a folder.
func memoryIn(dir, node string) string { return filepath.Join(dir, "fleet-edge@"+node+".json") }

// A node whose file is damaged serves, does not join and says why. It joins when the file is
// repaired, or is gone and the lease of the node that it was is over.
func TestDamagedMemory(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		must(t)(a.weigh("a", 4))
		synctest.Wait()
		a.kill()
		dir := filepath.Dir(a.file)
		path := memoryIn(dir, "a")
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damage := func() {
			if err := os.WriteFile(path, []byte(`{"id":`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		damage()
		a = join(t, store, "a", dir)
		why := "what this node knows of its fleet cannot be read: unexpected end of JSON input; delete " + path
		if s := a.Status(); s.Joined || !strings.Contains(s.Why, why) || !strings.Contains(s.String(), why) || !says(a.log, why) {
			t.Errorf("status %v\n%s", s, a.log)
		}
		if w := a.weights(); w != "a1 b1" && w != "a4 b1" {
			t.Errorf("it serves %s", w)
		}
		_, err = a.weigh("a", 5)
		refused(t, err, why)
		if is, err := os.ReadFile(path); err != nil || string(is) != `{"id":` {
			t.Errorf("the file was changed: %s, %v", is, err)
		}

		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * longestPause)
		synctest.Wait()
		a.runs(2, "a4 b1")
		must(t)(a.weigh("a", 5))
		synctest.Wait()
		a.kill()

		damage()
		a = join(t, store, "a", dir)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lease + 2*longestPause)
		synctest.Wait()
		a.runs(3, "a5 b1")
		if !a.Status().Joined {
			t.Errorf("%+v", a.Status())
		}
	})
}

// A node that cannot keep what it knows of itself joins and says so.
func TestMemoryIsNotKept(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		dir := folder(t, oneService)
		fresh := filepath.Join(dir, ".fleet-edge@a.json.new")
		if err := os.MkdirAll(filepath.Join(fresh, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		a := join(t, newMemoryStore(), "a", dir)
		if s := a.Status(); !s.Joined || !strings.Contains(s.Problem, "cannot keep what this node knows of its fleet: open "+fresh) {
			t.Errorf("%+v", s)
		}
		if err := os.RemoveAll(fresh); err != nil {
			t.Fatal(err)
		}
		must(t)(a.weigh("a", 2))
		synctest.Wait()
		if s := a.Status(); s.Problem != "" {
			t.Errorf("%+v", s)
		}
	})
}

// However often a node is restarted before it reaches its store, it knows its place.
func TestQuickRestarts(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		dir := filepath.Dir(a.file)
		for range 3 * maxInstances {
			a.kill()
			l := store.link()
			store.set(func() { l.readOnly = true }) // it reads, and dies before it has written
			a = begin(t, l, "a", dir)
			synctest.Wait()
		}
		a.kill()
		a = join(t, store, "a", dir)
		if !a.Status().Joined {
			t.Errorf("%+v", a.Status())
		}
		m, err := recall(memoryIn(dir, "a"), "")
		if err != nil || len(m.Instances) != 1 {
			t.Errorf("%+v, %v", m, err)
		}
	})
}

// The oldest instance stays, which is the likeliest that has the key, and so do the newest.
func TestInstancesAreBounded(t *testing.T) {
	var m memory
	for i := range 100 {
		if !m.begins(fmt.Sprint(i)) || m.begins(fmt.Sprint(i)) {
			t.Error(i)
		}
	}
	if len(m.Instances) != maxInstances || m.Instances[0] != "0" || !slices.Contains(m.Instances, "99") || !slices.Contains(m.Instances, "70") {
		t.Error(m.Instances)
	}
}

// A node that gets another name is another node, and so is the copy of a machine with another
// name. What an earlier version has written is read.
func TestMemoryOfTheName(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		dir := folder(t, oneService)
		old := filepath.Join(dir, "fleet-edge.json")
		if err := os.WriteFile(old, []byte(`{"id":"1234","instance":"5678","generation":0}`), 0o600); err != nil {
			t.Fatal(err)
		}
		store.set(func() { store.put(nodeA, []byte(`{"id":"1234","instance":"5678"}`), 0) })
		a := join(t, store, "a", dir)
		if !a.Status().Joined || a.memory.ID != "1234" {
			t.Errorf("%+v", a.Status())
		}
		if _, err := os.Stat(old); !os.IsNotExist(err) {
			t.Errorf("the file of the earlier version: %v", err)
		}
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		b := join(t, store, "b", copied)
		if !a.Status().Joined || !b.Status().Joined || b.memory.ID == a.memory.ID {
			t.Errorf("%+v\n%+v", a.Status(), b.Status())
		}
		a.stop()
		c := join(t, store, "c", dir)
		if !c.Status().Joined || c.memory.ID == b.memory.ID {
			t.Errorf("%+v", c.Status())
		}
	})
}
