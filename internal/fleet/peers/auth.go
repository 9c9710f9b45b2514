package peers

import (
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"
)

// Auth is how nodes know each other. Both sides of each connection show a certificate, and
// all that they say is encrypted (TLS 1.3). It may be used by any goroutine.
type Auth struct {
	// config makes the settings of one connection. Files are read each time, so that new
	// certificates need no restart.
	config func() (*tls.Config, error)
}

// derivations is how often PBKDF2 hashes a secret: a tenth of a second, once for a process.
// Who can connect learns the public key, and may guess secrets with it.
const derivations = 100_000

// errOther is why a node is not talked to.
var errOther = errors.New("it has another secret, or is of another fleet")

// BySecret returns the Auth of nodes that have the same secret. Each derives the same key pair
// from it and from the name of the fleet, and talks only to who has that.
func BySecret(fleet, secret string) (*Auth, error) {
	seed, err := pbkdf2.Key(sha256.New, secret, []byte("txlb fleet "+fleet), derivations, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	public := key.Public().(ed25519.PublicKey)
	template := &x509.Certificate{ // nobody looks at more than its key
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "txlb fleet"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAnyClientCert,
		// The key is compared instead of the chain. That the peer has it, TLS proves.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !public.Equal(s.PeerCertificates[0].PublicKey) {
				return errOther
			}
			return nil
		},
	}
	return &Auth{func() (*tls.Config, error) { return c, nil }}, nil
}

// ByCertificates returns the Auth of nodes with certificates of one authority, which are for
// servers and clients and have the address that the node advertises. The error is about the
// files; they are read again for each connection.
func ByCertificates(cert, key, ca string) (*Auth, error) {
	load := func() (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("<fleet cert key>: %w", err)
		}
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("<fleet ca>: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("<fleet ca>: %s has no certificate in PEM", ca)
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
			Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		}, nil
	}
	_, err := load()
	return &Auth{load}, err
}

// protocols are what both sides speak inside TLS.
var protocols = []string{"http/1.1"}

// server returns the settings of the side that listens.
func (a *Auth) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return a.config() },
	}
}

// client returns the settings of the side that connects to a host.
func (a *Auth) client(host string) (*tls.Config, error) {
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	c = c.Clone()
	c.ServerName = host
	return c, nil
}
