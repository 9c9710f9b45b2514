package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/native"
	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = testkit.Patience

// serve answers on a socket until the end of the test, and returns its path.
func serve(t testing.TB, find func(netip.AddrPort) []engine.SessionInfo) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "txlb") // a path that fits into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "control")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, Options{Find: find}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return path
}

// asker is a connection to the server.
type asker struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, path string) *asker {
	t.Helper()
	c, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	return &asker{t, c, bufio.NewReader(c)}
}

// line asks by a line and returns the line in answer.
func (a *asker) line(s string) string {
	a.t.Helper()
	if _, err := io.WriteString(a, s+"\n"); err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.r.ReadString('\n')
	if err != nil {
		a.t.Fatalf("%s: %q, %v", s, answer, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// box asks by a box and returns the one in answer.
func (a *asker) box(pairs ...string) box {
	a.t.Helper()
	if _, err := a.Write(appendBox(nil, pairs...)); err != nil {
		a.t.Fatal(err)
	}
	b, err := readBox(a.r)
	if err != nil {
		a.t.Fatalf("%v: %v", pairs, err)
	}
	return b
}

var (
	clientA, clientB = netip.MustParseAddrPort("192.0.2.7:51234"), netip.MustParseAddrPort("[2001:db8::1]:9")
	one, two, lone   = netip.MustParseAddrPort("127.0.0.1:1001"), netip.MustParseAddrPort("127.0.0.1:1002"), netip.MustParseAddrPort("127.0.0.1:1003")
	hostA            = sched.NewHost("a", sched.TCPAddr(netip.MustParseAddrPort("127.0.0.1:80")))
	hostB            = sched.NewHost("b", sched.TCPAddr(netip.MustParseAddrPort("127.0.0.1:81")))
)

// table is what a made-up engine has: one is a connection to a, two are two, to
// a and b, and lone is that of a client without an address.
func table(local netip.AddrPort) []engine.SessionInfo {
	switch local {
	case one:
		return []engine.SessionInfo{{Service: "web", Host: hostA, Client: clientA, Local: one}}
	case two:
		return []engine.SessionInfo{{Service: "web", Host: hostA, Client: clientA, Local: two}, {Service: "web", Host: hostB, Client: clientB, Local: two}}
	case lone:
		return []engine.SessionInfo{{Service: "web", Host: hostA, Local: lone}}
	}
	return nil
}

func TestText(t *testing.T) {
	a := dial(t, serve(t, table))
	for asked, want := range map[string]string{
		"GetClientAddress 127.0.0.1:1001":              "192.0.2.7:51234",
		"  getclientaddress\t127.0.0.1:1001\r":         "192.0.2.7:51234",
		"GetClientAddress [::ffff:127.0.0.1]:1001":     "192.0.2.7:51234",
		"GetClientAddress 127.0.0.1:1001 127.0.0.1:80": "192.0.2.7:51234",
		"GetClientAddress 127.0.0.1:1002 127.0.0.1:81": "[2001:db8::1]:9",
		"GetClientAddress 127.0.0.1:1002":              "error AMBIGUOUS_PORT: 127.0.0.1:1002 is the address of 2 connections; add the backend's own address",
		"GetClientAddress 127.0.0.1:1001 127.0.0.1:81": "error UNKNOWN_PORT: 127.0.0.1:1001 is not a connection to a backend",
		"GetClientAddress 127.0.0.1:9":                 "error UNKNOWN_PORT: 127.0.0.1:9 is not a connection to a backend",
		"GetClientAddress 127.0.0.1:1003":              "error UNKNOWN_PORT: the client behind 127.0.0.1:1003 has no address",
		"GetClientAddress":                             refused{bad, wanted}.Error(),
		"GetClientAddress a b c":                       refused{bad, wanted}.Error(),
		"GetClientAddress nowhere":                     `error BAD_REQUEST: "nowhere" is not an address; ` + wanted,
		"GetClientAddress 127.0.0.1:0":                 `error BAD_REQUEST: "127.0.0.1:0" is not an address; ` + wanted,
		"help":                                         refused{bad, wanted}.Error(),
	} {
		if got := a.line(asked); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", asked, got, want)
		}
	}
	// A line without an end is one, and blank lines are none.
	if _, err := io.WriteString(a, "\n \nGetClientAddress 127.0.0.1:1001"); err != nil {
		t.Fatal(err)
	}
	if err := a.Conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(a.r); string(rest) != "192.0.2.7:51234\n" || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestJSON(t *testing.T) {
	a := dial(t, serve(t, table))
	for asked, want := range map[string]string{
		`{"command":"GetClientAddress","host":"127.0.0.1","port":1001}`:                 `{"host":"192.0.2.7","port":51234,"service":"web","name":"a","backend":"127.0.0.1:80"}`,
		`{"host":"127.0.0.1","port":1002,"backend":"127.0.0.1:81"}`:                     `{"host":"2001:db8::1","port":9,"service":"web","name":"b","backend":"127.0.0.1:81"}`,
		`{"host":"127.0.0.1","port":1002}`:                                              `{"error":"AMBIGUOUS_PORT","text":"127.0.0.1:1002 is the address of 2 connections; add the backend's own address"}`,
		`{"host":"127.0.0.1","port":9}`:                                                 `{"error":"UNKNOWN_PORT","text":"127.0.0.1:9 is not a connection to a backend"}`,
		`{"command":"GetClientAddress"}`:                                                `{"error":"BAD_REQUEST","text":"\":0\" is not an address; ` + wanted + `"}`,
		`{"command":"Sum","host":"127.0.0.1","port":1001}`:                              `{"error":"BAD_REQUEST","text":"unknown command \"Sum\"; want GetClientAddress"}`,
		`{"host":"127.0.0.1","port":1001}{"host":"127.0.0.1","port":1001}`:              `{"error":"BAD_REQUEST","text":"more than one object on a line"}`,
		`{"host":"127.0.0.1","port":1001,"backend":"` + strings.Repeat("x", 200) + `"}`: `{"error":"BAD_REQUEST","text":"\"` + strings.Repeat("x", 80) + `\" is not an address; ` + wanted + `"}`,
	} {
		if got := a.line(asked); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", asked, got, want)
		}
	}
	for _, asked := range []string{`{`, `{"port":"1001"}`, `{"port":70000}`, `{"hots":"127.0.0.1"}`, `{"port":1}x`} {
		var answer jsonAnswer
		if err := json.Unmarshal([]byte(a.line(asked)), &answer); err != nil || answer.Error != bad || answer.Text == "" {
			t.Errorf("%s: %+v, %v", asked, answer, err)
		}
	}
}

// The bytes are those of the example in the documentation of AMP, and of this
// server's one command written down by hand.
func TestAMPBoxes(t *testing.T) {
	const sum = "\x00\x04_ask\x00\x0223\x00\x08_command\x00\x03Sum\x00\x01a\x00\x0213\x00\x01b\x00\x0281\x00\x00"
	got, err := readBox(strings.NewReader(sum))
	want := box{"_ask": "23", "_command": "Sum", "a": "13", "b": "81"}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read %v, %v", got, err)
	}
	if got := appendBox(nil, "_ask", "23", "_command", "Sum", "a", "13", "b", "81"); string(got) != sum {
		t.Errorf("wrote %q", got)
	}
	a := dial(t, serve(t, table))
	for asked, want := range map[string]string{
		"\x00\x04_ask\x00\x011\x00\x08_command\x00\x10GetClientAddress\x00\x04host\x00\x09127.0.0.1\x00\x04port\x00\x041001\x00\x00":                                     "\x00\x07_answer\x00\x011\x00\x04host\x00\x09192.0.2.7\x00\x04port\x00\x0551234\x00\x00",
		"\x00\x04_ask\x00\x02ff\x00\x08_command\x00\x10GetClientAddress\x00\x04host\x00\x09127.0.0.1\x00\x04port\x00\x041002\x00\x07backend\x00\x0c127.0.0.1:81\x00\x00": "\x00\x07_answer\x00\x02ff\x00\x04host\x00\x0b2001:db8::1\x00\x04port\x00\x019\x00\x00",
		"\x00\x04_ask\x00\x011\x00\x08_command\x00\x10GetClientAddress\x00\x04host\x00\x09127.0.0.1\x00\x04port\x00\x019\x00\x00":                                        "\x00\x06_error\x00\x011\x00\x0b_error_code\x00\x0cUNKNOWN_PORT\x00\x12_error_description\x00\x2c127.0.0.1:9 is not a connection to a backend\x00\x00",
		"\x00\x04_ask\x00\x01a\x00\x08_command\x00\x03Sum\x00\x00":                                                                                                       "\x00\x06_error\x00\x01a\x00\x0b_error_code\x00\x09UNHANDLED\x00\x12_error_description\x00\x18Unhandled Command: \"Sum\"\x00\x00",
	} {
		if _, err := io.WriteString(a, asked); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(a.r, got); err != nil || string(got) != want {
			t.Errorf("%q:\n%q, %v\nwant\n%q", asked, got, err, want)
		}
	}
	// Whoever wants no answer gets none, and the next one gets his.
	if _, err := a.Write(appendBox(nil, "_command", command, "host", "127.0.0.1", "port", "1001")); err != nil {
		t.Fatal(err)
	}
	if b := a.box("_ask", "x", "_command", command, "host", "localhost", "port", "1001"); b["_error"] != "x" || b["_error_code"] != unknown {
		t.Errorf("got %v", b)
	}
	if b := a.box("_ask", "y", "_command", command, "host", "127.0.0.1", "port", "1002"); b["_error"] != "y" || b["_error_code"] != unknown || !strings.Contains(b["_error_description"], "2 connections") {
		t.Errorf("got %v", b)
	}
	// The ways of asking may be mixed.
	if got := a.line("GetClientAddress 127.0.0.1:1001"); got != "192.0.2.7:51234" {
		t.Errorf("got %s", got)
	}
}

// What is no request ends the connection, and takes no more memory than one.
func TestRubbish(t *testing.T) {
	path := serve(t, table)
	for what, data := range map[string]string{
		"a long line":    strings.Repeat("x", maxLine+2),
		"a large box":    strings.Repeat("\x00\x01a\xff\xff"+strings.Repeat("b", 65535), 2),
		"a key twice":    "\x00\x01a\x00\x00\x00\x01a\x00\x00",
		"many keys":      "\x00\x01a\x00\x00\x00\x01b\x00\x00" + strings.Repeat("\x00\x02aa\x0f\x00"+strings.Repeat("c", 0xf00), 3),
		"a piece of one": "\x00\x04_as",
	} {
		a := dial(t, path)
		var writing sync.WaitGroup
		writing.Go(func() {
			_, _ = io.WriteString(a, data)
			_ = a.Conn.(*net.UnixConn).CloseWrite()
		})
		rest, err := io.ReadAll(a.r)
		if errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 200 {
			t.Errorf("%s: %d bytes, %v", what, len(rest), err)
		}
		writing.Wait()
	}
}

// More connections than are allowed close those that have been idle longest,
// and whoever has just asked is still served.
func TestConnectionsAreBounded(t *testing.T) {
	path := serve(t, table)
	before := testkit.OpenFDs()
	first := dial(t, path)
	first.line("GetClientAddress 127.0.0.1:1001")
	last := dial(t, path)
	last.line("GetClientAddress 127.0.0.1:1001")
	limit := guard.LimitsFor(guard.Control, 0).Conns
	for range limit - 1 {
		a := dial(t, path)
		a.line("GetClientAddress 127.0.0.1:1001")
		last.line("GetClientAddress 127.0.0.1:1001")
	}
	if _, err := first.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the oldest is open: %v", err)
	}
	if got := last.line("GetClientAddress 127.0.0.1:1001"); got != "192.0.2.7:51234" {
		t.Errorf("got %s", got)
	}
	if now := testkit.OpenFDs(); before >= 0 && now > before+2*limit+4 {
		t.Errorf("%d descriptors more are open", now-before)
	}
}

// A backend of a real engine is told who its client is, as it would ask.
func TestBackendLearnsItsClient(t *testing.T) {
	e, err := native.New(engine.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	path := serve(t, e.FindByLocal)
	backend, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// It answers every client with what it is told, and keeps the connection.
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := backend.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				a, err := net.Dial("unix", path)
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = a.Close() }()
				_, _ = fmt.Fprintf(a, "GetClientAddress %v %v\n", c.RemoteAddr(), c.LocalAddr())
				line, err := bufio.NewReader(a).ReadString('\n')
				if err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(c, line)
				_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
			})
		}
	})
	t.Cleanup(func() {
		_ = backend.Close()
		serving.Wait()
	})
	host := sched.NewHost("a", sched.TCPAddr(backend.Addr().(*net.TCPAddr).AddrPort()))
	hosts, err := sched.NewTable(sched.Policy{Scheduler: "roundr"}, []sched.Member{{Host: host, Weight: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(engine.Plan{Services: []engine.Service{{Name: "web", Listen: []string{"127.0.0.1:0"}, Route: &engine.Route{Table: hosts}}}}); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		c, err := net.Dial("tcp", e.Listeners()[0].Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || strings.TrimSpace(line) != c.LocalAddr().String() {
			t.Errorf("%v was told of as %q, %v", c.LocalAddr(), line, err)
		}
	}
}

// FuzzRequest: whatever comes, the answer is made of lines or boxes, there is
// at most one for a request, and reading goes on or ends.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("GetClientAddress 127.0.0.1:1001\n{\"host\":\"127.0.0.1\",\"port\":1002}\n"))
	f.Add(appendBox(nil, "_ask", "1", "_command", command, "host", "127.0.0.1", "port", "1001"))
	f.Add([]byte("\x00\x04_ask\x00\x011\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &server{opt: Options{Find: table}}
		r := bufio.NewReaderSize(bytes.NewReader(data), maxBox)
		for requests := 0; ; requests++ {
			if requests > len(data) {
				t.Fatal("reading does not come to an end")
			}
			first, _ := r.Peek(1)
			answer, err := s.request(r)
			switch {
			case len(answer) == 0:
			case first[0] == 0:
				b, berr := readBox(bytes.NewReader(answer))
				_, answered := b["_answer"]
				_, failed := b["_error"]
				if berr != nil || answered == failed {
					t.Fatalf("box %q: %v", answer, berr)
				}
			case bytes.Count(answer, []byte("\n")) != 1 || !bytes.HasSuffix(answer, []byte("\n")) || len(answer) > 2*maxLine:
				t.Fatalf("line %q", answer)
			}
			if err != nil {
				return
			}
		}
	})
}
