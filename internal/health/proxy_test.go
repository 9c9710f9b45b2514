package health

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/internal/testkit"
)

// Probes send the PROXY header that the host expects: ahead of what they say, or at
// once if they wait for the host to speak. The answer is the one behind it.
func TestB62ProbesSendAHeader(t *testing.T) {
	for _, network := range []string{"tcp4", "unix"} {
		for version := range 3 {
			for name, p := range map[string]Probe{
				"http":          {Type: HTTP, Path: "/", Status: []Status{{200, 200}}},
				"says":          {Type: Expect, Send: "PING\r\n", Expect: "HTTP/1.1 200"},
				"waits to hear": {Type: Expect, Expect: "HTTP/1.1 200"},
				"tls":           {Type: TLS},
				"tcp":           {Type: TCP},
			} {
				t.Run(strings.Join([]string{network, name, string('0' + rune(version))}, " "), func(t *testing.T) {
					address := "127.0.0.1:0"
					if network == "unix" {
						address = filepath.Join(t.TempDir(), "s")
					}
					ln, err := net.Listen(network, address)
					if err != nil {
						t.Fatal(err)
					}
					_ = ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(testkit.Patience))
					p.Addr, p.Proxy, p.Timeout = parse(t, nameOf(ln)), version, testkit.Patience
					came := make(chan []byte, 1)
					go func() {
						defer close(came)
						conn, err := ln.Accept()
						if err != nil {
							return
						}
						defer func() { _ = conn.Close() }()
						_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
						came <- afterHeader(t, conn, version, p.Type == TCP && network != "unix")
					}()
					r := Run(t.Context(), p)
					first, ok := <-came
					_ = ln.Close()
					switch {
					case p.Type == TLS && r.Code != L6Rsp, p.Type != TLS && !r.OK():
						t.Errorf("%v", r)
					case !ok:
						t.Error("no connection")
					case p.Type == TLS && (len(first) == 0 || first[0] != recordHandshake), p.Type == HTTP && string(first) != "G", p.Send != "" && string(first) != "P":
						t.Errorf("behind the header comes %q", first)
					}
				})
			}
		}
	}
}

// afterHeader reads a header of a version and the next byte, if there is one, and
// answers. may tells that the connection may end before there is a header.
func afterHeader(t *testing.T, conn net.Conn, version int, may bool) []byte {
	var got []byte
	b := make([]byte, 1)
	for version != 0 {
		h, size, state := proxyproto.Parse(got)
		if state == proxyproto.Whole {
			local := version == 2 || conn.RemoteAddr().Network() == "unix"
			if size != len(got) || h.Version != proxyproto.Version(version) || h.Local != local {
				t.Errorf("header %q: %+v", got, h)
			}
			if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok && !local && h.Source != tcp.AddrPort() {
				t.Errorf("the probe comes from %v and says %v", tcp, h.Source)
			}
			break
		}
		if _, err := conn.Read(b); err != nil || state != proxyproto.Short {
			if !may {
				t.Errorf("header %q: %v, %v", got, state, err)
			}
			return nil
		}
		got = append(got, b[0])
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	n, _ := conn.Read(b)
	return b[:n]
}

func nameOf(ln net.Listener) string {
	if ln.Addr().Network() == "unix" {
		return "unix:" + ln.Addr().String()
	}
	return ln.Addr().String()
}

// A batch of TCP probes sends a header where the host gets the connection at all.
func TestB62BatchesSendAHeader(t *testing.T) {
	for version := range 3 {
		ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		Connect(context.Background(), []Probe{{Addr: parse(t, nameOf(ln)), Proxy: version, Timeout: testkit.Patience}}, func(_ int, r Result) {
			if !r.OK() {
				t.Error(r)
			}
		})
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(conn)
		want := [...]string{"", "PROXY UNKNOWN\r\n", string(proxyproto.AppendLocal(nil))}[version]
		if string(got) != want {
			t.Errorf("version %d: %q, want %q", version, got, want)
		}
		_ = conn.Close()
		_ = ln.Close()
	}
}
