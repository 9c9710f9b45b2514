package engine

import "slices"

// Rejection is one reason why clients get no host.
type Rejection struct {
	Reason  string // as in [ServiceStats].Refused
	Meaning string // a clause for operators; "they" are the clients, and "it" is the service
	Remedy  string // what helps; "": nothing has to be done here
}

// Rejections returns all reasons why clients get no host, each once. It is the one place that
// says what they mean.
func Rejections() []Rejection { return slices.Clone(rejections) }

// RejectionOf returns what a reason means. One that is not known means what it is called.
func RejectionOf(reason string) (r Rejection, known bool) {
	i := slices.IndexFunc(rejections, func(r Rejection) bool { return r.Reason == reason })
	if i < 0 {
		return Rejection{Reason: reason, Meaning: reason}, false
	}
	return rejections[i], true
}

const proxyRemedy = "switch the PROXY protocol on at the proxy (send-proxy, proxy_protocol on), or off at <listen>"

var rejections = []Rejection{
	{"no_group", "it has no group", ""},
	{"no_host", "no host answered", ""},
	{"resource", "no descriptor, memory or local port was free", "raise the limit of open files (LimitNOFILE) or net.ipv4.ip_local_port_range"},
	{"timeout", "the total connect timeout was reached", ""},
	{"queue", "every host had as many sessions as its maxSessions, for longer than <timeouts queue>", "add hosts, setHost maxSessions=N, or setService queue=DUR"},
	{"hold_timeout", "no host was up for longer than <timeouts queue> (allDown=\"hold\")", "look at why the hosts are down, or setService queue=DUR"},
	{"hold_full", "their group holds its clients, and as many as may wait did", "release the group, or hold it with a greater max=N"},
	{"limit_sessions", "it has as many sessions as <limits sessions> allows", "setService sessions=N, or close sessions"},
	{"limit_rate", "more came in a second than <limits rate> allows", "setService rate=N"},
	{"limit_client", "they have as many sessions as <limits perClient> allows", "if they are right, such as many people behind one address: setService perClient=N"},
	{"limit_client_rate", "they came more often than <limits perClientRate> allows", "if they are right: setService perClientRate=N"},
	{"clients_full", "more clients have sessions than can be counted", "setService sessions=N below 1048576, or perClient=0 perClientRate=0"},
	{"source", "their address cannot be the source of a connection to a host (source=\"client\")", "give the process CAP_NET_ADMIN, and the group hosts of the clients' address family"},
	{"starttls", "the host did not agree to TLS (<listen startTLS>)", "switch TLS on at the host (PostgreSQL: ssl = on; SMTP: STARTTLS)"},
	{"starttls_client", "they did not ask for TLS by STARTTLS, or not as they should", ""},
	{"tls_plain", "they do not speak TLS", ""},
	{"tls_version", "they speak no version of TLS from 1.2 on", ""},
	{"tls_certificate", "they have no certificate of an authority in clientCA", ""},
	{"tls_alert", "they broke off the TLS handshake: they may not trust the certificate", "look at whether the certificate is for the name that they ask for, whole with its chain, and still valid"},
	{"tls_protocol", "their TLS handshake failed", ""},
	{"tls_timeout", "their TLS handshake was not done within <timeouts hello>", "look at the load of the machine, or setService hello=DUR"},
	{"tls_end", "they left before their TLS handshake was done", ""},
	{"proxy_source", "they came from elsewhere than the proxies of proxyFrom", "add the proxy to <listen proxyFrom>"},
	{"proxy_timeout", "they sent no PROXY header in time", proxyRemedy},
	{"proxy_end", "they ended before their PROXY header was whole", ""},
	{"proxy_signature", "they sent no PROXY header", proxyRemedy},
	{"proxy_version", "their PROXY header was malformed (version)", ""},
	{"proxy_family", "their PROXY header was malformed (family)", ""},
	{"proxy_address", "their PROXY header was malformed (address)", ""},
	{"proxy_length", "their PROXY header was malformed (length)", ""},
	{"proxy_tlv", "their PROXY header was malformed (TLV)", ""},
	{"proxy_checksum", "their PROXY header was malformed (checksum)", ""},
	{"access", "<access> keeps them out", ""},
}
