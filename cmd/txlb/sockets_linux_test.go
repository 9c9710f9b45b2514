package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/sandbox"
	"github.com/txlb/txlb/internal/testkit"
)

// sysctl sets a setting of the test's own network.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0); err != nil {
		t.Skipf("%s cannot be set: %v", name, err)
	}
}

// checkSays expects warnings of txlb check, behind the file's name.
func checkSays(t *testing.T, doc string, want ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.xml")
	if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	read, path := readConfig(path, &out)
	if read == nil {
		t.Fatal(out.String())
	}
	found := surroundings(path, read)
	if found.Err() != nil {
		t.Error(found)
	}
	said := found.Error()
	for _, w := range want {
		if !strings.Contains(said, path+w) {
			t.Errorf("it does not say %q:\n%s", w, said)
		}
	}
	if n := strings.Count(said, "warning: "); n != len(want) {
		t.Errorf("%d warnings, want %d:\n%s", n, len(want), said)
	}
}

// Check tells with the line which option of a listener the machine lacks, or makes
// useless.
func TestB91CheckListenOptions(t *testing.T) {
	if !sandbox.Network(t) {
		return
	}
	sysctl(t, "net.ipv4.tcp_fastopen", "1")
	sysctl(t, "net.mptcp.enabled", "0")
	const doc = `<config><service name="s">
<listen ip="127.0.0.1:80" interface="none0"/>
<listen ip="127.0.0.1:81" fastOpen="yes" deferAccept="yes" interface="lo"/>
<listen ip="127.0.0.1:82" mptcp="yes"/>
<group name="g"><host name="h" ip="127.0.0.1:90"/></group></service></config>`
	checkSays(t, doc,
		`:2: warning: <listen> of service "s": cannot listen on 127.0.0.1:0: there is no interface "none0": no such device`,
		`:3: warning: <listen> of service "s": fastOpen has no effect while net.ipv4.tcp_fastopen is 1; set it to 3, bit 2 is for listeners`,
		`:4: warning: <listen> of service "s": cannot listen on 127.0.0.1:0: mptcp: it is switched off; set net.mptcp.enabled=1`,
	)
	sysctl(t, "net.ipv4.tcp_fastopen", "3")
	sysctl(t, "net.mptcp.enabled", "1")
	checkSays(t, strings.Replace(doc, "none0", "lo", 1))
}

// The same of where connections to hosts come from.
func TestB92CheckSources(t *testing.T) {
	if !sandbox.Unprivileged(t) {
		return
	}
	if connect.CanUseClients() == nil {
		t.Skip("this user may use addresses of clients")
	}
	checkSays(t, `<config><service name="s"><listen ip="127.0.0.1:8080"/><group name="g">
<host name="a" ip="127.0.0.1:90" source="203.0.113.77"/>
<host name="b" ip="127.0.0.1:91" source="client"/>
<host name="c" ip="127.0.0.1:92" interface="none0"/>
<host name="d" ip="127.0.0.1:93" interface="lo" source="127.0.0.1"/>
</group></service></config>`,
		`:2: warning: host "a": no interface of this machine has the source address 203.0.113.77`,
		`:3: warning: host "b": source="client" needs CAP_NET_ADMIN, which this process does not have`,
		`:4: warning: host "c": this machine has no interface "none0"`,
	)
}

// Clients are behind one cable of the program and hosts behind another. Hosts see the
// addresses of the clients, and answers come back by policy routing, over IPv4 and IPv6.
// A client that has only the other address family is rejected, and no host goes down.
func TestB92HostsSeeTheClients(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	clients := strings.TrimSuffix(n.front, "front") + "clients"
	n.ip("netns", "add", clients)
	t.Cleanup(func() { n.ip("netns", "del", clients) })
	n.ip("-n", n.front, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", clients)
	n.ip("-n", clients, "link", "set", "lo", "up")
	for ns, ends := range map[string]map[string][]string{
		n.front: {"eth0": {"fd91::1/64"}, "eth1": {"10.92.0.1/24", "fd92::1/64"}},
		n.back:  {"eth0": {"fd91::2/64"}},
		clients: {"eth1": {"10.92.0.2/24", "fd92::2/64"}},
	} {
		for end, addresses := range ends {
			n.ip("-n", ns, "link", "set", end, "up")
			for _, a := range addresses {
				words := []string{"-n", ns, "addr", "add", a, "dev", end}
				if strings.Contains(a, "::") {
					words = append(words, "nodad")
				}
				n.ip(words...)
			}
		}
	}
	n.ip("-n", n.back, "route", "add", "default", "via", frontIP)
	n.ip("-n", n.back, "-6", "route", "add", "default", "via", "fd91::1")
	for _, family := range []string{"-4", "-6"} {
		n.ip("-n", n.front, family, "rule", "add", "iif", "eth0", "lookup", "100")
		n.ip("-n", n.front, family, "route", "add", "local", "default", "dev", "lo", "table", "100")
	}
	if t.Failed() {
		t.FailNow()
	}
	var checks atomic.Value
	who := func(c *net.TCPConn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if host == frontIP || host == "fd91::1" {
			checks.Store(host)
		}
		_, _ = c.Write([]byte(host + "\n"))
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}
	service := func(name, listen, host string) string {
		return fmt.Sprintf(`<service name="%s">%s<group name="g"><check type="expect" expect="." interval="1s"/><host name="h" ip="%s" source="client"/></group></service>`, name, listen, host)
	}
	b := n.balance(clients,
		service("four", `<listen ip="10.92.0.1:81"/><listen ip="10.92.0.1:82" proxyProtocol="require" proxyFrom="10.92.0.0/24"/>`, n.backend(backIP+":0", who))+
			service("six", `<listen ip="[fd92::1]:81"/>`, n.backend("[fd91::2]:0", who))+
			service("mixed", `<listen ip="[fd92::1]:83"/>`, n.backend(otherIP+":0", who)))
	ask := func(address, first string) string {
		c, err := b.dialer(address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, first); err != nil {
			t.Error(err)
		}
		text, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%s: %v", address, err)
		}
		return strings.TrimSpace(string(text))
	}
	for _, c := range []struct{ address, first, want string }{
		{"10.92.0.1:81", "", "10.92.0.2"},
		{"10.92.0.1:82", "PROXY TCP4 198.51.100.7 10.92.0.1 1000 80\r\n", "198.51.100.7"},
		{"10.92.0.1:82", "PROXY UNKNOWN\r\n", "10.92.0.2"},
		{"[fd92::1]:81", "", "fd92::2"},
		{"[fd92::1]:83", "", ""},
	} {
		if got := ask(c.address, c.first); got != c.want {
			t.Errorf("%s, %q: the host saw %q, want %q", c.address, c.first, got, c.want)
		}
	}
	eventually(t, "the rejected client is counted", func() bool {
		return b.sample(`txlb_sessions_refused_total{service="mixed",reason="source"}`) == 1
	})
	if b.sample(`txlb_host_up{service="mixed",group="g",host="h"}`) != 1 {
		t.Error("the host is down for the fault of a client")
	}
	eventually(t, "checks come from this machine", func() bool { return checks.Load() != nil })
}

// A client with two paths to the program loses the one that it began on. Its session goes
// on over the other, in both directions. A client without MPTCP is served beside it.
func TestB91SecondPath(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	if _, err := os.Stat("/proc/sys/net/mptcp/enabled"); err != nil {
		t.Skip("the kernel has no MPTCP")
	}
	n := newNetwork(t)
	clients := strings.TrimSuffix(n.front, "front") + "clients"
	n.ip("netns", "add", clients)
	t.Cleanup(func() { n.ip("netns", "del", clients) })
	for end, net := range map[string]string{"eth1": "10.92.0.", "eth2": "10.93.0."} {
		n.ip("-n", n.front, "link", "add", end, "type", "veth", "peer", "name", end, "netns", clients)
		for ns, last := range map[string]string{n.front: "1", clients: "2"} {
			n.ip("-n", ns, "addr", "add", net+last+"/24", "dev", end)
			n.ip("-n", ns, "link", "set", end, "up")
		}
	}
	n.ip("-n", clients, "link", "set", "lo", "up")
	// The second path leads to the address of the first.
	n.ip("-n", clients, "rule", "add", "from", "10.93.0.2", "lookup", "200")
	n.ip("-n", clients, "route", "add", "default", "via", "10.93.0.1", "dev", "eth2", "table", "200")
	if t.Failed() {
		t.FailNow()
	}
	for _, words := range [][]string{
		{"-n", clients, "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2"},
		{"-n", n.front, "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2"},
		{"-n", clients, "mptcp", "endpoint", "add", "10.93.0.2", "dev", "eth2", "subflow"},
	} {
		if out, err := exec.Command(debian.Path("ip"), words...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v: %s", words, err, out)
		}
	}
	b := n.balance(clients, `<service name="web"><listen ip="10.92.0.1:81" mptcp="yes"/><group name="g"><host name="h" ip="`+n.backend(backIP+":0", echo)+`"/></group></service>`)
	var c net.Conn
	if err := within(clients, func() (err error) {
		d := net.Dialer{Timeout: patience}
		d.SetMultipathTCP(true)
		c, err = d.Dial("tcp", "10.92.0.1:81")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	says := func(text string) {
		t.Helper()
		began := time.Now()
		defer func() { t.Logf("%d bytes took %v", len(text), time.Since(began)) }()
		_ = c.SetDeadline(began.Add(8 * patience)) // the kernels take their time to give up a path
		got := make([]byte, len(text))
		_, err := io.WriteString(c, text)
		if err == nil {
			_, err = io.ReadFull(c, got)
		}
		if err != nil || string(got) != text {
			t.Fatalf("%d bytes: %v", len(text), err)
		}
	}
	says("first")
	eventually(t, "the second path is used", func() bool { return subflows(t, c) > 0 })
	n.ip("-n", clients, "link", "set", "eth1", "down")
	says("second")
	says(strings.Repeat("third", 20_000))
	n.ip("-n", clients, "link", "set", "eth1", "up")
	plain, err := b.dialer("10.92.0.1:81") // Go uses MPTCP only when it is told to
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	c = plain
	says("plain")
	eventually(t, "both sessions are counted, one with MPTCP", func() bool {
		return b.sample(`txlb_service_sessions_total{service="web"}`) == 2 && b.sample(`txlb_mptcp_sessions_total{service="web"}`) == 1
	})
}

// subflows returns how many further paths a connection has.
func subflows(t *testing.T, c net.Conn) int {
	t.Helper()
	const solMPTCP, mptcpInfo = 284, 1 // linux/mptcp.h; the first byte of the answer
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { n, err = unix.GetsockoptInt(int(fd), solMPTCP, mptcpInfo) })
	if err != nil {
		t.Fatal(err)
	}
	four := int32(n)
	return int(*(*byte)(unsafe.Pointer(&four)))
}

// What the machine does not allow is an error of a start, a reload and a command, which
// names service and listener or host. What runs stays as it is.
func TestB91WrongOptionsChangeNothing(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv, of util-linux")
	}
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(debian.Path("ip"), "netns", "exec", n.front, "sh", "-c", "echo 0 > /proc/sys/net/mptcp/enabled").CombinedOutput(); err != nil {
		t.Skipf("net.mptcp.enabled cannot be set: %v: %s", err, out)
	}
	socket := filepath.Join(socketFolder(t), "s")
	doc := func(listen, host string) string {
		return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"%s/><group name="g"><host name="h" ip="127.0.0.1:9"%s/></group></service>
<admin><socket path=%q/></admin></config>`, listen, host, socket)
	}
	inside := []string{"netns", "exec", n.front, setpriv, "--bounding-set", "-all", program, "run", "-c"}
	good := write(t, doc("", ""))
	p := run(t, debian.Path("ip"), append(inside, good)...)
	p.expect("msg=ready")
	show := func() string {
		_, out := call(t, "ctl", "-s", socket, "show", "config")
		return out
	}
	before := show()
	for _, c := range []struct{ listen, host, verb, want string }{
		{` interface="none0"`, "", "addListen web 127.0.0.1:0 interface=none0", `service "web": listen on 127.0.0.1:[0-9]+: there is no interface "none0"`},
		{` mptcp="yes"`, "", "addListen web 127.0.0.1:0 mptcp=yes", `service "web": listen on 127.0.0.1:[0-9]+: mptcp: it is switched off; set net.mptcp.enabled=1`},
		{"", ` source="client"`, "setHost web g h source=client", `service "web": host "h": source="client" needs CAP_NET_ADMIN, which this process does not have`},
		{"", ` interface="a/b"`, "setHost web g h interface=a/b", `"a/b" is not an interface`},
	} {
		wanted := regexp.MustCompile(c.want)
		if status, out := call(t, append([]string{"ctl", "--yes", "-s", socket}, strings.Fields(c.verb)...)...); status == 0 || !wanted.MatchString(out) {
			t.Errorf("%s: status %d: %s", c.verb, status, out)
		}
		if err := os.WriteFile(good, []byte(doc(c.listen, c.host)), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, out := call(t, "ctl", "--yes", "-s", socket, "reload"); status == 0 || !wanted.MatchString(out) {
			t.Errorf("reload with%s%s: status %d: %s", c.listen, c.host, status, out)
		}
		if after := show(); after != before {
			t.Errorf("%s: the configuration is now %s", c.verb, after)
		}
		other := strings.Replace(doc(c.listen, c.host), socket, socket+"2", 1)
		out, err := exec.CommandContext(t.Context(), debian.Path("ip"), append(inside, write(t, other))...).CombinedOutput()
		if err == nil || !wanted.Match(out) {
			t.Errorf("a start with%s%s: %v: %s", c.listen, c.host, err, out)
		}
	}
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}
