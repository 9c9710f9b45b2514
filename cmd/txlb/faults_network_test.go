//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
)

// network is two network namespaces with a cable between them: the program is
// in the first, clients and hosts are where a test puts them. Nothing of it
// touches the machine's own network.
type network struct {
	t           *testing.T
	front, back string
}

const (
	frontIP = "10.91.0.1" // of the program's side of the cable
	backIP  = "10.91.0.2" // of the other one
	otherIP = "10.91.0.3" // there too
	ghostIP = "10.91.0.9" // nobody has it
)

var networks atomic.Int64

func newNetwork(t *testing.T) *network {
	t.Helper()
	debian.NeedFor(t, "ip", "nft")
	name := fmt.Sprintf("txlb-%d-%d", os.Getpid(), networks.Add(1))
	n := &network{t, name + "-front", name + "-back"}
	for _, ns := range []string{n.front, n.back} {
		if out, err := exec.Command(debian.Path("ip"), "netns", "add", ns).CombinedOutput(); err != nil {
			t.Skipf("this system gives no network namespace: %v: %s", err, out)
		}
		t.Cleanup(func() { n.ip("netns", "del", ns) })
	}
	n.cable()
	return n
}

// cable connects the two sides.
func (n *network) cable() {
	n.t.Helper()
	n.ip("-n", n.front, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", n.back)
	for ns, addresses := range map[string][]string{n.front: {frontIP}, n.back: {backIP, otherIP}} {
		for _, a := range addresses {
			n.ip("-n", ns, "addr", "add", a+"/24", "dev", "eth0")
		}
		n.ip("-n", ns, "link", "set", "lo", "up")
		n.ip("-n", ns, "link", "set", "eth0", "up")
	}
	// The kernel may take its time to notice that there is a cable: until then nothing
	// is sent, and connects over IPv6 fail.
	for _, ns := range []string{n.front, n.back} {
		eventually(n.t, "the cable carries", func() (runs bool) {
			err := within(ns, func() error {
				i, err := net.InterfaceByName("eth0")
				runs = err == nil && i.Flags&net.FlagRunning != 0
				return err
			})
			return err == nil && runs
		})
	}
}

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command(debian.Path("ip"), args...).CombinedOutput(); err != nil {
		n.t.Errorf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// filter makes the back side treat packets as rule says, in both directions.
func (n *network) filter(rule string) {
	n.t.Helper()
	n.nft(fmt.Sprintf(`table ip faults {
		chain in { type filter hook input priority 0; %[1]s; }
		chain out { type filter hook output priority 0; %[1]s; }
	}`, rule))
}

func (n *network) nft(rules string) {
	n.t.Helper()
	cmd := exec.Command(debian.Path("ip"), "netns", "exec", n.back, debian.Path("nft"), "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("nft: %v: %s", err, out)
	}
}

// within runs f in a network namespace.
func within(ns string, f func() error) error {
	return sandbox.InNetwork(filepath.Join("/run/netns", ns), f)
}

func dialFrom(ns string) func(address string) (net.Conn, error) {
	return func(address string) (c net.Conn, err error) {
		err = within(ns, func() error {
			c, err = dial(address)
			return err
		})
		return c, err
	}
}

// backend runs handle on an address of the back side.
func (n *network) backend(address string, handle func(c *net.TCPConn)) string {
	n.t.Helper()
	var ln net.Listener
	if err := within(n.back, func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	return backendOn(n.t, ln, handle)
}

// balance runs the program on the front side. Its clients are on the side that
// from names.
func (n *network) balance(from, services string) *balancer {
	n.t.Helper()
	path, err := binary()
	if err != nil {
		n.t.Fatal(err)
	}
	doc, metrics := withMetrics(n.t, services)
	p := run(n.t, debian.Path("ip"), "netns", "exec", n.front, path, "run", "-c", write(n.t, doc))
	p.expect("msg=ready")
	b := attach(n.t, p, metrics, dialFrom(n.front))
	b.dialer = dialFrom(from)
	return b
}

// onFront is the service "web" on the program's side of the cable.
func onFront(more string, addresses ...string) string {
	return strings.Replace(group(more, addresses...), "127.0.0.1:0", frontIP+":0", 1)
}

// Three of a hundred packets are lost on the way to the program and from it,
// on both of its sides. Megabytes each way at once arrive byte for byte.
func TestB01LossyNetwork(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	const sessions, size = 4, 2 << 20
	up, down := stream(size, 1), stream(size, 2)
	behind := make(chan error, sessions)
	b := n.balance(n.back, onFront(`<timeouts connect="20s" total="20s"/>`,
		n.backend(backIP+":0", func(c *net.TCPConn) { behind <- exchange(c, down, up) })))
	for _, ns := range []string{n.front, n.back} {
		// The cable would carry 64 KiB as one packet; a real one does not.
		n.ip("-n", ns, "link", "set", "eth0", "gso_max_segs", "1")
	}
	n.filter("numgen random mod 100 < 3 counter drop")
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			c, err := b.dialer(b.addr("web", 0))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			if err := exchange(c, up, down); err != nil {
				t.Errorf("client: %v", err)
			}
		})
	}
	wg.Wait()
	for range sessions {
		if err := <-behind; err != nil {
			t.Errorf("backend: %v", err)
		}
	}
	out, err := exec.Command(debian.Path("ip"), "netns", "exec", n.back, debian.Path("nft"), "list", "ruleset").CombinedOutput()
	if err != nil || strings.Contains(string(out), "packets 0 ") {
		t.Errorf("nothing was lost (%v): %s", err, out)
	}
	n.nft("delete table ip faults")
	if v := b.sample(ended("--")); v != sessions {
		t.Errorf("%v of %d sessions closed well", v, sessions)
	}
	b.hostsUp()
	b.settled()
}

// A host that does not answer, because nobody has its address or because its
// packets are thrown away, costs a client the connect time-out and no more: the
// next host serves. It is marked down and left alone from then on.
func TestB27HostThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{"no such address": ghostIP, "packets dropped": otherIP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t)
			n.filter("ip daddr " + otherIP + " drop; ip saddr " + otherIP + " drop")
			b := n.balance(n.front, group(`<timeouts connect="300ms"/>`, address+":80", n.backend(backIP+":0", echo)))
			start := time.Now()
			if err := b.session(1000, 0); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took < 300*time.Millisecond {
				t.Errorf("the silent host was given up after %v", took)
			}
			b.expect(`msg="host down" service=web group=g host=h0`)
			for i, err := range b.together(20, 1000) {
				if err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
			all := b.samples()
			if all[hostSample("txlb_host_up", "h0")] != 0 || all[hostSample("txlb_host_up", "h1")] != 1 {
				t.Error("the wrong host is down")
			}
			// The kernel mostly has no time to say that nobody has the address.
			if n := all[connectFailed("timeout")] + all[connectFailed("unreachable")]; n != 1 || sum(all, "txlb_connect_failures_total") != 1 {
				t.Errorf("%v connects were out of time, %v failed in all", n, sum(all, "txlb_connect_failures_total"))
			}
			if n := all[`txlb_redispatches_total{service="web"}`]; n != 1 {
				t.Errorf("%v sessions went to another host", n)
			}
			if n := all[ended("--")]; n != 21 {
				t.Errorf("%v of 21 sessions closed well", n)
			}
			b.settled()
		})
	}
}

// The same where the host's system answers that nobody listens, and where a
// filter on the way says so.
func TestB22HostThatRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ rule, reason string }{
		"nobody listens":     {"", "refused"},
		"rejected by a rule": {"tcp dport 80 reject with icmp type host-unreachable", "unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t)
			if test.rule != "" {
				n.nft("table ip faults { chain in { type filter hook input priority 0; " + test.rule + "; }\n}")
			}
			b := n.balance(n.front, group("", otherIP+":80", n.backend(backIP+":0", echo)))
			for i, err := range b.together(20, 1000) {
				if err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
			b.expect(`msg="host down" service=web group=g host=h0`)
			all := b.samples()
			if n := all[connectFailed(test.reason)]; n < 1 || n != sum(all, "txlb_connect_failures_total") {
				t.Errorf("%v connects failed for the reason %q, %v in all", n, test.reason, sum(all, "txlb_connect_failures_total"))
			}
			if all[hostSample("txlb_host_up", "h0")] != 0 || all[hostSample("txlb_host_up", "h1")] != 1 {
				t.Error("the wrong host is down")
			}
			b.settled()
		})
	}
}

// A host's address goes away in the middle of a session. The session ends when
// its time is out, as the client's if both sides were open and as the server's
// if the client had ended, and new ones go to the other host.
func TestB57HostThatVanishes(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	n := newNetwork(t)
	b := n.balance(n.front, group(`<timeouts connect="300ms" idle="10s" halfClosed="5s"/>`,
		n.backend(otherIP+":0", echo), n.backend(backIP+":0", echo)))
	there := b.bystanders(4) // by turns on h0 and h1
	n.ip("-n", n.back, "addr", "del", otherIP+"/24", "dev", "eth0")
	results := make([]error, len(there.conns))
	var wg sync.WaitGroup
	for i, c := range there.conns {
		wg.Go(func() {
			if i < 2 { // these end, and then wait for the rest
				data := stream(1000, i)
				results[i] = exchange(c, data, data)
			} else {
				results[i] = ask(c, "anybody there?")
			}
			_ = c.Close()
		})
	}
	for i, err := range b.together(6, 1000) {
		if err != nil {
			t.Errorf("new session %d: %v", i, err)
		}
	}
	wg.Wait()
	for i, err := range results {
		if vanished := i%2 == 0; vanished == (err == nil) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("session %d, on h%d: %v", i, i%2, err)
		}
	}
	b.expect(`msg="host down" service=web group=g host=h0`)
	b.settled()
	all := b.samples()
	if all[ended("cD")] != 1 || all[ended("sD")] != 1 || all[ended("--")] != 8 {
		t.Errorf("%v sessions closed by the client's time-out, %v by the server's, %v well; want 1, 1, 8",
			all[ended("cD")], all[ended("sD")], all[ended("--")])
	}
}

// With every local port taken, real this time, connects fail and no host is
// marked down; when sessions have ended there are ports again.
func TestB30NoLocalPorts(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	const ports, clients = 8, 20
	b := n.balance(n.back, onFront("", n.backend(backIP+":0", echo)))
	if out, err := exec.Command(debian.Path("ip"), "netns", "exec", n.front, "sh", "-c",
		fmt.Sprintf("echo 40001 %d > /proc/sys/net/ipv4/ip_local_port_range", 40000+ports)).CombinedOutput(); err != nil {
		t.Skipf("the range of local ports cannot be set: %v: %s", err, out)
	}
	var open []net.Conn
	refused := 0
	for range clients {
		c, err := b.dialer(b.addr("web", 0))
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(c, "a port?"); err != nil {
			refused++
			_ = c.Close()
			continue
		}
		open = append(open, c)
	}
	if len(open) == 0 || len(open) > ports {
		t.Errorf("%d sessions over %d local ports", len(open), ports)
	}
	all := b.samples()
	if n := all[connectFailed("local")]; int(n) != refused || n != sum(all, "txlb_connect_failures_total") {
		t.Errorf("%d clients were refused; %v connects failed here, %v in all", refused, n, sum(all, "txlb_connect_failures_total"))
	}
	b.hostsUp()
	for _, c := range open {
		reset(c)
	}
	eventually(t, "there are ports again", func() bool { return b.session(1000, 0) == nil })
	b.hostsUp()
	b.settled()
}

// relay passes bytes and ends on to address, each late by delay, in order.
func relay(t *testing.T, address string, delay time.Duration) string {
	return backend(t, func(front *net.TCPConn) {
		to, err := dial(address)
		if err != nil {
			t.Error(err)
			return
		}
		behind := to.(*net.TCPConn)
		defer func() { _ = behind.Close() }()
		type packet struct {
			due  time.Time
			data []byte // nil: the end
		}
		pass := func(dst, src *net.TCPConn) {
			way := make(chan packet, 1024)
			var late sync.WaitGroup
			late.Go(func() {
				for p := range way {
					time.Sleep(time.Until(p.due)) // the delay itself
					if p.data == nil {
						_ = dst.CloseWrite()
					} else if _, err := dst.Write(p.data); err != nil {
						_ = src.Close()
					}
				}
			})
			for {
				buf := make([]byte, 16<<10)
				n, err := src.Read(buf)
				if n > 0 {
					way <- packet{time.Now().Add(delay), buf[:n]}
				}
				if err != nil {
					way <- packet{due: time.Now().Add(delay)}
					break
				}
			}
			close(way)
			late.Wait()
		}
		var both sync.WaitGroup
		both.Go(func() { pass(behind, front) })
		both.Go(func() { pass(front, behind) })
		both.Wait()
	})
}

// Half a tenth of a second each way between the program and its host: bytes
// and ends come in order, and each end is passed on while the other direction
// goes on.
func TestB03DistantHost(t *testing.T) {
	t.Parallel()
	const delay, size = 50 * time.Millisecond, 3 << 20
	up, down := stream(size, 1), stream(size, 2)
	late := make(chan error, 10)
	// The host waits for the client's end before it says anything.
	address := relay(t, backend(t, func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Now().Add(patience))
		late <- func() error {
			if err := exchange(readOnly{c}, nil, up); err != nil {
				return err
			}
			_, err := c.Write(down)
			return err
		}()
	}), delay)
	b := balance(t, group("", address))
	var wg sync.WaitGroup
	for range cap(late) {
		wg.Go(func() {
			c, err := dial(b.addr("web", 0))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			start := time.Now()
			if err := exchange(c, up, down); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took < 2*delay {
				t.Errorf("the relay was passed by: %v", took)
			}
			if err := <-late; err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := b.sample(ended("--")); int(n) != cap(late) {
		t.Errorf("%v sessions closed well", n)
	}
	b.settled()
}

// readOnly is a connection whose own direction stays open.
type readOnly struct{ net.Conn }

func (readOnly) Write(p []byte) (int, error) { return len(p), nil }
func (readOnly) CloseWrite() error           { return nil }

// A peer goes without a word while bytes wait for its acknowledgement: the session
// ends after unacked, be it the client or the host, though idle is an hour. Without
// unacked the kernel tries for a quarter of an hour, and so does the session.
func TestDeadPeersWithUnacknowledgedData(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	const unacked = 3 * time.Second
	for name, test := range map[string]struct {
		timeouts string
		dead     string // whose packets are dropped
		ends     bool
	}{
		"host":             {fmt.Sprintf(`unacked="%v"`, unacked), backIP, true},
		"client":           {fmt.Sprintf(`unacked="%v"`, unacked), otherIP, true},
		"host, no limit":   {"", backIP, false},
		"client, no limit": {"", otherIP, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t)
			speak := make(chan struct{})
			b := n.balance(n.back, onFront(`<timeouts idle="1h" halfClosed="1h" `+test.timeouts+`/>`, n.backend(backIP+":0", func(c *net.TCPConn) {
				hello := make([]byte, 100)
				k, _ := c.Read(hello)
				_, _ = c.Write(hello[:k])
				<-speak
				_, _ = c.Write(hello[:k])
				_, _ = c.Read(hello)
			})))
			b.dialer = func(address string) (c net.Conn, err error) {
				err = within(n.back, func() error {
					d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(otherIP)}, Timeout: patience}
					c, err = d.Dial("tcp", address)
					return err
				})
				return c, err
			}
			c := b.bystanders(1).conns[0]
			n.filter(fmt.Sprintf("ip daddr %[1]s drop; ip saddr %[1]s drop", test.dead))
			start, clock := time.Now(), testkit.NewClock(t)
			if test.dead == backIP {
				if _, err := c.Write([]byte("anybody there?")); err != nil {
					t.Fatal(err)
				}
				defer close(speak)
			} else {
				close(speak)
			}
			active := func() float64 { return sum(b.samples(), "txlb_sessions") }
			if !test.ends {
				for time.Since(start) < unacked+2*time.Second {
					if active() != 1 {
						t.Fatalf("the session closed after %v", time.Since(start))
					}
					time.Sleep(100 * time.Millisecond) // between two looks
				}
				return
			}
			eventually(t, "the session ends", func() bool { return active() == 0 })
			if took := time.Since(start); took < unacked || clock.Now() > unacked+5*time.Second {
				t.Errorf("the session closed after %v, want %v", took, unacked)
			}
			how := "CD"
			if test.dead == backIP {
				how = "SD"
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if _, err := c.Read(make([]byte, 100)); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("the client of a dead host: %v, want a reset", err)
				}
			}
			if b.sample(ended(how)) != 1 {
				t.Errorf("the session did not end by %s", how)
			}
		})
	}
}

// One source address has room for as many connections to each host as there are
// local ports, and checks come from it as well.
func TestSourceUsesPortsForEachHost(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	const ports, source = 8, "10.91.0.5"
	n.ip("-n", n.front, "addr", "add", source+"/24", "dev", "eth0")
	var wrong atomic.Int64
	seen := func(c *net.TCPConn) {
		if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); host != source {
			wrong.Add(1)
		}
		echo(c)
	}
	doc := onFront(`<timeouts connect="5s"/>`, n.backend(backIP+":0", seen), n.backend(otherIP+":0", seen))
	doc = strings.ReplaceAll(doc, "<host ", `<host source="`+source+`" `)
	b := n.balance(n.back, strings.Replace(doc, "<host ", `<check type="expect" send="x" expect="x" interval="1s"/><host `, 1))
	eventually(t, "checks pass", func() bool {
		all := b.samples()
		for _, h := range []string{"h0", "h1"} {
			if all[`txlb_checks_total{service="web",group="g",host="`+h+`",result="L7OK"}`] == 0 {
				return false
			}
		}
		return true
	})
	if out, err := exec.Command(debian.Path("ip"), "netns", "exec", n.front, "sh", "-c",
		fmt.Sprintf("echo 40001 %d > /proc/sys/net/ipv4/ip_local_port_range", 40000+ports)).CombinedOutput(); err != nil {
		t.Skipf("the range of local ports cannot be set: %v: %s", err, out)
	}
	open := 0
	for range 2 * ports {
		c, err := b.dialer(b.addr("web", 0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if ask(c, "a port?") == nil {
			open++
		}
	}
	if open <= ports {
		t.Errorf("%d sessions over %d local ports to two hosts: a port serves one host only", open, ports)
	}
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d connections did not come from %s", n, source)
	}
	b.hostsUp()
}
