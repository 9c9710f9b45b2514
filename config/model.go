// Package config is the model of a configuration: it reads, checks and writes.
//
// [Parse] turns a document into a [Config] and reports everything that is wrong
// with it at once, each [Problem] with its line. It reads what txLoadBalancer 1.1
// and PythonDirector 1.0 wrote, unchanged. [Config.Marshal] writes a model as a
// document that gives the same model when it is read. Package changes, above it,
// compares and merges models; package document reads and saves files.
//
// Limits: a document is bounded in size, depth and number of elements, and a
// document type with declarations of its own is refused, so that a hostile
// file costs milliseconds. The model is plain data: nothing in it is resolved,
// opened or running, and it is not safe for concurrent changes.
//
// Compatibility: this package follows semantic versioning, as package txlb does.
package config

import (
	"io/fs"
	"slices"
	"time"

	"github.com/txlb/txlb/sched"
)

// MaxWeight is the greatest weight of a host.
const MaxWeight = sched.MaxWeight

// Config is the model of one configuration document. It is a plain value:
// Clone it, change the copy, Check it.
type Config struct {
	Root     string // the root element's name, config or pdconfig, kept when saving
	Engine   Engine
	Fleet    Fleet
	Services []*Service
	Admin    Admin
	Manager  Manager
	DNS      DNS
	Control  Control
	Logging  Logging

	// Program tells that a program runs it, and not txlb: there may be no service, and a
	// service may listen nowhere. What only commands and the file are concerned with is no
	// reason for a warning. No document says it; see [ParseProgram].
	Program bool
}

// Engine is <engine>: what is fixed for the life of the process.
type Engine struct {
	Loops       int           // 0: auto, one a CPU
	Ring        string        // auto, off
	Steer       string        // off, cpu
	Splice      string        // auto, always, never
	PipeSize    int64         // bytes
	PipeMemory  int64         // bytes
	MaxSessions int           // 0: auto, what RLIMIT_NOFILE allows
	Backlog     int           //
	Drain       time.Duration // bounds SIGTERM
	Grace       time.Duration // before it, in which new clients are still accepted
	Keeper      bool          // sessions outlive the process
	Zone        string        // where this node is; "": no host is nearer than others
}

// Fleet is <fleet>: of which fleet this node is one, and where that has its
// configuration. It is fixed for the life of the process.
type Fleet struct {
	Name      string        // "": the node is in no fleet
	Node      string        // its name there; "": auto, see NodeName
	Store     []string      // URLs of the members of an etcd
	Lease     time.Duration // after which a node that is silent is gone
	CA        string        // file of authorities to trust instead of the system's
	Cert, Key string        // files of the node's certificate for the store; both or none
	User      string        // of the store; "": it asks for none
	Password  string        // of the user
	Listen    string        // where other nodes follow this one; "": it shares no checks
	Advertise string        // where they find that; "": Listen says it, see PeerAddress
	Secret    string        // by which nodes know each other, see Secrets; "": by Cert and CA
	Pos       Pos
}

// Service is <service>.
type Service struct {
	Name     string
	Listen   []Listen
	Timeouts Timeouts
	Limits   Limits
	Access   []AccessRule // who may connect: the first rule that matches decides
	Routes   []Route      // who has another group than the enabled one: the first that matches decides
	Groups   []*Group
	Pos      Pos
}

// AccessRule is an <allow> or a <deny> of <access>. It has networks or a file of them.
type AccessRule struct {
	Deny bool
	Nets string // networks with spaces between them, * for every address; "": File has them
	File string // with one network a line, as ParseNetworkList reads it
	Pos  Pos
}

// tag is the name of its element.
func (r *AccessRule) tag() string {
	if r.Deny {
		return "deny"
	}
	return "allow"
}

// Listen is <listen>.
type Listen struct {
	Address       string   // host:port, [v6]:port, *:port, :port or unix:/path
	FreeBind      bool     // no interface has to have the address
	Interface     string   // whose connections it takes; "": of all
	DeferAccept   bool     // a client waits in the kernel until it has said something
	FastOpen      bool     // clients may send data with the first segment
	MPTCP         bool     // clients may use several paths
	StartTLS      string   // in whose words clients ask for TLS: postgres, smtp; "": it begins at once
	ProxyProtocol string   // whose clients say by a PROXY header who they are: accept, require; "": none
	ProxyFrom     Networks // the proxies whose headers count; "": none are named
	TLS           KeyPairs // certificates with which TLS of clients ends here; "": it does not
	ClientCA      string   // file of authorities that clients' certificates must come from; "": they need none
	ALPN          string   // protocols that TLS may negotiate, with spaces between them; "": none
	Pos           Pos
}

// Timeouts is <timeouts>; 0 means none.
type Timeouts struct {
	Connect, Total, Idle time.Duration
	HalfClosed           time.Duration // or AsIdle
	Unacked              time.Duration // TCP_USER_TIMEOUT of both sides
	KeepAlive            time.Duration // without a byte, before TCP asks whether the peer is there
	Queue                time.Duration // for a host that has room
	Hello                time.Duration // for what a client has to say before a host is chosen
	MaxAge               time.Duration // of a session
}

// AsIdle is the half-closed timeout of a service that names none: it is Idle,
// whatever that is.
const AsIdle time.Duration = -1

// WhenHalfClosed returns the timeout of a half-closed session; 0 means none.
func (t *Timeouts) WhenHalfClosed() time.Duration {
	if t.HalfClosed == AsIdle {
		return t.Idle
	}
	return t.HalfClosed
}

// Limits is <limits>.
type Limits struct {
	Sessions      int // at once; 0, here and below: no limit
	PerClient     int // at once of one client
	Rate          int // new sessions a second
	PerClientRate int // of one client
	Tries         int // connects of one session, the first included; 0: each host that is up, then three that are down
	// Scope says whose Sessions and Rate are, node or fleet: of each node, or of all nodes
	// of a fleet together.
	Scope string
}

// Shared tells whether nodes of a fleet share limits.
func (l *Limits) Shared() bool { return l.Scope == "fleet" && (l.Sessions > 0 || l.Rate > 0) }

// Group is <group>. Exactly one group of a service is enabled, if it has any; Check
// makes sure of that.
type Group struct {
	Name      string
	Scheduler string // canonical name: one of sched.Choices, or a program's own, see sched.CustomName
	Enabled   bool
	AllDown   string // try, refuse, hold
	StartDown bool   // start="down": a host takes no client before it has passed a check
	// MaxFails failed connects of clients within FailWindow mark a host down; 1: each
	// one, whatever the window; 0: none.
	MaxFails   int
	FailWindow time.Duration
	// Slow is how many times the group's median turnaround that of a host is that is ejected
	// because it is slow, and Silent for how long it has left clients without a first answer;
	// 0: no host is ejected for that. What is seen within FailWindow counts.
	Slow   int
	Silent time.Duration
	// EjectFor is how long a host is ejected; one that goes on is for twice as long each time.
	EjectFor time.Duration
	// MaxEjected is the percentage of the hosts that may be ejected at once; 0: none, else at
	// least one.
	MaxEjected int
	// EndWhenDown ends the sessions of a host when it is marked down, and EndBackups
	// those of backups when a host that is none is up again.
	EndWhenDown, EndBackups bool
	// StickySize is how many clients a scheduler with ",sticky" remembers, and StickyFor how
	// long after their last session.
	StickySize int
	StickyFor  time.Duration
	OnHold     string       // program with arguments that is run when clients begin to be held; "": none. See Command and KeepOwn
	Check      *HealthCheck // nil: <manager> says how hosts are probed
	Hosts      []*Host
	Mirrors    []Mirror // who gets a copy of what the clients send
	Pos        Pos
}

// Host is <host>.
type Host struct {
	Name        string
	Address     string // host:port, [v6]:port, unix:/path or the name of SRV records; host may be a DNS name
	Weight      int
	Backup      bool
	State       string // ready, drain, maint
	MaxSessions int    // at once, of each address; 0: no limit
	// SlowStart is how long the host's share grows after it has come back; 0: not
	// at all.
	SlowStart time.Duration
	// Resolve is how often the DNS name in Address is looked up; 0: until it has
	// resolved once.
	Resolve time.Duration
	Source  string // IP address that connections to the host come from, or ClientSource; "": the kernel's choice
	// Interface is by which connections to the host go out; "": as the routes say.
	Interface string
	// ProxyProtocol is which PROXY header goes ahead of each stream to the host: v1,
	// v2; "": none.
	ProxyProtocol string
	Zone          string // where the host is; "": near every node
	TLS           string // whether connections to the host are encrypted: yes, unverified; "": no
	CA            string // file of authorities to trust instead of the system's
	SNI           string // name to ask for and to verify; "": see ServerName
	NeverEject    bool   // eject="never": it is not ejected, whatever its clients meet
	Pos           Pos
}

// ClientSource is the Source of a host to which connections come from the client's
// address.
const ClientSource = "client"

// Far tells whether the host is in another zone than a node.
func (h *Host) Far(node string) bool { return node != "" && h.Zone != "" && h.Zone != node }

// Admin is <admin>.
type Admin struct {
	Web     *AdminListen // nil: no <web>
	SSH     *AdminListen // nil: no <ssh>
	Socket  *Socket      // nil: no <socket>
	Metrics string       // address of <metrics listen>, "" without
	Targets string       // what verbs may name at run time: tcp, any, or networks; see Config.Named
	Users   []*User

	MetricsAllow Networks // who may connect to Metrics
	MetricsPos   Pos
}

// AdminListen is <web> or <ssh>.
type AdminListen struct {
	Listen  string
	Enable  bool
	Secure  bool          // web only
	Refresh time.Duration // web only
	// Certificate and Key are files in PEM, web only; both or none. "": made and
	// kept at the first start.
	Certificate, Key string
	HostKey          string // file, SSH only; "": made and kept at the first start
	// Readyz is when /readyz says 503, web only: while any or all services have no
	// usable host, or while draining alone ("", written as process).
	Readyz string
	// Names are host names that the page may be called by, beside its own, in lower
	// case, and TrustedProxies the addresses and networks whose X-Forwarded headers
	// count; web only.
	Names          []string
	TrustedProxies []string
	Allow          Networks // who may connect
	Pos            Pos
}

// Socket is <socket>: who may open it may do everything.
type Socket struct {
	Path  string      // absolute
	Mode  fs.FileMode // permission bits
	Group string      // name or number of the group that owns it; "": the process's
	Pos   Pos
}

// Control is <control>: where to ask which client a backend connection belongs
// to.
type Control struct {
	Socket string // path; "": nowhere
	Pos    Pos
}

// User is <user>.
type User struct {
	Name     string
	Password string // crypt(3) hash
	Access   string // full, readonly
	// Keys are public keys for SSH, each as a line of authorized_keys without
	// options: type, base64 and, if there is one, a comment, with one space
	// between them.
	Keys []string
	Pos  Pos
}

// Manager is <manager>.
type Manager struct {
	HostCheck Check // probe failed hosts
	Heartbeat Check // probe hosts that are in rotation
	// ConfigCheck writes changes made at run time back to the file.
	ConfigCheck Check
	Backups     int // old files kept by it and by Document.Save
}

// Check is a periodic task of the manager.
type Check struct {
	Interval time.Duration
	Enable   bool
}

// Logging is <logging>.
type Logging struct {
	File   string // "": standard error
	Level  string // debug, info, warn, error
	Format string // text, json
	Audit  string // file of who did what; "": none

	Access       string // where a line for each session goes; "": nowhere
	AccessFormat string // tcplog, json
}

// Pos is where in a file something stands; the zero Pos is nowhere.
type Pos struct {
	Line int
}

// Enabled returns the group that takes the service's sessions, nil without one.
func (s *Service) Enabled() *Group {
	for _, g := range s.Groups {
		if g.Enabled {
			return g
		}
	}
	return nil
}

// Clone returns a copy that shares nothing with c.
func (c *Config) Clone() *Config {
	d := *c
	d.Services = cloneServices(c.Services)
	d.DNS.Servers = slices.Clone(c.DNS.Servers)
	d.Fleet.Store = slices.Clone(c.Fleet.Store)
	d.Admin.Web = c.Admin.Web.clone()
	d.Admin.SSH = c.Admin.SSH.clone()
	d.Admin.Socket = clone(c.Admin.Socket)
	d.Admin.Users = cloneAll(c.Admin.Users, func(u *User) *User {
		v := *u
		v.Keys = slices.Clone(u.Keys)
		return &v
	})
	return &d
}

func (a *AdminListen) clone() *AdminListen {
	b := clone(a)
	if b != nil {
		b.Names, b.TrustedProxies = slices.Clone(b.Names), slices.Clone(b.TrustedProxies)
	}
	return b
}

// cloneServices copies services with all that they have. There may be very many, so what
// is of one type is allocated at once. The lists have no room to grow into each other.
func cloneServices(list []*Service) []*Service {
	if list == nil {
		return nil
	}
	var groups, hosts, listens int
	for _, s := range list {
		groups += len(s.Groups)
		listens += len(s.Listen)
		for _, g := range s.Groups {
			hosts += len(g.Hosts)
		}
	}
	var (
		serviceRoom = newRoom[Service](len(list))
		groupRoom   = newRoom[Group](groups)
		hostRoom    = newRoom[Host](hosts)
		listenRoom  = make([]Listen, 0, listens)
	)
	all := serviceRoom.copies(list)
	for _, s := range all {
		s.Access, s.Routes = slices.Clone(s.Access), slices.Clone(s.Routes)
		if s.Listen != nil {
			from := len(listenRoom)
			listenRoom = append(listenRoom, s.Listen...)
			s.Listen = listenRoom[from:len(listenRoom):len(listenRoom)]
		}
		s.Groups = groupRoom.copies(s.Groups)
		for _, g := range s.Groups {
			g.Check = clone(g.Check)
			g.Hosts = hostRoom.copies(g.Hosts)
			g.Mirrors = slices.Clone(g.Mirrors)
		}
	}
	return all
}

// room is where copies of a type go.
type room[T any] struct {
	values   []T
	pointers []*T
}

func newRoom[T any](n int) *room[T] { return &room[T]{make([]T, 0, n), make([]*T, 0, n)} }

// copies copies a list and what it points to.
func (r *room[T]) copies(list []*T) []*T {
	if list == nil {
		return nil
	}
	from := len(r.pointers)
	for _, v := range list {
		r.values = append(r.values, *v)
		r.pointers = append(r.pointers, &r.values[len(r.values)-1])
	}
	return r.pointers[from:len(r.pointers):len(r.pointers)]
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func cloneAll[T any](list []*T, one func(*T) *T) []*T {
	if list == nil {
		return nil
	}
	all := make([]*T, len(list))
	for i, v := range list {
		all[i] = one(v)
	}
	return all
}

// HealthCheck is <check>: how the hosts of a group are probed. Its meaning and
// its defaults are HAProxy's.
type HealthCheck struct {
	Type         string        // tcp, http, tls, expect
	Interval     time.Duration // from the start of a probe to that of the next
	FastInterval time.Duration // while a host is on its way up or down; 0: Interval
	DownInterval time.Duration // while a host is down; 0: Interval
	Rise         int           // successes in a row that bring a host back
	Fall         int           // failures in a row that take one out
	Timeout      time.Duration // for one probe, from the connect on
	Port         int           // 0: the host's own
	Path         string        // http
	Host         string        // http: the Host header; tls: the name asked for (SNI); "": the address, no name
	Verify       bool          // tls: complete the handshake and verify the certificate
	CA           string        // tls with Verify: file of certificates in PEM to trust; "": the system's
	Status       string        // http: the statuses that pass, as ParseStatus reads them
	Send         string        // expect: bytes to send first
	Expect       string        // expect: bytes that have to come
	Pos          Pos
}

// DNS is <dns>: who is asked for the addresses of host names.
type DNS struct {
	Servers []string // as DNSServer reads them, asked in this order; none: the system's resolver
	Pos     Pos
}
