package core

import (
	"sync/atomic"
	"syscall"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/connect"
	"github.com/txlb/txlb/internal/proxyproto"
)

// Termination tells how a session ended, in HAProxy's two letters: who ended
// it, and what it was doing (see "Session state at disconnection" in HAProxy's
// manual, and semantics).
type Termination uint8

const (
	Normal           Termination = iota // --: both sides ended
	ClientAborted                       // CD: the client reset the connection
	ServerAborted                       // SD: the backend reset it
	ClientTimeout                       // cD: idle, or half closed and the client silent
	ServerTimeout                       // sD: half closed and the backend silent
	ClientGone                          // CC: the client reset it while a backend was connected
	noServer                            // SC: no host answered
	connectTime                         // sC: the last host did not answer in time, or the time for all connects ran out
	noResource                          // RC: no descriptor, memory or local port
	Killed                              // KD: closed by an operator or at the end of a drain
	killedConnecting                    // KC: likewise, while it waited for a host
	killedUnheard                       // KR: likewise, before its PROXY header or ClientHello was whole, or its TLS handshake done
	denied                              // PR: its PROXY header was malformed or must not come from there, its TLS handshake failed, or an access rule or a limit rejects it
	helloEnded                          // CR: the client ended before its PROXY header or ClientHello was whole, or its TLS handshake done
	helloTimeout                        // cR: the header was not whole, or the handshake not done in time
	queueTimeout                        // sQ: no host had room in time
	queueLeft                           // CQ: the client reset the connection while it waited for that
	queueKilled                         // KQ: closed by an operator or at the end of a drain, while it waited for that
	hostDown                            // DD: its host was marked down, and the group wants its sessions ended then
	backupUnused                        // UD: it was on a backup host, and another host is up again
	Aged                                // PD: it has reached the greatest age of sessions
	Given                               // LR: the program itself has taken the client
	terminations
)

// String gives the two letters.
func (t Termination) String() string {
	return [terminations]string{"--", "CD", "SD", "cD", "sD", "CC", "SC", "sC", "RC", "KD", "KC", "KR", "PR", "CR", "cR", "sQ", "CQ", "KQ", "DD", "UD", "PD", "LR"}[t]
}

// TerminationOf is how a session ends that is ended for a reason.
func TerminationOf(why engine.Ending) Termination {
	return [...]Termination{Killed, hostDown, backupUnused}[why]
}

// Refusal tells why a client was closed without a host.
type Refusal uint8

const (
	noGroup         Refusal = iota // the service has no enabled group
	noHost                         // no host was left to try
	OutOfResource                  // no descriptor, memory or local port
	outOfTime                      // the time for all connects ran out
	allFull                        // every host had as many sessions as it may, for too long
	allDown                        // no host was up, for too long (allDown="hold")
	holdFull                       // its group holds its clients, and as many as may wait did
	AccessDenied                   // by an access rule
	noTLS                          // the host does not agree to TLS, which the client has been promised
	notAsked                       // the client does not ask for TLS as it should, and no host can have it without
	limitSessions                  // the service has as many sessions as it may
	limitRate                      // as many have begun in the last second as may
	limitClient                    // the client has as many sessions as it may
	limitClientRate                // as many of the client have begun in the last second as may
	clientsFull                    // more clients have sessions than can be counted
	noSource                       // its address cannot be the source of a connection to a host
	tlsPlain                       // its TLS should end here, and it does not speak TLS
	tlsVersion                     // it speaks no version of TLS that we do
	tlsCertificate                 // it has no certificate as it should
	tlsAlert                       // it has broken off the handshake: it does not trust our certificate, for one
	tlsFailed                      // the handshake failed otherwise
	tlsLate                        // the handshake was not done in time
	tlsEnd                         // the client ended before it was done
	proxySource                    // a PROXY header is required, and this client's does not count
	proxyTimeout                   // the header was not whole in time
	proxyEnd                       // the client ended before it was whole
	proxyMalformed                 // the first of the reasons why it is malformed, in the order of package proxyproto

	refusals = proxyMalformed + Refusal(proxyproto.NumStates-proxyproto.BadSignature)
)

// malformed is the reason for a header that is.
func malformed(s proxyproto.State) Refusal {
	return proxyMalformed + Refusal(s-proxyproto.BadSignature)
}

// String names the reason in metrics and logs.
func (r Refusal) String() string {
	return [refusals]string{
		"no_group", "no_host", "resource", "timeout", "queue", "hold_timeout", "hold_full", "access", "starttls", "starttls_client",
		"limit_sessions", "limit_rate", "limit_client", "limit_client_rate", "clients_full", "source",
		"tls_plain", "tls_version", "tls_certificate", "tls_alert", "tls_protocol", "tls_timeout", "tls_end", "proxy_source", "proxy_timeout", "proxy_end",
		"proxy_signature", "proxy_version", "proxy_family", "proxy_address", "proxy_length", "proxy_tlv", "proxy_checksum",
	}[r]
}

// Termination is how a session ends that was refused.
func (r Refusal) Termination() Termination {
	if r.OfHeader() {
		switch r {
		case proxyTimeout:
			return helloTimeout
		case proxyEnd:
			return helloEnded
		}
		return denied
	}
	return [proxySource]Termination{
		noServer, noServer, noResource, connectTime, queueTimeout, queueTimeout, queueTimeout, denied, noServer, denied, denied, denied, denied, denied, denied, noResource,
		denied, denied, denied, denied, denied, helloTimeout, helloEnded,
	}[r]
}

// OfLimits tells whether a limit of the service or the client is the reason.
func (r Refusal) OfLimits() bool { return r >= limitSessions && r <= clientsFull }

// OfTLS tells whether the handshake of a client whose TLS should end here is the reason.
func (r Refusal) OfTLS() bool { return r >= tlsPlain && r <= tlsEnd }

// Resets tells whether the client is reset: that costs least, and says most.
func (r Refusal) Resets() bool { return r == AccessDenied || r == noTLS || r.OfLimits() }

// OfHeader tells whether the PROXY header is the reason.
func (r Refusal) OfHeader() bool { return r >= proxySource }

// connectFailure groups what connect(2) can answer.
type connectFailure uint8

const (
	refused connectFailure = iota
	timedOut
	unreachable
	dropped   // reset after the connect, before the first byte
	local     // the fault is on our side: it says nothing about the backend
	forbidden // by the mode of a UNIX socket, a packet filter or a security module
	noHostTLS // the connect succeeded, and the TLS handshake failed
	other
	connectFailures
)

// String names the reason in metrics.
func (c connectFailure) String() string {
	return [connectFailures]string{"refused", "timeout", "unreachable", "dropped", "local", "forbidden", "tls", "other"}[c]
}

// classify returns the kind of a failed connect by its errno.
func classify(errno syscall.Errno) connectFailure {
	if connect.Ours(errno) {
		return local
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ENOENT:
		return refused
	case syscall.ETIMEDOUT:
		return timedOut
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN:
		return unreachable
	case syscall.EACCES, syscall.EPERM:
		return forbidden
	}
	return other
}

// Counters are one loop's counts of one service. The loop writes them, any
// goroutine may read them; the padding gives each loop's copy its own cache line.
type Counters struct {
	active       atomic.Int64
	sessions     atomic.Uint64
	In, Out      atomic.Uint64
	redispatches atomic.Uint64
	proxied      atomic.Uint64 // PROXY headers taken in
	Multipath    atomic.Uint64 // clients that used MPTCP
	refused      [refusals]atomic.Uint64
	failed       [connectFailures]atomic.Uint64
	ended        [terminations]atomic.Uint64

	handshakes, hostHandshakes handshakes // with clients, with hosts
	_                          [64]byte
}

// handshakes counts those of TLS that did not fail.
type handshakes struct{ full, resumed atomic.Uint64 }

func (h *handshakes) count(resumed bool) {
	if resumed {
		h.resumed.Add(1)
	} else {
		h.full.Add(1)
	}
}

// Short counts that a session had no descriptor, as a connect without one.
func (c *Counters) Short() { c.failed[local].Add(1) }

// addTo adds the counts to a service's sum.
func (c *Counters) addTo(s *engine.ServiceStats, why *reasons) {
	s.Active += c.active.Load()
	s.Sessions += c.sessions.Load()
	s.In += c.In.Load()
	s.Out += c.Out.Load()
	s.Redispatches += c.redispatches.Load()
	s.ProxyHeaders += c.proxied.Load()
	s.MPTCP += c.Multipath.Load()
	s.TLS.Full += c.handshakes.full.Load()
	s.TLS.Resumed += c.handshakes.resumed.Load()
	s.TLS.HostFull += c.hostHandshakes.full.Load()
	s.TLS.HostResumed += c.hostHandshakes.resumed.Load()
	for i := range c.refused {
		why.refused[i] += c.refused[i].Load()
	}
	for i := range c.failed {
		why.failed[i] += c.failed[i].Load()
	}
	for i := range c.ended {
		why.ended[i] += c.ended[i].Load()
	}
}

// reasons are the counts of a service by reason.
type reasons struct {
	proxies bool // a listener asks for PROXY headers, or has
	limits  bool // there are some
	tls     bool // that of clients ends here, or has
	refused [refusals]uint64
	failed  [connectFailures]uint64
	ended   [terminations]uint64
}

// told is reasons in words. The maps are shared by all who ask until a count moves: of
// very many services, most are idle when somebody looks.
type told struct {
	reasons
	refused, failed, ended map[string]uint64
}

// tell puts reasons into words. Those of PROXY headers that were not right are left out
// where none are asked for, and those of TLS, limits, STARTTLS and fallbacks where there were none:
// they would be most of the service's metrics.
func (r *reasons) tell() *told {
	t := &told{reasons: *r, refused: map[string]uint64{}, failed: map[string]uint64{}, ended: map[string]uint64{}}
	for i, n := range r.refused {
		switch why := Refusal(i); {
		case why.OfHeader() && !r.proxies:
		case why.OfLimits() && !r.limits && n == 0:
		case why.OfTLS() && !r.tls && n == 0:
		case (why == notAsked || why == allDown || why == holdFull) && n == 0:
		default:
			t.refused[why.String()] = n
		}
	}
	for i, n := range r.failed {
		if why := connectFailure(i); why != noHostTLS || n > 0 {
			t.failed[why.String()] = n
		}
	}
	for i, n := range r.ended {
		if how := Termination(i); how != Given || n > 0 { // most programs take none
			t.ended[how.String()] = n
		}
	}
	return t
}
