package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Pair names the file of a certificate, which may have its chain behind it, and the file
// of its key. Both may be the same file.
type Pair struct{ Certificate, Key string }

// String is the pair as the configuration has it.
func (p Pair) String() string { return p.Certificate + " " + p.Key }

// Certificate is a certificate with its key. It is immutable.
type Certificate struct {
	TLS   tls.Certificate // with its Leaf
	Names []string        // of servers, in lower case, maybe with *. in front; never empty
}

// Good tells from when to when the certificate is valid.
func (c *Certificate) Good() (from, to time.Time) { return c.TLS.Leaf.NotBefore, c.TLS.Leaf.NotAfter }

// Spoilt tells why clients reject the certificate at a time, "" if they do not for that.
func (c *Certificate) Spoilt(now time.Time) string {
	switch from, to := c.Good(); {
	case now.After(to):
		return fmt.Sprintf("expired on %s; renew it", to.UTC().Format(dateTime))
	case now.Before(from):
		return fmt.Sprintf("is not valid before %s; use it later, or set the clock", from.UTC().Format(dateTime))
	}
	return ""
}

const dateTime = "2006-01-02 15:04 MST"

// Load reads a certificate with its key.
func Load(p Pair) (*Certificate, error) {
	k, err := Open(p)
	if err != nil {
		return nil, err
	}
	return k.Now(), nil
}

// Open reads a certificate with its key from files that will be looked at again.
func Open(p Pair) (*Kept[Certificate], error) {
	return keep(func(texts [][]byte) (*Certificate, error) { return parsePair(p, texts[0], texts[1]) }, p.Certificate, p.Key)
}

// parsePair reads a certificate and its key from the texts of their files.
func parsePair(p Pair, certificate, key []byte) (*Certificate, error) {
	chain, err := parseCertificates(p.Certificate, certificate)
	if err != nil {
		return nil, err
	}
	private, err := parseKey(p.Key, key)
	if err != nil {
		return nil, err
	}
	switch at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return isKeyOf(private, c) }); {
	case at < 0:
		return nil, fmt.Errorf("the key in %s does not belong to the certificate in %s (%s); give the key that the certificate was made with", p.Key, p.Certificate, namesOf(chain[0])[0])
	case at > 0:
		return nil, fmt.Errorf("%s begins with another certificate than that of the key: it is number %d; put it first, and its issuers behind it", p.Certificate, at+1)
	}
	c := &Certificate{TLS: tls.Certificate{PrivateKey: private, Leaf: chain[0]}, Names: namesOf(chain[0])}
	for _, one := range chain {
		c.TLS.Certificate = append(c.TLS.Certificate, one.Raw)
	}
	return c, nil
}

// blocks yields the blocks of a text in PEM.
func blocks(text []byte) (all []*pem.Block) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return all
		}
		all = append(all, b)
	}
}

// kinds names what blocks are, for errors: never what they contain.
func kinds(all []*pem.Block) string {
	var names []string
	for _, b := range all {
		if !slices.Contains(names, b.Type) {
			names = append(names, b.Type)
		}
	}
	return strings.Join(names, ", ")
}

// parseCertificates reads all certificates of a file.
func parseCertificates(path string, text []byte) (chain []*x509.Certificate, err error) {
	all := blocks(text)
	for _, b := range all {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in %s cannot be read: %w", len(chain)+1, path, plain(err))
		}
		chain = append(chain, c)
	}
	switch {
	case len(chain) > 0:
		return chain, nil
	case len(all) > 0:
		return nil, fmt.Errorf("%s has no certificate, but %s; want -----BEGIN CERTIFICATE-----", path, kinds(all))
	case isDER(text):
		return nil, fmt.Errorf("%s is not in PEM; convert it with: openssl x509 -inform der -in %[1]s -out %[1]s.pem", path)
	}
	return nil, fmt.Errorf("%s has no certificate in PEM; want -----BEGIN CERTIFICATE-----", path)
}

// isDER tells a file that has the bytes alone which PEM writes as text.
func isDER(text []byte) bool { return bytes.HasPrefix(text, []byte{0x30, 0x82}) }

// parseKey reads the first key of a file.
func parseKey(path string, text []byte) (crypto.Signer, error) {
	all := blocks(text)
	for _, b := range all {
		if b.Type != "PRIVATE KEY" && !strings.HasSuffix(b.Type, " PRIVATE KEY") {
			continue
		}
		if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, fmt.Errorf("the key in %s is encrypted, and nobody could type its passphrase; decrypt it with: openssl pkey -in %[1]s -out NEW", path)
		}
		key, err := parsePrivate(b)
		if err != nil {
			return nil, fmt.Errorf("the key in %s cannot be read: %w", path, plain(err))
		}
		return key, nil
	}
	switch {
	case len(all) > 0:
		return nil, fmt.Errorf("%s has no private key, but %s; want -----BEGIN PRIVATE KEY-----", path, kinds(all))
	case isDER(text):
		return nil, fmt.Errorf("%s is not in PEM; convert it with: openssl pkey -inform der -in %[1]s -out NEW", path)
	}
	return nil, fmt.Errorf("%s has no private key in PEM; want -----BEGIN PRIVATE KEY-----", path)
}

// parsePrivate reads a key in one of the forms that OpenSSL writes.
func parsePrivate(b *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch b.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	default:
		return nil, fmt.Errorf("it is a %s; want one of RSA, ECDSA or Ed25519 in PKCS #8: openssl pkey -in FILE -out NEW", b.Type)
	}
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minRSA {
			return nil, fmt.Errorf("RSA with %d bits is too weak; want at least %d", bits, minRSA)
		}
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, errors.New("it is neither RSA nor ECDSA nor Ed25519")
}

// minRSA is what crypto/tls signs with.
const minRSA = 1024

func isKeyOf(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// namesOf returns the names that a certificate is for. It is never empty.
func namesOf(c *x509.Certificate) (names []string) {
	for _, n := range c.DNSNames {
		names = append(names, strings.ToLower(strings.TrimSuffix(n, ".")))
	}
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = append(names, strings.ToLower(c.Subject.CommonName))
	}
	return names
}

// plain is an error on one line without the prefix of its package.
func plain(err error) error {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	for _, prefix := range []string{"x509: ", "crypto/"} {
		text = strings.TrimPrefix(text, prefix)
	}
	return errors.New(text)
}

// Authorities are certificate authorities to trust. They are immutable.
type Authorities struct {
	Pool *x509.CertPool
	sum  [sha256.Size]byte
}

// LoadAuthorities reads a file of certificates to trust.
func LoadAuthorities(path string) (*Authorities, error) {
	k, err := openAuthorities(path)
	if err != nil {
		return nil, err
	}
	return k.Now(), nil
}

func openAuthorities(path string) (*Kept[Authorities], error) {
	return keep(func(texts [][]byte) (*Authorities, error) { return parseAuthorities(path, texts[0]) }, path)
}

func parseAuthorities(path string, text []byte) (*Authorities, error) {
	all, err := parseCertificates(path, text)
	if err != nil {
		return nil, err
	}
	a := &Authorities{Pool: x509.NewCertPool(), sum: sha256.Sum256(text)}
	for _, c := range all {
		a.Pool.AddCert(c)
	}
	return a, nil
}
