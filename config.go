package txlb

import (
	"log/slog"
	"net"
	"time"

	"github.com/txlb/txlb/sched"
)

// None says 0 where a zero field would be the default. It is for numbers and durations:
// Weight: None is a weight of 0, Idle: None is no idle timeout.
const None = -1

// Config is what a [Balancer] does. Its zero value balances nothing.
//
// A field of a Config and of what is in it that is zero has its default. Where the default is
// another value than 0, and 0 means something, [None] says 0. Each field has the meaning, the
// default and the bounds of the attribute in its tag; docs/configuration.md has them in one
// table.
//
// Start and Apply copy what they are given: a Config may be changed afterwards, and used
// again.
type Config struct {
	Services  []Service
	Engine    Engine    // fixed from Start on
	HostCheck HostCheck // of groups without a Check
	Heartbeat Heartbeat // of groups without a Check
	// DNSServers are asked for the names of hosts: up to eight addresses, port 53 if none is
	// given. None: the servers of the system.
	DNSServers []string `txlb:"servers"`

	// Logger takes what is logged; nil: slog.Default() at the time of Start. The balancer
	// never waits for it: a handler that is slow loses the oldest lines, and is told how
	// many. To log nothing, use slog.New(slog.DiscardHandler). Apply does not change it.
	Logger *slog.Logger
	// OnEvent is called with what happens, one event after the other, in their order; nil:
	// nobody wants to know. It is called on a goroutine of its own, also before Start
	// has returned, and may call every method of the balancer. The balancer never waits for
	// it: if it is slow, the oldest events are lost, see [Event].Missed. A panic in it is
	// logged and counted. Apply does not change it.
	OnEvent func(Event)
	// Schedulers are the program's own, by the names that [Custom] is given. They are fixed
	// from Start on.
	Schedulers map[string]Scheduler
}

// Engine is how connections are moved. It is the same for all services.
type Engine struct {
	Loops       int    `txlb:"loops"`       // event loops, on Linux; default: one for each CPU
	Ring        string `txlb:"ring"`        // "auto" (default): one system call for the sends of many sessions, where io_uring is there; "off"
	Steer       string `txlb:"steer"`       // "cpu": a client goes to the loop of the CPU that receives it, on Linux; "off" (default)
	Splice      string `txlb:"splice"`      // "auto" (default): long streams go through a pipe; "always"; "never"
	PipeSize    int64  `txlb:"pipeSize"`    // bytes of a pipe, at least 64 KiB; default: 1 MiB
	PipeMemory  int64  `txlb:"pipeMemory"`  // bytes of all pipes together; default: 256 MiB
	MaxSessions int    `txlb:"maxSessions"` // sessions at once; default: what three quarters of the limit of open files allow
	Backlog     int    `txlb:"backlog"`     // length of each listener's queue; default: 4096
	Zone        string `txlb:"zone"`        // where this program is: hosts of the same Zone take its clients first; default: none is preferred
}

// HostCheck is how hosts are checked that are down, in groups without a [Check]: by a
// connect, of which one success brings them back.
type HostCheck struct {
	Interval time.Duration `txlb:"interval"`        // default: 10 s
	Off      bool          `txlb:"enable,inverted"` // they stay down until [LiveService.Retry]
}

// Heartbeat is how hosts are checked that are up, in groups without a [Check]: by a connect,
// of which the third failure in a row takes them out. It is off unless On is set.
type Heartbeat struct {
	Interval time.Duration `txlb:"interval"` // default: 60 s
	On       bool          `txlb:"enable"`
}

// Service is where clients come in, and which hosts they are given to.
type Service struct {
	Name string `txlb:"name"` // required, unique
	// Listen are addresses where clients connect: "host:port", "[v6]:port", ":port" or
	// "*:port" for every address, "unix:/path". Port 0 takes a free one, see
	// [LiveService.Addrs]. There may be none: then clients come by DialContext, Serve and
	// ServeConn alone.
	Listen    []string
	Listeners []Listener // those that have options, beside Listen

	// Hosts, Scheduler and Check are a single group with the name "main". A service with
	// several groups, or with other options, has Groups in their place.
	Hosts     []Host
	Scheduler string // see [Group]
	Check     *Check // nil: see [HostCheck] and [Heartbeat]
	Groups    []Group

	Timeouts Timeouts
	Limits   Limits
	Access   []AccessRule // who may connect; the first rule that matches decides, all others may
	Routes   []Route      // who goes to another group than the enabled one; the first that matches decides

	// Fallback takes the clients while the group that they go to has no hosts; nil: they
	// are reset. Each call has a goroutine of its own and owns the connection: it must close
	// it. A panic in it is logged and counted, and closes the connection. See
	// [FallbackListener] for an http.Server.
	Fallback func(net.Conn)
}

// Listener is where clients of a service connect, with options.
type Listener struct {
	Addr          string   `txlb:"ip"`            // required; see [Service].Listen
	FreeBind      bool     `txlb:"freeBind"`      // listen although no interface has the address yet; Linux
	Interface     string   `txlb:"interface"`     // take only connections that come in by this interface or VRF; Linux
	DeferAccept   bool     `txlb:"deferAccept"`   // accept a client when its first byte has come; Linux
	FastOpen      bool     `txlb:"fastOpen"`      // clients may send data with their first segment; Linux
	MPTCP         bool     `txlb:"mptcp"`         // clients may use several paths at once; Linux
	StartTLS      string   `txlb:"startTLS"`      // in whose words clients ask for TLS, for routes by name: "postgres", "smtp"
	ProxyProtocol string   `txlb:"proxyProtocol"` // "accept": connections of ProxyFrom have a PROXY header; "require": all have one
	ProxyFrom     []string `txlb:"proxyFrom"`     // addresses and networks whose headers count
	// TLS are files in PEM: a certificate and its key, and further pairs, chosen by the name
	// that a client asks for. The clients' TLS ends here. Files that change are read again.
	TLS      []string `txlb:"tls"`
	ClientCA string   `txlb:"clientCA"` // PEM file: with TLS, only clients with a certificate of one of these authorities are let in
	ALPN     []string `txlb:"alpn"`     // with TLS: protocols that clients may speak, the best first
}

// Timeouts are those of a service's sessions. [None] is no timeout.
type Timeouts struct {
	Connect    time.Duration `txlb:"connect"`    // one connect; default: 5 s
	Total      time.Duration `txlb:"total"`      // all connects of one client; default: 30 s
	Idle       time.Duration `txlb:"idle"`       // no byte in either direction; default: 1 h
	HalfClosed time.Duration `txlb:"halfClosed"` // one side has ended, and no byte of the other; default: as Idle
	Unacked    time.Duration `txlb:"unacked"`    // bytes wait for an acknowledgement, Linux; default: as long as the kernel tries
	KeepAlive  time.Duration `txlb:"keepAlive"`  // silence before TCP asks whether the peer is there; default: 60 s
	Queue      time.Duration `txlb:"queue"`      // waiting while all hosts are full; default: 5 s
	Hello      time.Duration `txlb:"hello"`      // for what a client has to say before a host is chosen; default: 5 s
	MaxAge     time.Duration `txlb:"maxAge"`     // of a session; default: none
}

// Limits are those of a service. 0 is no limit. Clients above one are reset.
type Limits struct {
	Sessions      int `txlb:"sessions"`      // at once
	PerClient     int `txlb:"perClient"`     // at once, of an IPv4 address or the /64 of an IPv6 address
	Rate          int `txlb:"rate"`          // new ones a second
	PerClientRate int `txlb:"perClientRate"` // new ones a second, of one client
	Tries         int `txlb:"tries"`         // hosts that are tried for one client; default: each that is up, then three that are down
}

// AccessRule lets clients in, or keeps them out. See [Allow] and [Deny].
type AccessRule struct {
	Deny bool
	Nets []string `txlb:"net"`  // networks ("10.0.0.0/8") and addresses; "*": everyone
	File string   `txlb:"file"` // with one network a line, in place of Nets
}

// Allow is a rule that lets clients in.
func Allow(nets ...string) AccessRule { return AccessRule{Nets: nets} }

// Deny is a rule that keeps clients out: their connections are reset.
func Deny(nets ...string) AccessRule { return AccessRule{Deny: true, Nets: nets} }

// Route leads clients to a group. All that it says must hold for a client.
type Route struct {
	SNI     []string `txlb:"sni"`     // names, one of which the client's TLS asks for: "db.example", "*.example", "*"
	ALPN    []string `txlb:"alpn"`    // protocols, one of which the client's TLS offers: "h2"
	Nets    []string `txlb:"net"`     // networks and addresses, one of which has the client
	Percent int      `txlb:"percent"` // exactly so many of each 100 clients that match; default: 100; [None]: no one
	Group   string   `txlb:"group"`   // required
}

// Group is a set of hosts. The enabled group of a service takes the clients that no Route
// leads to another.
type Group struct {
	Name      string `txlb:"name"`      // required if there are several; default: "main"
	Scheduler string `txlb:"scheduler"` // how a host is chosen: [LeastConns] (default) or another of these constants, [Sticky], [Custom]
	Enabled   bool   `txlb:"enable"`    // one group of a service is; a single group need not say so
	// AllDown is what becomes of clients while every host is down: "try" the hosts anyway
	// (default), "refuse", or "hold": they wait until one is up, at most Timeouts.Queue.
	AllDown    string        `txlb:"allDown"`
	StartDown  bool          `txlb:"start"`      // a host takes no client before it has passed a check
	MaxFails   int           `txlb:"maxFails"`   // failed connects within FailWindow that mark a host down; default: 1; [None]: they never do
	FailWindow time.Duration `txlb:"failWindow"` // default: 10 s
	StickySize int           `txlb:"stickySize"` // how many clients a [Sticky] scheduler remembers; default: 100,000
	StickyFor  time.Duration `txlb:"stickyFor"`  // how long after its last session a client is forgotten; default: 30 min
	// Slow is how many times the median turnaround of the group that of a host is which gets no
	// new clients for EjectFor, and Silent for how long such a host has left three clients in
	// a row without a first answer. Default: no host is ejected for that.
	Slow     int           `txlb:"slow"`
	Silent   time.Duration `txlb:"silent"`
	EjectFor time.Duration `txlb:"ejectFor"` // doubles up to ten times as long while it goes on; default: 30 s
	// MaxEjected is the percentage of hosts that may be ejected at once because they are slow,
	// silent or reset their clients. Default: 25; [None]: none is.
	MaxEjected  int  `txlb:"maxEjected"`
	EndWhenDown bool `txlb:"onMarkedDown"` // close the sessions of a host when it is marked down
	EndBackups  bool `txlb:"onMarkedUp"`   // close the sessions of backups when another host is up again
	// OnHold is a program with its arguments that is run when clients begin to wait because the
	// group is held or all its hosts are down, as in a file. It has nothing to do with a shell.
	OnHold  string `txlb:"onHold"`
	Check   *Check // nil: see [HostCheck] and [Heartbeat]
	Hosts   []Host
	Mirrors []Mirror
}

// Mirror gets a copy of what the clients of a group send, and its answers are dropped. Clients
// never wait for it: where it is too slow, the copy of that session is lost. What
// DialContext connects is not copied.
type Mirror struct {
	// Addr is where it is: "host:port", "[v6]:port" or "unix:/path", unique in the group. A
	// name is looked up while it runs. Required.
	Addr          string        `txlb:"ip"`
	Percent       int           `txlb:"percent"`       // of each 100 sessions about this many are copied; default: 100; [None]: none
	Resolve       time.Duration `txlb:"resolve"`       // how often the name in Addr is looked up; default: 30 s; [None]: until it has resolved once
	ProxyProtocol string        `txlb:"proxyProtocol"` // "v1", "v2": the version of a PROXY header that goes ahead of each copy; default: none
}

// Schedulers: how a group chooses a host. Those whose names begin with Weighted obey the
// weights of hosts; the others obey only a weight of 0, [None].
const (
	LeastConns         = "leastc"   // fewest sessions; the one that has waited longest if there are several
	RoundRobin         = "roundr"   // one after the other
	Random             = "rand"     // any
	WeightedLeastConns = "weightlc" // fewest sessions for its weight
	WeightedRoundRobin = "weightrr" // smooth: a b a c a, not a a a b c
	WeightedRandom     = "weightr"  // any, by weight
	TwoChoices         = "p2c"      // the better of two at random
	LeastTurnaround    = "ewma"     // the better of two by sessions times the moving average of turnarounds; obeys weights
	Maglev             = "maglev"   // by the client's address: it stays when other hosts come and go; obeys weights
)

// Sticky is a scheduler whose clients come back to the host that they had, while it is up
// and takes clients: Sticky(LeastConns).
func Sticky(scheduler string) string {
	if scheduler == "" {
		scheduler = LeastConns
	}
	return scheduler + ",sticky"
}

// Custom is a scheduler of the program: the one that [Config].Schedulers has by that name.
func Custom(name string) string { return "custom:" + name }

// Scheduler chooses hosts in a way of the program. All event loops call it, several at the same
// moment, and their clients wait for it: it must not lock or wait. A panic in it is logged and
// counted, and the client gets the next host in turn. See [sched.Scheduler].
type Scheduler = sched.Scheduler

// SchedulerFunc is a function that is a [Scheduler].
type SchedulerFunc = sched.SchedulerFunc

// Candidate is a host that a [Scheduler] may choose.
type Candidate = sched.Candidate

// Host is a server that clients are given to.
type Host struct {
	Name string `txlb:"name"` // unique within the group; default: Addr
	// Addr is where it is: "host:port", "[v6]:port", "unix:/path", or the name of SRV
	// records, "_pg._tcp.example.". Names are looked up while it runs; one that stands for
	// several addresses is so many servers. Required.
	Addr        string `txlb:"ip"`
	Weight      int    `txlb:"weight"`      // share of new clients, up to 65535; default: 1; [None]: it gets none
	Backup      bool   `txlb:"backup"`      // takes clients only if no other host can
	State       string `txlb:"state"`       // [Ready] (default), [Drain] or [Maintenance]
	MaxSessions int    `txlb:"maxSessions"` // at once; above it clients wait; default: no limit
	// SlowStart is how long its share grows after it has come back. Default: it has its
	// share at once.
	SlowStart time.Duration `txlb:"slowStart"`
	Resolve   time.Duration `txlb:"resolve"` // how often the name in Addr is looked up; default: 30 s; [None]: until it has resolved once
	// Source is the address of this machine that connections to the host come from, or
	// "client": that of the client, on Linux with CAP_NET_ADMIN. Default: the kernel's choice.
	Source        string `txlb:"source"`
	Interface     string `txlb:"interface"`     // by which connections to the host go out; Linux
	ProxyProtocol string `txlb:"proxyProtocol"` // "v1", "v2": the version of a PROXY header that goes ahead of each stream; default: none
	Zone          string `txlb:"zone"`          // where it is, see [Engine].Zone; default: near
	// NeverEject says that the host gets clients while it is up, even if it is slow, silent or
	// resets them; see [Group].
	NeverEject bool `txlb:"eject"`
	// TLS encrypts connections to the host, and checks: "yes" with a certificate that is
	// verified, "unverified" with any. Default: "no".
	TLS string `txlb:"tls"`
	CA  string `txlb:"ca"`  // with TLS: PEM file of authorities to trust; default: the system's
	SNI string `txlb:"sni"` // with TLS: the name to ask for, and to verify; default: the name or address in Addr
}

// States of a [Host].
const (
	Ready       = "ready"
	Drain       = "drain" // no new clients; sessions go on
	Maintenance = "maint" // nor checks
)

// Check is how the hosts of a group are checked. Its zero value is a connect every two
// seconds. See [HTTPCheck], [TCPCheck], [TLSCheck] and [ExpectCheck].
type Check struct {
	Type         string        `txlb:"type"`         // "tcp" (default), "http", "tls", "expect"
	Interval     time.Duration `txlb:"interval"`     // from the start of one to the start of the next; default: 2 s
	FastInterval time.Duration `txlb:"fastInterval"` // while a host is going up or down; default: Interval
	DownInterval time.Duration `txlb:"downInterval"` // while a host is down; default: Interval
	Rise         int           `txlb:"rise"`         // successes in a row that mark a host up; default: 2
	Fall         int           `txlb:"fall"`         // failures in a row that mark a host down; default: 3
	Timeout      time.Duration `txlb:"timeout"`      // of a whole check; default: 2 s
	Port         int           `txlb:"port"`         // default: the host's
	Path         string        `txlb:"path"`         // http; default: "/"
	Host         string        `txlb:"host"`         // http: the Host header, default: the address; tls: the server name
	Verify       bool          `txlb:"verify"`       // tls: verify the certificate
	CA           string        `txlb:"ca"`           // tls with Verify: PEM file of trusted certificates; default: the system's
	Status       string        `txlb:"status"`       // http: statuses that pass, "200,300-399"; default: "200-399"
	Send         string        `txlb:"send"`         // expect: bytes to send first
	Expect       string        `txlb:"expect"`       // expect: bytes that must be in the first 64 KiB of the answer
}

// TCPCheck checks that a host accepts a connection.
func TCPCheck() *Check { return &Check{Type: "tcp"} }

// HTTPCheck checks that a host answers a GET of path with a status from 200 to 399.
func HTTPCheck(path string) *Check { return &Check{Type: "http", Path: path} }

// TLSCheck checks that a host answers a ClientHello.
func TLSCheck() *Check { return &Check{Type: "tls"} }

// ExpectCheck sends bytes, if there are some, and checks that the answer contains others.
func ExpectCheck(send, expect string) *Check {
	return &Check{Type: "expect", Send: send, Expect: expect}
}
