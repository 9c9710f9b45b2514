package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// runEtcd runs an etcd of one member.
func runEtcd(t *testing.T) *servers.Server {
	t.Helper()
	debian.NeedFor(t, "etcd")
	s, err := servers.New(t.TempDir(), "etcd", fmt.Sprintf("127.0.0.1:%d", freePort(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	peer := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	s.Argv = []string{
		debian.Path("etcd"), "--data-dir", filepath.Join(s.Dir, "data"), "--listen-client-urls", "http://" + s.Addr, "--advertise-client-urls", "http://" + s.Addr,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
	}
	s.RunFor(t)
	return s
}

// fleetNode is a txlb of a fleet.
type fleetNode struct {
	*process
	t            *testing.T
	name         string
	file, socket string
	cmd          func() *exec.Cmd
}

// fleetServices is what the file of a node says.
func fleetServices(name, store, backend string) string {
	return fmt.Sprintf(`
  <!-- node %s -->
  <fleet name="edge" node="%[1]s" store="http://%s" lease="6s"/>
  <service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="%s"/></group></service>
`, name, store, backend)
}

// newFleetNode starts one.
func newFleetNode(t *testing.T, name, store, backend string) *fleetNode {
	t.Helper()
	return fleetNodeIn(t, t.TempDir(), name, fleetServices(name, store, backend))
}

// fleetNodeIn starts a node with these services in a folder, which may have been another one's.
func fleetNodeIn(t *testing.T, dir, name, services string) *fleetNode {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	n := &fleetNode{t: t, name: name, file: filepath.Join(dir, "config.xml"), socket: filepath.Join(dir, "ctl")}
	testkit.Put(t, n.file, fmt.Appendf(nil, "<config>%s<admin><socket path=%q/></admin></config>", services, n.socket))
	n.cmd = func() *exec.Cmd {
		cmd := exec.Command(path, "run", "-c", n.file)
		cmd.Env = append(os.Environ(), "STATE_DIRECTORY="+dir)
		return cmd
	}
	n.run()
	return n
}

// run starts the process.
func (n *fleetNode) run() {
	n.t.Helper()
	n.process = start(n.t, n.cmd())
	n.expect("msg=ready")
}

// ctl gives a command.
func (n *fleetNode) ctl(words ...string) (int, string) {
	n.t.Helper()
	return call(n.t, append([]string{"ctl", "-s", n.socket}, words...)...)
}

// sees waits until show fleet has all of this.
func (n *fleetNode) sees(want ...string) {
	n.t.Helper()
	var text string
	eventually(n.t, fmt.Sprintf("node %s sees %q", n.name, want), func() bool {
		_, text = n.ctl("show", "fleet")
		for _, w := range want {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
}

// answers fails unless a client of the node is served.
func (n *fleetNode) answers() {
	n.t.Helper()
	repeats(n.t, n.addr("web", 0))
}

// repeats fails unless what is sent to an address comes back.
func repeats(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	got := make([]byte, 5)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(got); err != nil || string(got) != "hello" {
		t.Errorf("%s answers %q, %v", addr, got, err)
	}
}

// Three processes are one fleet: a change by any of them is everywhere, also in the files;
// without the store they serve, refuse changes and start again; an upgrade keeps the place.
func TestFleetOfThree(t *testing.T) {
	testkit.Long(t)
	store := runEtcd(t)
	backend := answering(t, repeat)
	a := newFleetNode(t, "a", store.Addr, backend)
	a.sees("generation 1; this node is a, joined")
	b := newFleetNode(t, "b", store.Addr, backend)
	line := newLineage(t, fleetServices("c", store.Addr, backend), "", "STATE_DIRECTORY="+t.TempDir())
	c := &fleetNode{t: t, name: "c", file: line.file, socket: line.socket}
	for _, n := range []*fleetNode{a, b, c} {
		n.sees("\na ", "\nb ", "\nc ")
	}
	for i, n := range []*fleetNode{c, b, a} {
		if status, out := n.ctl("setHost", "web", "g", "a", fmt.Sprint("weight=", i+2)); status != 0 || !strings.Contains(out, fmt.Sprintf("generation %d:", i+2)) {
			t.Fatalf("status %d: %s", status, out)
		}
		for _, m := range []*fleetNode{a, b, c} {
			m.sees(fmt.Sprintf("generation %d; this node is %s, joined", i+2, m.name))
			eventually(t, "node "+m.name+" runs it", func() bool {
				_, out := m.ctl("show", "config")
				return strings.Contains(out, fmt.Sprintf(`weight="%d"`, i+2))
			})
		}
	}
	eventually(t, "the files have it", func() bool {
		for _, n := range []*fleetNode{a, b, c} {
			text, err := os.ReadFile(n.file)
			if err != nil || !strings.Contains(string(text), `weight="4"`) || !strings.Contains(string(text), "<!-- node "+n.name+" -->") {
				return false
			}
		}
		return true
	})
	// One that was meant for an earlier generation is refused, with what changed and by whom.
	if status, out := b.ctl("setHost", "web", "g", "a", "weight=9", "generation=3"); status == 0 || !strings.Contains(out, "from generation 3 to 4") || !strings.Contains(out, "setHost web g a weight=4") {
		t.Errorf("status %d: %s", status, out)
	}

	// An upgrade: the new process has the place of the old one, and makes changes.
	if status, out := c.ctl("upgrade"); status != 0 {
		t.Fatalf("status %d: %s", status, out)
	}
	c.sees("this node is c, joined", "\na ", "\nb ", "\nc ")
	if status, out := c.ctl("setHost", "web", "g", "a", "weight=5"); status != 0 || !strings.Contains(out, "generation 5:") {
		t.Errorf("after the upgrade: status %d: %s", status, out)
	}
	a.sees("generation 5; this node is a, joined")
	b.sees("generation 5; this node is b, joined")

	// Without the store.
	store.Kill()
	a.sees("not joined for")
	if status, out := a.ctl("setHost", "web", "g", "a", "weight=6"); status == 0 || !strings.Contains(out, "fleet edge takes no changes from this node now") {
		t.Errorf("status %d: %s", status, out)
	}
	a.answers()
	a.signal(syscall.SIGTERM)
	a.wait()
	a.run()
	a.answers()
	if _, out := a.ctl("show", "config"); !strings.Contains(out, `weight="5"`) {
		t.Errorf("node a starts with\n%s", out)
	}
	if err := store.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*fleetNode{a, b} {
		n.sees("generation 5; this node is "+n.name+", joined", "\na ", "\nb ")
	}
	if status, out := a.ctl("setHost", "web", "g", "a", "weight=7"); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
	b.sees("generation 6; this node is b, joined")
}

// Without <fleet> there is no fleet: no verb, no file, no connection.
func TestNoFleet(t *testing.T) {
	dir := t.TempDir()
	p := txlb(t, fmt.Sprintf(`<config><service name="web"><listen ip="unix:%s/web"/></service><admin><socket path="%[1]s/ctl"/></admin></config>`, dir))
	if status, out := call(t, "ctl", "-s", dir+"/ctl", "show", "fleet"); status == 0 || !strings.Contains(out, "not served here: it needs the fleet") {
		t.Errorf("status %d: %s", status, out)
	}
	if strings.Contains(p.out.String(), "fleet") {
		t.Errorf("the log speaks of a fleet:\n%s", p.out)
	}
}
