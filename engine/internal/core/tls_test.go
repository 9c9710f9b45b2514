package core

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// tlsDesk has a service with hosts that are answered for by the test.
func tlsDesk(t *testing.T, route engine.Route, hosts ...*sched.Host) (*Service, *Gate, *[]engine.Failure) {
	t.Helper()
	var members []sched.Member
	for _, h := range hosts {
		members = append(members, sched.Member{Host: h, Weight: 1})
	}
	table, err := sched.NewTable(sched.Policy{Scheduler: "roundr"}, members)
	if err != nil {
		t.Fatal(err)
	}
	route.Table = table
	route.Timeouts = engine.Timeouts{Hello: time.Second, Connect: time.Second, Total: time.Minute}
	svc := newService("web", 1)
	svc.Route.Store(&route)
	var failures []engine.Failure
	return svc, &Gate{TLS: true, Report: func(f engine.Failure) { failures = append(failures, f) }}, &failures
}

func tlsHost(name string, config *tls.Config) *sched.Host {
	h := sched.NewHost(name, sched.UnixAddr("/nowhere/"+name))
	h.SetTLS(config)
	return h
}

// The protocol that a client has agreed on is offered to the host, unless its own
// configuration says which ones are.
func TestB95ProtocolIsPassedOn(t *testing.T) {
	for _, own := range []string{"", "own"} {
		config := &tls.Config{ServerName: "h"}
		if own != "" {
			config.NextProtos = []string{own}
		}
		svc, gate, _ := tlsDesk(t, engine.Route{}, tlsHost("a", config))
		var a Admission
		a.Begin(gate, newEntry(svc, engine.ListenOptions{TLS: deskTLS}), new(Attempt), sched.Addr{}, 1)
		if step := a.Next(1); step.Do != Handshake || step.Until != 1+int64(time.Second) {
			t.Fatalf("%+v", step)
		}
		a.Shook(2, tls.ConnectionState{NegotiatedProtocol: "h2"}, nil)
		step := a.Answered(2, 0)
		want := own
		if own == "" {
			want = "h2"
		}
		if step.Do != Secure || !step.First || len(step.TLS.NextProtos) != 1 || step.TLS.NextProtos[0] != want || len(config.NextProtos) != len(own)/3 {
			t.Errorf("%+v, %q", step, step.TLS.NextProtos)
		}
		a.End(3, Normal, Last{})
	}
}

// A handshake that takes too long is a timeout of the host, like a connect, and its report
// says what it was.
func TestB95LateHandshakeOfAHost(t *testing.T) {
	h := tlsHost("a", new(tls.Config))
	svc, gate, failures := tlsDesk(t, engine.Route{}, h)
	var a Admission
	a.Begin(gate, newEntry(svc, engine.ListenOptions{}), new(Attempt), sched.Addr{}, 1)
	a.Next(1)
	step := a.Answered(2, 0)
	if step.Do != Secure || step.Until != 1+int64(time.Second) {
		t.Fatalf("%+v", step)
	}
	if early := a.Deadline(step.Until - 1); early.Do != Wait || early.Until != step.Until {
		t.Errorf("too early: %+v", early)
	}
	if late := a.Deadline(step.Until); late.Do != Retry {
		t.Errorf("too late: %+v", late)
	}
	if len(*failures) != 1 || !strings.HasPrefix((*failures)[0].Err.Error(), "TLS with unix:/nowhere/a: ") || a.Count().failed[timedOut].Load() != 1 {
		t.Errorf("reported: %+v", *failures)
	}
	if step := a.Next(step.Until); step.Do != Refuse || step.Why != noHost {
		t.Errorf("%+v", step)
	}
	a.End(2, noHost.Termination(), Last{})
	if n := a.Count().ended[connectTime].Load(); n != 1 {
		t.Error("it does not end as a connect that was too late")
	}
}

// Reasons of handshakes that fail, and how such sessions end.
func TestB95ReasonsOfHandshakes(t *testing.T) {
	for _, c := range []struct {
		err  error
		why  Refusal
		ends string
	}{
		{io.EOF, tlsEnd, "CR"},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), tlsEnd, "CR"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, tlsEnd, "CR"},
		{tls.RecordHeaderError{Msg: "no", Conn: new(net.TCPConn)}, tlsPlain, "PR"},
		{tls.RecordHeaderError{Msg: "oversized"}, tlsFailed, "PR"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, tlsAlert, "PR"},
		{&tls.CertificateVerificationError{Err: errors.New("no")}, tlsCertificate, "PR"},
		{errors.New("tls: client didn't provide a certificate"), tlsCertificate, "PR"},
		{errors.New("tls: client offered only unsupported versions: [302]"), tlsVersion, "PR"},
		{errors.New("anything else"), tlsFailed, "PR"},
	} {
		if why := whyNotShaken(c.err); why != c.why || why.Termination().String() != c.ends || !why.OfTLS() || why.OfHeader() || why.OfLimits() || why.Resets() {
			t.Errorf("%v: %v, ends %v", c.err, why, why.Termination())
		}
	}
	for why := range refusals {
		if why.OfTLS() != strings.HasPrefix(why.String(), "tls_") {
			t.Errorf("%v", why)
		}
	}
	if tlsLate.Termination().String() != "cR" {
		t.Errorf("too late: %v", tlsLate.Termination())
	}
}

// A service without TLS has no counters of it, and one that had keeps them.
func TestTLSReasonsAreThereOnce(t *testing.T) {
	svc := newService("web", 1)
	if _, there := svc.stats().Refused["tls_timeout"]; there {
		t.Error("a service without TLS counts handshakes")
	}
	newEntry(svc, engine.ListenOptions{TLS: deskTLS})
	if _, there := svc.stats().Refused["tls_timeout"]; !there {
		t.Error("a service with TLS does not count handshakes")
	}
}
