//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/servers"
)

// The network of a fleet: a router with a cable to each of one machine with clients, three
// nodes of txlb, three members of etcd and five hosts. Each is a network namespace. All nodes
// have the address that clients use, and the router divides their connections among the nodes.

const (
	fleetNodes, fleetMembers, fleetHosts = 3, 3, 5

	fleetAddress    = "10.88.0.1"
	echoPort        = "7"
	webPort         = "80"
	storePort       = "2379"
	firstNodeNet    = 10 // the third number of the address of a node's cable
	firstStoreNet   = 20
	firstHostNet    = 30
	clientsNet      = 1
	resilientBucket = 1024
	// idleTimer is after how many seconds without a packet the router may give a bucket of
	// connections to another node. A real one should have minutes.
	idleTimer = 5
)

// netFleet is a fleet in its network.
type netFleet struct {
	dir, name string // of the files, and what the names of the namespaces begin with
	program   string // txlb
	nodes     []*servers.Server
	members   []*servers.Server
	hosts     []*servers.Server
	spaces    []string // to delete
}

// machine is the address of a machine on its cable.
func machine(number int) string { return fmt.Sprintf("10.88.%d.2", number) }

func (f *netFleet) space(kind string, number int) string { return fmt.Sprint(f.name, kind, number) }

// command runs a program, with text for its standard input.
func command(input string, words ...string) error {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(words, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// configure gives ip(8) lines in a namespace.
func configure(space string, lines ...string) error {
	return command(strings.Join(lines, "\n")+"\n", debian.Path("ip"), "-n", space, "-batch", "-")
}

// cables makes all namespaces and connects them.
func (f *netFleet) cables() error {
	router := f.space("router", 0)
	type end struct {
		space  string
		number int
	}
	ends := []end{{f.space("clients", 0), clientsNet}}
	for i := range fleetNodes {
		ends = append(ends, end{f.space("node", i), firstNodeNet + i})
	}
	for i := range fleetMembers {
		ends = append(ends, end{f.space("store", i), firstStoreNet + i})
	}
	for i := range fleetHosts {
		ends = append(ends, end{f.space("host", i), firstHostNet + i})
	}
	add := func(space string) error {
		if err := command("", debian.Path("ip"), "netns", "add", space); err != nil {
			return err
		}
		f.spaces = append(f.spaces, space)
		return nil
	}
	if err := add(router); err != nil {
		return err
	}
	lines := []string{"link set lo up"}
	for _, e := range ends {
		if err := add(e.space); err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("link add to%d type veth peer name eth0 netns %s", e.number, e.space),
			fmt.Sprintf("addr add 10.88.%d.1/24 dev to%[1]d", e.number), fmt.Sprintf("link set to%d up", e.number))
	}
	if err := configure(router, lines...); err != nil {
		return err
	}
	for _, e := range ends {
		lines := []string{"link set lo up", fmt.Sprintf("addr add %s/24 dev eth0", machine(e.number)), "link set eth0 up", fmt.Sprintf("route add default via 10.88.%d.1", e.number)}
		if n := e.number - firstNodeNet; n >= 0 && n < fleetNodes {
			lines = append(lines, "addr add "+fleetAddress+"/32 dev lo")
		}
		if err := configure(e.space, lines...); err != nil {
			return err
		}
	}
	// The hash is of addresses and ports: each connection has a node of its own.
	return command("", debian.Path("ip"), "netns", "exec", router, "sh", "-c",
		"echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv4/fib_multipath_hash_policy")
}

// route makes the router send clients to nodes. What was there is replaced.
func (f *netFleet) route(resilient bool) error {
	router := f.space("router", 0)
	_ = configure(router, "nexthop flush") // and the route with it
	for i := range fleetNodes {
		if err := f.hop(i); err != nil {
			return err
		}
	}
	if err := f.group(resilient, "add"); err != nil {
		return err
	}
	return configure(router, "route replace "+fleetAddress+"/32 nhid 100")
}

func (f *netFleet) hop(node int) error {
	return configure(f.space("router", 0), fmt.Sprintf("nexthop add id %d via %s dev to%d", 1+node, machine(firstNodeNet+node), firstNodeNet+node))
}

func (f *netFleet) group(resilient bool, verb string) error {
	kind := "mpath"
	if resilient {
		kind = fmt.Sprintf("resilient buckets %d idle_timer %d", resilientBucket, idleTimer)
	}
	return configure(f.space("router", 0), fmt.Sprintf("nexthop %s id 100 group 1/2/3 type %s", verb, kind))
}

// withdraw takes a node out of the router, as a routing daemon does when it hears no more of it.
func (f *netFleet) withdraw(node int) error {
	return configure(f.space("router", 0), fmt.Sprintf("nexthop del id %d", 1+node))
}

// dial connects from a namespace.
func dial(space, address string) (c net.Conn, err error) {
	err = sandbox.InNetwork(filepath.Join("/run/netns", space), func() (err error) {
		c, err = (&net.Dialer{Timeout: 20 * time.Second}).Dial("tcp", address)
		return err
	})
	return c, err
}

// server makes a process in a namespace.
func (f *netFleet) server(kind string, i int, address string, argv ...string) (*servers.Server, error) {
	space := f.space(kind, i)
	s, err := servers.New(f.dir, fmt.Sprint(kind, i), address, nil)
	if err != nil {
		return nil, err
	}
	s.Argv = append([]string{debian.Path("ip"), "netns", "exec", space, "env", "STATE_DIRECTORY=" + s.Dir}, argv...)
	s.Probe = func(address string) error {
		c, err := dial(space, address)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	return s, nil
}

// fleetConfig is the file of a node.
func fleetConfig(node int, socket string) string {
	var store []string
	for i := range fleetMembers {
		store = append(store, "http://"+net.JoinHostPort(machine(firstStoreNet+i), storePort))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<config><fleet name="edge" node="n%d" store="%s" lease="6s"/>`, node, strings.Join(store, " "))
	for name, port := range map[string]string{"echo": echoPort, "web": webPort} {
		fmt.Fprintf(&b, `<service name="%s"><listen ip="%s:%s"/><group name="g">`, name, fleetAddress, port)
		for i := range fleetHosts {
			fmt.Fprintf(&b, `<host name="h%d" ip="%s:%s"/>`, i, machine(firstHostNet+i), port)
		}
		b.WriteString(`</group></service>`)
	}
	fmt.Fprintf(&b, `<engine grace="%v" drain="%v"/>`, grace, drain)
	fmt.Fprintf(&b, `<admin><socket path="%s"/><web listen="127.0.0.1:%s" secure="no"/></admin></config>`, socket, readyPort)
	return b.String()
}

// newNetFleet makes a fleet and starts it. Close it also after an error.
func newNetFleet(ctx context.Context, dir string) (f *netFleet, err error) {
	f = &netFleet{dir: dir, name: fmt.Sprintf("txlb-%d-", os.Getpid()), program: filepath.Join(dir, "txlb")}
	if err := build(f.program, oldVersion); err != nil {
		return f, err
	}
	if err := errors.Join(f.cables(), f.route(true)); err != nil {
		return f, err
	}
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	for i := range fleetHosts {
		address := machine(firstHostNet + i)
		s, err := f.server("host", i, net.JoinHostPort(address, webPort), self, roleHost, address, fmt.Sprint("h", i))
		if err != nil {
			return f, err
		}
		f.hosts = append(f.hosts, s)
	}
	var peers []string
	for i := range fleetMembers {
		peers = append(peers, fmt.Sprintf("m%d=http://%s:2380", i, machine(firstStoreNet+i)))
	}
	for i := range fleetMembers {
		client, peer := net.JoinHostPort(machine(firstStoreNet+i), storePort), "http://"+machine(firstStoreNet+i)+":2380"
		s, err := f.server("store", i, client, debian.Path("etcd"), "--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(f.dir, fmt.Sprint("store", i), "data"),
			"--listen-client-urls", "http://"+client, "--advertise-client-urls", "http://"+client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(peers, ","), "--heartbeat-interval", "200", "--election-timeout", "2000")
		if err != nil {
			return f, err
		}
		f.members = append(f.members, s)
	}
	for i := range fleetNodes {
		file := filepath.Join(f.dir, fmt.Sprint("node", i, ".xml"))
		if err := os.WriteFile(file, []byte(fleetConfig(i, f.socket(i))), 0o600); err != nil {
			return f, err
		}
		s, err := f.server("node", i, net.JoinHostPort(fleetAddress, webPort), f.program, "run", "-c", file)
		if err != nil {
			return f, err
		}
		f.nodes = append(f.nodes, s)
	}
	return f, f.start(ctx, append(append(append([]*servers.Server(nil), f.hosts...), f.members...), f.nodes...)...)
}

// start starts processes and waits for all.
func (f *netFleet) start(ctx context.Context, all ...*servers.Server) error {
	for _, s := range all {
		if err := s.Launch(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	for _, s := range all {
		if err := s.Await(ctx, func() error { return s.Probe(s.Addr) }); err != nil {
			return err
		}
	}
	return nil
}

// close ends all processes and deletes the namespaces.
func (f *netFleet) close() error {
	var all error
	for _, list := range [][]*servers.Server{f.nodes, f.members, f.hosts} {
		for _, s := range list {
			s.Kill()
		}
	}
	for _, space := range f.spaces {
		all = errors.Join(all, f.vacate(space), command("", debian.Path("ip"), "netns", "del", space))
	}
	return all
}

// vacate ends the processes of a namespace that have taken over from those that were started.
func (f *netFleet) vacate(space string) error {
	return until(context.Background(), func() error {
		pids, err := f.processes(space)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			err = fmt.Errorf("process %d goes on in %s", pid, space)
		}
		return err
	})
}

func (f *netFleet) socket(node int) string { return filepath.Join(f.dir, fmt.Sprint("ctl", node)) }

// ctl gives a node a command.
func (f *netFleet) ctl(node int, words ...string) (string, error) {
	out, err := exec.Command(f.program, append([]string{"ctl", "--yes", "-s", f.socket(node)}, words...)...).CombinedOutput()
	return string(out), err
}

// change changes a weight by a node, and waits until all others follow: those that are not
// among the ones that cannot.
func (f *netFleet) change(ctx context.Context, node, weight int, except ...int) error {
	err := until(ctx, func() error {
		out, err := f.ctl(node, "setHost", "web", "g", "h0", fmt.Sprint("weight=", weight))
		if err != nil {
			return fmt.Errorf("node %d: %w: %s", node, err, out)
		}
		return nil
	})
	for i := range fleetNodes {
		if len(except) == 0 || i != except[0] {
			err = errors.Join(err, f.runs(ctx, i, weight))
		}
	}
	return err
}

// runs waits until a node runs a weight.
func (f *netFleet) runs(ctx context.Context, node, weight int) error {
	return until(ctx, func() error {
		out, err := f.ctl(node, "show", "config")
		if err == nil && !strings.Contains(out, fmt.Sprintf(`weight="%d"`, weight)) {
			err = fmt.Errorf("node %d does not run weight %d", node, weight)
		}
		return err
	})
}

// refuses waits until a node has left its fleet, and fails unless it then refuses a change.
func (f *netFleet) refuses(ctx context.Context, node int) error {
	if err := f.sees(ctx, node, "not joined for"); err != nil {
		return err
	}
	out, err := f.ctl(node, "setHost", "web", "g", "h0", "weight=77")
	if err == nil || !strings.Contains(out, "takes no changes from this node now") {
		return fmt.Errorf("node %d without the store: %w: %s", node, err, out)
	}
	return nil
}

// sees waits until show fleet says something.
func (f *netFleet) sees(ctx context.Context, node int, want string) error {
	return until(ctx, func() error {
		out, err := f.ctl(node, "show", "fleet")
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("node %d shows no %q:\n%s", node, want, out)
		}
		return err
	})
}
