package fleet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// copyOf copies the folder of a node, as it is.
func copyOf(t *testing.T, m *member) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(filepath.Dir(m.file))); err != nil {
		t.Fatal(err)
	}
	return copied
}

// A copy of a machine does not push out the node that it was copied from, however often it
// tries, also not when that is started again.
func TestCopyOfANodeThatLives(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		since := joinedAt(t, a)
		clone := join(t, store, "a", copyOf(t, a))
		why := []string{`the node "a" was somewhere else a moment ago`, "another machine, in another folder, or before this machine was booted", "takes 9s at most", "delete " + clone.path}
		_, err := clone.weigh("a", 4)
		refused(t, err, why...)
		for range 10 {
			time.Sleep(lease)
			synctest.Wait()
			if clone.Status().Joined || !joinedAt(t, a).Equal(since) {
				t.Fatalf("%v\n%v", clone.Status(), a.Status())
			}
		}
		must(t)(a.weigh("a", 4))
		a.kill()
		again := join(t, store, "a", filepath.Dir(a.file))
		joinedAt(t, again)
		time.Sleep(3 * lease)
		if clone.Status().Joined || !again.Status().Joined {
			t.Errorf("%v\n%v", clone.Status(), again.Status())
		}
		if lines := clone.log.Lines("not in the fleet"); len(lines) > 2 { // before the true one was started again, and after
			t.Errorf("it tells again and again: %q", lines)
		}
	})
}

// A copy may take the place when the lease of the node has ended. That node then does not push
// it out either, and joins when the copy has gone.
func TestCopyOfANodeThatIsGone(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		copied := copyOf(t, a)
		store.set(func() { a.link.cut = errCut })
		clone := join(t, store, "a", copied)
		if clone.Status().Joined {
			t.Error("it has not waited")
		}
		time.Sleep(lease + longestPause)
		synctest.Wait()
		joinedAt(t, clone)
		store.set(func() { a.link.cut = nil })
		time.Sleep(3 * lease)
		synctest.Wait()
		if s := a.Status(); s.Joined || !strings.Contains(s.Why, `another process is the node "a", with the same id`) {
			t.Errorf("%v", s)
		}
		joinedAt(t, clone)
		clone.stop()
		time.Sleep(2 * longestPause)
		synctest.Wait()
		joinedAt(t, a)
	})
}

// Two processes with one folder are not one node, and the second joins when the first has gone.
func TestTwoProcessesOfOneFolder(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, oneService))
		since := joinedAt(t, a)
		twin := join(t, store, "a", filepath.Dir(a.file))
		_, err := twin.weigh("a", 4)
		refused(t, err, "another process of this machine (", `is the node "a": it has locked `+a.lockPath())
		time.Sleep(3 * lease)
		synctest.Wait()
		if !joinedAt(t, a).Equal(since) || twin.Status().Joined {
			t.Errorf("%v\n%v", a.Status(), twin.Status())
		}
		a.kill()
		time.Sleep(longestPause)
		synctest.Wait()
		joinedAt(t, twin)
	})
}

// A machine that was booted meanwhile is not told from a copy: the node waits for the end of its
// lease. One whose key was written by an earlier version does not wait, as before.
func TestNodeOfAnotherBoot(t *testing.T) {
	for _, c := range []struct {
		name  string
		place func(is string) string
		waits bool
	}{
		{"the same", func(is string) string { return is }, false},
		{"the clock was corrected a little", func(is string) string { p := readPlace(is); p.boot = p.boot.Add(time.Second); return p.String() }, false},
		{"another boot", func(is string) string { p := readPlace(is); p.boot = p.boot.Add(-time.Minute); return p.String() }, true},
		{"another folder", func(is string) string { return "1" + is }, true},
		{"an earlier version", func(string) string { return "" }, false},
		{"nonsense", func(string) string { return "nowhere" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				a := join(t, store, "a", folder(t, oneService))
				a.kill()
				store.set(func() {
					var k memberKey
					e := store.keys[nodeA]
					if err := json.Unmarshal(e.Value, &k); err != nil || k.Place == "" {
						t.Fatalf("%s: %v", e.Value, err)
					}
					k.Place = c.place(k.Place)
					value, err := json.Marshal(k)
					if err != nil {
						t.Fatal(err)
					}
					store.put(nodeA, value, store.owned[nodeA])
				})
				a = join(t, store, "a", filepath.Dir(a.file))
				if joined := a.Status().Joined; joined == c.waits {
					t.Errorf("joined %v: %v", joined, a.Status())
				}
				time.Sleep(lease + longestPause)
				synctest.Wait()
				joinedAt(t, a)
			})
		})
	}
}

// A folder that cannot be locked keeps nobody from joining.
func TestFolderWithoutLock(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		dir := folder(t, oneService)
		if err := os.Mkdir(filepath.Join(dir, "fleet-edge@a.lock"), 0o700); err != nil { // in its way
			t.Fatal(err)
		}
		store := newMemoryStore()
		a := join(t, store, "a", dir)
		joinedAt(t, a)
		if !says(a.log, "the folder for state cannot be locked") {
			t.Errorf("it does not tell:\n%s", a.log)
		}
		a.kill()
		joinedAt(t, join(t, store, "a", dir))
	})
}

func FuzzPlace(f *testing.F) {
	f.Add("fd00:131074@1764402000000")
	f.Add("@")
	f.Fuzz(func(t *testing.T, text string) {
		p := readPlace(text)
		if p == (place{}) {
			return
		}
		if !p.is(p) || !readPlace(p.String()).is(p) {
			t.Errorf("%q is %q", text, p)
		}
	})
}
