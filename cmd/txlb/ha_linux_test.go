package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/testkit"
)

// This file has what the tests of high availability share: nodes that run the files of etc/ha
// as they are, the hosts behind them, and clients that note what they see. Each site is a set of
// network namespaces of its own.

const (
	virtualIP = "192.0.2.100" // of the service, in etc/ha
	haGrace   = 5 * time.Second
	haHosts   = 3
)

// site is where nodes, hosts and clients are.
type site struct {
	t       *testing.T
	name    string   // its namespaces begin with it
	clients string   // the namespace of the clients
	from    []string // their addresses
	nodes   []*haNode
}

// haNode is a machine that runs txlb.
type haNode struct {
	t    *testing.T
	ip   string // its own address
	ns   string
	port string // the other end of its cable, which is in the namespace of the switch
	dir  string // what it has in /etc, /usr and /run beside what this machine has
	txlb *process
}

func newSite(t *testing.T) *site {
	t.Helper()
	testkit.Long(t)
	debian.NeedFor(t, "ip", "curl", "sysctl")
	return &site{t: t, name: fmt.Sprintf("txlb-%d-%d", os.Getpid(), networks.Add(1))}
}

// namespace makes one, and returns its name.
func (s *site) namespace(name string) string {
	s.t.Helper()
	name = s.name + "-" + name
	if out, err := exec.Command(debian.Path("ip"), "netns", "add", name).CombinedOutput(); err != nil {
		s.t.Skipf("this system gives no network namespace: %v: %s", err, out)
	}
	s.t.Cleanup(func() { s.ip("netns", "del", name) })
	s.ip("-n", name, "link", "set", "lo", "up")
	return name
}

func (s *site) ip(args ...string) {
	s.t.Helper()
	if out, err := exec.Command(debian.Path("ip"), args...).CombinedOutput(); err != nil {
		s.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// lan makes a switch in a namespace, which has an address on it.
func (s *site) lan(ns, device, address string) {
	s.t.Helper()
	s.ip("-n", ns, "link", "add", device, "type", "bridge")
	s.ip("-n", ns, "addr", "add", address+"/24", "dev", device)
	s.ip("-n", ns, "link", "set", device, "up")
}

// node connects a machine to the switch of a namespace; gateway is the way to all others.
func (s *site) node(ip, lan, device, gateway string, files map[string]string) *haNode {
	s.t.Helper()
	name := fmt.Sprintf("n%d", len(s.nodes)+1)
	n := &haNode{t: s.t, ip: ip, ns: s.namespace(name), port: name, dir: s.t.TempDir()}
	s.ip("-n", n.ns, "link", "add", "eth0", "type", "veth", "peer", "name", n.port, "netns", lan)
	s.ip("-n", lan, "link", "set", n.port, "master", device, "up")
	s.ip("-n", n.ns, "addr", "add", ip+"/24", "dev", "eth0")
	s.ip("-n", n.ns, "link", "set", "eth0", "up")
	s.ip("-n", n.ns, "route", "add", "default", "via", gateway)
	n.furnish(files)
	s.nodes = append(s.nodes, n)
	return n
}

// furnish gives a node its files of etc/ha: where it has them, and which.
func (n *haNode) furnish(files map[string]string) {
	n.t.Helper()
	path, err := binary()
	if err != nil {
		n.t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	n.put("usr/bin/txlb", program, 0o755)
	for to, name := range files {
		text, err := os.ReadFile("../../etc/ha/" + name)
		if err != nil {
			n.t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.Contains(to, "bin/") {
			mode = 0o755
		}
		n.put(to, text, mode)
	}
	for _, folder := range []string{"etc", "usr", "run/txlb", "run/bird"} {
		if err := os.MkdirAll(filepath.Join(n.dir, folder), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	if out, err := n.command("true").CombinedOutput(); err != nil {
		n.t.Skipf("this system gives no overlay over /etc and /usr: %v: %s", err, out)
	}
}

func (n *haNode) put(name string, text []byte, mode os.FileMode) {
	n.t.Helper()
	name = filepath.Join(n.dir, name)
	err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, text, mode), os.Chmod(name, mode))
	if err != nil {
		n.t.Fatal(err)
	}
}

// command makes a command that runs on the node: in its network, and with its files where they
// belong. Nobody else sees what it mounts.
func (n *haNode) command(args ...string) *exec.Cmd {
	const enter = `mount -t overlay overlay -o "lowerdir=$0/usr:/usr" /usr &&
		mount -t overlay overlay -o "lowerdir=$0/etc:/etc" /etc &&
		mount --bind "$0/run" /run && exec "$@"`
	cmd := exec.Command(debian.Path("ip"), append([]string{"netns", "exec", n.ns, "sh", "-c", enter, n.dir}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run runs a program on the node until the end of the test, with its children.
func (n *haNode) run(args ...string) *process {
	n.t.Helper()
	p := start(n.t, n.command(args...))
	n.t.Cleanup(func() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	return p
}

// do runs a command on the node to its end.
func (n *haNode) do(args ...string) string {
	n.t.Helper()
	out, err := n.command(args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts txlb.
func (n *haNode) start() {
	n.t.Helper()
	n.txlb = n.run("/usr/bin/txlb", "run", "-c", "/etc/txlb/config.xml")
	n.txlb.expect("msg=ready")
}

// has tells whether an interface of the node has an address.
func (n *haNode) has(address string) (yes bool) {
	n.t.Helper()
	if err := within(n.ns, func() error {
		list, err := net.InterfaceAddrs()
		yes = slices.ContainsFunc(list, func(a net.Addr) bool { return strings.HasPrefix(a.String(), address+"/") })
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	return yes
}

// visit asks txlb on the node by HTTP.
func (n *haNode) visit(url string) (status int, body string) {
	n.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return dialFrom(n.ns)(address)
		},
	}}
	answer, err := client.Get(url)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// serve runs the hosts in a namespace. Each says its name and from where it is asked, which is
// the node, and then repeats what it hears.
func (s *site) serve(ns string) {
	s.t.Helper()
	for i := range haHosts {
		address := fmt.Sprintf("203.0.113.%d", 11+i)
		s.ip("-n", ns, "addr", "add", address+"/32", "dev", "lo")
		var ln net.Listener
		if err := within(ns, func() (err error) {
			ln, err = net.Listen("tcp", address+":8080")
			return err
		}); err != nil {
			s.t.Fatal(err)
		}
		backendOn(s.t, ln, func(c *net.TCPConn) {
			node, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			if _, err := fmt.Fprintf(c, "%c %s\n", 'a'+i, node); err == nil {
				echo(c)
			}
		})
	}
}

// visited is what a client saw of a session.
type visited struct {
	net.Conn
	began, ended time.Time // until the first answer
	from         string
	host, node   string // who has answered
	err          error
}

// patient is how long a client waits for an answer: the kernel sends its first segment again
// after one second, and after three.
const patient = 5 * time.Second

// connect is a client's session, from its n-th address, as far as the first answer.
func (s *site) connect(n int) (v visited) {
	v.began, v.from = time.Now(), s.from[n%len(s.from)]
	v.err = func() error {
		d := net.Dialer{Timeout: patient, LocalAddr: &net.TCPAddr{IP: net.ParseIP(v.from)}}
		if err := within(s.clients, func() (err error) {
			v.Conn, err = d.Dial("tcp4", virtualIP+":80")
			return err
		}); err != nil {
			return err
		}
		_ = v.SetDeadline(v.began.Add(patient))
		line, err := readLine(v.Conn)
		if err == nil {
			_, err = fmt.Sscan(line, &v.host, &v.node)
		}
		return err
	}()
	v.ended = time.Now()
	if v.err != nil && v.Conn != nil {
		_ = v.Close()
	}
	return v
}

// readLine reads to the end of a line, and no further.
func readLine(c net.Conn) (string, error) {
	var line strings.Builder
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return line.String(), nil
		}
		line.Write(b)
	}
}

// hold opens sessions that stay. They are closed at the end of the test.
func (s *site) hold(count int) (list []visited) {
	s.t.Helper()
	for i := range count {
		eventually(s.t, "a session begins", func() bool {
			v := s.connect(i)
			if v.err == nil {
				s.t.Cleanup(func() { _ = v.Close() })
				list = append(list, v)
			}
			return v.err == nil
		})
	}
	return list
}

// fates counts how sessions answer a word.
func fates(list []visited, within time.Duration) (f fate) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, v := range list {
		wg.Go(func() {
			_ = v.SetDeadline(time.Now().Add(within))
			_, err := io.WriteString(v, "word\n")
			if err == nil {
				_, err = bufio.NewReaderSize(v, 16).ReadString('\n')
			}
			mu.Lock()
			defer mu.Unlock()
			f.add(err)
		})
	}
	wg.Wait()
	return f
}

// fate counts what clients saw.
type fate struct{ answered, refused, reset, ended, silent, other int }

func (f *fate) add(err error) {
	switch timeout := (net.Error)(nil); {
	case err == nil:
		f.answered++
	case errors.Is(err, syscall.ECONNREFUSED):
		f.refused++
	case isReset(err):
		f.reset++
	case errors.Is(err, io.EOF):
		f.ended++
	case errors.As(err, &timeout) && timeout.Timeout():
		f.silent++
	default:
		f.other++
	}
}

func (f fate) String() string {
	return fmt.Sprintf("%d answered, %d refused, %d reset, %d ended, %d without an answer, %d other", f.answered, f.refused, f.reset, f.ended, f.silent, f.other)
}

// crowd is clients that come and go, one after the other from each address.
type crowd struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	mu   sync.Mutex
	seen []visited
}

func (s *site) crowd() *crowd {
	ctx, stop := context.WithCancel(s.t.Context())
	l := &crowd{stop: stop}
	for i := range s.from {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				v := s.connect(i)
				if v.err == nil {
					_ = v.Close()
				}
				l.mu.Lock()
				l.seen = append(l.seen, v)
				l.mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond): // this is how much load it is
				}
			}
		})
	}
	s.t.Cleanup(l.end)
	return l
}

func (l *crowd) end() {
	l.stop()
	l.wg.Wait()
}

// told is what became of clients.
type told struct {
	fate
	failed  time.Duration // how long after the moment a client failed
	slowest time.Duration // answer
}

func (s told) String() string {
	return fmt.Sprintf("new clients: %v; the last failed after %v, and the slowest answer took %v", s.fate, s.failed.Round(time.Millisecond), s.slowest.Round(time.Millisecond))
}

// since tells of the clients that began after a moment.
func (l *crowd) since(moment time.Time) (s told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.seen {
		if v.began.Before(moment) {
			continue
		}
		s.add(v.err)
		if v.err != nil {
			s.failed = max(s.failed, v.ended.Sub(moment))
		} else {
			s.slowest = max(s.slowest, v.ended.Sub(v.began))
		}
	}
	return s
}

// answeredBy waits until n clients that began later than a moment were answered by other nodes
// than the one that is gone.
func (l *crowd) answeredBy(t *testing.T, n int, since time.Time, gone *haNode) {
	t.Helper()
	eventually(t, "others answer", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		count := 0
		for _, v := range l.seen {
			if v.err == nil && v.began.After(since) && v.node != gone.ip {
				count++
			}
		}
		return count >= n
	})
}

// sameHosts makes sure that each client had one host, whichever node it came to. Nodes agree as
// long as they find the same hosts up.
func (s *site) sameHosts(lists ...[]visited) {
	s.t.Helper()
	for _, n := range s.nodes {
		if strings.Contains(n.txlb.out.String(), `msg="host down"`) {
			s.t.Logf("%s was slow to reach a host", n.ip)
			return
		}
	}
	type answer struct{ host, node string }
	first := map[string]answer{}
	nodes := map[string]map[string]bool{}
	for _, v := range slices.Concat(lists...) {
		if v.err != nil {
			continue
		}
		was, ok := first[v.from]
		if !ok {
			first[v.from], nodes[v.from] = answer{v.host, v.node}, map[string]bool{}
		} else if was.host != v.host {
			s.t.Errorf("client %s had host %s by node %s, and host %s by node %s", v.from, was.host, was.node, v.host, v.node)
		}
		nodes[v.from][v.node] = true
	}
	if !slices.ContainsFunc(s.from, func(from string) bool { return len(nodes[from]) > 1 }) {
		s.t.Error("no client came to two nodes")
	}
}

// undisturbed runs a trial. On a machine that stands still for seconds, keepalived and BIRD take a
// node for dead that is not. A trial tells so, and is then made again.
func undisturbed(t *testing.T, name string, trial func() (disturbed string)) {
	t.Helper()
	why := ""
	for range 5 {
		began := time.Now()
		if why = trial(); why == "" {
			t.Logf("%s took %v", name, time.Since(began).Round(time.Millisecond))
			return
		}
		t.Logf("%s, once more: %s", name, why)
	}
	t.Fatalf("%s: %s, five times", name, why)
}

// pair is two nodes on one LAN, one of which has the address, by keepalived.
type pair struct {
	*site
	alive []*process // keepalived of each node
}

func newPair(t *testing.T) *pair {
	debian.NeedFor(t, "keepalived")
	p := &pair{site: newSite(t)}
	lan := p.namespace("lan")
	p.clients = lan
	p.lan(lan, "br0", "192.0.2.254")
	for i := range 8 {
		address := fmt.Sprintf("192.0.2.%d", 201+i)
		p.ip("-n", lan, "addr", "add", address+"/24", "dev", "br0")
		p.from = append(p.from, address)
	}
	p.serve(lan)
	for _, ip := range []string{"192.0.2.1", "192.0.2.2"} {
		n := p.node(ip, lan, "br0", "192.0.2.254", map[string]string{
			"etc/txlb/config.xml": "config.xml", "etc/keepalived/keepalived.conf": "keepalived.conf",
		})
		n.start()
		p.alive = append(p.alive, n.run(debian.Path("keepalived"), "--dont-fork", "--log-console", "--log-detail", "--vrrp"))
	}
	return p
}

// roles waits until one node has the address and the other would take it.
func (p *pair) roles() (active, standby *haNode) {
	p.t.Helper()
	eventually(p.t, "one node is active, and the other stands by", func() bool {
		active, standby = p.nodes[0], p.nodes[1]
		if standby.has(virtualIP) {
			active, standby = standby, active
		}
		return active.has(virtualIP) && !standby.has(virtualIP) && p.state(standby) == "BACKUP"
	})
	return active, standby
}

// state returns the state that keepalived of a node has entered last.
func (p *pair) state(n *haNode) string {
	said := p.alive[slices.Index(p.nodes, n)].out.String()
	at := strings.LastIndex(said, "Entering ")
	if at < 0 {
		return ""
	}
	state, _, _ := strings.Cut(said[at+len("Entering "):], " ")
	return state
}

// moves counts how often a node has taken the address.
func (p *pair) moves() (n int) {
	for _, k := range p.alive {
		n += strings.Count(k.out.String(), "Entering MASTER STATE")
	}
	return n
}

// Two nodes with keepalived, both with the files of etc/ha. They are upgraded one after the
// other: no client is refused. If txlb or the machine of the active node dies, the other one
// serves. It listens before it has the address, and each client keeps its host.
func TestB103PairOfNodes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	t.Run("the standby is ready", func(t *testing.T) {
		active, standby := p.roles()
		if status, body := standby.visit("http://127.0.0.1:7000/readyz"); status != http.StatusOK {
			t.Errorf("readyz says %d: %s", status, body)
		}
		_, all := standby.visit("http://127.0.0.1:9107/metrics")
		for i := range haHosts {
			if want := fmt.Sprintf("txlb_host_up{service=\"web\",group=\"main\",host=%q} 1\n", string(rune('a'+i))); !strings.Contains(all, want) {
				t.Errorf("the metrics of the standby have no %s", want)
			}
		}
		for n, want := range map[*haNode]int{active: 0, standby: 1} {
			_, all := n.visit("http://127.0.0.1:9107/metrics")
			if sample := fmt.Sprintf("txlb_listener_standby{service=\"web\",listen=\"%s:80\"} %d\n", virtualIP, want); !strings.Contains(all, sample) {
				t.Errorf("the metrics of %s have no %s", n.ip, sample)
			}
		}
		if said := standby.do("txlb", "ctl", "show", "services"); !strings.Contains(said, virtualIP+":80,standby ") {
			t.Errorf("show services says\n%s", said)
		}
		if !strings.Contains(standby.txlb.out.String(), "msg=listening service=web addr="+virtualIP+":80") {
			t.Error("it does not listen")
		}
	})

	var upgraded []visited
	undisturbed(t, "upgrade of both", func() (disturbed string) {
		active, standby := p.roles()
		before := p.moves()
		held := p.hold(20)
		l := p.crowd()
		defer l.end()
		restart := func(n *haNode) (began time.Time) {
			began = time.Now()
			n.txlb.signal(syscall.SIGTERM)
			if n == active {
				eventually(t, "the address moves", func() bool { return standby.has(virtualIP) })
				if took := time.Since(began); took > haGrace-time.Second {
					disturbed = fmt.Sprintf("keepalived took %v", took)
				}
			}
			if status := n.txlb.wait(); status != 0 {
				t.Errorf("exit status %d", status)
			}
			n.start()
			eventually(t, "it stands by", func() bool { return p.state(n) == "BACKUP" })
			return began
		}
		first := restart(standby)
		f := l.since(first)
		sessions := fates(held, patience)
		old := active.txlb
		moment := restart(active)
		after := time.Now()
		l.answeredBy(t, 50, after, active)
		l.end()
		if moved := p.moves() - before; moved != 1 {
			disturbed = fmt.Sprintf("the address moved %d times", moved)
		}
		if strings.Contains(old.out.String(), "drain timeout reached") {
			disturbed = "sessions that could not go on were not ended"
		}
		if disturbed != "" {
			return disturbed
		}
		t.Logf("standby restarted: %v; sessions: %v", f, sessions)
		if f.refused+f.reset+f.ended > 0 || sessions.answered != len(held) {
			t.Error("the restart of the standby was noticed")
		}
		f = l.since(moment)
		lost := fates(held, 10*time.Second)
		t.Logf("active drained: %v; its sessions: %v", f, lost)
		if f.refused > 0 || f.answered == 0 {
			t.Error("clients were refused")
		}
		upgraded = append(l.seen, held...)
		return ""
	})

	dies := func(name string, end, mend func(n *haNode)) (seen []visited) {
		undisturbed(t, name, func() (disturbed string) {
			active, standby := p.roles()
			before := p.moves()
			held := p.hold(20)
			l := p.crowd()
			defer l.end()
			l.answeredBy(t, 20, time.Now(), standby)
			killed := time.Now()
			end(active)
			eventually(t, "the address moves", func() bool { return standby.has(virtualIP) })
			l.answeredBy(t, 50, time.Now(), active)
			l.end()
			lost := fates(held, 10*time.Second)
			f := l.since(killed)
			mend(active)
			eventually(t, "it stands by", func() bool { return p.state(active) == "BACKUP" && !active.has(virtualIP) })
			if moved := p.moves() - before; moved != 1 {
				return fmt.Sprintf("the address moved %d times", moved)
			}
			t.Logf("%s: %v; its sessions: %v", name, f, lost)
			if lost.answered > 0 || lost.other > 0 {
				t.Error("sessions of the dead node should be lost")
			}
			seen = append(l.seen, held...)
			return ""
		})
		return seen
	}
	killed := dies("txlb killed", func(n *haNode) {
		n.txlb.signal(syscall.SIGKILL)
		n.txlb.wait()
	}, func(n *haNode) { n.start() })
	dead := dies("machine dead", func(n *haNode) { p.ip("-n", p.clients, "link", "set", n.port, "down") },
		func(n *haNode) { p.ip("-n", p.clients, "link", "set", n.port, "up") })
	p.sameHosts(upgraded, killed, dead)
}

// anycast is nodes that all have the address, behind a router that spreads clients over them.
type anycast struct {
	*site
	router   *haNode
	bird     *process
	nexthops *process
}

func newAnycast(t *testing.T) *anycast {
	debian.NeedFor(t, "bird", "birdc")
	a := &anycast{site: newSite(t)}
	a.clients = a.namespace("clients")
	r := &haNode{t: t, ns: a.namespace("router"), dir: t.TempDir()}
	a.router = r
	r.furnish(map[string]string{"etc/bird/bird.conf": "bird-router.conf", "etc/sysctl.d/txlb.conf": "sysctl-router.conf", "usr/local/sbin/txlb-nexthops": "txlb-nexthops"})
	r.do("sysctl", "--load=/etc/sysctl.d/txlb.conf")
	a.lan(r.ns, "eth1", "198.51.100.254")
	a.ip("-n", r.ns, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", a.clients)
	a.ip("-n", r.ns, "addr", "add", "10.0.0.254/24", "dev", "eth0")
	a.ip("-n", r.ns, "link", "set", "eth0", "up")
	for i := range 16 {
		a.from = append(a.from, fmt.Sprintf("10.0.0.%d", 1+i))
		a.ip("-n", a.clients, "addr", "add", a.from[i]+"/24", "dev", "eth0")
	}
	a.ip("-n", a.clients, "link", "set", "eth0", "up")
	a.ip("-n", a.clients, "route", "add", "default", "via", "10.0.0.254")
	a.serve(r.ns)
	for i := range 3 {
		n := a.node(fmt.Sprintf("198.51.100.%d", 1+i), r.ns, "eth1", "198.51.100.254", map[string]string{
			"etc/txlb/config.xml": "config.xml", "etc/bird/bird.conf": "bird-node.conf",
			"etc/sysctl.d/txlb.conf": "sysctl-node.conf", "usr/local/sbin/txlb-announce": "txlb-announce",
		})
		n.do("sysctl", "--load=/etc/sysctl.d/txlb.conf")
		a.ip("-n", n.ns, "addr", "add", virtualIP+"/32", "dev", "lo")
		n.start()
	}
	for _, n := range a.nodes {
		n.checks()
	}
	return a
}

// checks waits until all hosts are up and have passed a check. Before their first one they are up
// too, and in a network that has just been made it may fail: clients then get other hosts.
func (n *haNode) checks() {
	n.t.Helper()
	eventually(n.t, n.ip+" has checked its hosts", func() bool {
		_, all := n.visit("http://127.0.0.1:9107/metrics")
		for i := range haHosts {
			host := fmt.Sprintf(`{service="web",group="main",host=%q`, string(rune('a'+i)))
			passed := regexp.MustCompile(`(?m)^txlb_checks_total` + regexp.QuoteMeta(host) + `,result="L[467]OK"} [1-9]`)
			if !strings.Contains(all, "txlb_host_up"+host+"} 1\n") || !passed.MatchString(all) {
				return false
			}
		}
		return true
	})
}

// announce starts BIRD on router and nodes, and what belongs to it.
func (a *anycast) announce() {
	a.t.Helper()
	const bird = "bird"
	a.bird = a.router.run(debian.Path(bird), "-f")
	a.nexthops = a.router.run("/usr/local/sbin/txlb-nexthops", virtualIP, "100")
	for _, n := range a.nodes {
		n.run(debian.Path(bird), "-f")
		n.run("/usr/local/sbin/txlb-announce")
	}
}

// routed returns to which nodes the router sends clients, and how often that has changed.
func (a *anycast) routed() (nodes []string, changes int) {
	a.t.Helper()
	lines := strings.Split(a.nexthops.out.String(), "\n")
	lines = slices.DeleteFunc(lines[:len(lines)-1], func(line string) bool { return !strings.HasPrefix(line, virtualIP+":") })
	if len(lines) > 0 {
		nodes = strings.Fields(lines[len(lines)-1])[1:]
	}
	return nodes, len(lines)
}

// routedTo waits until clients go to all nodes but one; nil: to all.
func (a *anycast) routedTo(but *haNode) {
	a.t.Helper()
	var want []string
	for _, n := range a.nodes {
		if n != but {
			want = append(want, n.ip)
		}
	}
	eventually(a.t, fmt.Sprintf("clients go to %v", want), func() bool {
		nodes, _ := a.routed()
		slices.Sort(nodes)
		return slices.Equal(nodes, want)
	})
}

// apart splits sessions into those of a node and all others.
func apart(list []visited, n *haNode) (its, others []visited) {
	for _, v := range list {
		if v.node == n.ip {
			its = append(its, v)
		} else {
			others = append(others, v)
		}
	}
	return its, others
}

// Three nodes announce the address by BGP while /readyz says that they are ready, and a router
// spreads clients over them. If one drains, no client is refused. If one drains or dies, sessions
// of the others go on: with resilient next hops, all of them do. Each client has the same host on
// every node.
func TestB104ManyNodes(t *testing.T) {
	t.Parallel()
	a := newAnycast(t)
	const sessions = 200

	t.Run("plain next hops", func(t *testing.T) {
		route := []string{"-n", a.router.ns, "route", "replace", virtualIP}
		for _, n := range a.nodes {
			route = append(route, "nexthop", "via", n.ip)
		}
		a.ip(route...)
		held := a.hold(sessions)
		a.ip(route[:len(route)-3]...)
		_, others := apart(held, a.nodes[2])
		f := fates(others, patience)
		t.Logf("of %d sessions of other nodes: %v", len(others), f)
		if f.reset == 0 {
			t.Error("no session of another node broke: resilient next hops are not needed")
		}
		a.ip("-n", a.router.ns, "route", "del", virtualIP)
		for _, v := range held {
			_ = v.Close()
		}
	})

	a.announce()
	a.routedTo(nil)
	var seen []visited
	goes := func(name string, gentle bool, end, mend func(n *haNode), n *haNode) {
		undisturbed(t, name, func() (disturbed string) {
			_, before := a.routed()
			held := a.hold(sessions)
			its, others := apart(held, n)
			l := a.crowd()
			defer l.end()
			l.answeredBy(t, 50, time.Now(), n)
			began := time.Now()
			end(n)
			a.routedTo(n)
			if took := time.Since(began); gentle && took > haGrace-time.Second {
				disturbed = fmt.Sprintf("the withdrawal took %v", took)
			}
			l.answeredBy(t, 50, time.Now(), n)
			lost := fates(its, 10*time.Second)
			kept := fates(others, patience)
			f := l.since(began)
			mend(n)
			a.routedTo(nil)
			back := fates(others, patience)
			l.end()
			for _, v := range held {
				_ = v.Close()
			}
			if _, changes := a.routed(); changes != before+2 {
				disturbed = fmt.Sprintf("the routes changed %d times", changes-before)
			}
			if disturbed != "" {
				return disturbed
			}
			t.Logf("%s: %v; its sessions: %v; sessions of others: %v", name, f, lost, kept)
			if kept.answered != len(others) || back.answered != len(others) {
				t.Errorf("sessions of others: %v; and when it was back: %v", kept, back)
			}
			if gentle && f.refused > 0 {
				t.Error("clients were refused")
			}
			seen = slices.Concat(seen, l.seen, held)
			return ""
		})
	}
	goes("node drained", true, func(n *haNode) { n.txlb.signal(syscall.SIGTERM) }, func(n *haNode) {
		if status := n.txlb.wait(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		n.start()
		n.checks()
	}, a.nodes[0])
	goes("txlb killed", false, func(n *haNode) {
		n.txlb.signal(syscall.SIGKILL)
		n.txlb.wait()
	}, func(n *haNode) { n.start(); n.checks() }, a.nodes[1])
	goes("machine dead", false, func(n *haNode) { a.ip("-n", a.router.ns, "link", "set", n.port, "down") },
		func(n *haNode) { a.ip("-n", a.router.ns, "link", "set", n.port, "up") }, a.nodes[2])
	a.sameHosts(seen)

	// A node that is back gets clients when buckets have been idle for long enough.
	a.ip("-n", a.router.ns, "nexthop", "replace", "id", "100", "group", a.group(), "type", "resilient", "buckets", "1024", "idle_timer", "1")
	for _, n := range a.nodes {
		eventually(t, n.ip+" gets clients again", func() bool {
			v := a.connect(0)
			if v.err == nil {
				_ = v.Close()
			}
			return v.err == nil && v.node == n.ip
		})
	}
}

// group returns the members of the router's group of next hops, as ip(8) takes them.
func (a *anycast) group() string {
	a.t.Helper()
	out, err := exec.Command(debian.Path("ip"), "-n", a.router.ns, "nexthop", "show", "id", "100").CombinedOutput()
	words := strings.Fields(string(out))
	if err != nil || len(words) < 4 {
		a.t.Fatalf("ip nexthop: %v: %s", err, out)
	}
	return words[3]
}
