package core

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/clienthello"
)

// Where a listener has TLS, the client's TLS ends here: its handshake comes behind the PROXY
// header, the access rules and the limits, so that a client that they reject costs no key
// exchange, and before the choice of the group, which the server name may decide. With
// StartTLS, the words of the protocol come before the handshake. A host with TLS makes
// its handshake behind its PROXY header, and in the same words, before it has the client.
//
// https://www.rfc-editor.org/rfc/rfc8446 and docs/design/tls.md

// clientTLS is the TLS of a client that ends here.
type clientTLS struct {
	config     *tls.Config
	shaken     bool // its handshake is over
	name, alpn []byte
}

// awaitsTLS tells whether the client's TLS ends here and its handshake has not been made.
func (a *Admission) awaitsTLS() bool { return a.attempt.tls != nil && !a.attempt.tls.shaken }

// asksFirst tells whether the client asks for TLS in the words of its protocol, or may.
func (s startTLS) asksFirst() bool { return s == postgres || s == postgresAgain || s == smtp }

// shake begins the client's handshake.
func (a *Admission) shake(now int64) Step {
	a.state, a.attempt.since = shaking, now
	return a.awaitShake()
}

// awaitShake waits for the client's handshake.
func (a *Admission) awaitShake() Step {
	return Step{Do: Handshake, Until: a.helloLimit(), TLS: a.attempt.tls.config}
}

// awaitPromised waits for the TLS that the client has been promised.
func (a *Admission) awaitPromised(now int64) Step {
	if a.awaitsTLS() {
		return a.shake(now)
	}
	return a.awaitHello(1)
}

// heardTLS takes in the beginning of a stream that may have asked for TLS, and has not.
func (a *Admission) heardTLS(now int64, b []byte) Step {
	switch {
	case len(b) == 0: // and it has ended
		return a.refuse(tlsEnd)
	case b[0] == tlsRecord:
		return a.shake(now)
	}
	step := a.refuse(notAsked)
	step.Say = postgresTLSFirst
	return step
}

// Shook reports that the client's handshake is over: what was agreed on, or why nothing
// was. The error of one that was broken off at its time is not reported: that is a Deadline.
func (a *Admission) Shook(now int64, agreed tls.ConnectionState, err error) Step {
	if a.state != shaking {
		return Step{}
	}
	if err != nil {
		return a.refuse(whyNotShaken(err))
	}
	a.Count().handshakes.count(agreed.DidResume)
	a.noteHeard(now, a.gate.free())
	t := a.attempt.tls
	t.shaken = true
	t.name = []byte(strings.ToLower(strings.TrimSuffix(agreed.ServerName, ".")))
	if p := agreed.NegotiatedProtocol; p != "" {
		t.alpn = append([]byte{byte(len(p))}, p...)
	}
	return a.choose(now, clienthello.Hello{Name: t.name, ALPN: t.alpn})
}

// whyNotShaken is the reason why a client's handshake has failed. Package tls tells most
// in words alone.
func whyNotShaken(err error) Refusal {
	var plain tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var remote *net.OpError
	is := func(words string) bool { return strings.Contains(err.Error(), words) }
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return tlsEnd
	case errors.As(err, &plain) && plain.Conn != nil:
		return tlsPlain
	case errors.As(err, &remote) && remote.Op == "remote error":
		return tlsAlert
	case errors.As(err, &certificate), is("client didn't provide a certificate"), is("client certificate"):
		return tlsCertificate
	case is("unsupported versions"):
		return tlsVersion
	}
	return tlsFailed
}

// asksHost tells whether the session's host is asked for TLS in the words of the client's
// protocol: if the client's own TLS goes to it, or ours.
func (a *Admission) asksHost() bool {
	t := a.attempt
	switch t.startTLS {
	case promised, smtpPromised:
		return t.tls == nil || t.secure != nil
	case postgres, postgresAgain:
		return t.secure != nil
	}
	return false
}

// reached goes on with a host that has answered the connect.
func (a *Admission) reached(now int64) Step {
	t := a.attempt
	t.secure = a.Host.TLS()
	if t.tls == nil && t.startTLS.isPromise() {
		t.secure = nil // the TLS of the host is the client's own
	}
	switch {
	case t.secure != nil && !a.gate.TLS:
		// It has TLS since this session began, and no byte may go to it without.
		return a.fail(now, syscall.ENOBUFS)
	case a.asksHost():
		return a.pledge()
	case t.secure != nil:
		return a.shakeHost(true)
	}
	return a.admit(now)
}

// forHost returns the TLS of the host for this session. The protocol that the client has
// agreed on with us is the one that the host gets, so the host has to agree on it, too.
func (a *Admission) forHost() *tls.Config {
	c := a.attempt.secure
	if t := a.attempt.tls; t != nil && len(t.alpn) > 0 && len(c.NextProtos) == 0 {
		c = c.Clone()
		c.NextProtos = []string{string(t.alpn[1:])}
	}
	return c
}

// agreed goes on with a host that has agreed to TLS in the words of the protocol.
func (a *Admission) agreed(now int64) Step {
	if a.attempt.secure != nil {
		return a.shakeHost(false)
	}
	return a.admit(now)
}

// shakeHost begins the handshake with the host.
func (a *Admission) shakeHost(first bool) Step {
	a.state = securing
	return Step{Do: Secure, Until: a.connectLimit(a.Svc.Route.Load()), TLS: a.forHost(), First: first}
}

// Secured reports that the handshake with the host is over. A failure is the host's, as
// one of a connect is. One that was broken off at its time is not reported: that is a
// Deadline.
func (a *Admission) Secured(now int64, resumed bool, err error) Step {
	if a.state != securing {
		return Step{}
	}
	if err != nil {
		return a.failTLS(now, err)
	}
	a.Count().hostHandshakes.count(resumed)
	return a.admit(now)
}

var errNoTLS = errors.New("it does not agree to TLS")

// failTLS is fail for a host with which there is no TLS.
func (a *Admission) failTLS(now int64, err error) Step {
	a.noteTry(now, noHostTLS, err)
	if a.blame(noHostTLS) {
		a.gate.Report(engine.Failure{Host: a.Host, Err: fmt.Errorf("TLS with %v: %w", a.Host.Addr(), err)})
	}
	a.leave()
	return Step{Do: Retry}
}

// hostDisagrees handles a host that does not agree to TLS in the words of the protocol. A
// client whose own TLS goes to the host cannot be told.
func (a *Admission) hostDisagrees(now int64) Step {
	if a.attempt.secure != nil {
		return a.failTLS(now, errNoTLS)
	}
	a.noteTry(now, noPledge, nil)
	return a.refuse(noTLS)
}
