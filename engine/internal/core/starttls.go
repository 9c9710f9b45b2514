package core

// Where a client asks for TLS in the words of its protocol first, its ClientHello comes
// only after an answer. With StartTLS, the admission answers in the place of the host, and
// asks the host in the same words once there is one. Both have then agreed on TLS, and the
// rest is theirs.
//
// SMTP is in smtp.go.
//
// PostgreSQL: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL

// The requests of PostgreSQL that come instead of a start: a length and a code.
const (
	postgresRequest = 8
	sslRequest      = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	gssRequest      = "\x00\x00\x00\x08\x04\xd2\x16\x30"
	postgresYes     = "S"
	postgresNo      = "N"

	// An ErrorResponse, for a client that has to ask for TLS and does not.
	postgresTLSFirst = "E\x00\x00\x00\x46SFATAL\x00VFATAL\x00C28000\x00Mthis server requires TLS (sslmode=require)\x00\x00"
)

// startTLS is how far a client has come in the words of its protocol.
type startTLS uint8

const (
	plainTLS      startTLS = iota // its protocol has no such words, or it has not used them
	postgres                      // it may ask for TLS
	postgresAgain                 // it may, and has been told that there is no GSSAPI encryption
	promised                      // it has been told that there is TLS: the host has to say so, too
	smtp                          // it has to ask for TLS
	smtpPromised                  // as promised
)

// isPromise tells whether the client has been promised TLS.
func (s startTLS) isPromise() bool { return s == promised || s == smtpPromised }

// asksForTLS takes in the beginning of a stream that may ask for TLS. ok is false if the words
// are over: what has come is for the hello, or for the host.
func (a *Admission) asksForTLS(now int64, b []byte, ended bool) (take int, step Step, ok bool) {
	t := &a.attempt.startTLS
	if *t != postgres && *t != postgresAgain || len(b) > 0 && b[0] != 0 {
		return 0, Step{}, false
	}
	if len(b) < postgresRequest {
		if ended {
			return 0, Step{}, false
		}
		return 0, a.awaitHello(postgresRequest), true
	}
	switch string(b[:postgresRequest]) {
	case sslRequest:
		if a.awaitsTLS() && len(b) > postgresRequest {
			// It has not waited for the answer. What is behind came without TLS.
			return 0, a.refuse(notAsked), true
		}
		*t = promised
		step = a.awaitPromised(now)
		step.Say = postgresYes
		return postgresRequest, step, true
	case gssRequest:
		if *t == postgres { // once
			*t = postgresAgain
			step = a.awaitHello(1)
			step.Say = postgresNo
			return postgresRequest, step, true
		}
	}
	return 0, Step{}, false
}

// Pledged tells whether the session's host, which has answered the connect, is asked for
// TLS before bytes move. It has then had its PROXY header.
func (a *Admission) Pledged() bool {
	return a.attempt != nil && (a.asksHost() || a.attempt.secure != nil)
}

// Pledges tells whether the session waits for what its host says about TLS.
func (a *Admission) Pledges() bool { return a.state == pledging }

// pledge asks the host for the TLS that the client has been promised.
func (a *Admission) pledge() Step {
	a.state = pledging
	step := Step{Do: Pledge, Say: sslRequest, First: true, Until: a.connectLimit(a.Svc.Route.Load())}
	if a.attempt.startTLS == smtpPromised {
		a.attempt.pledge, step.Say = smtpGreeting, "" // the host speaks first
	}
	return step
}

// HostListens is how many bytes of what the host has said HostSaid has to see at most.
func (a *Admission) HostListens() int {
	if a.attempt.startTLS == smtpPromised {
		return maxReply + 1
	}
	return len(postgresYes)
}

// HostSaid takes in what the host has said about TLS: the first bytes, as many as
// HostListens says, or fewer if no more have come. ended says that no more will come. The
// first take bytes have to be off its stream before the step is carried out.
func (a *Admission) HostSaid(now int64, b []byte, ended bool) (take int, step Step) {
	switch {
	case a.state != pledging:
		return 0, Step{}
	case a.attempt.startTLS == smtpPromised:
		return a.smtpHostSaid(now, b, ended)
	case len(b) == 0:
		return 0, a.hostSaidNothing(now, ended)
	case string(b[:1]) != postgresYes:
		return 0, a.hostDisagrees(now)
	}
	return 1, a.agreed(now)
}

// hostSaidNothing waits for the answer of the host. If it has gone, it did so before a byte
// of the client's was sent, so another host may be asked.
func (a *Admission) hostSaidNothing(now int64, ended bool) Step {
	if !ended {
		return a.awaited()
	}
	a.noteTry(now, dropped, nil)
	a.Count().failed[dropped].Add(1)
	a.attempt.heard = true
	a.leave()
	return Step{Do: Retry}
}
