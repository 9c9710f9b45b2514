package logs

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

// write writes lines to an access log and returns it.
func accessTo(t *testing.T, target string) *Writer {
	t.Helper()
	w, err := OpenAccess(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func put(w *Writer, lines ...string) {
	for _, line := range lines {
		_, _ = w.Write([]byte(line + "\n"))
	}
}

// received returns the next datagram.
func received(t *testing.T, c net.PacketConn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
	b := make([]byte, 64<<10)
	n, _, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

const rfc5424 = `^<134>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d) \S+ txlb \d+ access - `

// Each line becomes a message, in the form of each protocol.
func TestMessages(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	path := filepath.Join(t.TempDir(), "log")
	unix, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = unix.Close() }()
	for target, c := range map[string]struct {
		from net.PacketConn
		form string
	}{
		"syslog:udp:" + udp.LocalAddr().String(): {udp, rfc5424},
		"syslog:unix:" + path:                    {unix, `^<134>\w{3} [ \d]\d \d\d:\d\d:\d\d txlb\[\d+\]: `},
	} {
		put(accessTo(t, target), "one", "two lines")
		for _, line := range []string{"one", "two lines"} {
			if got := received(t, c.from); !regexp.MustCompile(c.form + line + "$").MatchString(got) {
				t.Errorf("%s: %q", target, got)
			}
		}
	}
	if got := string(journalMessage(7)(nil, []byte("one"), time.Now())); got != "MESSAGE=one\nPRIORITY=6\nSYSLOG_FACILITY=16\nSYSLOG_IDENTIFIER=txlb\nSYSLOG_PID=7\n" {
		t.Errorf("journal: %q", got)
	}
}

// counts reads messages with their length before them.
func counts(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	n, err := r.ReadString(' ')
	if err != nil {
		t.Fatal(err)
	}
	size, err := strconv.Atoi(strings.TrimSpace(n))
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func accepts(t *testing.T, ln net.Listener) (net.Conn, *bufio.Reader) {
	t.Helper()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(testkit.Patience))
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
	return c, bufio.NewReader(c)
}

// A server that goes away and comes back gets the lines that come meanwhile, and Stats
// says why they wait.
func TestServerComesBack(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	w := accessTo(t, "syslog:tcp:"+at)
	put(w, "first")
	c, r := accepts(t, ln)
	if got := counts(t, r); !regexp.MustCompile(rfc5424 + "first$").MatchString(got) {
		t.Errorf("message %q", got)
	}
	_ = ln.Close()
	_ = c.Close()
	n := 0
	testkit.Eventually(t, "the writer learns that the server has gone", func() bool {
		n++
		put(w, fmt.Sprint("lost or not ", n)) // what is on the way when the server goes is lost
		return strings.Contains(w.Stats().Reason, "refused")
	})
	put(w, "kept")
	if ln, err = net.Listen("tcp4", at); err != nil {
		t.Skip(err) // somebody else has the port now
	}
	defer func() { _ = ln.Close() }()
	c, r = accepts(t, ln)
	defer func() { _ = c.Close() }()
	for !strings.HasSuffix(counts(t, r), " kept") {
	}
	testkit.Eventually(t, "all is well", func() bool { s := w.Stats(); return s.Since.IsZero() && s.Dropped == 0 })
}

// A server that cannot be reached is left alone for longer and longer, and never waited
// for.
func TestServerIsLeftAlone(t *testing.T) {
	r, is, err := openRemote("syslog:tcp:127.0.0.1:1")
	if !is || err != nil {
		t.Fatal(is, err)
	}
	defer func() { _ = r.Close() }()
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 40, 40} {
		now := time.Now()
		r.next = now
		if n, err := r.Write([]byte("x\n")); n != 0 || err == nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if pause := r.next.Sub(now); pause < want*firstPause {
			t.Errorf("failure %d: left alone for %v", i, pause)
		}
		if n, err := r.Write([]byte("x\n")); n != 0 || err == nil {
			t.Errorf("meanwhile: %d bytes, %v", n, err)
		}
	}
	if r.pause != longestPause {
		t.Errorf("pause %v", r.pause)
	}
	if _, is, err := openRemote("syslog:udb:a:1"); !is || err == nil {
		t.Errorf("another protocol: %v, %v", is, err)
	}
	if _, is, _ := openRemote("/var/log/syslog:x"); is {
		t.Error("a path is taken for a server")
	}
}

// A server that does not read keeps nobody: lines are dropped and counted, and closing
// waits no longer than it says.
func TestServerThatDoesNotRead(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	w := accessTo(t, "syslog:tcp:"+ln.Addr().String())
	line := strings.Repeat("x", 1000)
	testkit.Eventually(t, "lines are dropped", func() bool {
		for range 1000 {
			put(w, line)
		}
		return w.Stats().Dropped > 0
	})
	if err := w.Close(); err == nil {
		t.Error("nothing is lost")
	}
}
