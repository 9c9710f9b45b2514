package web

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/certs"
)

const (
	// ownFile holds the certificate that txlb made, with its key, in StateDir.
	ownFile = "web.pem"
	// ownLife is how long it is valid. Browsers accept no longer time.
	ownLife = 397 * 24 * time.Hour
	// renewBefore is how long before its end it is renewed.
	renewBefore = 30 * 24 * time.Hour
	// lookEvery is how often the files are looked at, at most. It happens in
	// handshakes, so that an unused page costs nothing.
	lookEvery = time.Second
)

// certificates has the certificate for handshakes. It comes from two files, which
// are read again when they have changed; or it is self-signed, kept in a file and
// renewed in time.
type certificates struct {
	log   *slog.Logger
	files func() (cert, key string) // "", "": self-signed
	dir   string                    // where that is kept
	names []string                  // that it must be valid for

	mu     sync.Mutex
	now    *tls.Certificate
	looked time.Time
	pair   certs.Pair                     // what files said when they were last read
	reread *certs.Kept[certs.Certificate] // of pair; nil: self-signed, or they could never be read
}

// newCertificates reads the certificate, or makes one.
func newCertificates(opt *Options, names []string, log *slog.Logger) (*certificates, error) {
	c := &certificates{log: log, files: opt.Files, dir: opt.StateDir, names: names}
	if c.files == nil {
		c.files = func() (string, string) { return "", "" }
	}
	cert, key := c.files()
	if err := c.open(certs.Pair{Certificate: cert, Key: key}, time.Now()); err != nil {
		return nil, err
	}
	c.log.Info("admin certificate loaded", "sha256", fingerprint(c.now), "file", cmp.Or(c.pair.Certificate, filepath.Join(c.dir, ownFile)))
	return c, nil
}

// open reads a pair for the first time, or makes a certificate. After an error the old
// one stays.
func (c *certificates) open(p certs.Pair, now time.Time) error {
	c.pair, c.reread = p, nil
	if p == (certs.Pair{}) {
		own, err := c.own(now)
		if err == nil {
			c.now = own
		}
		return err
	}
	kept, err := load(p)
	if err != nil {
		return err
	}
	c.reread, c.now = kept, &kept.Now().TLS
	return nil
}

func load(p certs.Pair) (*certs.Kept[certs.Certificate], error) {
	kept, err := certs.Open(p)
	if err != nil {
		return nil, fmt.Errorf("<web certificate=%q key=%q>: %w", p.Certificate, p.Key, err)
	}
	return kept, nil
}

// CheckCertificate reads a certificate and its key from two files, and tells why browsers
// would reject it now, "" if they would not for its dates.
func CheckCertificate(cert, key string) (spoilt string, err error) {
	kept, err := load(certs.Pair{Certificate: cert, Key: key})
	if err != nil {
		return "", err
	}
	return kept.Now().Spoilt(time.Now()), nil
}

// get is the tls.Config.GetCertificate. If the files cannot be read, the old
// certificate stays.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		c.look(now)
	}
	return c.now, nil
}

// look takes up what the files say now, and renews a certificate of our own in time.
func (c *certificates) look(now time.Time) {
	cert, key := c.files()
	p := certs.Pair{Certificate: cert, Key: key}
	var changed bool
	var err error
	switch {
	case p != c.pair, p == (certs.Pair{}) && now.After(c.now.Leaf.NotAfter.Add(-renewBefore)):
		err = c.open(p, now)
		changed = err == nil
	case c.reread != nil:
		if changed, err = c.reread.Look(now); changed {
			c.now = &c.reread.Now().TLS
		}
	case p != (certs.Pair{}): // they could not be read, and have been told of
		if changed = c.open(p, now) == nil; !changed {
			return
		}
	}
	switch {
	case err != nil:
		c.log.Error("cannot load the new admin certificate, keeping the current one", "err", err)
	case changed:
		c.log.Info("admin certificate reloaded", "sha256", fingerprint(c.now))
	}
}

// good tells whether the certificate is one for a host name.
func (c *certificates) good(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.Leaf.VerifyHostname(host) == nil
}

// dnsNames returns the names of the certificate.
func (c *certificates) dnsNames() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.Leaf.DNSNames
}

// own returns the self-signed certificate: the kept one if it is still valid,
// else a new one. If that cannot be written to a file, the next start makes
// another one.
func (c *certificates) own(now time.Time) (*tls.Certificate, error) {
	path := filepath.Join(c.dir, ownFile)
	kept, err := c.kept(path, now)
	switch {
	case err == nil:
		return kept, nil
	case !errors.Is(err, fs.ErrNotExist):
		c.log.Warn("cannot use the stored admin certificate, creating a new one", "file", path, "err", err)
	}
	text, err := makeCertificate(c.names, now)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	if err := writeSecret(path, text); err != nil {
		c.log.Warn("cannot store the admin certificate, the next start creates another one", "err", err)
	}
	pair, err := tls.X509KeyPair(text, text)
	return &pair, err
}

// kept reads the certificate of an earlier start. It is refused if others can
// read its key, if it expires soon, or if it lacks a name that the page has now.
func (c *certificates) kept(path string, now time.Time) (*tls.Certificate, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("others can read the old one: its mode is %#o, want 0600", mode)
	}
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return nil, fmt.Errorf("the old one cannot be used: %w", err)
	}
	if now.After(pair.Leaf.NotAfter.Add(-renewBefore)) || now.Before(pair.Leaf.NotBefore) {
		return nil, fmt.Errorf("the old one is good from %s to %s", day(pair.Leaf.NotBefore), day(pair.Leaf.NotAfter))
	}
	for _, name := range c.names {
		if pair.Leaf.VerifyHostname(name) != nil {
			return nil, fmt.Errorf("the old one is not for %s", name)
		}
	}
	return &pair, nil
}

func day(t time.Time) string { return t.Format(time.DateOnly) }

// makeCertificate returns a self-signed certificate and its key, as PEM.
func makeCertificate(names []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "txlb admin page"},
		NotBefore:    now.Add(-time.Hour), // for browsers whose clock is slow
		NotAfter:     now.Add(ownLife - time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
}

// writeSecret writes a file that only its owner can read, atomically.
func writeSecret(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// fingerprint is the fingerprint of a certificate as browsers show it.
func fingerprint(c *tls.Certificate) string {
	sum := sha256.Sum256(c.Certificate[0])
	var pairs []string
	for _, b := range sum {
		pairs = append(pairs, strings.ToUpper(hex.EncodeToString([]byte{b})))
	}
	return strings.Join(pairs, ":")
}

// names returns the host names of the page: localhost, the host of the address
// that it listens on, and the machine's name. Names that no certificate can have
// are left out.
func names(listen string) []string {
	all := []string{"localhost", "127.0.0.1", "::1"}
	host, _, _ := net.SplitHostPort(listen)
	machine, _ := os.Hostname()
	for _, name := range []string{host, machine} {
		ip := net.ParseIP(name)
		switch {
		case ip != nil && ip.IsUnspecified(), ip == nil && !config.IsDNSName(name):
		case !slices.Contains(all, strings.ToLower(name)):
			all = append(all, strings.ToLower(name))
		}
	}
	return all
}
