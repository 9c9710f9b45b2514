package certs

import (
	"crypto/rand"
	"crypto/tls"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Server is how a listener ends TLS.
type Server struct {
	Pairs    []Pair   // the first is for clients that ask for no name, or for one that no certificate has
	ClientCA string   // file of authorities, one of which must have signed the client's certificate; "": clients need none
	ALPN     []string // protocols that clients may speak, the best first; nil: clients are not asked
}

func (s *Server) same(t *Server) bool {
	return s.ClientCA == t.ClientCA && slices.Equal(s.Pairs, t.Pairs) && slices.Equal(s.ALPN, t.ALPN)
}

const (
	// ticketLife is how long a key for session tickets makes new ones.
	ticketLife = 8 * time.Hour
	// ticketKeys is how many are kept, so that a ticket is good for ticketLife less than
	// their product at least.
	ticketKeys = 3
)

// Suites are those for TLS 1.2: with forward secrecy, and none with CBC, whose padding
// has been attacked time and again. Those of TLS 1.3 are all like that.
func Suites() (list []uint16) {
	for _, s := range tls.CipherSuites() {
		if strings.HasPrefix(s.Name, "TLS_ECDHE_") && !strings.Contains(s.Name, "_CBC_") {
			list = append(list, s.ID)
		}
	}
	return list
}

// server is a Server that runs. Handshakes read now; the rest is guarded by Store.mu, or
// belongs to who makes it.
type server struct {
	want   Server
	config *tls.Config // what the listener has, as long as it wants the same
	now    atomic.Pointer[tls.Config]

	certs   []*Certificate // that now has
	clients *Authorities   // that now has; nil: none
	keys    [][32]byte     // for tickets, the newest first
	rotated time.Time      // when the newest was made
}

func newServer(want Server) *server {
	s := &server{want: want}
	s.config = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.now.Load(), nil },
	}
	return s
}

// refresh takes up what the files of a set say now.
func (s *server) refresh(set *Set, now time.Time) {
	certs := make([]*Certificate, len(s.want.Pairs))
	for i, p := range s.want.Pairs {
		certs[i] = set.pairs[p].Now()
	}
	var clients *Authorities
	if s.want.ClientCA != "" {
		clients = set.authorities[s.want.ClientCA].Now()
	}
	if slices.Equal(certs, s.certs) && clients == s.clients {
		return
	}
	// A ticket stands for a client certificate that was verified: none may outlive the
	// authority that it was verified by.
	if s.keys == nil || clients != nil && (s.clients == nil || clients.sum != s.clients.sum) {
		s.keys, s.rotated = [][32]byte{newKey()}, now
	}
	s.certs, s.clients = certs, clients
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, CipherSuites: Suites(), NextProtos: s.want.ALPN,
		GetCertificate: choose(certs),
	}
	if clients != nil {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool
	}
	c.SetSessionTicketKeys(s.keys)
	s.now.Store(c)
}

// rotate makes a new key for tickets when the newest is old enough.
func (s *server) rotate(now time.Time) {
	if now.Sub(s.rotated) < ticketLife {
		return
	}
	keys := append([][32]byte{newKey()}, s.keys...)
	s.keys, s.rotated = keys[:min(len(keys), ticketKeys)], now
	s.now.Load().SetSessionTicketKeys(s.keys)
}

func newKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}

// choose makes a tls.Config.GetCertificate: of the certificates for the name that a
// client asks for, the first that the client can verify. One that is for exactly this
// name comes before one with a wildcard. Without such a certificate the first decides.
func choose(certs []*Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	byName := map[string][]*tls.Certificate{}
	for _, c := range certs {
		for _, name := range c.Names {
			byName[name] = append(byName[name], &c.TLS)
		}
	}
	others := byName[certs[0].Names[0]] // the first, and those that are for the same name
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
		list := byName[name]
		if len(list) == 0 {
			if _, domain, ok := strings.Cut(name, "."); ok {
				list = byName["*."+domain]
			}
		}
		if len(list) == 0 || name == "" {
			list = others
		}
		if len(list) == 1 {
			return list[0], nil
		}
		able := *hello
		able.ServerName = "" // it has decided already
		for _, c := range list {
			if able.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
		return list[0], nil
	}
}
