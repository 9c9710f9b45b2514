package engine

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"github.com/txlb/txlb/sched"
)

// Plan is all that the engine should do; it replaces the plan before it.
type Plan struct {
	Services []Service
}

// Service is a set of listeners with the route of their sessions.
type Service struct {
	Name   string
	Listen []string // host:port, [v6]:port, *:port, :port or unix:/path; port 0 takes a free one
	Route  *Route

	// ClientSource names a host of the service, in whichever group, to which connections
	// come from the client's address, and HostInterface one to which they go out by an
	// interface; "": there is none. If the system does not allow that, Apply says so and
	// changes nothing.
	ClientSource, HostInterface string

	// ListenOptions are those of addresses in Listen that have others than the
	// default.
	ListenOptions map[string]ListenOptions
}

// ListenOptions is how to listen on one address.
type ListenOptions struct {
	// What follows is for TCP on Linux. FreeBind holds for a listener from when it is
	// opened. DeferAccept and FastOpen may change. With another Interface or MPTCP, new
	// sockets take the place of the old ones, which serve their queues first; the
	// portable engine refuses that change.
	FreeBind    bool   // no interface has to have the address (IP_FREEBIND)
	Interface   string // only connections that come in by it, and their answers go out by it (SO_BINDTODEVICE); "": by any
	DeferAccept bool   // a connection is accepted when its first byte has come, or after a minute (TCP_DEFER_ACCEPT)
	FastOpen    bool   // data may come with the first segment (TCP_FASTOPEN)
	MPTCP       bool   // clients may use several paths (IPPROTO_MPTCP); others get plain TCP

	// StartTLS is the protocol in whose words clients ask for TLS first. Where a route
	// wants to know what their TLS asks for, the engine answers in the place of the host
	// and then asks the host in the same words. It may change: new connections obey.
	StartTLS StartTLS

	// Proxy says which connections begin with a PROXY header that tells who the client
	// is, and ProxyFrom whose word counts; none: everybody's. These two may change:
	// new connections obey.
	Proxy     ProxyHeaders
	ProxyFrom []netip.Prefix

	// TLS ends the TLS of clients here, behind their PROXY header; nil: none does. It is
	// compared by pointer: what changes, such as certificates, does so behind its
	// GetConfigForClient. It may change: new connections obey.
	TLS *tls.Config
}

// ProxyHeaders says of which connections a PROXY header is asked. One without a right
// header within [Timeouts].Hello is closed.
type ProxyHeaders uint8

const (
	ProxyOff     ProxyHeaders = iota // none
	ProxyAccept                      // those from ListenOptions.ProxyFrom
	ProxyRequire                     // all; those from elsewhere than ProxyFrom are closed
)

// StartTLS is a protocol in which clients ask for TLS first.
type StartTLS uint8

const (
	StartTLSNone     StartTLS = iota // their TLS begins at once
	StartTLSPostgres                 // PostgreSQL: SSLRequest
	StartTLSSMTP                     // SMTP: STARTTLS (RFC 3207)
)

// Route is what a session needs to find a backend. It is immutable. Load it once
// per use: one load, one generation.
type Route struct {
	Table    *sched.Table // nil: no group; clients are closed and counted
	Timeouts Timeouts
	// Tries is how many connects one session makes at most, the first included.
	// 0: each host that is up once, then at most three that are down.
	Tries int
	// Limits are those of the service; nil: none. A session that they do not allow is
	// reset before a host is chosen.
	Limits *Limits
	// Denied tells whether clients of an address are rejected before a host is chosen;
	// nil: none are. The loops call it, so it must not wait, lock or allocate. Clients of
	// UNIX listeners have no address, and are not asked about.
	Denied func(client netip.Addr) bool
	// Choose tells which group a client goes to that is let in; nil: all go to Table. It
	// is asked once a session. The loops call it, so it must not wait, lock or allocate,
	// or keep what it is given.
	Choose func(Asking) GroupID
	// ByHello says that Choose wants to know what the client's TLS asks for, so the
	// client's hello is waited for, up to Timeouts.Hello. Without one in time, or with
	// something else, Choose is asked without it. The bytes go to the host as they came.
	ByHello bool
	// Groups are the tables of the groups that Choose may name. A session whose group is
	// gone before it has a host goes to Table.
	Groups map[GroupID]*sched.Table

	// Goroutines says that goroutines carry the sessions of the service, not event loops,
	// because a host of one of its groups has TLS: see [sched.Host.TLS]. New sessions obey.
	Goroutines bool
	// Fallback takes each client whose group has no hosts at all, or that has no group;
	// nil: such clients are rejected. It is called on a goroutine of its own, with the
	// client behind its PROXY header, and owns the connection. A panic in it is contained.
	Fallback func(net.Conn)
}

// GroupID is a group of a service for as long as the group exists, whatever becomes of
// its table. Default is the one that Route.Table is of.
type GroupID uint32

// Default is the group of clients that no route rule is about.
const Default GroupID = 0

// Asking is a client, as far as the choice of its group depends on it.
type Asking struct {
	Client netip.Addr // IPv4 as such, no zone; not valid: a client of a UNIX listener
	Name   []byte     // server name (SNI) in lower case, empty without one
	ALPN   []byte     // protocols as TLS lists them, each behind a byte with its length
}

// Limits of a service; 0 means none. They hold for all loops together. A client is an IPv4
// address or the /64 of an IPv6 address, as a PROXY header names it if there is one;
// clients of UNIX listeners have none and are not counted one by one.
type Limits struct {
	Sessions, PerClient int // at once
	Rate, PerClientRate int // that begin a second: a token bucket that holds those of one second
	// Shared says that several engines share Sessions and Rate: this one may use what
	// [Engine.Allot] has said last. Until it has said something of a limit that is new, or was not
	// shared before, it may use that of Share.
	Shared bool
	Share  Allotment
}

// Allotment is the part of shared limits that an engine may use now; 0 is none of it, and less
// than 0 says nothing of that limit. What is more than the limit counts as the limit.
type Allotment struct {
	Sessions, Rate int
	// What another process uses of them, whose place this one takes: sessions, each of which
	// counts until it is adopted, and tokens of the rate that it has taken in the last second.
	Held  int64 `json:",omitempty"`
	Taken int64 `json:",omitempty"`
}

// Usage is what a service uses of its limits.
type Usage struct {
	Sessions int64  // now
	Begun    uint64 // sessions that have taken a token of the rate, ever
	Taken    int64  // tokens of a shared rate that have not come back yet
	// Clients that were rejected, ever: by Sessions and by Rate.
	OverSessions, OverRate uint64
}

// Timeouts of a session; 0 means none.
type Timeouts struct {
	Connect    time.Duration // one connect
	Total      time.Duration // all connects of one session
	Idle       time.Duration // no byte in either direction
	HalfClosed time.Duration // one side has ended, and no byte from the other
	Unacked    time.Duration // sent bytes wait for a peer's acknowledgement (TCP_USER_TIMEOUT); Linux only
	Queue      time.Duration // waiting for a host that has room for one more session
	Hello      time.Duration // what a client says before a host is chosen: a PROXY header, then the ClientHello
	MaxAge     time.Duration // of a session, from its accept on; each ends up to a tenth earlier, at random
	KeepAlive  time.Duration // a silent peer is asked whether it is there; if not, it is gone after twice that
}
