//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/debian"
	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// accessRun is one session that goes through HAProxy and through txlb.
type accessRun struct {
	service string
	does    func(net.Conn)
	code    string
}

// reads reads n bytes, or to the end if n is negative.
func reads(c net.Conn, n int) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n < 0 {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	_, _ = io.ReadFull(c, make([]byte, n))
}

func sends(c net.Conn, what string) { _, _ = io.WriteString(c, what) }

func cutsOff(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

var accessRuns = []accessRun{
	{"web", func(c net.Conn) {
		sends(c, "hello")
		reads(c, 5)
		_ = c.(*net.TCPConn).CloseWrite()
		reads(c, -1)
	}, "--"},
	{"web", func(c net.Conn) {
		sends(c, "hello")
		reads(c, 5)
		cutsOff(c)
	}, "CD"},
	{"web", func(c net.Conn) {
		sends(c, "hello")
		reads(c, 5)
		sends(c, "!")
		reads(c, -1)
	}, "SD"},
	{"idle", func(c net.Conn) { reads(c, -1) }, "cD"},
	{"half", func(c net.Conn) {
		sends(c, "?")
		_ = c.(*net.TCPConn).CloseWrite()
		reads(c, -1)
	}, "sD"},
	{"moved", func(c net.Conn) {
		sends(c, "hello")
		reads(c, 5)
		_ = c.(*net.TCPConn).CloseWrite()
		reads(c, -1)
	}, "--"},
	{"dead", func(c net.Conn) { reads(c, -1) }, "SC"},
	{"none", func(c net.Conn) { reads(c, -1) }, "SC"},
	{"closed", func(c net.Conn) { reads(c, -1) }, "PR"},
}

// talks repeats what comes, up to a sign that asks for something else.
func talks(c net.Conn) {
	b := make([]byte, 64)
	for {
		n, err := c.Read(b)
		switch {
		case err != nil:
			return
		case b[n-1] == '!':
			cutsOff(c)
			return
		case b[n-1] == '?': // silence
			_, _ = io.Copy(io.Discard, c)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			for {
				// The end was read. Only a reset or the end of the test ends this.
				if _, err := c.Write(nil); err != nil {
					return
				}
				if gone(c) {
					return
				}
				time.Sleep(10 * time.Millisecond) // nothing tells of a reset behind an end
			}
		}
		_, _ = c.Write(b[:n])
	}
}

// gone tells whether a connection was reset.
func gone(c net.Conn) bool {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	over := true
	_ = raw.Control(func(fd uintptr) {
		n, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
		over = n&0xff != 8 // CLOSE_WAIT, in the first byte of struct tcp_info
	})
	return over
}

// TestAccessLogIsHAProxys has the same sessions go through a real HAProxy and txlb, one
// after the other. Their lines are the same but for ports and times, and halog says the
// same of both.
func TestAccessLogIsHAProxys(t *testing.T) {
	testkit.Long(t)
	t.Parallel()
	debian.NeedFor(t, "haproxy", "halog")
	backend := answering(t, talks)
	deadPort := freePort(t)
	dead := fmt.Sprint("127.0.0.1:", deadPort)
	logged, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = logged.Close() }()

	var frontends, services strings.Builder
	at := map[string]string{}
	add := func(name, hosts, rule, txlbHosts, txlbRule string) {
		if txlbRule == "" {
			txlbRule = `<timeouts idle="1m"/>`
		}
		at[name] = fmt.Sprint("127.0.0.1:", freePort(t))
		group := "\n\tdefault_backend " + name + ".main\nbackend " + name + ".main\n" + hosts
		if hosts == "" {
			group = "\n"
		}
		fmt.Fprintf(&frontends, "frontend %s\n\tbind %s\n\t%s%s\n", name, at[name], rule, group)
		fmt.Fprintf(&services, `<service name="%s"><listen ip="127.0.0.1:0"/>%s%s</service>`+"\n", name, txlbRule, txlbHosts)
	}
	group := func(hosts string) string { return `<group name="main" scheduler="roundr">` + hosts + `</group>` }
	one := fmt.Sprintf(`<host name="a" ip="%s"/>`, backend)
	add("web", "\tserver a "+backend, "", group(one), "")
	add("idle", "\tserver a "+backend, "timeout client 300ms", group(one), `<timeouts idle="300ms"/>`)
	add("half", "\ttimeout server 900ms\n\tserver a "+backend, "", group(one), `<timeouts idle="1m" halfClosed="900ms"/>`)
	add("moved", "\tserver z "+dead+"\n\tserver a "+backend, "", group(fmt.Sprintf(`<host name="z" ip="%s"/>`, dead)+one), "")
	add("dead", "\tretries 0\n\tserver z "+dead, "", group(fmt.Sprintf(`<host name="z" ip="%s"/>`, dead)), "")
	add("none", "", "", "", "")
	add("closed", "", "tcp-request content reject", group(one), `<access><deny net="*"/></access>`)

	probe := fmt.Sprint("127.0.0.1:", freePort(t))
	haproxy, err := servers.New(t.TempDir(), "haproxy", probe, nil)
	if err == nil {
		err = haproxy.HAProxy(fmt.Sprintf(`global
	log %s format raw local0
defaults
	mode tcp
	log global
	option tcplog
	option redispatch 1
	retries 1
	timeout connect 20s
	timeout client 60s
	timeout server 60s
frontend probe
	no log
	bind %s
%s`, logged.LocalAddr(), probe, frontends.String()))
	}
	if err != nil {
		t.Fatal(err)
	}
	haproxy.RunFor(t)
	file := filepath.Join(t.TempDir(), "access.log")
	p := txlb(t, fmt.Sprintf("<config>\n%s<logging access=%q/>\n</config>", services.String(), file))

	var theirs, ours []string
	buf := make([]byte, 64<<10)
	for _, run := range accessRuns {
		for _, addr := range []string{at[run.service], p.addr(run.service, 0)} {
			c, err := net.Dial("tcp4", addr)
			if err != nil { // it was reset at once
				continue
			}
			run.does(c)
			_ = c.Close()
		}
		_ = logged.SetReadDeadline(time.Now().Add(patience))
		n, err := logged.Read(buf)
		if err != nil {
			t.Fatalf("%s of %s: HAProxy does not log: %v", run.code, run.service, err)
		}
		theirs = append(theirs, strings.TrimSpace(string(buf[:n])))
		want := len(theirs)
		eventually(t, "txlb logs", func() bool {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ours = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			return strings.Count(string(text), "\n") == want
		})
	}
	for i, run := range accessRuns {
		a, b := shape(theirs[i]), shape(ours[i])
		if run.service == "closed" || run.service == "none" { // HAProxy names the frontend, as we do
			a = strings.Replace(a, run.service+".main/", run.service+"/", 1)
		}
		if a != b || !strings.Contains(b, " "+run.code+" ") {
			t.Errorf("%s of %s:\nHAProxy %s\ntxlb    %s", run.code, run.service, theirs[i], ours[i])
		}
	}
	syslog := ""
	for _, line := range theirs {
		syslog += "Nov 28 03:04:05 lb1 haproxy[1]: " + line + "\n"
	}
	for _, args := range []string{"-st", "-e", "-tc"} {
		said := func(log string) string {
			cmd := exec.Command("halog", args)
			cmd.Stdin = strings.NewReader(log)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("halog %s: %v: %s", args, err, errs.String())
			}
			if !strings.Contains(errs.String(), " 0 parsing errors") {
				t.Errorf("halog %s: %s", args, errs.String())
			}
			return ports.ReplaceAllString(string(out), "")
		}
		if a, b := said(syslog), said(strings.Join(ours, "\n")+"\n"); args != "-e" && a != b || args == "-e" && strings.Count(a, "\n") != strings.Count(b, "\n") {
			t.Errorf("halog %s says of HAProxy's log:\n%sand of txlb's:\n%s", args, a, b)
		}
	}
}

var (
	ports  = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	stamps = regexp.MustCompile(`\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\]`)
	times3 = regexp.MustCompile(` (-?\d+)/(-?\d+)/(-?\d+) `)
	prefix = regexp.MustCompile(`^\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ txlb\[\d+\]: `)
)

// shape is a line without what differs between two sessions alike: ports and times. That
// a time is not there stays.
func shape(line string) string {
	line = stamps.ReplaceAllString(ports.ReplaceAllString(prefix.ReplaceAllString(line, ""), "client"), "[time]")
	return times3.ReplaceAllStringFunc(line, func(s string) string {
		parts := strings.Split(strings.TrimSpace(s), "/")
		for i, part := range parts {
			if part != "-1" {
				parts[i] = "T"
			}
		}
		return " " + strings.Join(parts, "/") + " "
	})
}

// TestB93AccessLogFollowsTheConfiguration changes target and format by reloads and moves
// files away, while clients come. Every session has one line.
func TestB93AccessLogFollowsTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	backend := answering(t, repeat)
	doc := func(access string) string {
		return fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:0"/><group name="g"><host name="a" ip="%s"/></group></service><logging %s/></config>`, backend, access)
	}
	to := func(file, format string) string {
		return fmt.Sprintf(`access=%q accessFormat=%q`, filepath.Join(dir, file), format)
	}
	config := write(t, doc(to("one", "tcplog")))
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, program, "run", "-c", config)
	p.expect("msg=ready")
	addr := p.addr("web", 0)
	stop, sessions := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				sessions <- n
				return
			default:
			}
			c, err := net.Dial("tcp4", addr)
			if err != nil {
				t.Error(err)
				<-stop
				sessions <- n
				return
			}
			sends(c, "x")
			reads(c, 1)
			_ = c.(*net.TCPConn).CloseWrite()
			reads(c, -1)
			_ = c.Close()
			n++
		}
	}()
	lines := func(file string) (n int) {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("\n"))
	}
	grows := func(file string) {
		t.Helper()
		was := lines(file)
		eventually(t, "lines come to "+file, func() bool { return lines(file) > was })
	}
	grows("one")
	for _, next := range []struct{ file, access string }{
		{"two", to("two", "tcplog")}, {"two", to("two", "json")}, {"three", to("three", "json")}, {"one", to("one", "tcplog")},
	} {
		if err := os.WriteFile(config, []byte(doc(next.access)), 0o600); err != nil {
			t.Fatal(err)
		}
		p.signal(syscall.SIGHUP)
		grows(next.file)
	}
	if err := os.Rename(filepath.Join(dir, "one"), filepath.Join(dir, "one.1")); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGUSR1)
	grows("one")
	// A file that cannot be opened changes nothing.
	if err := os.WriteFile(config, []byte(doc(to("none/four", "json"))), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.expect(`msg="cannot change the access log, it stays as it was" err="open the access log: .*no such file`)
	grows("one")
	close(stop)
	want := <-sessions
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Fatalf("status %d", status)
	}
	got, files := 0, []string{"one", "one.1", "two", "three"}
	for _, file := range files {
		got += lines(file)
		status, out := call(t, "explain", filepath.Join(dir, file))
		if status != 0 || strings.Count(out, "--: the session ended normally") != lines(file) {
			t.Errorf("explain of %s: status %d", file, status)
		}
	}
	if got != want {
		t.Errorf("%d lines of %d sessions", got, want)
	}
}

// A full disk stops nobody, is a problem in status, and what is lost is counted.
func TestAccessLogOnAFullDisk(t *testing.T) {
	metrics := fmt.Sprint("127.0.0.1:", freePort(t))
	socket := filepath.Join(socketFolder(t), "s")
	p := txlb(t, fmt.Sprintf(`<config><service name="none"><listen ip="127.0.0.1:0"/></service>
<admin><socket path=%q/><metrics listen=%q/></admin><logging access="/dev/full"/></config>`, socket, metrics))
	comes(t, p)
	eventually(t, "status says so", func() bool {
		_, out := call(t, "ctl", "-s", socket, "status")
		return strings.Contains(out, "The access log has not been written") && strings.Contains(out, "no space left on device")
	})
	comes(t, p)
	if n := metric(t, metrics, `txlb_log_dropped_total{log="access"}`); n != 0 { // they wait
		t.Errorf("%v lines are dropped", n)
	}
}
