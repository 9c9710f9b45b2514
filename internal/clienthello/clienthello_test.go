package clienthello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/testkit"
)

func TestHellos(t *testing.T) {
	plain := testkit.ClientHello(t, &tls.Config{ServerName: "DB.Example", NextProtos: []string{"h2", "http/1.1"}})
	for what, c := range map[string]struct {
		hello      []byte
		name, alpn string
		state      State
	}{
		"post-quantum":   {plain, "db.example", "\x02h2\x08http/1.1", Whole},
		"TLS 1.2":        {testkit.ClientHello(t, &tls.Config{ServerName: "a.b", MaxVersion: tls.VersionTLS12}), "a.b", "", Whole},
		"no name":        {testkit.ClientHello(t, &tls.Config{}), "", "", Whole},
		"an address":     {testkit.ClientHello(t, &tls.Config{ServerName: "192.0.2.1"}), "", "", Whole},
		"16 KiB":         {testkit.GrowHello(plain, 16<<10), "db.example", "\x02h2\x08http/1.1", Whole},
		"one byte each":  {testkit.SplitHello(plain, 1), "db.example", "\x02h2\x08http/1.1", Whole},
		"too large":      {testkit.GrowHello(plain, 21<<10), "", "", TooLarge},
		"too many":       {testkit.SplitHello(testkit.GrowHello(plain, 16<<10), 2), "", "", TooLarge},
		"HTTP":           {[]byte("GET / HTTP/1.1\r\n"), "", "", Foreign},
		"SSLv2":          {[]byte{0x80, 0x2e, 1, 3, 0}, "", "", Foreign},
		"an alert":       {[]byte{21, 3, 1, 0, 2, 1, 0}, "", "", Foreign},
		"a server hello": {[]byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, "", "", Foreign},
		"an empty one":   {[]byte{22, 3, 1, 0, 4, 1, 0, 0, 0}, "", "", Foreign},
		"empty record":   {[]byte{22, 3, 1, 0, 0}, "", "", Foreign},
		"nothing":        {nil, "", "", Short},
	} {
		var room Room
		h, need, state := Parse(c.hello, &room)
		if state != c.state || string(h.Name) != c.name || string(h.ALPN) != c.alpn {
			t.Errorf("%s: %q, %q, state %d; want %q, %q, %d", what, h.Name, h.ALPN, state, c.name, c.alpn, c.state)
		}
		if state == Short && need <= len(c.hello) {
			t.Errorf("%s: needs %d bytes, and has %d", what, need, len(c.hello))
		}
		// What is known of the whole is known of the whole with more behind it, and as soon as
		// it is needed and no earlier.
		behind := append(bytes.Clone(c.hello), "behind it"...)
		if c.state == Whole {
			if h, _, state := Parse(behind, &room); state != Whole || string(h.Name) != c.name {
				t.Errorf("%s, with more behind it: %q, state %d", what, h.Name, state)
			}
			for n := 0; n < len(c.hello); n = needed(t, what, c.hello, n) {
			}
		}
	}
}

// needed goes from one need to the next, and looks at what is between.
func needed(t *testing.T, what string, hello []byte, n int) int {
	var room Room
	_, need, state := Parse(hello[:n], &room)
	if state != Short || need <= n || need > len(hello) {
		t.Fatalf("%s: %d of %d bytes: state %d, needs %d", what, n, len(hello), state, need)
	}
	for m := n; m < need; m += 1 + (need-n)/8 {
		if _, again, state := Parse(hello[:m], &room); state != Short || again != need {
			t.Fatalf("%s: %d bytes need %d, %d need %d (state %d)", what, n, need, m, again, state)
		}
	}
	return need
}

func TestHostNames(t *testing.T) {
	for name, want := range map[string]string{
		"a": "a", "A-b_C.example.": "a-b_c.example", "1.2.3": "1.2.3", "1.2.3.4": "", "::1": "", "a..b": "", ".a": "", ".": "", "a\x00b": "", "ä": "",
		strings.Repeat("a", 64): "", "xn--4ca.example": "xn--4ca.example", strings.Repeat("a.", 128) + "a": "", "a b": "",
	} {
		var room Room
		if got := room.hostName([]byte(name)); string(got) != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	hello, room := testkit.SplitHello(testkit.ClientHello(t, &tls.Config{ServerName: "db.example", NextProtos: []string{"h2"}}), 100), new(Room)
	if n := testing.AllocsPerRun(100, func() { Parse(hello, room) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzParse compares with crypto/tls: where that reads a hello, both say the same.
func FuzzParse(f *testing.F) {
	plain := testkit.ClientHello(f, &tls.Config{ServerName: "db.example", NextProtos: []string{"h2", "x"}})
	f.Add(plain, 0)
	f.Add(testkit.SplitHello(plain, 7), 3)
	f.Add(testkit.GrowHello(plain, 4000), 1)
	f.Add(testkit.ClientHello(f, &tls.Config{MaxVersion: tls.VersionTLS12}), 0)
	f.Add([]byte("GET / HTTP/1.1\r\n"), 0)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		var room, other Room
		h, need, state := Parse(b, &room)
		if state == Short && need <= len(b) || state != Short && need != 0 {
			t.Fatalf("state %d with %d bytes, needs %d", state, len(b), need)
		}
		// What is known does not change with more bytes.
		if n := len(b); n > 0 {
			if _, _, before := Parse(b[:uint(cut)%uint(n)], &other); before != Short && before != state {
				t.Fatalf("state %d of the beginning, %d of all", before, state)
			}
		}
		var seen *tls.ClientHelloInfo
		conn := &reader{Reader: bytes.NewReader(b)}
		_ = tls.Server(conn, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			seen = i
			return nil, errors.New("enough")
		}}).Handshake()
		if seen == nil || state == TooLarge {
			return
		}
		if state != Whole {
			t.Fatalf("crypto/tls reads %q, state %d", seen.ServerName, state)
		}
		if want := room.hostName([]byte(seen.ServerName)); string(want) != string(h.Name) {
			t.Fatalf("name %q, crypto/tls reads %q", h.Name, seen.ServerName)
		}
		var alpn []byte
		for _, p := range seen.SupportedProtos {
			alpn = append(append(alpn, byte(len(p))), p...)
		}
		if !bytes.Equal(alpn, h.ALPN) {
			t.Fatalf("protocols %q, crypto/tls reads %q", h.ALPN, seen.SupportedProtos)
		}
	})
}

// reader is a connection from which bytes come.
type reader struct {
	*bytes.Reader
	net.Conn
}

func (*reader) Close() error                     { return nil }
func (*reader) SetDeadline(time.Time) error      { return nil }
func (*reader) SetReadDeadline(time.Time) error  { return nil }
func (*reader) SetWriteDeadline(time.Time) error { return nil }

func (r *reader) Read(b []byte) (int, error)  { return r.Reader.Read(b) }
func (r *reader) Write(b []byte) (int, error) { return len(b), nil }
