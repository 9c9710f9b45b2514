package fleet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
)

// Several goroutines of a node write what it knows of itself. None fails because of another, and
// the file has the newest in the end.
func TestMemoryWithSeveralWriters(t *testing.T) {
	a := begin(t, newMemoryStore().link(), "a", folder(t, oneService))
	a.stop()
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 20 {
				a.Node.mu.Lock()
				a.memory.Generation++
				a.Node.mu.Unlock()
				a.remember()
				a.Node.mu.Lock()
				err := a.unkept
				a.Node.mu.Unlock()
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	m, err := recall(a.path, a.before)
	if err != nil || m.Generation != a.Node.Generation() {
		t.Errorf("the file has generation %d (%v), and the node %d", m.Generation, err, a.Node.Generation())
	}
}

// A write that is under way when the process hands over is over before another process may write.
func TestHandOverWaitsForTheMemory(t *testing.T) {
	a := begin(t, newMemoryStore().link(), "a", folder(t, oneService))
	a.stop()
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 20 {
				a.remember()
			}
		})
	}
	a.HandOver()
	other := memory{ID: "another process"}
	if err := other.keep(a.path, stillOurs); err != nil {
		t.Error(err)
	}
	writers.Wait()
	if m, err := recall(a.path, a.before); err != nil || m.ID != other.ID {
		t.Errorf("the file has %+v (%v)", m, err)
	}
}

// What could not be written is written when the cause is gone, though nothing has changed.
func TestMemoryIsKeptWhenItCanBe(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		dir := folder(t, oneService)
		store := newMemoryStore()
		a, b := join(t, store, "a", dir), join(t, store, "b", folder(t, oneService))
		time.Sleep(lease)
		if err := os.Remove(a.path); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(a.path, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		must(t)(a.weigh("a", 2))
		time.Sleep(lease)
		synctest.Wait()
		if s := a.Status(); !strings.Contains(s.String(), "cannot keep what this node knows of its fleet") {
			t.Errorf("it says %s", s)
		}
		if err := os.RemoveAll(a.path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*retryEvery + lease)
		synctest.Wait()
		for _, m := range []*member{a, b} {
			if s := m.Status(); strings.Contains(s.String(), "cannot keep") {
				t.Errorf("node %s says %s", m.name, s)
			}
		}
		var m memory
		if data, err := os.ReadFile(a.path); err != nil || json.Unmarshal(data, &m) != nil || m.Generation != a.Status().Generation {
			t.Errorf("the file has %s (%v)", data, err)
		}
	})
}

// A file that was edited is written as soon as it has been read again, also if that changes
// nothing, or was written by saveConfig.
func TestEditedFileIsReadAgain(t *testing.T) {
	for _, how := range []string{"reload", "discard", "mended"} {
		t.Run(how, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				a, b := join(t, store, "a", folder(t, oneService)), join(t, store, "b", folder(t, oneService))
				time.Sleep(lease)
				was := a.fileSays()
				if err := os.WriteFile(a.file, []byte(was+"<!-- by hand -->\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				must(t)(b.weigh("a", 61))
				time.Sleep(lease)
				synctest.Wait()
				for _, m := range []*member{a, b} {
					if s := m.Status().String(); !strings.Contains(s, "has been changed by hand") || a.Status().Older == "" || a.Status().Behind() != "" {
						t.Errorf("node %s says %s", m.name, s)
					}
				}
				switch how {
				case "mended":
					if err := os.WriteFile(a.file, []byte(was), 0o600); err != nil {
						t.Fatal(err)
					}
					time.Sleep(retryEvery)
				default:
					r, err := a.dir.Reload(t.Context(), director.ReloadRequest{By: "ops", Discard: how == "discard", Force: true})
					if err != nil || how == "reload" && len(r.Changed) > 0 {
						t.Fatal(r, err)
					}
				}
				synctest.Wait()
				time.Sleep(saveEvery)
				synctest.Wait()
				for _, m := range []*member{a, b} {
					if s := m.Status().String(); strings.Contains(s, "by hand") {
						t.Errorf("node %s says %s", m.name, s)
					}
				}
				if has := strings.Contains(a.fileSays(), `weight="61"`); has != (how != "discard") {
					t.Errorf("the file says %s", a.fileSays())
				}
			})
		})
	}
}
