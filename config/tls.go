package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// What <listen tls> and <host tls sni> may say.

// KeyPairs are files of certificates, each with the file of its key behind it, as text
// with a space between two: "a.pem a.key b.pem b.key". "" is none.
type KeyPairs string

// KeyPair names the file of a certificate and that of its key, which may be the same.
type KeyPair struct{ Certificate, Key string }

// List returns the pairs in their order.
func (p KeyPairs) List() (list []KeyPair) {
	files := strings.Fields(string(p))
	for i := 0; i+1 < len(files); i += 2 {
		list = append(list, KeyPair{files[i], files[i+1]})
	}
	return list
}

// maxKeyPairs bounds how many certificates a listener has.
const maxKeyPairs = 1000

// parseKeyPairs reads pairs of files with spaces between them.
func parseKeyPairs(s string) (KeyPairs, error) {
	files := strings.Fields(s)
	p := KeyPairs(strings.Join(files, " "))
	switch {
	case !printable(string(p)):
		return "", fmt.Errorf("%q has a non-printable character", s)
	case len(files)%2 != 0:
		return "", fmt.Errorf("%q is not pairs of files; write a certificate, a space and its key, such as cert.pem key.pem, and the same file twice if it has both", s)
	case len(files) > 2*maxKeyPairs:
		return "", fmt.Errorf("more than %d certificates; divide them among several listeners", maxKeyPairs)
	}
	seen := make(map[KeyPair]bool, len(files)/2)
	for _, one := range p.List() {
		if seen[one] {
			return "", fmt.Errorf("%q is there twice", one.Certificate+" "+one.Key)
		}
		seen[one] = true
	}
	return p, nil
}

// keyPairs is <listen tls>.
var keyPairs = values[KeyPairs]{
	kind: TypeFile, parse: parseKeyPairs, format: func(p KeyPairs) string { return string(p) },
	check: func(p KeyPairs) error {
		return canonical(string(p), func(s string) (string, error) {
			is, err := parseKeyPairs(s)
			return string(is), err
		})
	},
}

// tlsName is <host sni>: one name.
var tlsName = values[string]{
	kind: TypeText, format: plain.format, parse: parseTLSName,
	check: func(s string) error { return canonical(s, parseTLSName) },
}

func parseTLSName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "" {
		return "", nil
	}
	if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" {
		return name, nil
	}
	if !IsDNSName(name) {
		return "", fmt.Errorf("%q is not a name; want one such as db.example, or an IP address", s)
	}
	return name, nil
}

// encryption checks <listen tls> with what belongs to it.
func (k *checker) encryption(l *Listen) {
	if l.TLS != "" {
		return
	}
	for _, o := range []struct{ name, value, why string }{
		{"clientCA", l.ClientCA, "no client shows its certificate"},
		{"alpn", l.ALPN, "no protocol is negotiated"},
	} {
		if o.value != "" {
			k.fail(l.Pos.Line, "<listen %s> needs tls=\"CERTIFICATE KEY\": without it, %s", o.name, o.why)
		}
	}
}

// hostEncryption checks <host tls> with what belongs to it.
func (k *checker) hostEncryption(h *Host) {
	line := h.Pos.Line
	if h.TLS == "" {
		for _, o := range []struct{ name, value string }{{"ca", h.CA}, {"sni", h.SNI}} {
			if o.value != "" {
				k.fail(line, "<host %s> needs tls=\"yes\": without it, connections to host %q are not encrypted", o.name, h.Name)
			}
		}
		return
	}
	if h.TLS == Unverified {
		if h.CA != "" {
			k.warn(line, "<host ca> means nothing with tls=\"unverified\": write tls=\"yes\" to have the certificate of host %q verified", h.Name)
		}
		return
	}
	if h.ServerName() != "" {
		return
	}
	what := "a UNIX socket"
	if IsSRV(h.Address) {
		what = "a name of SRV records"
	}
	if h.Address != "" {
		k.fail(line, "<host tls>: %s of host %q is %s, which no certificate is for; give sni=\"NAME\", or tls=\"unverified\"", h.Address, h.Name, what)
	}
}

// Unverified is the TLS of a host whose certificate may be any.
const Unverified = "unverified"

// ServerName returns the name that the certificate of a host with TLS must be for: SNI,
// else the name or the IP address in Address; "" if there is none.
func (h *Host) ServerName() string {
	if h.SNI != "" || IsSRV(h.Address) || strings.HasPrefix(h.Address, "unix:") {
		return h.SNI
	}
	host, _, err := net.SplitHostPort(h.Address)
	if err != nil {
		return ""
	}
	if i := strings.IndexByte(host, '%'); i >= 0 && strings.Contains(host, ":") { // no certificate has zones
		host = host[:i]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// Protocols returns the protocols of ALPN, the best first.
func (l *Listen) Protocols() []string { return slices.Clip(strings.Fields(l.ALPN)) }
