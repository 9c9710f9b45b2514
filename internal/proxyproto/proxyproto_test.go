package proxyproto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
)

// v2 returns a header of version 2 with its right length.
func v2(command, family byte, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	b := append([]byte(signature2), command, family)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...)
}

func tlv(kind byte, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

func fromHex(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// withSum puts the checksum of a header into its TLV at an offset.
func withSum(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at+3:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

var (
	addr4 = fromHex("c0000201 c6336402 d431 01bb") // 192.0.2.1:54321 to 198.51.100.2:443
	addr6 = fromHex("20010db8000000000000000000000001 20010db8000000000000000000000002 d431 01bb")
	paths = append(append([]byte("/run/client"), make([]byte, 97)...), append([]byte("/run/server"), make([]byte, 97)...)...)
)

func TestParse(t *testing.T) {
	type want struct {
		state             State
		local             bool
		from, to          string
		fromPath, tlvText string
	}
	longest := "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
	v4 := want{from: "192.0.2.1:54321", to: "198.51.100.2:443"}
	v6 := want{from: "[2001:db8::1]:54321", to: "[2001:db8::2]:443"}
	v4mapped := want{from: "192.0.2.1:1", to: "198.51.100.2:2"}
	unknown := want{local: true}
	sum := func(tail ...[]byte) []byte { // a checksum, and what stands behind it
		return withSum(v2(0x21, 0x11, append([][]byte{addr4, tlv(typeCRC32C, make([]byte, 4))}, tail...)...), fixed2+len(addr4))
	}
	for _, c := range []struct {
		name  string
		bytes string
		want  want
	}{
		{"v1 IPv4", "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n", v4},
		{"v1 IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 54321 443\r\n", v6},
		{"v1 IPv4-mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 1 2\r\n", v4mapped},
		{"v1 port 0", "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", want{from: "0.0.0.0:0", to: "255.255.255.255:65535"}},
		{"v1 unknown", "PROXY UNKNOWN\r\n", unknown},
		{"v1 unknown with anything", "PROXY UNKNOWN what \r ever\r\n", unknown},
		{"v1 longest", longest, unknown},
		{"v1 too long", strings.Replace(longest, "\r\n", "0\r\n", 1), want{state: BadLength}},
		{"v1 endless", "PROXY TCP4 " + strings.Repeat("1", 200), want{state: BadLength}},
		{"v1 without CR", "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\n", want{state: BadLength}},
		{"v1 family", "PROXY TCP5 192.0.2.1 198.51.100.2 54321 443\r\n", want{state: BadFamily}},
		{"v1 lower case", "PROXY tcp4 192.0.2.1 198.51.100.2 54321 443\r\n", want{state: BadFamily}},
		{"v1 UNKNOWNS", "PROXY UNKNOWNS\r\n", want{state: BadFamily}},
		{"v1 nothing", "PROXY \r\n", want{state: BadFamily}},
		{"v1 wrong family", "PROXY TCP4 2001:db8::1 2001:db8::2 54321 443\r\n", want{state: BadAddress}},
		{"v1 IPv4 as IPv6", "PROXY TCP6 192.0.2.1 198.51.100.2 54321 443\r\n", want{state: BadAddress}},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 54321 443\r\n", want{state: BadAddress}},
		{"v1 octal", "PROXY TCP4 192.0.02.1 198.51.100.2 54321 443\r\n", want{state: BadAddress}},
		{"v1 two spaces", "PROXY TCP4  192.0.2.1 198.51.100.2 54321 443\r\n", want{state: BadAddress}},
		{"v1 space at the end", "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443 \r\n", want{state: BadAddress}},
		{"v1 word too few", "PROXY TCP4 192.0.2.1 198.51.100.2 54321\r\n", want{state: BadAddress}},
		{"v1 word too many", "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443 1\r\n", want{state: BadAddress}},
		{"v1 port 65536", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n", want{state: BadAddress}},
		{"v1 port 99999999999", "PROXY TCP4 192.0.2.1 198.51.100.2 99999999999 443\r\n", want{state: BadAddress}},
		{"v1 port 0443", "PROXY TCP4 192.0.2.1 198.51.100.2 54321 0443\r\n", want{state: BadAddress}},
		{"v1 port -1", "PROXY TCP4 192.0.2.1 198.51.100.2 54321 -1\r\n", want{state: BadAddress}},
		{"HTTP", "GET / HTTP/1.1\r\n", want{state: BadSignature}},
		{"TLS", "\x16\x03\x01\x02\x00", want{state: BadSignature}},
		{"almost v1", "PROXI", want{state: BadSignature}},
		{"almost v2", signature2[:11] + "\r", want{state: BadSignature}},

		{"v2 IPv4", string(v2(0x21, 0x11, addr4)), v4},
		{"v2 IPv4 datagram", string(v2(0x21, 0x12, addr4)), v4},
		{"v2 IPv6", string(v2(0x21, 0x21, addr6)), v6},
		{"v2 IPv4-mapped", string(v2(0x21, 0x21, fromHex("00000000000000000000ffffc0000201 00000000000000000000ffffc6336402 0001 0002"))), v4mapped},
		{"v2 UNIX", string(v2(0x21, 0x31, paths)), want{fromPath: "/run/client"}},
		{"v2 unnamed UNIX", string(v2(0x21, 0x31, make([]byte, addrUNIX))), want{}},
		{"v2 abstract UNIX", string(v2(0x21, 0x31, []byte("\x00name"), make([]byte, addrUNIX-5))), want{fromPath: "\x00name"}},
		{"v2 local", string(v2(0x20, 0)), unknown},
		{"v2 local with addresses", string(v2(0x20, 0x11, addr4)), unknown},
		{"v2 local with anything", string(v2(0x20, 0x99, []byte{1, 2, 3})), unknown},
		{"v2 unspecified", string(v2(0x21, 0)), unknown},
		{"v2 unspecified protocol", string(v2(0x21, 0x10, addr4)), unknown},
		{"v2 with TLVs", string(v2(0x21, 0x11, addr4, tlv(TypeUniqueID, []byte("id")), tlv(4, nil))), want{from: v4.from, to: v4.to, tlvText: "5=id 4= "}},
		{"v2 with a checksum", string(sum()), want{from: v4.from, to: v4.to, tlvText: "3=" + string(sum()[fixed2+15:]) + " "}},
		{"v2 with a checksum amid TLVs", string(sum(tlv(4, []byte("x")))), want{from: v4.from, to: v4.to, tlvText: "3=" + string(sum(tlv(4, []byte("x")))[fixed2+15:fixed2+19]) + " 4=x "}},
		{"v2 with a wrong checksum", string(append(sum()[:fixed2], append([]byte{193}, sum()[fixed2+1:]...)...)), want{state: BadChecksum}},
		{"v2 with a short checksum", string(v2(0x21, 0x11, addr4, tlv(typeCRC32C, []byte{1}))), want{state: BadTLV}},
		{"v2 cut TLV", string(v2(0x21, 0x11, addr4, []byte{5, 0, 3, 'i', 'd'})), want{state: BadTLV}},
		{"v2 rest of a TLV", string(v2(0x21, 0x11, addr4, []byte{5, 0})), want{state: BadTLV}},
		{"v2 version 1", string(v2(0x11, 0x11, addr4)), want{state: BadVersion}},
		{"v2 version 3", string(v2(0x31, 0x11, addr4)), want{state: BadVersion}},
		{"v2 command", string(v2(0x22, 0x11, addr4)), want{state: BadVersion}},
		{"v2 family", string(v2(0x21, 0x41, addr4)), want{state: BadFamily}},
		{"v2 protocol", string(v2(0x21, 0x13, addr4)), want{state: BadFamily}},
		{"v2 short for IPv4", string(v2(0x21, 0x11, addr4[:11])), want{state: BadLength}},
		{"v2 short for IPv6", string(v2(0x21, 0x21, addr4)), want{state: BadLength}},
		{"v2 short for UNIX", string(v2(0x21, 0x31, paths[:215])), want{state: BadLength}},
		{"v2 too long", string(v2(0x21, 0x11, addr4, make([]byte, MaxHeader))), want{state: BadLength}},
		{"v2 longest", string(v2(0x21, 0x11, addr4, tlv(TypeSSL, make([]byte, MaxHeader-fixed2-addrINET-3)))), want{from: v4.from, to: v4.to, tlvText: "32=" + strings.Repeat("\x00", MaxHeader-fixed2-addrINET-3) + " "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const behind = "PROXY TCP4"
			b := append([]byte(c.bytes), behind...)
			h, size, state := Parse(b)
			if state != c.want.state {
				t.Fatalf("%v, want %v", state, c.want.state)
			}
			if state != Whole {
				return
			}
			if size != len(c.bytes) || h.Local != c.want.local {
				t.Errorf("%d bytes, local: %v; want %d, %v", size, h.Local, len(c.bytes), c.want.local)
			}
			if text(h.Source) != c.want.from || text(h.Destination) != c.want.to || string(h.SourcePath) != c.want.fromPath {
				t.Errorf("from %v %q to %v", h.Source, h.SourcePath, h.Destination)
			}
			tlvs := ""
			for kind, value := range h.TLVs.All() {
				tlvs += fmt.Sprintf("%d=%s ", kind, value)
			}
			if tlvs != c.want.tlvText {
				t.Errorf("TLVs %q, want %q", tlvs, c.want.tlvText)
			}
			// What has come so far says that more is needed, and never too much.
			for n := range len(c.bytes) {
				if _, need, state := Parse(b[:n]); state != Short || need <= n || need > len(c.bytes) {
					t.Fatalf("of %d bytes %d: %v, want %d", len(c.bytes), n, state, need)
				}
			}
		})
	}
}

func text(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func TestTLVs(t *testing.T) {
	ssl := append([]byte{ClientSSL | ClientCertConn, 0, 0, 0, 0}, append(tlv(0x21, []byte("TLSv1.3")), tlv(subtypeCN, []byte("ada"))...)...)
	vpc := append([]byte{subtypeAWSVPC}, "vpce-08d2bf15fac5001c9"...)
	_, _, none := Parse(v2(0x21, 0x11, addr4))
	h, _, state := Parse(v2(0x21, 0x11, addr4, tlv(TypeUniqueID, []byte("id")), tlv(TypeSSL, ssl), tlv(TypeAWS, vpc)))
	if none != Whole || state != Whole {
		t.Fatal(none, state)
	}
	s, ok := h.TLVs.SSL()
	if !ok || !s.Verified || s.Client != 3 || string(s.CN()) != "ada" {
		t.Errorf("SSL: %v, %+v, %s", ok, s, s.CN())
	}
	if id, endpoint := string(h.TLVs.UniqueID()), string(h.TLVs.VPCEndpoint()); id != "id" || endpoint != "vpce-08d2bf15fac5001c9" {
		t.Errorf("ID %q, endpoint %q", id, endpoint)
	}
	for name, ssl := range map[string][]byte{
		"not verified": {ClientSSL | ClientCertConn, 0, 0, 0, 1}, "no certificate": {ClientSSL, 0, 0, 0, 0},
	} {
		if s, ok := TLVs(tlv(TypeSSL, ssl)).SSL(); !ok || s.Verified || s.CN() != nil {
			t.Errorf("%s: %v, %+v", name, ok, s)
		}
	}
	for name, tlvs := range map[string]TLVs{
		"none": nil, "short": tlv(TypeSSL, []byte{1}), "Azure": tlv(0xee, vpc), "another AWS": tlv(TypeAWS, []byte{2, 'x'}), "cut": {TypeUniqueID, 0, 9, 1},
	} {
		if _, ok := tlvs.SSL(); ok || tlvs.UniqueID() != nil || tlvs.VPCEndpoint() != nil {
			t.Errorf("%s: there is something", name)
		}
	}
}

func TestAppend(t *testing.T) {
	var none netip.AddrPort
	addr := netip.MustParseAddrPort
	for _, c := range []struct {
		from, to netip.AddrPort
		v1       string
		v2       []byte
	}{
		{addr("192.0.2.1:54321"), addr("198.51.100.2:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n", v2(0x21, 0x11, addr4)},
		{addr("[::ffff:192.0.2.1]:54321"), addr("198.51.100.2:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n", v2(0x21, 0x11, addr4)},
		{addr("[2001:db8::1%eth0]:54321"), addr("[2001:db8::2]:443"), "PROXY TCP6 2001:db8::1 2001:db8::2 54321 443\r\n", v2(0x21, 0x21, addr6)},
		{
			addr("192.0.2.1:54321"), addr("[2001:db8::2]:443"), "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 54321 443\r\n",
			v2(0x21, 0x21, fromHex("00000000000000000000ffffc0000201"), addr6[16:]),
		},
		{none, addr("198.51.100.2:443"), "PROXY UNKNOWN\r\n", v2(0x20, 0)},
		{addr("192.0.2.1:54321"), none, "PROXY UNKNOWN\r\n", v2(0x20, 0)},
	} {
		if got := Append([]byte("x"), V1, c.from, c.to); string(got) != "x"+c.v1 {
			t.Errorf("%q, want %q", got, c.v1)
		}
		if got := Append([]byte("x"), V2, c.from, c.to); string(got) != "x"+string(c.v2) {
			t.Errorf("%q, want %q", got, c.v2)
		}
		if got := Append([]byte("x"), Off, c.from, c.to); string(got) != "x" {
			t.Errorf("%q without a version", got)
		}
	}
	if got := AppendLocal(nil); string(got) != string(v2(0x20, 0)) {
		t.Errorf("local: %q", got)
	}
}

// Loops call both for each client.
func TestNothingIsAllocated(t *testing.T) {
	headers := [][]byte{
		[]byte("PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n"), []byte("PROXY TCP6 2001:db8::1 2001:db8::2 54321 443\r\n"),
		[]byte("PROXY UNKNOWN\r\n"), v2(0x21, 0x11, addr4, tlv(TypeUniqueID, []byte("id"))), v2(0x21, 0x21, addr6), v2(0x21, 0x31, paths), v2(0x20, 0),
		withSum(v2(0x21, 0x11, addr4, tlv(typeCRC32C, make([]byte, 4))), fixed2+len(addr4)),
	}
	buf := make([]byte, 0, MaxAppend)
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range headers {
			h, _, state := Parse(b)
			if state != Whole {
				t.Fatal(state)
			}
			Append(buf, V1, h.Source, h.Destination)
			Append(buf, V2, h.Source, h.Destination)
			h.TLVs.UniqueID()
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for name, header := range map[string][]byte{"v1": []byte("PROXY TCP4 192.0.2.1 198.51.100.2 54321 443\r\n"), "v2": v2(0x21, 0x11, addr4)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Parse(header)
			}
		})
	}
}
