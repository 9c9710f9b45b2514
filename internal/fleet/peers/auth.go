package peers

import (
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"math/big"
	"time"
)

// Auth is how nodes know each other. Both sides of each connection show a certificate, and
// all that they say is encrypted (TLS 1.3). It may be used by any goroutine.
type Auth struct {
	server func(hello *tls.ClientHelloInfo) (*tls.Config, error) // of one connection
	client func(host string) (*tls.Config, error)                // of one to a host
	files  *files                                                // nil: by a secret
}

// derivations is how often PBKDF2 hashes a secret: a tenth of a second, once for a process.
// Who can connect learns the public key, and may guess secrets with it.
const derivations = 100_000

// errOther is why a node is not talked to.
var errOther = errors.New("it has another secret, or is of another fleet")

// identity is what a secret makes of a node.
type identity struct {
	public ed25519.PublicKey
	pair   tls.Certificate
	// tag is how a client says which one it has, as the name of the server. It is short, so
	// that who listens learns nothing of the secret.
	tag string
}

func newIdentity(fleet, secret string) (*identity, error) {
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
	sum := sha256.Sum256(public)
	return &identity{public, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, "k" + hex.EncodeToString(sum[:2]) + ".txlb"}, nil
}

// BySecret returns the Auth of nodes that have a secret in common. Each derives a key pair from
// a secret and from the name of the fleet, and talks only to who has one of these pairs. Of
// several secrets the first is shown, unless the other side has another one of them: so a
// secret can be replaced on one node after the other.
func BySecret(fleet string, secrets ...string) (*Auth, error) {
	var all []*identity
	for _, secret := range secrets {
		one, err := newIdentity(fleet, secret)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no secret")
	}
	// The key is compared instead of the chain. That the peer has it, TLS proves.
	known := func(s tls.ConnectionState) *identity {
		for _, one := range all {
			if len(s.PeerCertificates) > 0 && one.public.Equal(s.PeerCertificates[0].PublicKey) {
				return one
			}
		}
		return nil
	}
	server := func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		shown := all[0]
		for _, one := range all {
			if one.tag == hello.ServerName {
				shown = one
				break
			}
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
			Certificates: []tls.Certificate{shown.pair}, ClientAuth: tls.RequireAnyClientCert,
			VerifyConnection: func(s tls.ConnectionState) error {
				if known(s) == nil {
					return errOther
				}
				return nil
			},
		}, nil
	}
	client := func(string) (*tls.Config, error) {
		shown := all[0]
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
			ServerName: shown.tag, InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error { // before this side shows anything
				one := known(s)
				if one == nil {
					return errOther
				}
				shown = one
				return nil
			},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown.pair, nil },
		}, nil
	}
	return &Auth{server: server, client: client}, nil
}

// ByCertificates returns the Auth of nodes with certificates of one authority, which are for
// servers and clients and have the address that the node advertises. The files are read again for
// each connection, and what they had last stays in use while they are not right. Until they were
// right once, no node is talked to; an [Exchange] tells why.
func ByCertificates(cert, key, ca string) *Auth {
	f := &files{cert: cert, key: key, ca: ca}
	config := func() (*tls.Config, error) {
		is, err := f.inUse()
		if err != nil {
			return nil, err
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
			Certificates: []tls.Certificate{is.pair}, RootCAs: is.authorities, ClientCAs: is.authorities, ClientAuth: tls.RequireAndVerifyClientCert,
		}, nil
	}
	_, _ = f.load() // so that there is something in use
	return &Auth{
		server: func(*tls.ClientHelloInfo) (*tls.Config, error) { return config() },
		client: func(host string) (*tls.Config, error) {
			c, err := config()
			if err != nil {
				return nil, err
			}
			c.ServerName = host
			return c, nil
		},
		files: f,
	}
}

// protocols are what both sides speak inside TLS.
var protocols = []string{"http/1.1"}

// listener returns the settings of the side that listens.
func (a *Auth) listener() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: protocols, GetConfigForClient: a.server}
}
