package peers

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// Nodes with certificates prove which node they are: a certificate has to be for the host of
// the address that the node advertises, which the store says. Other certificates of the same
// authority are not nodes. A secret proves only that it is a node.

// files are those of a certificate and of the authority.
type files struct {
	cert, key, ca string

	mu   sync.Mutex
	last *loaded // that could be used
}

// loaded is what the files had.
type loaded struct {
	pair        tls.Certificate
	authorities *x509.CertPool
}

// load reads the files.
func (f *files) load() (*loaded, error) {
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("<fleet cert key>: %w", err)
	}
	text, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, fmt.Errorf("<fleet ca>: %w", err)
	}
	is := &loaded{pair, x509.NewCertPool()}
	if !is.authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("<fleet ca>: %s has no certificate in PEM", f.ca)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = is
	return is, nil
}

// inUse returns what the files have, or had last: a certificate and its key are replaced one
// after the other.
func (f *files) inUse() (*loaded, error) {
	is, err := f.load()
	if err == nil {
		return is, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last != nil {
		return f.last, nil
	}
	return nil, err
}

// stale tells what is wrong with the files while what they had last is in use; nil: that is what
// they have, or nothing is in use.
func (a *Auth) stale() error {
	if a.files == nil {
		return nil
	}
	_, err := a.files.load()
	a.files.mu.Lock()
	defer a.files.mu.Unlock()
	if a.files.last == nil {
		return nil
	}
	return err
}

// own tells what is wrong with the node's own certificate, as it is in use; nil: nothing, or there is none. addr
// is what it advertises.
func (a *Auth) own(addr string) error {
	if a.files == nil {
		return nil
	}
	is, err := a.files.inUse()
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(is.pair.Certificate[0])
	if err != nil {
		return fmt.Errorf("<fleet cert>: %w", err)
	}
	chain := []*x509.Certificate{leaf}
	for _, der := range is.pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := is.trusts(chain, use); err != nil {
			return fmt.Errorf("<fleet cert>: %s: %w; it has to be of the authority in ca, and for servers and clients", a.files.cert, err)
		}
	}
	if err := names(leaf, addr); err != nil {
		return fmt.Errorf("<fleet cert>: %s: %w", a.files.cert, err)
	}
	return nil
}

// trusts tells why a chain is not trusted now.
func (is *loaded) trusts(chain []*x509.Certificate, use x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: is.authorities, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

// still tells why a connection that is open would not be accepted any more: certificates end,
// and authorities are replaced. addr is what the other node advertises.
func (a *Auth) still(s *tls.ConnectionState, use x509.ExtKeyUsage, addr string) error {
	if a.files == nil {
		return nil
	}
	is, err := a.files.inUse()
	if err == nil {
		err = is.trusts(s.PeerCertificates, use)
	}
	if err != nil {
		return err
	}
	return names(s.PeerCertificates[0], addr)
}

// nameError is that a certificate is not the one of a node.
type nameError struct{ has, host string }

func (e *nameError) Error() string {
	return fmt.Sprintf("its certificate is for %s, and has to be for %s, which the node advertises", e.has, e.host)
}

// names tells why a certificate is not the one of the node that advertises an address.
func names(c *x509.Certificate, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if c.VerifyHostname(host) == nil {
		return nil
	}
	return &nameError{subjects(c), printable(host)}
}

// subjects are what a certificate is for.
func subjects(c *x509.Certificate) string {
	const most = 5
	var list []string
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	for _, name := range c.DNSNames {
		list = append(list, printable(name))
	}
	switch n := len(list); {
	case n == 0:
		return fmt.Sprintf("no address (its common name %q does not count)", printable(c.Subject.CommonName))
	case n > most:
		list = append(list[:most], fmt.Sprintf("%d more", n-most))
	}
	return strings.Join(list, ", ")
}

// refusal is the error of a connection in words about the node. addr is what that advertises.
func refusal(err error, addr string) error {
	if wrong := (x509.HostnameError{}); errors.As(err, &wrong) && wrong.Certificate != nil {
		if err := names(wrong.Certificate, addr); err != nil {
			return err
		}
	}
	if strings.Contains(err.Error(), "remote error: tls:") { // it does not say more
		return fmt.Errorf("it refuses this node: has it another secret or authority? Or has a certificate ended, or is it not for servers and clients? (%w)", err)
	}
	return err
}

// ownEvery is how often a node looks at its own certificate, ownAgain while something is wrong
// with it, and provesEvery at those of open streams.
const ownEvery, ownAgain, provesEvery = time.Minute, 10 * time.Second, 30 * time.Second

// watchOwn tells what is wrong with the node's own certificate, until ctx ends.
func (x *Exchange) watchOwn(stop <-chan struct{}) {
	again := time.NewTicker(ownEvery)
	defer again.Stop()
	for {
		x.lookAtOwn()
		if _, unfit, stale := x.Certificate(); unfit != nil || stale != nil {
			again.Reset(ownAgain)
		} else {
			again.Reset(ownEvery)
		}
		select {
		case <-stop:
			return
		case <-again.C:
		}
	}
}

// lookAtOwn notes what is wrong with the node's own certificate.
func (x *Exchange) lookAtOwn() {
	stale, err := x.opt.Auth.stale(), x.opt.Auth.own(x.opt.Advertise)
	x.mu.Lock()
	was, former := x.unfit, x.stale
	x.unfit, x.stale = err, stale
	if stale != nil && former == nil {
		x.staleSince = time.Now()
	}
	x.noteClosed()
	x.mu.Unlock()
	if stale != nil && (former == nil || former.Error() != stale.Error()) {
		x.opt.Log.Warn("the files of this node's certificate are not right, the former ones stay in use", "err", stale)
	}
	if stale == nil && former != nil {
		x.opt.Log.Info("the files of this node's certificate are right again")
	}
	if err != nil && (was == nil || was.Error() != err.Error()) {
		x.opt.Log.Error("other nodes refuse this one", "err", err)
	}
	if err == nil && was != nil {
		x.opt.Log.Info("the certificate of this node is right again")
	}
}
