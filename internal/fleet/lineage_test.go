package fleet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// Who takes over joins at once, also if the clock was set meanwhile, or the lock deleted: also one
// after another that has not joined.
func TestHandOverFromAnotherPlace(t *testing.T) {
	for name, move := range map[string]func(t *testing.T, store *memoryStore, a *member){
		"the clock was set": func(t *testing.T, store *memoryStore, a *member) {
			store.set(func() {
				var k memberKey
				if err := json.Unmarshal(store.keys[nodeA].Value, &k); err != nil {
					t.Fatal(err)
				}
				p := readPlace(k.Place)
				p.boot = p.boot.Add(time.Hour)
				k.Place = p.String()
				value, err := json.Marshal(k)
				if err != nil {
					t.Fatal(err)
				}
				store.put(nodeA, value, store.owned[nodeA])
			})
		},
		"the lock was deleted": func(t *testing.T, _ *memoryStore, a *member) {
			if err := os.Rename(a.lockPath(), a.lockPath()+".old"); err != nil { // so that its inode is not used again
				t.Fatal(err)
			}
		},
		"the memory was deleted in part": func(t *testing.T, _ *memoryStore, a *member) {
			m, err := recall(a.path, a.before)
			m.Instances = nil
			if err == nil {
				err = m.keep(a.path, stillOurs)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Bubble(t, func(t *testing.T) {
				store := newMemoryStore()
				a := join(t, store, "a", folder(t, oneService))
				joinedAt(t, a)
				a.HandOver()
				move(t, store, a)
				between := store.link()
				between.cut = errCut
				next := begin(t, between, "a", filepath.Dir(a.file), func(n *Node) { n.Succeed(a.Lineage()) })
				synctest.Wait()
				a.stop()
				next.HandOver()
				last := begin(t, store.link(), "a", filepath.Dir(a.file), func(n *Node) { n.Succeed(next.Lineage()) })
				synctest.Wait()
				joinedAt(t, last)
				if all := last.Lineage(); len(all) != 1 || all[0] != last.instance {
					t.Errorf("it has joined, and its lineage is %q", all)
				}
			})
		})
	}
}
