// Package clienthello reads what a TLS client asks for in its first message: the server
// name (SNI) and the protocols (ALPN). It looks at bytes and takes none.
//
// A hello may be split into any number of TLS records. [Parse] keeps nothing between two
// calls and does not allocate: it is given all that has come so far. With Encrypted
// ClientHello, the name is that of the outer hello. Values of GREASE are passed over like
// everything else that is not asked about.
package clienthello

import (
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
)

// State is what the bytes so far are.
type State uint8

const (
	Short    State = iota // the beginning of a hello, or nothing yet
	Whole                 // a hello
	Foreign               // no TLS, or no hello that a server would accept
	TooLarge              // a hello that is larger than MaxMessage, or in too many records
)

const (
	// MaxMessage is the greatest hello that is read, in bytes without record headers.
	// Those with post-quantum keys have up to some 16 KiB.
	MaxMessage = 20 << 10
	// MaxStream bounds the bytes of its records together.
	MaxStream = 32 << 10
)

const (
	recordHeader    = 5
	messageHeader   = 4
	maxRecord       = 16 << 10
	recordHandshake = 22
	typeClientHello = 1
	extServerName   = 0
	extALPN         = 16
)

// Hello is what a client asks for.
type Hello struct {
	Name []byte // in lower case, without a dot at its end; empty: none, or no host name
	ALPN []byte // the protocols as the message has them, each behind a byte with its length
}

// Room is where Parse puts a message together. What it returns points there until the
// next call.
type Room struct {
	message [MaxMessage]byte
	name    [256]byte
}

// Parse reads the beginning of a stream. With Short, need is how many bytes there have to
// be at least before more is known; no byte of these is behind the hello.
func Parse(b []byte, room *Room) (h Hello, need int, state State) {
	n, want := 0, messageHeader // bytes of the message: there, and known to belong to it
	headed := false
	for at := 0; ; {
		rest := b[at:]
		if len(rest) > 0 && rest[0] != recordHandshake || len(rest) > 1 && rest[1] != 3 {
			return h, 0, Foreign
		}
		if at+recordHeader > MaxStream {
			return h, 0, TooLarge
		}
		if len(rest) < recordHeader {
			return h, at + recordHeader, Short
		}
		size := int(rest[3])<<8 | int(rest[4])
		if size == 0 || size > maxRecord {
			return h, 0, Foreign
		}
		rest = rest[recordHeader:min(len(rest), recordHeader+size)]
		missing := size - len(rest)
		at += recordHeader + len(rest)
		for len(rest) > 0 && n < want {
			took := copy(room.message[n:want], rest)
			n, rest = n+took, rest[took:]
			if n < messageHeader || headed {
				continue
			}
			headed = true
			if room.message[0] != typeClientHello {
				return h, 0, Foreign
			}
			if want += int(room.message[1])<<16 | int(room.message[2])<<8 | int(room.message[3]); want > MaxMessage {
				return h, 0, TooLarge
			}
		}
		switch {
		case n == want && headed:
			if !room.read(cryptobyte.String(room.message[messageHeader:n]), &h) {
				return Hello{}, 0, Foreign
			}
			return h, 0, Whole
		case missing > 0 && at+min(missing, want-n) > MaxStream:
			return h, 0, TooLarge
		case missing > 0:
			return h, at + min(missing, want-n), Short
		}
	}
}

// read reads a message behind its header. It returns false for one that a server would
// not accept.
func (r *Room) read(s cryptobyte.String, h *Hello) bool {
	var id, suites, compressions, extensions cryptobyte.String
	if !s.Skip(2+32) || !s.ReadUint8LengthPrefixed(&id) || !s.ReadUint16LengthPrefixed(&suites) ||
		!s.ReadUint8LengthPrefixed(&compressions) {
		return false
	}
	if s.Empty() { // as clients of old are
		return true
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return false
	}
	var seenName, seenALPN bool
	for !extensions.Empty() {
		var kind uint16
		var data cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&data) {
			return false
		}
		switch kind {
		case extServerName:
			if seenName || !r.serverName(data, h) {
				return false
			}
			seenName = true
		case extALPN:
			if seenALPN || !protocols(data, h) {
				return false
			}
			seenALPN = true
		}
	}
	return true
}

// serverName reads the extension server_name (RFC 6066, 3).
func (r *Room) serverName(data cryptobyte.String, h *Hello) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return false
	}
	found := false
	for !list.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !list.ReadUint8(&kind) || !list.ReadUint16LengthPrefixed(&name) || name.Empty() {
			return false
		}
		if kind != 0 {
			continue
		}
		if found {
			return false
		}
		found = true
		h.Name = r.hostName(name)
	}
	return true
}

// hostName returns a name in lower case, nil if it is not the name of a host: addresses
// are not (RFC 6066, 3).
func (r *Room) hostName(name []byte) []byte {
	if len(name) > 1 && name[len(name)-1] == '.' {
		name = name[:len(name)-1]
	}
	if len(name) > len(r.name) {
		return nil
	}
	label, digits := 0, true
	for i, c := range name {
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == '.':
			if label == 0 {
				return nil
			}
			label = -1
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return nil
		}
		if label++; label > 63 {
			return nil
		}
		digits = digits && (c == '.' || c >= '0' && c <= '9')
		r.name[i] = c
	}
	if label == 0 || digits && isAddress(name) {
		return nil
	}
	return r.name[:len(name)]
}

// isAddress tells whether digits and dots are an IPv4 address.
func isAddress(name []byte) bool {
	_, err := netip.ParseAddr(string(name))
	return err == nil
}

// protocols reads the extension application_layer_protocol_negotiation (RFC 7301, 3.1).
func protocols(data cryptobyte.String, h *Hello) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !data.Empty() {
		return false
	}
	h.ALPN = list
	for !list.Empty() {
		var name cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&name) || name.Empty() {
			return false
		}
	}
	return true
}
