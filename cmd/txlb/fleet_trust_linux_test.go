package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// trustNode starts a node in a folder that may have been another one's. more are attributes of
// its <fleet>.
func trustNode(t *testing.T, dir, name, store, backend, more string) *fleetNode {
	t.Helper()
	return fleetNodeIn(t, dir, name, strings.Replace(fleetServices(name, store, backend), `lease="6s"`, `lease="15s" `+more, 1))
}

// Processes with certificates are nodes only where their certificates are for. A copy of a
// folder does not push the node out, which is back at once after a crash. A store that does not
// answer is told before the lease ends.
func TestFleetTrust(t *testing.T) {
	testkit.Long(t)
	store, backend, ca := runEtcd(t), answering(t, repeat), testkit.NewAuthority(t, "nodes")
	peer := func(dir, host string) string {
		cert, key := ca.Issue(t, testkit.Leaf{Names: []string{host}})
		for name, text := range map[string][]byte{"node.crt": cert, "node.key": key, "ca.crt": ca.PEM} {
			testkit.Put(t, filepath.Join(dir, name), text)
		}
		return fmt.Sprintf(`listen="%s" cert="%s/node.crt" key="%[2]s/node.key" ca="%[2]s/ca.crt"`, testkit.Nobody(t), dir)
	}
	folders := map[string]string{"a": t.TempDir(), "b": t.TempDir(), "odd": t.TempDir(), "copy": t.TempDir()}
	a := trustNode(t, folders["a"], "a", store.Addr, backend, peer(folders["a"], "127.0.0.1"))
	b := trustNode(t, folders["b"], "b", store.Addr, backend, peer(folders["b"], "127.0.0.1"))
	a.sees("this node is a, joined", "checks, shared by 2 nodes")
	b.sees("this node is b, joined", "checks, shared by 2 nodes")
	odd := trustNode(t, folders["odd"], "odd", store.Addr, backend, peer(folders["odd"], "10.9.9.9"))
	const wrong = "its certificate is for 10.9.9.9, and has to be for 127.0.0.1, which the node advertises"
	a.sees("checks, shared by 2 nodes", "node odd is not heard: "+wrong)
	odd.sees("this node is odd, joined", "checks, shared with no other node", "other nodes cannot follow this one: <fleet cert>: ", "node a is not heard: it answers 403", wrong)
	peer(folders["odd"], "127.0.0.1") // the right one, without a restart
	odd.sees("checks, shared by 3 nodes")

	for _, e := range []string{"fleet-edge@b.json", "fleet-edge@b.lock"} {
		text, err := os.ReadFile(filepath.Join(folders["b"], e))
		if err != nil {
			t.Fatal(err)
		}
		testkit.Put(t, filepath.Join(folders["copy"], e), text)
	}
	clone := trustNode(t, folders["copy"], "b", store.Addr, backend, "")
	clone.sees(`not joined`, `the node "b" was somewhere else a moment ago`)
	if status, out := clone.ctl("setHost", "web", "g", "a", "weight=3"); status == 0 {
		t.Errorf("the copy makes a change: %s", out)
	}
	clone.answers()
	b.sees("this node is b, joined", "checks, shared by 3 nodes")
	clone.kill()
	b.kill()
	began := time.Now()
	b.run()
	b.sees("this node is b, joined")
	if out := b.out.String(); strings.Contains(out, "not in the fleet") {
		t.Errorf("it has not joined at once:\n%s", out)
	}
	t.Logf("joined %v after its start", time.Since(began))
	b.sees("checks, shared by 3 nodes")

	if err := store.Freeze(); err != nil {
		t.Fatal(err)
	}
	a.sees("this node is a, joined", "but the store has not answered for")
	if _, out := a.ctl("status"); !strings.Contains(out, "is in its fleet edge, but the store has not answered for") {
		t.Errorf("status says %s", out)
	}
	if _, out := a.ctl("show", "metrics"); !strings.Contains(out, "\ntxlb_fleet_store_silent_seconds ") || strings.Contains(out, "\ntxlb_fleet_store_silent_seconds 0\n") {
		t.Error("the metric does not tell")
	}
	a.answers()
	if err := store.Thaw(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it answers again", func() bool {
		_, out := a.ctl("show", "fleet")
		return strings.Contains(out, "this node is a, joined") && !strings.Contains(out, "has not answered")
	})
	if status, out := a.ctl("setHost", "web", "g", "a", "weight=4"); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
}
