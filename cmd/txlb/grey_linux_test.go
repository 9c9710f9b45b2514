//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/admin/socket"
	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// stranger connects to the service from an address that no client had before it, for up to
// 64,000 of them.
func (b *balancer) stranger(n uint16) (net.Conn, error) {
	from := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, byte(n>>8), byte(n)|1)}}
	return from.Dial("tcp4", b.addr("web", 0))
}

// asks is what a client does that waits for the first byte of an answer.
func asks(c net.Conn, question string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// comesOut waits until a host is ejected while clients come, one after the other, each of
// whom asks something and waits. Those who get no answer stay. The next client comes when the
// one before has an answer or waits at that host: so another host, whose answers are only late
// on a busy machine, never has the three waiting clients that make a host silent.
func (b *balancer) comesOut(host, question string, clients *atomic.Uint32) (stay func()) {
	b.t.Helper()
	var open []net.Conn
	var unanswered float64
	var wg sync.WaitGroup
	stay = sync.OnceFunc(func() {
		for _, c := range open {
			_ = c.Close()
		}
		wg.Wait()
	})
	b.t.Cleanup(stay)
	begun, end := time.Now(), time.Now().Add(patience)
	for b.sample(hostSample("txlb_host_ejected", host)) != 1 {
		if time.Now().After(end) {
			stay()
			b.t.Fatalf("host %s is not ejected within %v", host, patience)
		}
		c, err := b.stranger(uint16(clients.Add(2)))
		if err != nil {
			b.t.Fatal(err)
		}
		open = append(open, c)
		answered := make(chan struct{})
		wg.Go(func() { defer close(answered); _ = asks(c, question) })
		select {
		case <-answered:
			_ = c.Close()
		case <-time.After(100 * time.Millisecond):
			unanswered++
			eventually(b.t, "the client is answered, or the host has it", func() bool {
				select {
				case <-answered:
					_ = c.Close()
					unanswered--
					return true
				default:
					return b.sample(hostSample("txlb_sessions", host)) >= unanswered
				}
			})
		}
	}
	b.t.Logf("host %s was ejected after %v and %d clients", host, time.Since(begun).Round(time.Millisecond), len(open))
	return stay
}

// allAnswered checks that many clients who come now get an answer.
func (b *balancer) allAnswered(question string, clients *atomic.Uint32) {
	b.t.Helper()
	for range 60 {
		c, err := b.stranger(uint16(clients.Add(2)))
		if err == nil {
			err = asks(c, question)
			_ = c.Close()
		}
		if err != nil {
			b.t.Errorf("a client got no answer: %v", err)
		}
	}
}

// frozen runs three servers behind the program, stops one of them and lets it go on.
func frozen(t *testing.T, balance func(services string) *balancer, all []*servers.Server, question string) {
	doc := `<service name="web"><listen ip="127.0.0.1:0"/><group name="g" scheduler="roundr" silent="2s" ejectFor="1h"><check type="tcp" interval="500ms"/>`
	for _, s := range all {
		doc += fmt.Sprintf(`<host name="%s" ip="%s"/>`, s.Name, s.Addr)
	}
	b := balance(doc + `</group></service>`)
	var clients atomic.Uint32
	b.allAnswered(question, &clients)
	if err := all[1].Freeze(); err != nil {
		t.Fatal(err)
	}
	thaw := sync.OnceFunc(func() {
		if err := all[1].Thaw(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(thaw)
	stay := b.comesOut(all[1].Name, question, &clients)
	b.allAnswered(question, &clients)
	if b.sample(hostSample("txlb_host_up", all[1].Name)) != 1 {
		t.Error("its checks do not pass")
	}
	for _, i := range []int{0, 2} {
		if b.sample(hostSample("txlb_host_ejected", all[i].Name)) != 0 {
			t.Errorf("host %s is ejected too", all[i].Name)
		}
	}
	stay()
	thaw()
	b.hostsUp()
}

// One of three nginx is stopped: TCP checks pass, and clients stop getting it.
func TestB82StoppedNginx(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	debian.NeedFor(t, "nginx")
	eachEngine(t, func(t *testing.T, balance func(string) *balancer) {
		var all []*servers.Server
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, nginx(t, name, freePort(t)))
		}
		frozen(t, balance, all, "GET / HTTP/1.0\r\n\r\n")
	})
}

// One of three PostgreSQL is stopped.
func TestB82StoppedPostgreSQL(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	debian.NeedFor(t, servers.Initdb)
	var all []*servers.Server
	for _, name := range []string{"a", "b", "c"} {
		dir, as := servers.Apart(t)
		s, err := servers.New(dir, name, fmt.Sprintf("127.0.0.1:%d", freePort(t)), as)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.PostgreSQL(t.Context(), "tester", ""); err != nil {
			t.Fatal(err)
		}
		s.RunFor(t)
		all = append(all, s)
	}
	const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f" // the answer is S or N
	frozen(t, func(services string) *balancer { return balance(t, services) }, all, sslRequest)
}

// One of three hosts resets every client; another time, one is slow.
func TestB82GreyBackends(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	well := func(c *net.TCPConn) {
		buf := make([]byte, 1)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			_, _ = c.Write(buf)
		}
	}
	for name, test := range map[string]struct {
		group string
		grey  func(c *net.TCPConn)
	}{
		"resets": {"", func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)); _ = c.SetLinger(0) }},
		"slow": {`slow="2" failWindow="6s"`, func(c *net.TCPConn) {
			buf := make([]byte, 1)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				time.Sleep(600 * time.Millisecond) // so slow it is
				_, _ = c.Write(buf)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachEngine(t, func(t *testing.T, balance func(string) *balancer) {
				doc := group("", backend(t, well), backend(t, test.grey), backend(t, well))
				b := balance(strings.Replace(doc, `scheduler="roundr"`, `scheduler="roundr" ejectFor="1h" `+test.group, 1))
				var clients atomic.Uint32
				busy := make(chan struct{})
				var wg sync.WaitGroup
				for range 12 { // four on each host
					wg.Go(func() { b.keepsAsking(uint16(clients.Add(2)), busy) })
				}
				stop := sync.OnceFunc(func() { close(busy); wg.Wait() })
				t.Cleanup(stop)
				eventually(t, "the grey host is ejected", func() bool { return b.sample(hostSample("txlb_host_ejected", "h1")) == 1 })
				stop()
				b.allAnswered("x", &clients)
				b.hostsUp()
			})
		})
	}
}

// keepsAsking is a client that asks again and again, each time in a new session when the
// one before has ended, until done is closed.
func (b *balancer) keepsAsking(n uint16, done chan struct{}) {
	for {
		c, err := b.stranger(n)
		for err == nil {
			err = asks(c, "x")
			select {
			case <-done:
				err = net.ErrClosed
			case <-time.After(10 * time.Millisecond): // a client that is no flood
			}
		}
		if c != nil {
			_ = c.Close()
		}
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Who looks at the program sees why a host is ejected, and until when.
func TestB82EjectionIsShown(t *testing.T) {
	t.Parallel()
	reset := backend(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)); _ = c.SetLinger(0) })
	admin, metrics := filepath.Join(t.TempDir(), "s"), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	doc := strings.Replace(group("", backend(t, echo), reset, backend(t, echo)), `scheduler="roundr"`, `scheduler="roundr" ejectFor="1h"`, 1)
	b := attach(t, txlb(t, fmt.Sprintf(`<config>%s<admin><metrics listen="%s"/><socket path="%s"/></admin></config>`, doc, metrics, admin)), metrics, dial)
	client, err := socket.Dial(admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	do := func(line string) socket.Answer {
		t.Helper()
		a, err := client.Do(t.Context(), line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return a
	}
	var clients atomic.Uint32
	b.comesOut("h1", "x", &clients)()
	const why = "it reset three clients in a row, each from another address, before the first byte of an answer"
	for line, want := range map[string]string{
		"show hosts":  `h1 .* up, ejected until \d\d:\d\d:\d\d: ` + why,
		"status":      `Up, but ejected: 1 of 3 hosts of web / g; until \d\d:\d\d:\d\d at least: h1 \(` + why + `\)`,
		"show events": `host ejected.*web g h1 \(.*\): ` + why + `; until \d\d:\d\d:\d\d`,
	} {
		if got := do(line).Text; !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s says\n%s\nwant %s", line, got, want)
		}
	}
	if !strings.Contains(string(do("show hosts").Data), `"kind":"resets"`) {
		t.Errorf("the JSON of show hosts has no kind")
	}
	if n := b.sample(`txlb_problems{kind="hosts_ejected",level="warning",service="web"}`); n != 1 {
		t.Errorf("the problem is there %v times", n)
	}
	do("setHost web g h1 eject=never")
	eventually(t, "the pinned host is back", func() bool { return b.sample(hostSample("txlb_host_ejected", "h1")) == 0 })
}
