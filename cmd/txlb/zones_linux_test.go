package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A host and a listener have link-local addresses on an interface. The interface
// goes, comes back with another index, and both serve again; the health checks
// follow as well.
func TestLinkLocalAddresses(t *testing.T) {
	for _, ring := range []string{"auto", "off"} {
		t.Run("ring "+ring, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t)
			const front, back = "fe80::91:1", "fe80::91:2"
			addresses := func() {
				n.ip("-n", n.front, "addr", "add", front+"/64", "dev", "eth0", "nodad")
				n.ip("-n", n.back, "addr", "add", back+"/64", "dev", "eth0", "nodad")
			}
			addresses()
			var wrongHost atomic.Value
			_, port, _ := net.SplitHostPort(n.backend("[::]:0", func(c *net.TCPConn) {
				in := bufio.NewReader(c)
				line, err := in.ReadString('\n')
				for err == nil && strings.TrimSpace(line) != "" {
					if host, ok := strings.CutPrefix(line, "Host: "); ok && strings.Contains(host, "%") {
						wrongHost.Store(host)
					}
					line, err = in.ReadString('\n')
				}
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			}))
			ask := func(from, address string) error {
				c, err := dialFrom(from)(address)
				if err != nil {
					return err
				}
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // then it is tried again
				if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
					return err
				}
				line, err := bufio.NewReader(c).ReadString('\n')
				if err == nil && !strings.HasPrefix(line, "HTTP/1.1 200") {
					err = fmt.Errorf("%q", line)
				}
				return err
			}
			const own = 8091
			b := n.balance(n.front, fmt.Sprintf(`<engine ring="%s"/>
				<service name="web"><listen ip="127.0.0.1:0"/><listen ip="[%s%%eth0]:%d"/>
				<group name="g"><check type="http" interval="500ms" rise="2" fall="2" timeout="1s"/>
				<host name="h0" ip="[%s%%eth0]:%s"/></group></service>`, ring, front, own, back, port))
			var local string
			for i := range 2 {
				if a := b.addr("web", i); strings.HasPrefix(a, "127.") {
					local = a
				}
			}
			const checks = `txlb_checks_total{service="web",group="g",host="h0",result="%s"}`
			check := func(when string) {
				t.Helper()
				passed := b.samples()[fmt.Sprintf(checks, "L7OK")]
				eventually(t, when+": the host serves", func() bool { return ask(n.front, local) == nil })
				index := n.index(n.back)
				eventually(t, when+": the listener serves", func() bool {
					return ask(n.back, fmt.Sprintf("[%s%%%d]:%d", front, index, own)) == nil
				})
				// A host is up before its first check, and a single failure takes it down then.
				eventually(t, when+": checks pass", func() bool {
					all := b.samples()
					return all[hostSample("txlb_host_up", "h0")] == 1 && all[fmt.Sprintf(checks, "L7OK")] > passed
				})
			}
			check("at first")
			if status := b.samples()[fmt.Sprintf(checks, "L4CON")]; status > 0 {
				t.Errorf("%v checks failed", status)
			}
			n.ip("-n", n.front, "link", "del", "eth0")
			b.expect(`msg="host down" .*reason="?(no such device|.*ENODEV|interface)`)
			n.cable()
			addresses()
			b.expect(`msg="host up"`)
			check("after the interface has come back")
			if host := wrongHost.Load(); host != nil {
				t.Errorf("a check asked for %s", host)
			}
		})
	}
}

// index returns the number of eth0.
func (n *network) index(ns string) (index int) {
	n.t.Helper()
	if err := within(ns, func() error {
		i, err := net.InterfaceByName("eth0")
		if err == nil {
			index = i.Index
		}
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	return index
}
