package core

import (
	"bytes"
	"strings"
)

// In SMTP (RFC 5321, RFC 3207) the server speaks first and clients ask for TLS by STARTTLS.
// The admission is the server until then, and a client of the host afterwards. Nothing
// that the client says in plain reaches a host.

// Bounds of what is said in plain, in bytes. RFC 5321, 4.5.3.1, has lines of 512.
const (
	maxLine     = 512
	maxCommands = 10      // of a client
	maxReply    = 4 << 10 // of a host, all lines together
)

// What the admission says to clients, and to hosts.
const (
	smtpBanner   = "220 txlb ESMTP\r\n"
	smtpHello    = "250 txlb\r\n"
	smtpExtended = "250-txlb\r\n250 STARTTLS\r\n"
	smtpOK       = "250 2.0.0 Ok\r\n"
	smtpReady    = "220 2.0.0 Ready to start TLS\r\n"
	smtpTLSFirst = "530 5.7.0 Must issue a STARTTLS command first\r\n"
	smtpNoParams = "501 5.5.4 STARTTLS takes no parameters\r\n"
	smtpBye      = "221 2.0.0 Bye\r\n"
	smtpTooLong  = "500 5.5.2 Line too long\r\n"
	smtpTooMany  = "421 4.7.0 Too many commands before STARTTLS\r\n"
	smtpLate     = "421 4.4.2 No STARTTLS in time\r\n"
	smtpBehind   = "503 5.5.1 Nothing may follow STARTTLS before its reply\r\n"

	smtpEHLO     = "EHLO txlb\r\n"
	smtpSTARTTLS = "STARTTLS\r\n"
)

// tlsRecord is the first byte of a ClientHello's record.
const tlsRecord = 22

// smtpStage is the reply that a session waits for from its host.
type smtpStage uint8

const (
	smtpGreeting   smtpStage = iota // the banner
	smtpExtensions                  // to EHLO
	smtpStarts                      // to STARTTLS
)

// command takes in what a client says before STARTTLS, a line at a time.
func (a *Admission) command(now int64, b []byte, ended bool) (take int, step Step) {
	end := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
	switch {
	case end >= 0:
	case len(b) >= maxLine:
		return 0, a.refuseSMTP(smtpTooLong)
	case ended:
		return 0, a.refuseSMTP("")
	default:
		return 0, a.hearSMTP("", len(b)+1)
	}
	take = end + 1
	if a.attempt.commands++; a.attempt.commands > maxCommands {
		return take, a.refuseSMTP(smtpTooMany)
	}
	line := bytes.TrimRight(b[:end], " \t\r")
	verb, params, _ := bytes.Cut(line, []byte(" "))
	switch {
	case !is(verb, "STARTTLS"):
		reply := smtpReply(verb)
		if reply == smtpBye {
			return take, a.refuseSMTP(reply)
		}
		return take, a.hearSMTP(reply, 1)
	case len(params) > 0:
		return take, a.hearSMTP(smtpNoParams, 1)
	case len(b) > take:
		// It has not waited for the reply. The host would take that as said under TLS.
		return take, a.refuseSMTP(smtpBehind)
	}
	a.attempt.startTLS, a.attempt.since = smtpPromised, now
	step = a.awaitPromised(now)
	step.Say = smtpReady
	return take, step
}

// smtpReply is the answer to a command other than STARTTLS.
func smtpReply(verb []byte) string {
	switch {
	case is(verb, "EHLO"):
		return smtpExtended
	case is(verb, "HELO"):
		return smtpHello
	case is(verb, "NOOP"), is(verb, "RSET"):
		return smtpOK
	case is(verb, "QUIT"):
		return smtpBye
	}
	return smtpTLSFirst
}

// is tells whether a word is a keyword, whose letters may be small.
func is(word []byte, keyword string) bool {
	return len(word) == len(keyword) && strings.EqualFold(string(word), keyword)
}

// hearSMTP answers a client and waits for its next command.
func (a *Admission) hearSMTP(say string, need int) Step {
	step := a.awaitHello(need)
	step.Say, step.Most = say, max(maxLine, need)
	return step
}

// refuseSMTP rejects a client that has not come to TLS.
func (a *Admission) refuseSMTP(say string) Step {
	step := a.refuse(notAsked)
	step.Say = say
	return step
}

// smtpHostSaid is HostSaid for SMTP. Hosts wait for commands, so nothing comes behind a
// reply. Behind the last it would be taken for a part of TLS.
func (a *Admission) smtpHostSaid(now int64, b []byte, ended bool) (take int, step Step) {
	size, found, state := parseReply(b)
	if state == replyShort {
		return 0, a.hostSaidNothing(now, ended)
	}
	wanted := "220"
	if a.attempt.pledge == smtpExtensions {
		wanted = "250"
	}
	switch {
	case state != replyWhole, size != len(b), string(b[:3]) != wanted:
		return 0, a.hostDisagrees(now)
	case a.attempt.pledge == smtpGreeting:
		step.Say = smtpEHLO
	case a.attempt.pledge == smtpExtensions && !found:
		return 0, a.hostDisagrees(now)
	case a.attempt.pledge == smtpExtensions:
		step.Say = smtpSTARTTLS
	default:
		return size, a.agreed(now)
	}
	a.attempt.pledge++
	step.Do, step.Until = Pledge, a.connectLimit(a.Svc.Route.Load())
	return size, step
}

// replyState tells whether bytes are a reply.
type replyState uint8

const (
	replyShort     replyState = iota // more has to come
	replyWhole                       // it is there
	replyMalformed                   // it is none, or too long
)

// parseReply reads a reply: lines of three digits, which are the same in all, and "-" in
// all but the last. startTLS tells whether a line is that keyword alone.
func parseReply(b []byte) (size int, startTLS bool, state replyState) {
	for {
		line := b[size:]
		end := bytes.IndexByte(line[:min(len(line), maxLine)], '\n')
		switch {
		case end < 0 && (len(line) >= maxLine || len(b) > maxReply), size+end >= maxReply:
			return 0, false, replyMalformed
		case end < 0:
			return 0, false, replyShort
		}
		text := bytes.TrimRight(line[:end], " \t\r")
		if len(text) < 3 || !digits(text[:3]) || string(text[:3]) != string(b[:3]) || len(text) > 3 && text[3] != ' ' && text[3] != '-' {
			return 0, false, replyMalformed
		}
		size += end + 1
		if len(text) > 4 && is(text[4:], "STARTTLS") {
			startTLS = true
		}
		if len(text) == 3 || text[3] == ' ' {
			return size, startTLS, replyWhole
		}
	}
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
