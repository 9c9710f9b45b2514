package engine

import "slices"

// Termination is one way in which a session ends.
type Termination struct {
	Code    string // HAProxy's two letters: who ended it, and what it was doing
	Meaning string // a sentence for operators, which begins after "The session": a verb and what follows
	Advice  string // what to look at; "": nothing is wrong
}

// Terminations returns all ways in which a session ends, each once. It is the one place
// that says what the codes mean.
func Terminations() []Termination { return slices.Clone(terminations) }

// TerminationOf returns what a code means.
func TerminationOf(code string) (t Termination, known bool) {
	i := slices.IndexFunc(terminations, func(t Termination) bool { return t.Code == code })
	if i < 0 {
		return Termination{Code: code}, false
	}
	return terminations[i], true
}

var terminations = []Termination{
	{"--", "ended normally: both sides closed it", ""},
	{"CD", "ended because the client reset the connection while data moved", "Clients that give up reset connections. If they are many, look at how long the host takes to answer."},
	{"SD", "ended because the host reset the connection while data moved", "Look at the log of the host: its program may have crashed, restarted, or refused the request."},
	{"cD", "ended by a timeout: no byte came from either side for the time of `idle`, or the host had closed its side and the client said nothing for the time of `halfClosed`", "If the session should have lived, raise <timeouts idle> or let the application send keep-alives."},
	{"sD", "ended by a timeout: the client had closed its side, and the host said nothing for the time of `halfClosed`", "Look at why the host is silent, or raise <timeouts halfClosed>."},
	{"CC", "ended because the client reset the connection while a host was being connected", "The client did not want to wait. Look at the connect times of the hosts."},
	{"SC", "was rejected: no host accepted the connection", "Look at `txlb ctl show hosts`: all hosts are down or refuse connections."},
	{"sC", "was rejected: no host answered in time", "Look at the network to the hosts, and at <timeouts connect> and <timeouts total>."},
	{"RC", "was rejected: the machine had no descriptor, memory or local port left to connect with", "Raise LimitNOFILE, or look at the local ports (ip_local_port_range)."},
	{"KD", "was ended by an operator, or at the end of a drain", ""},
	{"KC", "was ended by an operator, or at the end of a drain, while it waited for a host", ""},
	{"DD", "was ended because its host was marked down", "The group has `onMarkedDown=\"shutdown\"`. Look at `txlb ctl show events` for why the host went down."},
	{"UD", "was ended on a backup host, because a host that is none came back up", "The group has `onMarkedUp=\"shutdown\"`."},
	{"PD", "was ended because it was as old as `maxAge` allows", "If the session should have lived, raise <timeouts maxAge>."},
	{"KR", "was ended by an operator, or at the end of a drain, before its PROXY header or ClientHello had come, or its TLS handshake was done", ""},
	{"sQ", "was rejected: every host had as many sessions as it may, or was down with `allDown=\"hold\"`, for the time of `queue`; or its group was held, and as many clients waited as may", "Add hosts, or raise <host maxSessions> or <timeouts queue>. Look at how long sessions last, and whether hosts are down. Lines in JSON, and the command status, have the reason."},
	{"CQ", "ended because the client reset the connection while it waited for a host to have room, or for its held group to be released", "The client did not want to wait. Add hosts, raise <host maxSessions>, or release the group earlier."},
	{"KQ", "was ended by an operator, or at the end of a drain, while it waited for a host to have room, or for its held group to be released", ""},
	{"PR", "was rejected before a host was chosen: by an access rule, by a limit, for its PROXY header, or because its TLS handshake failed", "Look at <access>, <limits>, and what stands before this listener: it must send a right PROXY header. Lines in JSON, and the command status, have the reason."},
	{"CR", "ended because the client left before its PROXY header or ClientHello was whole, or its TLS handshake done", "Health checks and port scans do this. Else look at the proxy in front."},
	{"cR", "was rejected: its PROXY header was not whole, or its TLS handshake not done in time", "Clients without a proxy in front send no PROXY header: look at <listen proxyProtocol>. For a TLS handshake that takes long, raise <timeouts hello>."},
	{"LR", "was given to the program that the balancer is part of, not to a host", ""},
}
