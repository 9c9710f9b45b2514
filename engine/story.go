package engine

import (
	"net/netip"
	"time"

	"github.com/txlb/txlb/sched"
)

// Story is what the engine knows of one session, see [Engine.Explain]: plain data, which package
// internal/explain puts into words. Durations count from Accepted; -1 stands for what has not
// happened, or was not seen.
type Story struct {
	ID        uint64
	Service   string
	Group     string // "": not known; who knows the configuration finds it by Host
	Stage     Stage
	Accepted  time.Time
	Age       time.Duration // until now, or until the session ended
	Idle      time.Duration // since the last byte, end or change of phase; 0 of one that has ended
	Goroutine bool          // goroutines carry it, no event loop
	Dialed    bool          // the program itself asked for the connection: there is no client

	Client     netip.AddrPort // as the PROXY header says, if there was one; not valid: a UNIX socket
	Proxied    bool           // a PROXY header has named the client
	To         netip.AddrPort // what the client has connected to, as the PROXY header says
	Listener   string         // what it has connected to here; "" of one that has ended
	Local      netip.AddrPort // our own address toward the host; not valid of one that has ended
	ServerName string         // that the client's TLS asked for; "": none, or nobody has looked
	Heard      time.Duration  // when its PROXY header, ClientHello or TLS handshake was whole; -1: nobody waited for one

	// Queued is when the client came into the queue of its group, and Waited how long it was there,
	// so far; of that, Held because the group held its clients. Before is how many were in it then.
	Queued time.Duration
	Waited time.Duration
	Held   time.Duration
	Before int

	Host      *sched.Host   // that the session has, or the last that was asked; nil: none was
	Tries     []Try         // hosts that did not take it, in order
	Untold    int           // tries that Tries leaves out: those before its last one
	Asked     time.Duration // when Host was asked, of one that has answered or still may
	Connected time.Duration // when Host was ready for the client

	FirstIn, FirstOut time.Duration // when the first byte from the client was sent on, and from the host
	In, Out           uint64        // bytes from the client and to it

	// Stalled is how long bytes were there that a side did not take: the client, and the host. What
	// the buffers of the system took is not in it.
	Stalled [2]time.Duration

	Turns   Turnarounds
	Waiting time.Duration // the client's last bytes have had no answer for so long; 0: nothing is outstanding

	// First is the side that ended first, at Closed, and with a reset if Reset is true.
	First  Side
	Closed time.Duration
	Reset  bool

	TCP [2]TCPInfo // of the sockets of client and host

	// Of a session that has ended.
	Termination string // two letters, see [Terminations]
	Rejected    string // why it was rejected, see [Rejections]; "": it was not

	// Moved tells that the session came from the process before, which had it under another ID.
	Moved bool
}

// Stage is how far a session has come.
type Stage string

const (
	StageHeader     Stage = "header"     // its PROXY header is awaited
	StageHello      Stage = "hello"      // its ClientHello is awaited, or what its protocol says before that
	StageHandshake  Stage = "handshake"  // the TLS handshake with the client is under way
	StageLooking    Stage = "looking"    // it looks for a host, or waits for a descriptor
	StageQueued     Stage = "queued"     // it waits until a host has room
	StageConnecting Stage = "connecting" // a host is asked
	StageSecuring   Stage = "securing"   // a host has answered, and is asked for TLS
	StageConnected  Stage = "connected"  // bytes move
	StageRejected   Stage = "rejected"   // it was told that there is no host, and its end is awaited
	StageClosing    Stage = "closing"    // a side was reset; the other gets its last bytes, and then a reset
	StageEnded      Stage = "ended"
)

// Side is one of the two sides of a session.
type Side uint8

const (
	Nobody Side = iota
	OfClient
	OfHost
)

// Try is a host that was asked and did not take the session.
type Try struct {
	Host   *sched.Host
	At     time.Duration // when it was asked
	Took   time.Duration // until the result
	Result TryResult
	Why    string // what the system or the TLS said; "": nothing beyond the result
	Times  int    // how often in a row
}

// TryResult is what became of a connect, see also [ServiceStats].ConnectFailures.
type TryResult string

const (
	TryRefused     TryResult = "refused"
	TryTimeout     TryResult = "timeout"
	TryUnreachable TryResult = "unreachable"
	TryDropped     TryResult = "dropped"   // it answered, and reset the connection before the first byte
	TryLocal       TryResult = "local"     // the fault was on our side: no descriptor, memory or port
	TryForbidden   TryResult = "forbidden" // by the mode of a UNIX socket, a packet filter or a security module
	TryTLS         TryResult = "tls"       // it answered, and the TLS handshake failed
	TryNoTLS       TryResult = "starttls"  // it answered, and did not agree to TLS
	TryOther       TryResult = "other"
	TryAbandoned   TryResult = "abandoned" // the session could not wait for its answer
)

// TCPInfo is what the kernel says of one socket of a session, TCP_INFO of tcp(7).
type TCPInfo struct {
	Known       bool // else the rest is 0: a UNIX socket, none at all, or nobody has asked
	RTT, RTTVar time.Duration
	Retransmits uint32 // segments that were sent again, since the beginning
	Unacked     uint32 // segments that the peer has not acknowledged
	NotSent     uint32 // bytes that wait to be sent for the first time
	Window      uint32 // bytes that the peer takes at most; 0 of a peer that reads nothing, or before Linux 5.4
}
