package proxyproto

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	oracle "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// FuzzParse compares with another reader of headers. Where that one takes more, this
// one has to say why it does not; where this one takes more, it is what the document
// asks for.
func FuzzParse(f *testing.F) {
	for _, b := range [][]byte{
		[]byte("PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\nbehind"), []byte("PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 1 2\r\n"),
		[]byte("PROXY UNKNOWN x y\r\n"), v2(0x21, 0x11, addr4), v2(0x21, 0x21, addr6), v2(0x21, 0x31, paths), v2(0x20, 0), v2(0x21, 0),
		v2(0x21, 0x12, addr4, tlv(TypeUniqueID, []byte("id")), tlv(TypeAWS, []byte("\x01vpce-1"))),
		v2(0x21, 0x11, addr4, tlv(TypeSSL, append([]byte{3, 0, 0, 0, 0}, tlv(subtypeCN, []byte("ada"))...))),
		withSum(v2(0x21, 0x11, addr4, tlv(typeCRC32C, make([]byte, 4))), fixed2+len(addr4)),
	} {
		f.Add(b)
	}
	for _, c := range []struct {
		family byte
		body   []byte
	}{{0x11, addr4}, {0x21, addr6}, {0x31, paths}, {0x11, append(addr4[:12:12], tlv(TypeUniqueID, []byte("id"))...)}} {
		f.Add(append([]byte{0x21, c.family}, c.body...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		compare(t, b)
		if len(b) > 2 { // chance seldom finds a length that fits
			compare(t, v2(b[0], b[1], b[2:min(len(b), 1<<16)]))
		}
	})
}

func compare(t *testing.T, b []byte) {
	h, size, state := Parse(b)
	splits(t, b, size, state)
	reader := bufio.NewReaderSize(bytes.NewReader(b), 1<<17)
	other, err := oracle.Read(reader)
	switch {
	case state == Short && err == nil:
		t.Fatalf("%q: more is needed, but %+v was read", b, other)
	case state == Whole && h.Local:
		// The other one looks at a family that means nothing.
		if err == nil && other.Command != oracle.LOCAL && other.SourceAddr != nil && b[13]&15 != 0 {
			t.Fatalf("%q: the client is %v", b, other.SourceAddr)
		}
	case state == Whole && err != nil:
		t.Fatalf("%q: read, but: %v", b, err)
	case state == Whole:
		same(t, b, &h, size, reader, other)
	case err == nil:
		stricter(t, b, state, other)
	}
}

// splits looks whether the decision is the same however the bytes come.
func splits(t *testing.T, b []byte, size int, state State) {
	for n := range min(len(b), 300) {
		_, need, sofar := Parse(b[:n])
		switch {
		case sofar == Short && need <= n:
			t.Fatalf("%q: %d bytes are short, but %d would do", b[:n], n, need)
		case sofar == Short && state == Whole && (need > size || n >= size):
			t.Fatalf("%q: waits for %d bytes, a header of %d is there", b[:n], need, size)
		case sofar == Whole && (state != Whole || n < size):
			t.Fatalf("%q is whole, and with more bytes %v", b[:n], state)
		case sofar > Short && state != sofar:
			t.Fatalf("%q is %v, and with more bytes %v", b[:n], sofar, state)
		}
	}
}

// same compares what both have read.
func same(t *testing.T, b []byte, h *Header, size int, reader *bufio.Reader, other *oracle.Header) {
	if left := reader.Buffered(); len(b)-size != left {
		t.Fatalf("%q: %d bytes are the stream's, the other says %d", b, len(b)-size, left)
	}
	if Version(other.Version) != h.Version {
		t.Fatalf("%q: version %d, the other says %d", b, h.Version, other.Version)
	}
	for _, pair := range []struct {
		ip   netip.AddrPort
		path []byte
		addr net.Addr
	}{{h.Source, h.SourcePath, other.SourceAddr}, {h.Destination, h.DestinationPath, other.DestinationAddr}} {
		var ip netip.AddrPort
		switch a := pair.addr.(type) {
		case *net.TCPAddr:
			ip = a.AddrPort()
		case *net.UDPAddr:
			ip = a.AddrPort()
		case *net.UnixAddr:
			if a.Name != string(pair.path) && (len(pair.path) == 0 || pair.path[0] != 0) {
				t.Fatalf("%q: %q, the other says %q", b, pair.path, a.Name)
			}
		}
		if ip.IsValid() {
			ip = netip.AddrPortFrom(ip.Addr().Unmap(), ip.Port())
		}
		if ip != pair.ip {
			t.Fatalf("%q: %v, the other says %v", b, pair.ip, ip)
		}
	}
	tlvs, err := other.TLVs()
	if err != nil {
		t.Fatalf("%q: the TLVs are read, but: %v", b, err)
	}
	if s, ok := tlvparse.FindSSL(tlvs); ok {
		ours, found := h.TLVs.SSL()
		if cn, _ := s.ClientCN(); !found || ours.Client != s.Client || cn != string(ours.CN()) {
			t.Fatalf("%q: SSL %+v, the other says %+v", b, ours, s)
		}
	}
	if id := tlvparse.FindAWSVPCEndpointID(tlvs); id != "" && !strings.Contains(string(h.TLVs), id) {
		t.Fatalf("%q: no endpoint %s", b, id)
	}
	for _, v := range tlvs {
		if v.Type == oracle.PP2_TYPE_UNIQUE_ID {
			if string(h.TLVs.UniqueID()) != string(v.Value) {
				t.Fatalf("%q: ID %q, the other says %q", b, h.TLVs.UniqueID(), v.Value)
			}
			break
		}
	}
}

// stricter looks whether a header that only the other one takes is malformed.
func stricter(t *testing.T, b []byte, state State, other *oracle.Header) {
	if other.Version == 1 {
		// It takes further words, and ports such as +1 and 007.
		if state != BadAddress {
			t.Fatalf("%q: %v, but it was read", b, state)
		}
		return
	}
	_, err := other.TLVs()
	switch {
	case state == BadTLV && (err != nil || other.TransportProtocol.IsUnix() || bytes.IndexByte(b, typeCRC32C) >= 0):
	case state == BadChecksum:
	case state == BadFamily && (b[13]>>4 > famUNIX || b[13]&15 > protoMax): // it takes any that it does not know
	case state == BadLength && len(b) >= MaxHeader:
	default:
		t.Fatalf("%q: %v, but it was read", b, state)
	}
}

// FuzzAppend reads back what is written.
func FuzzAppend(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, []byte{198, 51, 100, 2}, uint16(1), uint16(2))
	f.Add(addr6[:16], addr6[16:32], uint16(0), uint16(65535))
	f.Add([]byte{}, addr6[:16], uint16(0), uint16(65535))
	f.Fuzz(func(t *testing.T, a1, a2 []byte, p1, p2 uint16) {
		ip1, _ := netip.AddrFromSlice(a1)
		ip2, _ := netip.AddrFromSlice(a2)
		from, to := netip.AddrPortFrom(ip1, p1), netip.AddrPortFrom(ip2, p2)
		for _, v := range []Version{V1, V2} {
			b := Append(nil, v, from, to)
			h, size, state := Parse(b)
			if state != Whole || size != len(b) || h.Version != v || len(b) > MaxAppend {
				t.Fatalf("%q: %v", b, state)
			}
			other, err := oracle.Read(bufio.NewReader(bytes.NewReader(b)))
			if err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			if !from.IsValid() || !to.IsValid() {
				if !h.Local || other.Command != oracle.LOCAL {
					t.Fatalf("%q is not local", b)
				}
				continue
			}
			if h.Source.Addr() != ip1.Unmap() || h.Source.Port() != p1 || h.Destination.Addr() != ip2.Unmap() || h.Destination.Port() != p2 {
				t.Fatalf("%v to %v was written, %v to %v read", from, to, h.Source, h.Destination)
			}
			same(t, b, &h, size, bufio.NewReader(bytes.NewReader(nil)), other)
		}
	})
}
