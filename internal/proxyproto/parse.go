// Package proxyproto reads and writes the headers of the PROXY protocol, versions 1
// and 2: a proxy sends one ahead of a stream to tell who the client is.
//
// [Parse] takes the beginning of a stream, as much as has come, and says that a header
// is whole, how much is missing, or what is wrong with it. It keeps nothing between two
// calls: who asks again passes the same bytes and more. [Append] writes a header.
// Neither makes a system call. Parse allocates nothing.
//
// The source is HAProxy's document proxy-protocol.txt, version of 2020/03/05. Where it
// leaves a choice:
//
//   - Datagram protocols are taken as their stream counterparts: the addresses are the
//     client's all the same.
//   - A header of version 2 that promises more than [MaxHeader] bytes is malformed. So is
//     one whose TLVs do not end where the header does, and one with a checksum that does
//     not fit, as HAProxy has it.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"unsafe"
)

// Version is a version of the protocol; 0 is none.
type Version uint8

// Off and the versions that there are.
const (
	Off Version = iota
	V1
	V2
)

// MaxHeader is how long a header may be, in bytes. HAProxy has the same limit by its
// buffer. The longest TLV that is in use is a client's certificate.
const MaxHeader = 16 << 10

// Header is what a header says. Its slices are parts of what was parsed.
type Header struct {
	Version Version
	// Local is set where the addresses of the connection itself hold: the proxy has
	// connected for itself, as for a health check, or does not know the client
	// (LOCAL, UNKNOWN, UNSPEC).
	Local bool
	// Source is the client, Destination what it has connected to. They are not valid
	// with Local and for UNIX sockets. IPv4-mapped addresses are those of IPv4.
	Source, Destination netip.AddrPort
	// SourcePath and DestinationPath are the paths of UNIX sockets, without the zeros
	// behind them; with a leading zero they are names of abstract sockets.
	SourcePath, DestinationPath []byte
	// TLVs is what version 2 has behind the addresses, see [TLVs.All].
	TLVs TLVs
}

// State is what became of a parse: the header is whole, bytes are missing, or the
// reason why it is malformed.
type State uint8

const (
	Whole        State = iota // it is a header
	Short                     // more bytes are needed
	BadSignature              // it begins like neither version
	BadVersion                // the version or command of version 2 is unknown
	BadFamily                 // the protocol family is unknown
	BadAddress                // an address or a port is not one, or is not of the family
	BadLength                 // it is too long, or too short for its addresses
	BadTLV                    // the TLVs do not end where the header does
	BadChecksum               // the CRC-32C does not fit
	NumStates                 // how many states there are
)

// String names the state in one word.
func (s State) String() string {
	return [NumStates]string{"whole", "short", "signature", "version", "family", "address", "length", "tlv", "checksum"}[s]
}

const (
	prefix1    = "PROXY "
	signature2 = "\r\n\r\n\x00\r\nQUIT\n"
	fixed2     = 16  // bytes of version 2 ahead of the addresses
	maxLine    = 107 // bytes of version 1, with the end of the line
	minLine    = len("PROXY UNKNOWN\r\n")
	unixPath   = 108 // bytes of an address of a UNIX socket
)

// Parse reads a header at the beginning of a stream, of which b has come so far. If the
// header is Whole, size is its length; the bytes behind it are not the header's. If it
// is Short, size is how many bytes a header that begins like this has at least, which
// is more than b has. Else size is 0 and h means nothing.
func Parse(b []byte) (h Header, size int, state State) {
	switch {
	case len(b) == 0:
		return h, minLine, Short
	case b[0] == signature2[0]:
		return parse2(b)
	}
	return parse1(b)
}

// parse1 reads "PROXY TCP4 SOURCE DESTINATION PORT PORT\r\n".
func parse1(b []byte) (h Header, size int, state State) {
	if n := min(len(b), len(prefix1)); string(b[:n]) != prefix1[:n] {
		return h, 0, BadSignature
	}
	line := b[:min(len(b), maxLine)]
	end := bytes.IndexByte(line, '\n')
	switch {
	case end < 0 && len(line) == maxLine:
		return h, 0, BadLength
	case end < 0 && line[len(line)-1] == '\r':
		return h, max(len(b)+1, minLine), Short
	case end < 0:
		return h, min(max(len(b)+2, minLine), maxLine), Short
	case line[end-1] != '\r':
		return h, 0, BadLength
	}
	size, line = end+1, line[len(prefix1):end-1]
	h.Version = V1
	family, rest, more := bytes.Cut(line, []byte{' '})
	if string(family) == "UNKNOWN" {
		h.Local = true
		return h, size, Whole
	}
	if string(family) != "TCP4" && string(family) != "TCP6" {
		return h, 0, BadFamily
	}
	var words [4][]byte
	for i := range words {
		if !more {
			return h, 0, BadAddress
		}
		words[i], rest, more = bytes.Cut(rest, []byte{' '})
	}
	is4 := family[3] == '4'
	from, ok1 := parseIP(words[0], is4)
	to, ok2 := parseIP(words[1], is4)
	fromPort, ok3 := parsePort(words[2])
	toPort, ok4 := parsePort(words[3])
	if more || !ok1 || !ok2 || !ok3 || !ok4 {
		return h, 0, BadAddress
	}
	h.Source, h.Destination = netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort)
	return h, size, Whole
}

// parseIP reads an address of a family.
func parseIP(b []byte, is4 bool) (netip.Addr, bool) {
	if len(b) == 0 || bytes.IndexByte(b, '%') >= 0 {
		return netip.Addr{}, false
	}
	// Without a zone, nothing of the text is kept but in the error, which is dropped.
	a, err := netip.ParseAddr(unsafe.String(&b[0], len(b)))
	return a.Unmap(), err == nil && a.Is4() == is4
}

// parsePort reads a number without a zero ahead of it.
func parsePort(b []byte) (uint16, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > 6553 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), len(b) > 0 && n <= 65535 && (b[0] != '0' || len(b) == 1)
}

// The commands, families and lengths of version 2.
const (
	cmdLocal   = 0
	cmdProxy   = 1
	famUnspec  = 0
	famINET    = 1
	famINET6   = 2
	famUNIX    = 3
	protoMax   = 2 // unspecified, stream, datagram
	addrINET   = 2*4 + 2*2
	addrINET6  = 2*16 + 2*2
	addrUNIX   = 2 * unixPath
	typeCRC32C = 3
)

func parse2(b []byte) (h Header, size int, state State) {
	if n := min(len(b), len(signature2)); string(b[:n]) != signature2[:n] {
		return h, 0, BadSignature
	}
	if len(b) > 12 && (b[12]>>4 != 2 || b[12]&15 > cmdProxy) {
		return h, 0, BadVersion
	}
	if len(b) < fixed2 {
		return h, fixed2, Short
	}
	size = fixed2 + int(binary.BigEndian.Uint16(b[14:]))
	family, protocol := b[13]>>4, b[13]&15
	h.Version = V2
	// What stands behind the fixed part means nothing where the client is not known.
	h.Local = b[12]&15 == cmdLocal || family == famUnspec && protocol <= protoMax || family <= famUNIX && protocol == 0
	addresses := 0
	switch {
	case h.Local:
	case family > famUNIX || protocol > protoMax:
		return h, 0, BadFamily
	default:
		addresses = [...]int{famINET: addrINET, famINET6: addrINET6, famUNIX: addrUNIX}[family]
	}
	switch {
	case size > MaxHeader || size-fixed2 < addresses:
		return h, 0, BadLength
	case len(b) < size:
		return h, size, Short
	case h.Local:
		return h, size, Whole
	}
	body := b[fixed2:size]
	h.addresses(family, body)
	h.TLVs = TLVs(body[addresses:])
	if wrong := h.TLVs.verify(b[:size]); wrong != Whole {
		return h, 0, wrong
	}
	return h, size, Whole
}

// addresses reads what stands behind the fixed part.
func (h *Header) addresses(family byte, b []byte) {
	switch family {
	case famINET:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[10:]))
	case famINET6:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:])).Unmap(), binary.BigEndian.Uint16(b[34:]))
	case famUNIX:
		h.SourcePath, h.DestinationPath = path(b[:unixPath]), path(b[unixPath:addrUNIX])
	}
}

// path cuts the zeros behind a path.
func path(b []byte) []byte {
	if b[0] == 0 {
		return bytes.TrimRight(b, "\x00")
	}
	p, _, _ := bytes.Cut(b, []byte{0})
	return p
}

// What checksums are made with; neither is ever written.
var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	zeros      [4]byte
)

// verify looks whether the TLVs end where the header does and, if one is its
// checksum, whether that fits. It is made with zeros in its own place.
func (t TLVs) verify(header []byte) State {
	for len(t) > 0 {
		kind, value, rest, ok := t.next()
		if !ok {
			return BadTLV
		}
		if kind == typeCRC32C {
			if len(value) != 4 {
				return BadTLV
			}
			after := len(header) - len(rest)
			sum := crc32.Update(0, castagnoli, header[:after-4])
			sum = crc32.Update(sum, castagnoli, zeros[:])
			if crc32.Update(sum, castagnoli, header[after:]) != binary.BigEndian.Uint32(value) {
				return BadChecksum
			}
		}
		t = rest
	}
	return Whole
}
