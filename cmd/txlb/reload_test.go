//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// txlbFile runs a configuration from a file that the test goes on to change.
func txlbFile(t *testing.T, doc string) (p *process, path string) {
	t.Helper()
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	path = write(t, doc)
	p = run(t, name, "run", "-c", path)
	p.expect("msg=ready")
	return p, path
}

// reload writes a configuration and waits until the program has taken it.
func (p *process) reload(path, doc string) {
	p.t.Helper()
	p.reloads(path, doc, `msg=reloaded`)
}

// reloads is reload with what the log is to say at its end.
func (p *process) reloads(path, doc, says string) {
	p.t.Helper()
	replace(p.t, path, doc)
	before := strings.Count(p.out.String(), says)
	p.signal(syscall.SIGHUP)
	timeout := time.After(patience)
	for {
		p.out.mu.Lock()
		text, more := p.out.text.String(), p.out.more
		p.out.mu.Unlock()
		if strings.Count(text, says) > before {
			return
		}
		select {
		case <-more:
		case <-p.done:
			p.t.Fatalf("the program ended: %v", p.err)
		case <-timeout:
			p.t.Fatalf("no %q after SIGHUP", says)
		}
	}
}

// replace writes a file as editors do it: nobody sees half of it.
func replace(t *testing.T, path, doc string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// server answers each connection by a function; its address is returned.
func server(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, serve)
}

// serveOn answers each connection of a listener by a function, until the test ends.
func serveOn(t *testing.T, ln net.Listener, serve func(net.Conn)) (address string) {
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// named greets with a name and then echoes.
func named(name string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := c.Write([]byte(name)); err == nil {
			_, _ = io.Copy(c, c)
			_ = c.(*net.TCPConn).CloseWrite()
		}
	}
}

// greeted connects and reads the name of the host.
func greeted(t *testing.T, addr string) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	name := make([]byte, 1)
	if _, err := io.ReadFull(c, name); err != nil {
		t.Fatalf("no greeting from %s: %v", addr, err)
	}
	return c, string(name)
}

// Sessions with bytes on the way live through reloads that change everything
// around them, and what becomes of their own host and service.
func TestB50ReloadInTheMiddleOfATransfer(t *testing.T) {
	a, b, port := server(t, named("a")), server(t, named("b")), freePort(t)
	doc := func(web, hosts, rest string) string {
		return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:%d"/>%s<group name="g" scheduler="roundr">%s</group></service>%s</config>`, port, web, hosts, rest)
	}
	hostA, hostB := fmt.Sprintf(`<host name="a" ip="%s"/>`, a), fmt.Sprintf(`<host name="b" ip="%s"/>`, b)
	other := `<service name="other"><listen ip="127.0.0.1:0"/></service>`

	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p, path := txlbFile(t, doc("", hostA, other))
	c, name := greeted(t, addr)
	if name != "a" {
		t.Fatalf("greeted by %q", name)
	}
	// Every step is sent in two halves with a reload between them.
	data := make([]byte, 8<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	steps := []string{
		doc("", hostA+hostB, other),                                               // a host comes
		doc(`<timeouts idle="5m"/>`, hostA+hostB, other),                          // a time-out
		doc("", strings.Replace(hostA, "/>", ` state="drain"/>`, 1)+hostB, other), // its host drains
		doc("", hostB, ""), // its host goes, and another service
		doc(`<listen ip="127.0.0.1:0"/>`, hostB, other), // a listener comes
		doc("", strings.Replace(hostB, `name="b"`, `name="c" weight="9"`, 1), "<logging level=\"debug\"/>"),
	}
	received := make(chan []byte, 1)
	go func() {
		got, _ := io.ReadAll(c)
		received <- got
	}()
	piece := len(data) / (len(steps) + 1)
	for i, step := range steps {
		// The reload comes while the piece is on its way.
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(data[i*piece : (i+1)*piece])
			sent <- err
		}()
		p.reload(path, step)
		if err := <-sent; err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if _, err := c.Write(data[len(steps)*piece:]); err != nil {
		t.Fatal(err)
	}
	if _, name := greeted(t, addr); name != "b" {
		t.Errorf("a new session goes to %q", name)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-received:
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back of %d, or other ones", len(got), len(data))
		}
	case <-time.After(patience):
		t.Fatal("the transfer does not end")
	}
}

// A listener that a reload adds accepts; one that it removes refuses, and its
// sessions go on.
func TestB53ListenersByReload(t *testing.T) {
	host := server(t, named("a"))
	first, second := freePort(t), freePort(t)
	doc := func(ports ...int) string {
		listen := ""
		for _, port := range ports {
			listen += fmt.Sprintf(`<listen ip="127.0.0.1:%d"/>`, port)
		}
		return fmt.Sprintf(`<config><service name="web">%s<group name="g"><host name="a" ip="%s"/></group></service></config>`, listen, host)
	}
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	refused := func(port int) bool {
		c, err := net.Dial("tcp", at(port))
		if err == nil {
			_ = c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	p, path := txlbFile(t, doc(first))
	if !refused(second) {
		t.Fatal("the second port accepts before it is told to")
	}
	old, _ := greeted(t, at(first))
	p.reload(path, doc(first, second))
	p.expect(`msg=listening service=web addr=` + regexp.QuoteMeta(at(second)))
	greeted(t, at(second))
	greeted(t, at(first))
	p.reload(path, doc(second))
	p.expect(`msg="stopped listening" service=web addr=` + regexp.QuoteMeta(at(first)))
	eventually(t, "the first port refuses", func() bool { return refused(first) })
	greeted(t, at(second))
	if _, err := old.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(old, make([]byte, 1)); err != nil {
		t.Errorf("a session of the listener that went: %v", err)
	}
}

// A thousand reloads under load: no client fails, and nothing is left behind.
func TestB64ThousandReloads(t *testing.T) {
	testkit.Long(t)
	hosts := []string{server(t, named("a")), server(t, named("b")), server(t, named("c"))}
	port, other := freePort(t), freePort(t)
	metricsPort := freePort(t)
	doc := func(i int) string {
		var list strings.Builder
		for n, h := range hosts {
			if n == i%3 { // each in turn is away
				continue
			}
			fmt.Fprintf(&list, `<host name="%c" ip="%s" weight="%d"/>`, 'a'+n, h, 1+i%7)
		}
		extra := ""
		if i%2 == 1 {
			extra = fmt.Sprintf(`<service name="extra"><listen ip="127.0.0.1:%d"/><group name="g"><host name="a" ip="%s"/></group></service>`, other, hosts[0])
		}
		scheduler := []string{"roundr", "leastc", "weightrr", "p2c"}[i%4]
		return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:%d"/><timeouts idle="%dm"/><group name="g" scheduler="%s">%s</group></service>%s`+
			`<admin><metrics listen="127.0.0.1:%d"/></admin></config>`, port, 1+i%5, scheduler, list.String(), extra, metricsPort)
	}
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, doc(0))
	p := run(t, name, "run", "-c", path)
	metrics := fmt.Sprintf("127.0.0.1:%d", metricsPort)
	p.expect("msg=ready")
	pid := p.cmd.Process.Pid

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var served, failed atomic.Int64
	var clients sync.WaitGroup
	client := func() {
		for ctx.Err() == nil {
			if err := hello(fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
				failed.Add(1)
				t.Error(err)
				return
			}
			served.Add(1)
			select { // the rest of the machine is for the reloads
			case <-ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	for range 4 {
		clients.Go(client)
	}
	reload := func(i int) {
		t.Helper()
		p.out.forget() // or every line would be searched a thousand times
		p.reload(path, doc(i))
	}
	const reloads = 1000
	// The events and the pools fill first.
	warm := reloads/4 + 30
	for i := range warm {
		reload(i + 1)
	}
	look := func() (fds, goroutines, rss int) {
		t.Helper()
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), int(metric(t, metrics, "go_goroutines")), statusField(t, pid, "VmRSS")
	}
	_, goroutines, rss := look()
	for i := range reloads {
		reload(warm + i + 1)
	}
	for range reloads % 2 { // back to where it began
		reload(0)
	}
	cancel()
	clients.Wait()
	if failed.Load() > 0 || served.Load() < 100 {
		t.Errorf("%d clients failed, %d were served", failed.Load(), served.Load())
	}
	// Without clients nothing is left but what was there at first.
	fresh := run(t, name, "run", "-c", write(t, strings.ReplaceAll(strings.ReplaceAll(doc(warm+reloads), fmt.Sprint(":", port, `"`), `:0"`), fmt.Sprint(":", metricsPort, `"`), `:0"`)))
	eventually(t, "no session is left", func() bool { return metric(t, metrics, `txlb_service_sessions{service="web"}`) == 0 })
	want := 0
	eventually(t, "no descriptor is left", func() bool {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", fresh.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		want = len(entries)
		fds, _, _ := look()
		return fds <= want+8 // idle pipes and a connection to the metrics
	})
	var g, r int
	eventually(t, fmt.Sprintf("goroutines and memory are as before, %d and %d KiB", goroutines, rss), func() bool {
		_, g, r = look()
		return g <= goroutines+2 && r <= rss+rss/4+8<<10
	})
	if v := metric(t, metrics, "txlb_config_last_reload_success"); v != 1 {
		t.Errorf("txlb_config_last_reload_success %v", v)
	}
	t.Logf("%d clients; goroutines %d to %d, resident %d to %d KiB", served.Load(), goroutines, g, rss, r)
}

// hello sends a few bytes through and expects them back after a greeting.
func hello(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if len(got) != 6 || string(got[1:]) != "hello" {
		return fmt.Errorf("answered %q", got)
	}
	return nil
}

// SIGHUP tells what is wrong with a file, by line, and what needs a restart;
// level and file of the log change at once.
func TestReloadTells(t *testing.T) {
	doc := func(rest string) string {
		return "<config>\n<service name=\"web\"><listen ip=\"127.0.0.1:0\"/></service>\n" + rest + "</config>"
	}
	p, path := txlbFile(t, doc(""))
	p.reloads(path, doc("<engine lops=\"2\"/>\n<logging level=\"loud\"/>"), "reload failed")
	for _, want := range []string{path + `:3: <engine> has no attribute \"lops\"; did you mean \"loops\"?`, path + ":4: <logging level>"} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("the log does not say %s", want)
		}
	}
	p.reloads(path, doc(`<engine loops="1"/>`), "msg=reloaded")
	p.expect(`msg="restart required" edit="# <engine> loops auto -> 1: needs restart"`)
	log := filepath.Join(t.TempDir(), "log")
	replace(t, path, doc(fmt.Sprintf(`<logging file="%s" format="json"/>`, log)))
	p.signal(syscall.SIGHUP)
	eventually(t, "the log goes on in the other file", func() bool { _, err := os.Stat(log); return err == nil })
	// A line may come between the change of the file and that of the format.
	eventually(t, "the log goes on in the other file", func() bool {
		data, _ := os.ReadFile(log)
		before := bytes.Count(data, []byte("log reopened"))
		p.signal(syscall.SIGUSR1)
		eventually(t, "the log was reopened", func() bool {
			data, _ = os.ReadFile(log)
			return bytes.Count(data, []byte("log reopened")) > before
		})
		return bytes.Contains(data, []byte(`"msg":"log reopened"`))
	})
}

func TestDiffCommand(t *testing.T) {
	one := write(t, `<config><service name="web"><listen ip=":80"/><group name="g"><host name="a" ip="h:1"/></group></service></config>`)
	same := write(t, `<config><service name="web"><listen ip=":80"/><!-- x --><group enable="yes" name="g"><host ip="h:1" name="a" weight="1"/></group></service></config>`)
	other := write(t, `<config><service name="web"><listen ip=":80"/><timeouts idle="5m"/><group name="g"><host name="b" ip="h:2" weight="3"/></group></service></config>`)
	wrong := write(t, "<config>\n<servic/></config>")
	for _, test := range []struct {
		args   []string
		status int
		out    string
	}{
		{[]string{one, same}, 0, ""},
		{[]string{one, other}, 1, "setService web idle=5m\naddHost web g b h:2 weight=3\ndelHost web g a\n"},
		{[]string{one, wrong}, 2, wrong + ":2: unknown element <servic> in <config>; did you mean \"service\"?"},
		{[]string{one}, 2, "txlb diff: missing argument NEW"},
		{[]string{one, other, one}, 2, "txlb diff: unexpected argument "},
		{[]string{filepath.Join(t.TempDir(), "none"), one}, 2, "no such file"},
	} {
		status, out := call(t, append([]string{"diff"}, test.args...)...)
		if status != test.status || !strings.Contains(out, test.out) || test.status < 2 && out != test.out {
			t.Errorf("diff %v: status %d\n%s", test.args, status, out)
		}
	}
}

// A thousand services, or ten thousand hosts, start and reload in no time.
func TestScale(t *testing.T) {
	if _, err := binary(); err != nil { // whose making is not to be counted
		t.Fatal(err)
	}
	for _, scale := range []struct {
		name            string
		services, hosts int
	}{{"1,000 services of 10 hosts", 1000, 10}, {"10,000 hosts in one service", 1, 10_000}} {
		t.Run(scale.name, func(t *testing.T) {
			doc := func(weight int) string {
				var b strings.Builder
				b.WriteString("<config>\n")
				for s := range scale.services {
					fmt.Fprintf(&b, "<service name=\"s%d\"><listen ip=\"127.%d.%d.1:0\"/><group name=\"g\">\n", s, 1+s>>8, s&255)
					for h := range scale.hosts {
						fmt.Fprintf(&b, "<host name=\"h%d\" ip=\"127.1.%d.%d:9\" weight=\"%d\"/>\n", h, h>>8, h&255, weight)
						weight = 1 // of the first only
					}
					b.WriteString("</group></service>\n")
				}
				b.WriteString("<manager><hostCheck enable=\"no\"/></manager></config>\n")
				return b.String()
			}
			// The time of the processor, which does not count who else is busy.
			p, path := txlbFile(t, doc(1))
			started := p.cpu()
			p.reload(path, doc(7))
			reloaded := p.cpu() - started
			p.expect(`msg="reload changed" edit="setHost s0 g h0 weight=7"`)
			t.Logf("start %v, reload of one change %v, resident %d KiB", started.Round(time.Millisecond), reloaded.Round(time.Millisecond), statusField(t, p.cmd.Process.Pid, "VmRSS"))
			// A second on a machine that has nothing else to do.
			if limit := 5 * time.Second; started > limit || reloaded > limit {
				t.Errorf("start %v, reload %v", started, reloaded)
			}
		})
	}
}

// A surface of the admin goes where the configuration says, and away.
func TestReloadMovesTheMetrics(t *testing.T) {
	services := group("", backend(t, echo))
	doc := func(listen string) string {
		return "<config>" + services + "<admin>" + listen + "</admin></config>"
	}
	at := func(port int) string { return fmt.Sprintf(`<metrics listen="127.0.0.1:%d"/>`, port) }
	everywhere := func(port int) string { return fmt.Sprintf(`<metrics listen="*:%d"/>`, port) }
	url := func(port int) string { return fmt.Sprintf("http://127.0.0.1:%d/metrics", port) }
	first, second := freePort(t), freePort(t)
	p, path := txlbFile(t, doc(at(first)))
	if _, err := get(url(first)); err != nil {
		t.Fatal(err)
	}
	p.reload(path, doc(everywhere(second)))
	eventually(t, "the metrics are where they should be", func() bool {
		_, err := get(url(second))
		return err == nil
	})
	eventually(t, "the metrics are not where they were", func() bool { _, err := get(url(first)); return err != nil })
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first))
	if err != nil {
		t.Fatal(err)
	}
	p.reloads(path, doc(at(first)), "reload failed, keeping the current configuration")
	if _, err := get(url(second)); err != nil {
		t.Errorf("after a reload that was refused: %v", err)
	}
	_ = taken.Close()
	p.reload(path, doc(at(first)))
	eventually(t, "the metrics are back", func() bool {
		_, err := get(url(first))
		return err == nil
	})
}
