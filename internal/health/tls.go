package health

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/cryptobyte"
)

// TLS record and handshake types, and extensions (RFC 8446, 4 and 5).
const (
	recordAlert     = 21
	recordHandshake = 22

	helloRequest = 0
	clientHello  = 1
	serverHello  = 2

	extServerName        = 0
	extSupportedGroups   = 10
	extPointFormats      = 11
	extSignatures        = 13
	extMasterSecret      = 23
	extSupportedVersions = 43
	extKeyShare          = 51
	extRenegotiationInfo = 0xff01

	groupX25519 = 0x001d
)

const (
	tls10 = 0x0301
	tls12 = 0x0303
	tls13 = 0x0304

	maxRecord = 1<<14 + 256 // RFC 5246, 6.2: what a record of plain text may have, with room for senders that miscount
	// maxHello is how much of an answer is read before its ServerHello is whole.
	maxHello = 64 << 10
)

// offeredSuites are the cipher suites of the ClientHello: more than crypto/tls
// has, as nothing is ever encrypted with them. A host that speaks TLS at all has
// one of them.
var offeredSuites = []uint16{
	0x1301, 0x1302, 0x1303, 0x1304, 0x1305, // TLS 1.3
	0xc02b, 0xc02c, 0xcca9, 0xc0ac, 0xc0ad, 0xc0ae, 0xc0af, 0xc023, 0xc024, 0xc009, 0xc00a, 0xc008, // ECDHE with ECDSA
	0xc02f, 0xc030, 0xcca8, 0xc027, 0xc028, 0xc013, 0xc014, 0xc012, 0xc011, // ECDHE with RSA
	0xc05c, 0xc05d, 0xc060, 0xc061, 0xc072, 0xc073, 0xc076, 0xc077, // ARIA and Camellia
	0x009e, 0x009f, 0xccaa, 0xc09e, 0xc09f, 0xc0a2, 0xc0a3, 0x0067, 0x006b, 0x0033, 0x0039, 0x0016, 0x0045, 0x0088, 0x00be, 0x00c4, // DHE with RSA
	0x00a2, 0x00a3, 0x0040, 0x006a, 0x0032, 0x0038, 0x0013, // DHE with DSS
	0x009c, 0x009d, 0xc09c, 0xc09d, 0xc0a0, 0xc0a1, 0x003c, 0x003d, 0x002f, 0x0035, 0x000a, 0x0041, 0x0084, 0x00ba, 0x00c0, 0x0005, 0x0004, // RSA
}

// offeredGroups are the groups for the key exchange: X25519 and its sibling with
// ML-KEM, the NIST curves, X448, the Brainpool curves and the groups of RFC 7919.
var offeredGroups = []uint16{
	groupX25519, 0x0017, 0x001e, 0x0019, 0x0018, 0x11ec, 0x001a, 0x001b, 0x001c, 0x0100, 0x0101, 0x0102, 0x0103, 0x0104,
}

// offeredSignatures are those of RFC 8446, 4.2.3, Ed448 and DSA among them.
var offeredSignatures = []uint16{
	0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x081a, 0x081b, 0x081c, 0x0809, 0x080a, 0x080b, 0x0804, 0x0805, 0x0806,
	0x0401, 0x0501, 0x0601, 0x0303, 0x0203, 0x0301, 0x0201, 0x0302, 0x0202, 0x0402, 0x0502, 0x0602,
}

// keyShare is a public key whose private key is thrown away. Every ClientHello
// may have the same one, as no handshake goes on after the ServerHello.
var keyShare = sync.OnceValue(func() []byte {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return key.PublicKey().Bytes()
})

// hello is the record of a ClientHello for TLS 1.0 to 1.3 that asks for a
// server name, or for none if that is "".
func hello(name string) ([]byte, error) {
	var nonce [64]byte // random and session ID
	_, _ = rand.Read(nonce[:])
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddUint8(recordHandshake)
	b.AddUint16(tls10) // what old servers expect of a first record
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(clientHello)
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(tls12) // 1.3 is asked for by an extension
			b.AddBytes(nonce[:32])
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(nonce[32:]) })
			addList(b, offeredSuites)
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(0) }) // no compression
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { addExtensions(b, name) })
		})
	})
	return b.Bytes()
}

func addExtensions(b *cryptobyte.Builder, name string) {
	extension := func(number uint16, body func(*cryptobyte.Builder)) {
		b.AddUint16(number)
		b.AddUint16LengthPrefixed(body)
	}
	if name != "" {
		extension(extServerName, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint8(0) // host_name
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
			})
		})
	}
	extension(extSupportedGroups, func(b *cryptobyte.Builder) { addList(b, offeredGroups) })
	extension(extPointFormats, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(0) }) // uncompressed
	})
	extension(extSignatures, func(b *cryptobyte.Builder) { addList(b, offeredSignatures) })
	extension(extMasterSecret, func(*cryptobyte.Builder) {})
	extension(extRenegotiationInfo, func(b *cryptobyte.Builder) { b.AddUint8(0) })
	extension(extSupportedVersions, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {
			for v := uint16(tls13); v >= tls10; v-- {
				b.AddUint16(v)
			}
		})
	})
	extension(extKeyShare, func(b *cryptobyte.Builder) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(groupX25519)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(keyShare()) })
		})
	})
}

func addList(b *cryptobyte.Builder, list []uint16) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, v := range list {
			b.AddUint16(v)
		}
	})
}

// notTLS is an answer in another protocol.
type notTLS struct{ said []byte }

func (e notTLS) Error() string { return "the answer is not TLS: " + quoted(e.said) }

// alert is the description of a TLS alert.
type alert uint8

// String names the alert as the RFCs do.
func (a alert) String() string {
	if name := alertNames[a]; name != "" {
		return fmt.Sprintf("%s (%d)", name, uint8(a))
	}
	return fmt.Sprintf("number %d", uint8(a))
}

func (a alert) Error() string { return "the server sent the alert " + a.String() }

var alertNames = map[alert]string{
	0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
	30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate",
	43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
	47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
	60: "export_restriction", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
	86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
	110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
	113: "bad_certificate_status_response", 114: "bad_certificate_hash_value", 115: "unknown_psk_identity",
	116: "certificate_required", 120: "no_application_protocol",
}

// answerHello reads the answer to a ClientHello up to its end: a ServerHello,
// which a HelloRetryRequest is as well, gives nil, everything else an error.
// What comes may be cut into records and packets at any place.
func answerHello(r *bufio.Reader) error {
	var messages []byte // of the handshake, without what has been looked at
	var warning error   // the last alert that ends nothing
	ended := func(err error) error {
		if warning != nil && (err == io.EOF || timedOut(err)) {
			return warning
		}
		return err
	}
	for all := 0; all < maxHello; {
		typ, body, err := readRecord(r)
		if err != nil {
			return ended(err)
		}
		all += 5 + len(body)
		switch typ {
		case recordAlert:
			if len(body) != 2 {
				return fmt.Errorf("malformed alert of %d bytes", len(body))
			}
			// A warning such as unrecognized_name may precede the ServerHello.
			if level, a := body[0], alert(body[1]); level != 1 || a == 0 {
				return a
			} else {
				warning = a
			}
			continue
		case recordHandshake:
			messages = append(messages, body...)
		}
		for len(messages) >= 4 {
			s := cryptobyte.String(messages)
			var kind uint8
			var body cryptobyte.String
			s.ReadUint8(&kind)
			if kind != serverHello && kind != helloRequest {
				return fmt.Errorf("the server began with handshake message %d instead of a ServerHello", kind)
			}
			if !s.ReadUint24LengthPrefixed(&body) {
				break // the rest has not come
			}
			messages = s
			if kind == serverHello {
				return checkServerHello(body)
			}
		}
	}
	return fmt.Errorf("no ServerHello in %d bytes", maxHello)
}

// readRecord reads one record: the ServerHello, or what a host sends before it or
// instead of it.
func readRecord(r *bufio.Reader) (typ uint8, body []byte, err error) {
	// The first bytes already tell TLS from something else, which may be shorter.
	head, err := r.Peek(1)
	if err == nil && (head[0] == recordAlert || head[0] == recordHandshake) {
		head, err = r.Peek(5)
	} else if err == nil {
		said, _ := r.Peek(r.Buffered())
		return 0, nil, notTLS{said}
	}
	if len(head) > 1 && head[1] != 3 || len(head) == 5 && (head[3]|head[4] == 0 || int(head[3])<<8|int(head[4]) > maxRecord) {
		said, _ := r.Peek(r.Buffered())
		return 0, nil, notTLS{said}
	}
	if err != nil {
		return 0, nil, err
	}
	typ = head[0]
	body = make([]byte, int(head[3])<<8|int(head[4]))
	_, _ = r.Discard(len(head))
	if _, err = io.ReadFull(r, body); err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return typ, body, err
}

// checkServerHello tells what is wrong with a ServerHello, if anything is.
func checkServerHello(s cryptobyte.String) error {
	var version, suite uint16
	var session, extensions cryptobyte.String
	var compression uint8
	if !s.ReadUint16(&version) || !s.Skip(32) || !s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16(&suite) || !s.ReadUint8(&compression) ||
		!s.Empty() && (!s.ReadUint16LengthPrefixed(&extensions) || !s.Empty()) {
		return errors.New("malformed ServerHello")
	}
	for !extensions.Empty() {
		var number uint16
		var body cryptobyte.String
		if !extensions.ReadUint16(&number) || !extensions.ReadUint16LengthPrefixed(&body) ||
			number == extSupportedVersions && (!body.ReadUint16(&version) || !body.Empty()) {
			return errors.New("malformed extension in the ServerHello")
		}
	}
	if version < tls10 || version > tls13 {
		return fmt.Errorf("the server chose version %#04x; want TLS 1.0 (0x0301) to TLS 1.3 (0x0304)", version)
	}
	return nil
}

// greet asks a host for a ServerHello and stops there: it only tests whether the
// host speaks TLS. A host passes whatever its certificate and key exchange are, and
// whether or not it wants a client certificate.
func greet(conn net.Conn, p *Probe) Result {
	name := serverName(p)
	if net.ParseIP(name) != nil { // RFC 6066, 3: an address is no name
		name = ""
	}
	request, err := hello(name)
	if err == nil {
		_, err = conn.Write(request)
	}
	if err == nil {
		err = answerHello(bufio.NewReader(conn))
	}
	return shaken(err, p)
}

// verify does a whole TLS handshake and verifies the certificate, for the name of
// the probe or, if there is none, for the address. Old versions and suites are
// accepted, because nothing secret is sent.
func verify(conn net.Conn, p *Probe) Result {
	name := serverName(p)
	if name == "" {
		name = p.Addr.IP().Addr().WithZone("").String()
	}
	roots, err := p.roots()
	if err != nil {
		return Result{Code: SockErr, Text: err.Error()}
	}
	c := tls.Client(conn, &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS10, CipherSuites: suites()})
	return shaken(c.Handshake(), p)
}

// suites are all that crypto/tls has, the weak ones too.
var suites = sync.OnceValue(func() []uint16 {
	var ids []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
})

// serverName is the name to ask for: that of the probe without its port, and
// without the dot or the brackets that it may be written with.
func serverName(p *Probe) string {
	name := p.Host
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	return strings.TrimSuffix(strings.Trim(name, "[]"), ".")
}

// shaken is the result of a whole handshake, or of one that ends at the
// ServerHello.
func shaken(err error, p *Probe) Result {
	switch {
	case err == nil:
		return Result{Code: L6OK}
	case timedOut(err):
		return Result{Code: L6Tout, Text: "no handshake within " + p.Timeout.String()}
	}
	return Result{Code: L6Rsp, Text: "handshake: " + why(err)}
}

// roots returns the certificates that a probe trusts: those of its file, nil for
// the system's.
func (p *Probe) roots() (*x509.CertPool, error) {
	if p.CA == "" {
		return nil, nil
	}
	return readCA(p.CA)
}

func readCA(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("<check ca>: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("<check ca>: %s has no PEM certificate", file)
	}
	return pool, nil
}

// CheckCA tells what is wrong with a file for Probe.CA.
func CheckCA(file string) error {
	_, err := readCA(file)
	return err
}
