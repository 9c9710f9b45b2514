package proxyproto

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// TLVs are the values that a header of version 2 has beside the addresses, as they
// came: a byte that is the type, two for the length, and the value.
type TLVs []byte

// Types of values.
const (
	TypeALPN      = 0x01
	TypeAuthority = 0x02 // the name that the client has asked for (SNI)
	TypeUniqueID  = 0x05
	TypeSSL       = 0x20
	TypeNetNS     = 0x30
	TypeAWS       = 0xea

	subtypeCN     = 0x22
	subtypeAWSVPC = 0x01
)

// next takes the first value off.
func (t TLVs) next() (kind byte, value []byte, rest TLVs, ok bool) {
	if len(t) < 3 || len(t)-3 < int(binary.BigEndian.Uint16(t[1:])) {
		return 0, nil, nil, false
	}
	end := 3 + int(binary.BigEndian.Uint16(t[1:]))
	return t[0], t[3:end:end], t[end:], true
}

// All goes over the values in their order; what is cut off at the end is left out.
func (t TLVs) All() iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for {
			kind, value, rest, ok := t.next()
			if !ok || !yield(kind, value) {
				return
			}
			t = rest
		}
	}
}

// Find returns the first value of a type, and whether there is one.
func (t TLVs) Find(kind byte) ([]byte, bool) {
	for k, value := range t.All() {
		if k == kind {
			return value, true
		}
	}
	return nil, false
}

// UniqueID returns the connection's ID, nil if none is given.
func (t TLVs) UniqueID() []byte {
	id, _ := t.Find(TypeUniqueID)
	return id
}

// VPCEndpoint returns the ID of the endpoint that a client of an AWS load balancer
// came through, such as vpce-08d2bf15fac5001c9; nil if none is given.
func (t TLVs) VPCEndpoint() []byte {
	if v, ok := t.Find(TypeAWS); ok && len(v) > 1 && v[0] == subtypeAWSVPC {
		return v[1:]
	}
	return nil
}

// SSL is what a header says of the TLS connection between client and proxy.
type SSL struct {
	Client byte // see the constants below
	// Verified is set if the client has presented a certificate that was found valid.
	Verified bool
	values   TLVs
}

// Bits of SSL.Client.
const (
	ClientSSL      = 1 << iota // the client has connected over TLS
	ClientCertConn             // it has presented a certificate over this connection
	ClientCertSess             // it has done so at least once in the TLS session
)

// SSL returns what the values say of TLS, and whether they say anything.
func (t TLVs) SSL() (s SSL, ok bool) {
	v, ok := t.Find(TypeSSL)
	if !ok || len(v) < 5 {
		return s, false
	}
	s = SSL{Client: v[0], values: TLVs(v[5:])}
	s.Verified = s.Client&(ClientCertConn|ClientCertSess) != 0 && bytes.Equal(v[1:5], []byte{0, 0, 0, 0})
	return s, true
}

// CN returns the common name of the client's certificate, nil if none is given.
func (s SSL) CN() []byte {
	cn, _ := s.values.Find(subtypeCN)
	return cn
}
