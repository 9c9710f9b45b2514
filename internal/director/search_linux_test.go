package director

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/testkit"
)

// inOwnSystem runs the test again in a process with network and mounts of its own,
// where /etc/resolv.conf and /etc/hosts say what the test wants. It returns true in
// that process.
func inOwnSystem(t *testing.T, resolvConf, hosts string) bool {
	t.Helper()
	if os.Getenv("TXLB_TEST_OWN_SYSTEM") == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root, for a /etc/resolv.conf of its own")
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "8m", "-test.parallel", "16")
		cmd.Env = append(os.Environ(), "TXLB_TEST_OWN_SYSTEM=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return false
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"/etc/resolv.conf": resolvConf, "/etc/hosts": hosts} {
		file := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(s) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	return true
}

// A name without a dot at its end is looked up along the search list. Only the
// answer that there is nothing leads to the next domain: a failure must not, be it
// SERVFAIL, REFUSED, rubbish or silence, because what the next domain knows by
// that name is another host. It holds for the servers of the system and for those
// of <dns>. /etc/hosts comes first.
func TestSearchListAndFailures(t *testing.T) {
	testkit.Long(t)
	if !inOwnSystem(t, "# a comment\nnameserver 127.0.0.52\nnameserver 127.0.0.53\nsearch one.test two.test\n",
		"127.0.0.9 static\n::9 static\n::8 six.static.test\n127.0.0.7 host.one.test\n") {
		return
	}
	// The first server is silent: it costs a look-up a second, and no more.
	silent, err := net.ListenPacket("udp", "127.0.0.52:53")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	server := startDNSOn(t, "127.0.0.53:53")
	for _, name := range []string{"fails", "refuses", "rubbish", "silent", "fine"} {
		server.resolves(name+".one.test.", "10.0.0.1")
		server.resolves(name+".two.test.", "10.0.0.2")
		server.resolves(name+".", "10.0.0.3")
	}
	server.answers("fails.one.test.", fails)
	server.answers("refuses.one.test.", refuses)
	server.answers("rubbish.one.test.", rubbish)
	server.answers("silent.one.test.", silently)
	server.resolves("second.two.test.", "10.0.0.2")
	server.resolves("last.", "10.0.0.3")
	server.resolves("deep.name.", "10.0.0.3")
	server.resolves("deep.name.one.test.", "10.0.0.1")
	server.resolves("six.one.test.", "2001:db8::1")
	server.resolves("six.two.test.", "10.0.0.2")
	server.resolves("half.one.test.", "2001:db8::1")
	server.answers("TypeA half.one.test.", fails)
	for _, paths := range []struct {
		name string
		dns  config.DNS
	}{{"system", config.DNS{}}, {"dns servers", config.DNS{Servers: []string{"127.0.0.52", "127.0.0.53"}}}} {
		t.Run(paths.name, func(t *testing.T) {
			source := newSource(&paths.dns, nil)
			for _, c := range []struct{ name, want, problem string }{
				{"fine", "10.0.0.1", ""},
				{"second", "10.0.0.2", ""},
				{"last", "10.0.0.3", ""},
				{"deep.name", "10.0.0.3", ""},
				{"fine.", "10.0.0.3", ""},
				{"fine.two.test.", "10.0.0.2", ""},
				{"six", "2001:db8::1", ""},
				{"static", "127.0.0.9", ""},
				{"six.static.test", "::8", ""},
				{"host.one.test.", "127.0.0.7", ""},
				{"fails", "", "lookup fails on 127.0.0.53:53: server misbehaving"},
				{"refuses", "", "lookup refuses on 127.0.0.53:53: server misbehaving"},
				{"half", "", "lookup half on 127.0.0.53:53: server misbehaving"},
				{"rubbish", "", "rubbish"},
				{"silent", "", "lookup silent"},
				{"nothing", "", "lookup nothing on 127.0.0.53:53: no such host"},
			} {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					clock := testkit.NewClock(t)
					testkit.BestOf(t, 5, func() error { // an answer can come too late on a busy machine
						begun := clock.Now()
						ends, err := source.look(t.Context(), c.name, nil)
						var got []string
						for _, e := range ends {
							got = append(got, e.ip.String())
						}
						took := clock.Since(begun)
						if strings.Join(got, " ") != c.want ||
							c.problem == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.problem) ||
							took > lookupTimeout+time.Second {
							return fmt.Errorf("%v, want %q; error %v, want %q; it took %v", got, c.want, err, c.problem, took)
						}
						return nil
					})
				})
			}
		})
	}
}

// The servers fail for a moment while clients come: none goes to the host of the
// next search domain.
func TestFailureKeepsClientsInTheDomain(t *testing.T) {
	testkit.Long(t)
	if !inOwnSystem(t, "nameserver 127.0.0.53\nsearch one.test two.test\n", "127.0.0.1 localhost\n") {
		return
	}
	server := startDNSOn(t, "127.0.0.53:53")
	one := backend(t, "1", "127.0.0.1:0")
	port := one.Addr().(*net.TCPAddr).Port
	backend(t, "2", fmt.Sprintf("127.0.0.2:%d", port))
	server.resolves("db.one.test.", "127.0.0.1")
	server.resolves("db.two.test.", "127.0.0.2")
	d, addr, _ := balance(t, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g">
		<host name="a" ip="db:%d" resolve="1s"/></group></service></config>`, port))
	for _, how := range []manner{fails, refuses} {
		server.answers("db.one.test.", how)
		await(t, "the problem shows", func() bool { return strings.Contains(only(d, 0).Problem, "server misbehaving") })
		if _, name := connect(t, addr); name != "1" {
			t.Errorf("a client came to %s", name)
		}
		server.answers("db.one.test.", well)
		await(t, "the problem is over", func() bool { return only(d, 0).Problem == "" })
	}
	if n := server.questions("db.two.test."); n != 0 {
		t.Errorf("the next domain was asked %d times", n)
	}
}

func TestParseResolvConf(t *testing.T) {
	for _, c := range []struct{ text, hostname, name, want, servers string }{
		{"", "node", "db", "db.", "127.0.0.1:53 [::1]:53"},
		{"", "node.corp.example", "db", "db.corp.example. db.", "127.0.0.1:53 [::1]:53"},
		{"nameserver 10.0.0.53\nnameserver fe80::53%eth0\nnameserver x\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n", "", "a.b.", "a.b.", "10.0.0.53:53 [fe80::53%eth0]:53 10.0.0.2:53"},
		{"domain a.\nsearch b c. .\n", "n.d", "db", "db.b. db.c. db.", "127.0.0.1:53 [::1]:53"},
		{"search ns.svc.local svc.local # kubernetes\noptions timeout:1 ndots:5", "", "db.ns", "db.ns.ns.svc.local. db.ns.svc.local. db.ns.", "127.0.0.1:53 [::1]:53"},
		{"search a\noptions ndots:99 ndots:x\n;search b", "", strings.Repeat("x.", 15) + "y", strings.Repeat("x.", 15) + "y. " + strings.Repeat("x.", 15) + "y.a.", "127.0.0.1:53 [::1]:53"},
		{"search a\noptions ndots:0\n", "", "db", "db. db.a.", "127.0.0.1:53 [::1]:53"},
		{"search " + strings.Repeat("long.", 40) + "\n", "", strings.Repeat("y", 60), strings.Repeat("y", 60) + ".", "127.0.0.1:53 [::1]:53"},
	} {
		conf := parseResolvConf(c.text, c.hostname)
		var servers []string
		for _, s := range conf.servers {
			servers = append(servers, s.String())
		}
		if got := conf.names(c.name); !slices.Equal(got, strings.Fields(c.want)) || strings.Join(servers, " ") != c.servers {
			t.Errorf("%q: names %q, want %q; servers %v, want %s", c.text, got, c.want, servers, c.servers)
		}
	}
}
