package enginetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/txlb/txlb/internal/servers"
	"github.com/txlb/txlb/internal/testkit"
)

// Identity is a certificate for a name, and what those who trust it need.
type Identity struct {
	Name      string
	Cert, Key string // files
	Pair      tls.Certificate
	Pool      *x509.CertPool
}

// Identify makes a certificate.
func Identify(t testing.TB, name string) *Identity {
	t.Helper()
	cert, key, err := servers.SelfSigned(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	i := &Identity{Name: name, Pool: x509.NewCertPool(), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	i.Pool.AppendCertsFromPEM(cert)
	if i.Pair, err = tls.X509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(i.Cert, cert, 0o600), os.WriteFile(i.Key, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	return i
}

// Server returns how to be the server of the name. It gives out no tickets: one that a
// client does not read makes its close a reset.
func (i *Identity) Server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{i.Pair}, SessionTicketsDisabled: true}
}

// Client returns how to be a client of the name.
func (i *Identity) Client() *tls.Config { return &tls.Config{ServerName: i.Name, RootCAs: i.Pool} }

// OverTLS is a connection with TLS. A stream that ends without a word of TLS fails.
type OverTLS struct {
	*tls.Conn
	TCP *net.TCPConn
}

// CloseWrite ends the sending direction, of TLS and of TCP. The peer may have reset the
// connection when it has had the first.
func (c *OverTLS) CloseWrite() error {
	err := c.Conn.CloseWrite()
	_ = c.TCP.CloseWrite()
	return err
}

// strict is the connection below.
type strict struct{ *net.TCPConn }

// ErrCut is the end of a stream of TLS that has not been announced.
var ErrCut = errors.New("the connection ended before its TLS")

func (c strict) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if err == io.EOF {
		err = ErrCut
	}
	return n, err
}

// Shake makes the handshake of a peer with TLS, which must not fail.
func (p *Peer) Shake() *Peer {
	p.T.Helper()
	ctx, cancel := context.WithTimeout(p.T.Context(), testkit.Patience)
	defer cancel()
	if err := p.Conn.(*OverTLS).HandshakeContext(ctx); err != nil {
		p.T.Errorf("handshake: %v", err)
	}
	return p
}

// Secure is the peer with TLS: as a client of a server, or as the server.
func (p *Peer) Secure(config *tls.Config, client bool) *Peer {
	tcp := p.Conn.(*net.TCPConn)
	over := tls.Server
	if client {
		over = tls.Client
	}
	return &Peer{p.T, &OverTLS{over(strict{tcp}, config), tcp}}
}
