package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// diagnoseWithin bounds a look at why the store does not answer.
const diagnoseWithin = time.Second

// Diagnose says what each member answers to a connection, since the client of etcd keeps that for
// itself: it says only that time is over. It takes a second at most.
func (s *store) Diagnose(ctx context.Context) string { return diagnose(ctx, s.members, s.secure) }

func diagnose(ctx context.Context, members []string, secure *tls.Config) string {
	ctx, cancel := context.WithTimeout(ctx, diagnoseWithin)
	defer cancel()
	texts := make([]string, len(members))
	var asking sync.WaitGroup
	for i, member := range members {
		asking.Go(func() { texts[i] = member + ": " + ask(ctx, member, secure) })
	}
	asking.Wait()
	return strings.Join(texts, ", ")
}

// ask says what a member answers to the beginning of HTTP/2, which etcd speaks.
func ask(ctx context.Context, member string, secure *tls.Config) string {
	to, err := url.Parse(member)
	if err != nil {
		return err.Error()
	}
	addr := to.Host
	if to.Port() == "" { // as the client has it
		addr = net.JoinHostPort(to.Hostname(), "443")
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return short(err)
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if secure != nil {
		own := secure.Clone()
		own.NextProtos = []string{"h2", "http/1.1"} // the second for what is not etcd
		if own.ServerName == "" {
			own.ServerName = to.Hostname()
		}
		t := tls.Client(c, own)
		switch err := t.HandshakeContext(ctx); {
		case err == nil:
			c = t
		case errors.As(err, new(tls.RecordHeaderError)), gone(err):
			return "it does not speak TLS (if it is an etcd without TLS, write http://)"
		default:
			return short(err)
		}
	}
	// The preface, and SETTINGS without any: RFC 9113, 3.4 and 6.5.
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
		return short(err)
	}
	frame := make([]byte, 9)
	n, err := io.ReadFull(c, frame)
	switch {
	case err == nil && frame[3] == 4: // SETTINGS
		return "it answers, but not what it is asked (has it a quorum?)"
	case secure == nil && n > 0 && frame[0] == 21: // an alert
		return "it speaks TLS (write https://)"
	case n > 0:
		return "it is not an etcd"
	case gone(err) && secure == nil:
		return "it closes the connection: it is not an etcd, or it speaks TLS (then write https://)"
	case gone(err):
		return "it closes the connection: it is not an etcd, or it refuses this node's certificate"
	}
	return short(err)
}

// gone tells whether the other side has closed a connection.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// short is an error without the addresses, which the reader has anyway.
func short(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return dns.Err
	}
	if number := syscall.Errno(0); errors.As(err, &number) {
		return number.Error()
	}
	return err.Error()
}
