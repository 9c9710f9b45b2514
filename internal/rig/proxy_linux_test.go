package rig_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/rig"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// TestB62RealProxiesAndServers sends clients through a real proxy, this one and a real
// server, each of which passes the client's address on with a PROXY header: HAProxy and
// nginx on either side, both versions, over TCP and UNIX sockets. The hosts are down
// until a check has passed, so checks have a header as well.
func TestB62RealProxiesAndServers(t *testing.T) {
	testkit.Long(t)
	debian.NeedFor(t, "haproxy", "nginx", servers.StreamModule)
	port := func() int {
		p, err := servers.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	server := func(name, addr string) *servers.Server {
		s, err := servers.New(t.TempDir(), name, addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	run := func(s *servers.Server, err error) *servers.Server {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		s.RunFor(t)
		return s
	}

	// The servers say who the client is, by the header.
	sockets := t.TempDir()
	tcpH, tcpN := fmt.Sprint("127.0.0.1:", port()), fmt.Sprint("127.0.0.1:", port())
	unixH, unixN := filepath.Join(sockets, "h"), filepath.Join(sockets, "n")
	haproxy := server("haproxy", tcpH)
	run(haproxy, haproxy.HAProxy(fmt.Sprintf(`defaults
	mode http
	timeout client 60s
frontend f
	bind %s accept-proxy
	bind unix@%s accept-proxy
	http-request return status 200 content-type text/plain lf-string "%%[src]:%%[src_port] %%[dst]:%%[dst_port]\n"
`, tcpH, unixH)))
	nginx := server("nginx", tcpN)
	run(nginx, nginx.Nginx(fmt.Sprintf(`access_log off; server { listen %s proxy_protocol; listen unix:%s proxy_protocol;
	return 200 "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port\n"; }`, tcpN, unixN)))

	var xml strings.Builder
	var services []string
	xml.WriteString("<config>\n")
	for name, address := range map[string]string{"ht": tcpH, "nt": tcpN, "hu": "unix:" + unixH, "nu": "unix:" + unixN} {
		for _, version := range []string{"v1", "v2"} {
			services = append(services, name+version)
			fmt.Fprintf(&xml, `<service name="%[1]s"><listen ip="127.0.0.1:0" proxyProtocol="require" proxyFrom="127.0.0.1"/>
	<group name="g" start="down"><check type="http" interval="50ms" rise="1"/><host name="h" ip="%[2]s" proxyProtocol="%[3]s"/></group></service>
`, name+version, address, version)
		}
	}
	xml.WriteString("</config>")
	r := rig.Start(t, xml.String())

	// The proxies in front: one port for each service and way.
	fronts := map[string]string{} // where they listen, with what they are called
	ha := "defaults\n\tmode tcp\n\ttimeout connect 20s\n\ttimeout client 60s\n\ttimeout server 60s\n"
	var ng strings.Builder
	var first [2]string
	for _, s := range services {
		for _, how := range []string{"send-proxy", "send-proxy-v2", "nginx"} {
			at := fmt.Sprint("127.0.0.1:", port())
			fronts[at] = how + " to " + s
			if how == "nginx" {
				first[1] = at
				fmt.Fprintf(&ng, "server { listen %s; proxy_pass %s; proxy_protocol on; }\n", at, r.Addr(s))
				continue
			}
			first[0] = at
			ha += fmt.Sprintf("listen %s-%s\n\tbind %s\n\tserver s %s %s check inter 100ms\n", how, s, at, r.Addr(s), how)
		}
	}
	front := server("haproxy-front", first[0])
	run(front, front.HAProxy(ha))
	stream := server("nginx-front", first[1])
	run(stream, stream.NginxStream(ng.String()))

	testkit.Eventually(t, "checks find the hosts", func() bool {
		for _, s := range r.Director.State().Services {
			if !s.Groups[0].Hosts[0].Up() {
				return false
			}
		}
		return true
	})
	for at, name := range fronts {
		// HAProxy may think for a moment that a service is down, as its first check
		// came before the host was up.
		testkit.Eventually(t, name+" serves", func() bool {
			got, from, err := askWho(at)
			if err != nil {
				return false
			}
			if want := from + " " + at; got != want {
				t.Errorf("%s: the server sees %q, want %q", name, got, want)
			}
			return true
		})
	}
	for name, s := range r.Engine.Snapshot().Services {
		for reason, n := range s.Refused {
			if n > 0 && reason != "no_host" { // before the first check
				t.Errorf("service %s rejected %d clients: %s", name, n, reason)
			}
		}
		if s.ProxyHeaders < 3 {
			t.Errorf("service %s took %d headers", name, s.ProxyHeaders)
		}
	}
	// A client that is no proxy gets nowhere.
	for _, s := range services[:1] {
		if got, _, err := askWho(r.Addr(s)); err == nil {
			t.Errorf("an answer without a header: %q", got)
		}
	}
	for _, s := range []*servers.Server{haproxy, nginx} {
		if log, err := os.ReadFile(s.Log); err != nil || strings.Contains(string(log), "broken header") {
			t.Errorf("%s: %v\n%s", s.Name, err, log)
		}
	}
}

// askWho asks a web server who the client is, from an address that is no proxy's, and
// returns the answer and the client's own address.
func askWho(at string) (answer, from string, err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: testkit.Patience}
	c, err := d.Dial("tcp", at)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(testkit.Patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", "", err
	}
	in := bufio.NewScanner(c)
	for in.Scan() {
		answer = in.Text()
	}
	if in.Err() == nil && answer == "" {
		return "", "", io.ErrUnexpectedEOF
	}
	return answer, c.LocalAddr().String(), in.Err()
}

// A reload changes what a listener asks for and what a host gets, for new clients.
func TestB62HeadersFollowTheConfiguration(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			}()
		}
	}()
	document := func(listen, host string) string {
		return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0" %s/><group name="g"><host name="h" ip="%s" %s/></group></service></config>`, listen, ln.Addr(), host)
	}
	r := rig.Start(t, document("", ""))
	for _, c := range []struct{ listen, host, says, gets string }{
		{"", "", "hello", "hello"},
		{`proxyProtocol="require"`, "", "PROXY TCP4 192.0.2.1 192.0.2.2 3 4\r\nhello", "hello"},
		{`proxyProtocol="accept" proxyFrom="127.0.0.1"`, `proxyProtocol="v1"`, "PROXY TCP4 192.0.2.1 192.0.2.2 3 4\r\nhello", "PROXY TCP4 192.0.2.1 192.0.2.2 3 4\r\nhello"},
		{`proxyProtocol="accept" proxyFrom="127.0.0.5"`, "", "hello", "hello"},
	} {
		if err := os.WriteFile(r.File, []byte(document(c.listen, c.host)), 0o600); err != nil {
			t.Fatal(err)
		}
		addr := r.Addr("web")
		if _, err := r.Director.Reload(t.Context(), director.ReloadRequest{By: "test"}); err != nil {
			t.Fatal(err)
		}
		if r.Addr("web") != addr {
			t.Errorf("the listener was opened again: %s, %s", addr, r.Addr("web"))
		}
		p, err := net.DialTimeout("tcp", addr, testkit.Patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = p.SetDeadline(time.Now().Add(testkit.Patience))
		got := make([]byte, len(c.gets))
		if _, err := io.WriteString(p, c.says); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p, got); err != nil || string(got) != c.gets {
			t.Errorf("%s, %s: got %q, %v", c.listen, c.host, got, err)
		}
		if c.listen != "" && c.says != "hello" {
			list := r.Engine.Sessions(0, func(string, *sched.Host) bool { return true })
			if len(list) == 0 || list[len(list)-1].Client.String() != "192.0.2.1:3" {
				t.Errorf("sessions: %+v", list)
			}
		}
		_ = p.Close()
	}
}
