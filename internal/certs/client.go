package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync/atomic"
)

// Client is how connections to a host begin TLS.
type Client struct {
	Name       string // to ask for, and that the host's certificate must be for: a DNS name or an IP address
	CA         string // file of authorities to trust; "": the system's
	Unverified bool   // whatever certificate the host has
}

// maxSessions is how many sessions are kept to be resumed. They are kept by name, or by
// address without one.
const maxSessions = 64

// client is a Client that runs.
type client struct {
	want        Client
	config      *tls.Config // what the host has, as long as it wants the same
	authorities atomic.Pointer[Authorities]
}

func newClient(want Client) *client {
	c := &client{want: want}
	c.config = &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: want.Name, InsecureSkipVerify: want.Unverified,
		ClientSessionCache: tls.NewLRUClientSessionCache(maxSessions),
	}
	if want.CA != "" && !want.Unverified {
		// The authorities may change, and the configuration stays: so what crypto/tls
		// would do by itself is done here, for sessions that are resumed too.
		c.config.InsecureSkipVerify = true
		c.config.VerifyConnection = c.verify
	}
	return c
}

// refresh takes up what the file of a set says now.
func (c *client) refresh(set *Set) {
	if c.want.CA != "" {
		c.authorities.Store(set.authorities[c.want.CA].Now())
	}
}

// verify is the tls.Config.VerifyConnection.
func (c *client) verify(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the host has sent no certificate")
	}
	options := x509.VerifyOptions{
		Roots: c.authorities.Load().Pool, DNSName: c.want.Name, Intermediates: x509.NewCertPool(),
	}
	for _, one := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(one)
	}
	if _, err := state.PeerCertificates[0].Verify(options); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}
