package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// fleetLine is a node of a fleet with all the programs that take over from one another.
type fleetLine struct {
	*lineage
	name string
}

// newFleetLine starts nodes of a fleet, in the order of their names. own is what each file has
// beside the services.
func newFleetLines(t *testing.T, store *servers.Server, backend, own string, names ...string) (all []*fleetLine) {
	t.Helper()
	for _, name := range names {
		dir := t.TempDir()
		l := newLineage(t, own+fleetServices(name, store.Addr, backend), `<web listen="127.0.0.1:0" secure="no"/>`+operator, "STATE_DIRECTORY="+dir)
		all = append(all, &fleetLine{l, name})
		all[len(all)-1].sees("this node is " + name + ", joined")
	}
	for _, l := range all {
		for _, other := range names {
			l.sees("\n" + other + " ")
		}
	}
	return all
}

// sees waits until show fleet has all of this.
func (l *fleetLine) sees(want ...string) {
	l.t.Helper()
	for _, w := range want {
		text := ""
		eventually(l.t, fmt.Sprintf("node %s sees %q", l.name, w), func() bool {
			_, text = l.ctl("show", "fleet")
			return strings.Contains(text, w)
		})
	}
}

// handedOver tells how often the node has.
func (l *fleetLine) handedOver() int { return strings.Count(l.log(), `msg="handed over"`) }

// A rolling upgrade of three nodes under clients that connect all the time: nobody is refused,
// the node that is asked comes last, and each is upgraded once. Then one whose new program does
// not start stops it: the node goes on, and the one behind it is left alone. With that mended,
// the whole fleet is upgraded.
func TestUpgradeFleet(t *testing.T) {
	testkit.Long(t)
	store := runEtcd(t)
	nodes := newFleetLines(t, store, backend(t, echo), `<engine drain="2s"/>`, "a", "b", "c")
	load, ctx := newVisitors(t)
	for _, l := range nodes {
		address := l.addr("web")
		load.add(ctx, 2, "node "+l.name, polite/10, func() error { return short("tcp", address) })
	}
	load.more(100)
	status, out := nodes[1].ctl("upgrade", "--fleet")
	if status != 0 || !strings.Contains(out, "2 of 3 nodes done, then b: process ") || !strings.Contains(out, "has taken over") {
		t.Fatalf("status %d: %s", status, out)
	}
	for _, l := range nodes {
		l.sees(" on b, ended ", "done on 3 nodes")
		eventually(t, "node "+l.name+" tells", func() bool { return l.handedOver() > 0 }) // the old process may come to it later
		if n := l.handedOver(); n != 1 {
			t.Errorf("node %s has handed over %d times", l.name, n)
		}
	}
	load.more(100)

	// The program of c is damaged.
	good, err := os.Readlink(nodes[2].program)
	if err != nil {
		t.Fatal(err)
	}
	nodes[2].script("echo no such library >&2; exit 1")
	status, out = nodes[1].ctl("upgrade", "--fleet")
	if status == 0 || !strings.Contains(out, "stopped after 1 of 3 nodes: node c: the new process ") || !strings.Contains(out, "done: a; not done: c, b") {
		t.Fatalf("status %d: %s", status, out)
	}
	nodes[0].sees("stopped after 1 of 3 nodes: node c: the new process ", "c: failed", "b: waiting")
	if n := nodes[1].handedOver(); n != 1 {
		t.Errorf("node b has handed over %d times", n)
	}
	load.more(100)
	// Every node says so, until somebody forgets it, here on another one.
	for _, l := range nodes {
		if status, out := l.ctl("status"); status != 0 || !strings.Contains(out, "The fleet edge is upgraded in part: upgrade by ") {
			t.Errorf("node %s: status %d: %s", l.name, status, out)
		}
	}
	if status, out := nodes[2].ctl("upgrade", "--cancel"); status != 0 || !strings.Contains(out, "forgotten: upgrade by ") {
		t.Errorf("status %d: %s", status, out)
	}
	if status, out := nodes[2].ctl("upgrade", "--cancel"); status == 0 || !strings.Contains(out, "there is nothing to cancel") {
		t.Errorf("status %d: %s", status, out)
	}
	nodes[2].install(good)
	if status, out := nodes[0].ctl("upgrade", "--fleet"); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	for _, l := range nodes {
		l.sees(" on a, ended ", "done on 3 nodes")
	}
	load.more(100)
	// One node alone, from another one.
	if status, out := nodes[0].ctl("upgrade", "node=c"); status != 0 || !strings.Contains(out, "done on 1 node") {
		t.Errorf("status %d: %s", status, out)
	}
	load.end()
	t.Logf("%d connections, 0 errors", load.asked.Load())
}

// A node that comes up and does not get ready stops the upgrade of the fleet: here, it has been
// told to stop before the others have seen it, and serves its grace.
func TestUpgradeFleetStopsAtANodeThatIsNotReady(t *testing.T) {
	testkit.Long(t)
	store := runEtcd(t)
	nodes := newFleetLines(t, store, backend(t, echo), `<engine drain="1s" grace="5m"/>`, "a", "b", "c")
	good, err := os.Readlink(nodes[1].program)
	if err != nil {
		t.Fatal(err)
	}
	// While the store says nothing, the new process takes over and cannot join.
	nodes[1].script(fmt.Sprintf("kill -STOP -%d; exec %s \"$@\"", store.Group(), good))
	answers := upgradeFleet(t, nodes[2].socket)
	nodes[1].expect(`msg=ready(.*)\n`)
	nodes[1].learnPIDs()
	if err := syscall.Kill(nodes[1].pids[len(nodes[1].pids)-1], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	nodes[1].expect(`msg="stopping, new clients (are still accepted)`)
	if err := store.Thaw(); err != nil {
		t.Fatal(err)
	}
	got := <-answers
	for _, want := range []string{"stopped after 1 of 3 nodes: node b has been upgraded to txlb ", " after that is not ready: draining", "done: a; not done: b, c"} {
		if got.status == 0 || !strings.Contains(got.out, want) {
			t.Errorf("status %d: %s; want %q", got.status, got.out, want)
		}
	}
	if n := nodes[2].handedOver(); n != 0 {
		t.Errorf("node c has handed over %d times", n)
	}
	nodes[0].sees("\nb ", "draining")
	// A node that drains is not upgraded, and nothing begins.
	if status, out := nodes[0].ctl("upgrade", "--fleet"); status == 0 || !strings.Contains(out, "nothing was begun: node b is not ready: draining") {
		t.Errorf("status %d: %s", status, out)
	}
	if err := short("tcp", nodes[1].addr("web")); err != nil {
		t.Errorf("in its grace, node b refuses: %v", err)
	}
}

// answer is what a command has said.
type answer struct {
	status int
	out    string
}

// upgradeFleet gives upgrade --fleet to a node, and returns where the answer comes.
func upgradeFleet(t *testing.T, socket string) <-chan answer {
	answers := make(chan answer, 1)
	go func() {
		status, out := call(t, "ctl", "--yes", "-s", socket, "upgrade", "--fleet")
		answers <- answer{status, out}
	}()
	return answers
}

// An upgrade that is cancelled on another node while one hands over: that one finishes, the next
// ones stay as they are, and who waits is told.
func TestUpgradeFleetCancelled(t *testing.T) {
	testkit.Long(t)
	store := runEtcd(t)
	nodes := newFleetLines(t, store, backend(t, echo), `<engine drain="2s"/>`, "a", "b", "c")
	good, err := os.Readlink(nodes[1].program)
	if err != nil {
		t.Fatal(err)
	}
	going := t.TempDir() + "/go"
	nodes[1].script(fmt.Sprintf("until [ -e %s ]; do sleep 0.1; done; exec %s \"$@\"", going, good))
	answers := upgradeFleet(t, nodes[2].socket)
	nodes[0].sees("1 of 3 nodes done, b is begun")
	if status, out := nodes[0].ctl("upgrade", "--cancel"); status != 0 || !strings.Contains(out, "on node a; node b has begun and finishes; done: a; not begun: c") {
		t.Errorf("status %d: %s", status, out)
	}
	if got := <-answers; got.status == 0 || !strings.Contains(got.out, "stopped after 1 of 3 nodes: cancelled by ") {
		t.Errorf("status %d: %s", got.status, got.out)
	}
	testkit.Put(t, going, nil)
	eventually(t, "node b has handed over", func() bool { return nodes[1].handedOver() == 1 })
	for i, want := range []int{1, 1, 0} {
		if n := nodes[i].handedOver(); n != want {
			t.Errorf("node %s has handed over %d times", nodes[i].name, n)
		}
	}
	nodes[1].install(good)
	if status, out := nodes[2].ctl("upgrade", "--fleet"); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
}
