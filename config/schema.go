package config

import (
	"io/fs"
	"time"
)

// The schema: one row for each attribute of each element, and nothing about an
// attribute anywhere else. Reading, writing, checking, differences, the runtime
// verbs, their completion and help, the admin page and the tables of
// docs/configuration.md all go through these rows. To add an attribute, add a
// field to the model and a row here.
//
// Only the forms of earlier versions are read by hand, in elements.go.

// Attributes returns the rows of an element in the order in which they are
// written. The caller must not change them.
func Attributes(element string) []Attribute { return schema[element] }

// Find returns the row of an element's attribute, nil if there is none.
func Find(element, name string) *Attribute { return find(schema[element], name) }

// The bounds of what the kernel takes: TCP_KEEPIDLE is at most 32767 s. Below a
// second a lost packet would end a connection.
const (
	minUnacked, maxUnacked     = time.Second, 24 * time.Hour
	minKeepAlive, maxKeepAlive = time.Second, 9 * time.Hour
)

// Bounds of values, the same in a document and in a model changed at run time.
const (
	maxLoops       = 1024
	minPipeSize    = 64 << 10
	maxPipeSize    = 64 << 20
	maxMaxSessions = 10_000_000
	maxBacklog     = 65535
	maxTries       = 10_000
	maxRate        = 1_000_000
	maxBackups     = 10_000
	maxSlow        = 1000
)

// schema holds all rows by their element, each list in the order of writing.
var schema = table(
	of("engine",
		row("loops", func(e *Engine) *int { return &e.Loops }, or("auto", integer(1, maxLoops)), 0,
			"number of event loops; `auto`: one for each CPU"),
		row("ring", func(e *Engine) *string { return &e.Ring }, word("auto", "off"), "auto",
			"`auto`: sends a batch with one system call if the kernel has io_uring (Linux 5.18 or newer, not forbidden; `txlb ctl status` says whether it does); `off`: one call for each send"),
		row("steer", func(e *Engine) *string { return &e.Steer }, word("off", "cpu"), "off",
			"`cpu`: a TCP client goes to the loop with the number of the CPU that receives it, modulo `loops` (Linux), see [Many cores](sizing.md#many-cores); `off`: the kernel's hash spreads them"),
		row("splice", func(e *Engine) *string { return &e.Splice }, word("auto", "always", "never"), "auto",
			"`auto`: streams that fill the buffer go through a pipe; `always`: all, from the first byte; `never`: none"),
		row("pipeSize", func(e *Engine) *int64 { return &e.PipeSize }, size(minPipeSize, maxPipeSize), 1<<20,
			"capacity of a pipe; the kernel may grant less"),
		row("pipeMemory", func(e *Engine) *int64 { return &e.PipeMemory }, size(1, maxBytes), 256<<20,
			"capacity of all pipes, and of the longer queues of fast streams, together; beyond it, streams are copied"),
		row("maxSessions", func(e *Engine) *int { return &e.MaxSessions }, or("auto", integer(1, maxMaxSessions)), 0,
			"maximum of open sessions; `auto`: what the limit of open files allows, two for each session. At the limit, clients wait in the kernel's queue"),
		row("backlog", func(e *Engine) *int { return &e.Backlog }, integer(1, maxBacklog), 4096,
			"length of each listener's queue"),
		row("drain", func(e *Engine) *time.Duration { return &e.Drain }, unlimited, 30*time.Second,
			"how long SIGTERM waits for sessions to finish"),
		row("grace", func(e *Engine) *time.Duration { return &e.Grace }, unlimited, 0,
			"how long after SIGTERM new clients are still accepted, while `/readyz` says 503, so that what sends them learns of it; then `drain` begins"),
		row("keeper", func(e *Engine) *bool { return &e.Keeper }, boolean, false,
			"sessions go on after a crash of the process, in the next one (Linux): `txlb keeper` has to run, see [Crashes](upgrade.md#crashes)"),
		row("zone", func(e *Engine) *string { return &e.Zone }, zoneName, "",
			"where this node is: hosts of the same `zone` take its clients first, see [Zones](#zones); no host is preferred if left out"),
	),
	of("fleet",
		row("name", func(f *Fleet) *string { return &f.Name }, fleetName, "",
			"the fleet: nodes with the same name and the same store have one configuration", required),
		row("node", func(f *Fleet) *string { return &f.Node }, or("auto", fleetName), "",
			"the name of this node, which no other node of the fleet may have; `auto`: the host name of the machine"),
		row("store", func(f *Fleet) *[]string { return &f.Store }, storeURLs, nil,
			"where etcd answers, separated by spaces: `https://10.0.0.5:2379 https://10.0.0.6:2379`; name all its members", required),
		row("lease", func(f *Fleet) *time.Duration { return &f.Lease }, between(minLease, maxLease), 10*time.Second,
			"how long a node may be silent before the others see it as gone"),
		row("ca", func(f *Fleet) *string { return &f.CA }, filePath, "",
			"PEM file of authorities that the store's certificate must come from; the system's if left out"),
		row("cert", func(f *Fleet) *string { return &f.Cert }, filePath, "",
			"PEM file with the certificate that this node shows the store, needs `key`; none if left out"),
		row("key", func(f *Fleet) *string { return &f.Key }, filePath, "", "see `cert`"),
		row("user", func(f *Fleet) *string { return &f.User }, plain, "",
			"user of the store, needs `password`; none if left out"),
		row("password", func(f *Fleet) *string { return &f.Password }, plain, "",
			"password of the user; readonly users see `***`", secret),
		row("listen", func(f *Fleet) *string { return &f.Listen }, peerAddress, "",
			"where the other nodes follow this one, `IP:PORT`, so that the nodes [share checks](fleet.md#shared-checks); this node checks all hosts itself if left out"),
		row("advertise", func(f *Fleet) *string { return &f.Advertise }, peerAddress, "",
			"where the other nodes find `listen`, `HOST:PORT`; as `listen` if left out"),
		row("secret", func(f *Fleet) *string { return &f.Secret }, fleetSecret, "",
			"16 characters or more, the same on all nodes, by which they know each other; after a space the former one, see [New secrets](fleet.md#new-secrets-and-certificates); if left out, they do by `cert`, `key` and `ca`; readonly users see `***`", secret),
	),
	of("service",
		row("name", func(s *Service) *string { return &s.Name }, identifier, "", "unique", required),
	),
	of("listen",
		row("ip", func(l *Listen) *string { return &l.Address }, checked(TypeListen, nil), "", "where clients connect", required),
		row("freeBind", func(l *Listen) *bool { return &l.FreeBind }, boolean, false,
			"listen although no interface has the address yet (Linux); not for UNIX sockets", runtime),
		row("interface", func(l *Listen) *string { return &l.Interface }, interfaceName, "",
			"take only connections that come in by this interface, or this VRF (Linux), see [Options of listeners](#options-of-listeners); all if left out", runtime),
		row("deferAccept", func(l *Listen) *bool { return &l.DeferAccept }, boolean, false,
			"accept a client when its first byte has come, or after a minute (Linux); only where clients speak first", runtime),
		row("fastOpen", func(l *Listen) *bool { return &l.FastOpen }, boolean, false,
			"clients may send data with their first segment (TCP Fast Open, Linux); needs `net.ipv4.tcp_fastopen` with bit 2", runtime),
		row("mptcp", func(l *Listen) *bool { return &l.MPTCP }, boolean, false,
			"clients may use several paths at once (Multipath TCP, Linux); all others get plain TCP", runtime),
		row("startTLS", func(l *Listen) *string { return &l.StartTLS }, orWord("no", "postgres", "smtp"), "",
			"the protocol in which clients ask for TLS first, so that a [route](#route) can see what it asks for: `postgres`: SSLRequest; `smtp`: STARTTLS", runtime),
		row("proxyProtocol", func(l *Listen) *string { return &l.ProxyProtocol }, orOff("accept", "require"), "",
			"whether a [PROXY header](#proxy-protocol) says who the client is: `accept`: connections from `proxyFrom` have one, all others have none; `require`: all have one", runtime),
		row("proxyFrom", func(l *Listen) *Networks { return &l.ProxyFrom }, proxySources, "",
			"addresses and networks of the proxies whose headers count, separated by spaces; `accept` needs it; with `require`, all others are rejected", runtime),
		row("tls", func(l *Listen) *KeyPairs { return &l.TLS }, keyPairs, "",
			"files in PEM, separated by spaces: a certificate and its key, and further pairs; the clients' TLS ends here, see [TLS](#tls)", runtime),
		row("clientCA", func(l *Listen) *string { return &l.ClientCA }, filePath, "",
			"PEM file of certificate authorities; with `tls`, only clients with a certificate of one of them are let in", runtime),
		row("alpn", func(l *Listen) *string { return &l.ALPN }, protocolNames, "",
			"with `tls`: protocols that clients may speak, the best first, separated by spaces: `h2 http/1.1`; clients that offer others alone are rejected", runtime),
	),
	of("timeouts",
		row("connect", func(t *Timeouts) *time.Duration { return &t.Connect }, unlimited, 5*time.Second,
			"time for one connect to a host; then txlb tries the next host", runtime),
		row("total", func(t *Timeouts) *time.Duration { return &t.Total }, unlimited, 30*time.Second,
			"time for all connects of one client together; reaching it does not count against a host", runtime),
		row("idle", func(t *Timeouts) *time.Duration { return &t.Idle }, unlimited, time.Hour,
			"how long no byte may flow in either direction", runtime),
		row("halfClosed", func(t *Timeouts) *time.Duration { return &t.HalfClosed }, named("", AsIdle, unlimited), AsIdle,
			"how long no byte may come from the other side after one side has ended; as `idle` if left out", runtime),
		row("unacked", func(t *Timeouts) *time.Duration { return &t.Unacked }, or("0", between(minUnacked, maxUnacked)), 0,
			"how long bytes may wait for a peer's acknowledgement (Linux); 0: as long as the kernel tries. See [Peers that are gone](#peers-that-are-gone)", runtime),
		row("keepAlive", func(t *Timeouts) *time.Duration { return &t.KeepAlive }, or("0", between(minKeepAlive, maxKeepAlive)), 60*time.Second,
			"how long a peer may be silent before TCP asks whether it is there; 0: never", runtime),
		row("queue", func(t *Timeouts) *time.Duration { return &t.Queue }, unlimited, 5*time.Second,
			"how long a client waits while every host has as many sessions as its `maxSessions`, see [Full hosts](#full-hosts)", runtime),
		row("hello", func(t *Timeouts) *time.Duration { return &t.Hello }, unlimited, 5*time.Second,
			"time for what a client has to say before txlb chooses a host: the [PROXY header](#proxy-protocol), and then the ClientHello, where a [route](#route) asks for it", runtime),
		row("maxAge", func(t *Timeouts) *time.Duration { return &t.MaxAge }, unlimited, 0,
			"how old a session may become, see [Ending sessions](#ending-sessions); each ends up to a tenth earlier, at random", runtime),
	),
	of("limits",
		row("sessions", func(l *Limits) *int { return &l.Sessions }, integer(0, maxMaxSessions), 0,
			"sessions of the service at once; 0: no limit. Clients above it are reset, see [Limits](#limits-of-services-and-clients)", runtime),
		row("perClient", func(l *Limits) *int { return &l.PerClient }, integer(0, maxMaxSessions), 0,
			"sessions of one client at once: of an IPv4 address, or of the /64 of an IPv6 address; 0: no limit", runtime),
		row("rate", func(l *Limits) *int { return &l.Rate }, integer(0, maxRate), 0,
			"new sessions a second: as many at once, and then one more each 1/`rate` s; 0: no limit", runtime),
		row("perClientRate", func(l *Limits) *int { return &l.PerClientRate }, integer(0, maxRate), 0,
			"new sessions a second of one client; 0: no limit", runtime),
		row("tries", func(l *Limits) *int { return &l.Tries }, integer(0, maxTries), 0,
			"how many hosts txlb tries for one client, the first included; 0: each host that is up once, then at most three that are down", runtime),
		row("scope", func(l *Limits) *string { return &l.Scope }, word("node", "fleet"), "node",
			"whose `sessions` and `rate` are: of each node, or of all nodes of a [fleet](fleet.md#shared-limits) together", runtime),
	),
	of("allow", accessRows()...),
	of("deny", accessRows()...),
	of("route",
		row("sni", func(r *Route) *string { return &r.SNI }, serverNames, "",
			"names that the client's TLS asks for, separated by spaces: `db.example`; `*.db.example` is every name below, at any depth; `*` any name", runtime),
		row("alpn", func(r *Route) *string { return &r.ALPN }, protocolNames, "",
			"protocols, one of which the client's TLS offers, separated by spaces: `h2 postgresql`", runtime),
		row("net", func(r *Route) *Networks { return &r.Nets }, routeNetworks, "",
			"networks (CIDR) and addresses of clients, separated by spaces", runtime),
		row("percent", func(r *Route) *int { return &r.Percent }, integer(0, 100), 100,
			"of each 100 clients that match, exactly this many, spread evenly; the others go on to the next route", runtime),
		row("group", func(r *Route) *string { return &r.Group }, identifier, "", "the group of the same service that they go to", required, runtime),
	),
	of("group",
		row("name", func(g *Group) *string { return &g.Name }, identifier, "", "unique within the service", required),
		row("scheduler", func(g *Group) *string { return &g.Scheduler }, scheduler, "leastc",
			"how txlb chooses a host, see the schedulers below", always, runtime),
		row("enable", func(g *Group) *bool { return &g.Enabled }, boolean, false,
			"this group is active; one group of a service is", always),
		row("allDown", func(g *Group) *string { return &g.AllDown }, word("try", "refuse", "hold"), "try",
			"when every host is down: `try` them anyway, `refuse` the client, or `hold` it: it waits until one is up, at most `<timeouts queue>`, see [Hold clients](hold.md)", runtime),
		row("onHold", func(g *Group) *string { return &g.OnHold }, command, "",
			"a program with its arguments, which runs when clients begin to wait because the group is held or all its hosts are down, see [Scale to zero](hold.md#scale-to-zero); only the file can say it", secret),
		row("start", func(g *Group) *bool { return &g.StartDown }, either("up", "down"), false,
			"`down`: a host takes no client before it has passed a check", runtime),
		row("maxFails", func(g *Group) *int { return &g.MaxFails }, integer(0, maxMaxFails), 1,
			"this many failed connects of clients within `failWindow` mark a host down; 1: each one, at once; 0: none", runtime),
		row("failWindow", func(g *Group) *time.Duration { return &g.FailWindow }, between(shortest, longestCheck), 10*time.Second,
			"see `maxFails`", runtime),
		row("stickySize", func(g *Group) *int { return &g.StickySize }, integer(1, maxSticky), 100_000,
			"how many clients a scheduler with [`,sticky`](#clients-that-come-back) remembers", runtime),
		row("stickyFor", func(g *Group) *time.Duration { return &g.StickyFor }, between(time.Second, longest), 30*time.Minute,
			"how long after its last session a client is forgotten", runtime),
		row("slow", func(g *Group) *int { return &g.Slow }, or("0", integer(2, maxSlow)), 0,
			"a host is ejected when its median [turnaround](monitoring.md#turnaround) within `failWindow` is more than so many times the group's, and over 10 ms; 0: none is", runtime),
		row("silent", func(g *Group) *time.Duration { return &g.Silent }, or("0", between(time.Second, longestCheck)), 0,
			"a host is ejected when it has left three clients in a row without a first answer for so long; 0: none is", runtime),
		row("ejectFor", func(g *Group) *time.Duration { return &g.EjectFor }, between(time.Second, longestCheck), 30*time.Second,
			"how long a host is ejected; twice as long each time while it goes on, up to ten times", runtime),
		row("maxEjected", func(g *Group) *int { return &g.MaxEjected }, integer(0, 100), 25,
			"percentage of the hosts that may be ejected at once, see [Grey hosts](health.md#grey-hosts); 0: none, else at least one", runtime),
		row("onMarkedDown", func(g *Group) *bool { return &g.EndWhenDown }, either("keep", "shutdown"), false,
			"`shutdown`: when a host is marked down, its sessions are closed, see [Ending sessions](#ending-sessions)", runtime),
		row("onMarkedUp", func(g *Group) *bool { return &g.EndBackups }, either("keep", "shutdown"), false,
			"`shutdown`: when a host that is no backup comes back up, the sessions of the group's backups are closed", runtime),
	),
	of("check",
		row("type", func(c *HealthCheck) *string { return &c.Type }, word("tcp", "http", "tls", "expect"), "tcp",
			"`tcp`: the host accepts a connection. `http`: it answers a GET with a status that passes. `tls`: it answers a ClientHello. `expect`: it says something", always),
		row("interval", func(c *HealthCheck) *time.Duration { return &c.Interval }, between(shortestCheck, longestCheck), 2*time.Second,
			"time from the start of one check to the start of the next"),
		row("fastInterval", func(c *HealthCheck) *time.Duration { return &c.FastInterval }, or("", between(shortestCheck, longestCheck)), 0,
			"interval while a host is going up or down; as `interval` if left out"),
		row("downInterval", func(c *HealthCheck) *time.Duration { return &c.DownInterval }, or("", between(shortestCheck, longestCheck)), 0,
			"interval while a host is down; as `interval` if left out"),
		row("rise", func(c *HealthCheck) *int { return &c.Rise }, integer(1, maxRounds), 2,
			"successes in a row that mark a host up"),
		row("fall", func(c *HealthCheck) *int { return &c.Fall }, integer(1, maxRounds), 3,
			"failures in a row that mark a host down"),
		row("timeout", func(c *HealthCheck) *time.Duration { return &c.Timeout }, between(shortest, longestProbe), 2*time.Second,
			"for a whole check; the connect has at most the interval"),
		row("port", func(c *HealthCheck) *int { return &c.Port }, or("", integer(1, 65535)), 0,
			"port to check, if not the host's; not for UNIX sockets"),
		row("path", func(c *HealthCheck) *string { return &c.Path }, checked(TypeText, checkPath), "/", "http: path to request"),
		row("host", func(c *HealthCheck) *string { return &c.Host }, or("", checked(TypeText, checkHostHeader)), "",
			"http: the Host header; default: the address. tls: the server name (SNI); default: none"),
		row("verify", func(c *HealthCheck) *bool { return &c.Verify }, boolean, false,
			"tls: complete the handshake and verify the certificate, for `host`, else for the address"),
		row("ca", func(c *HealthCheck) *string { return &c.CA }, filePath, "",
			"tls with verify: PEM file of trusted certificates; the system's if left out"),
		row("status", func(c *HealthCheck) *string { return &c.Status }, checked(TypeText, checkStatus), "200-399",
			"http: statuses that pass, numbers and ranges: `200,204,300-399`"),
		row("send", func(c *HealthCheck) *string { return &c.Send }, bytesAsText, "", "expect: bytes to send first; as they may have a password, readonly users see `***`", secret),
		row("expect", func(c *HealthCheck) *string { return &c.Expect }, bytesAsText, "",
			"expect: bytes that must be in the first 64 KiB of the answer; required"),
	),
	of("host",
		row("name", func(h *Host) *string { return &h.Name }, identifier, "", "unique within the group; `host.N` if left out, N being its place in the group, from 0", always, lenient),
		row("ip", func(h *Host) *string { return &h.Address }, checked(TypeTarget, nil), "",
			"address and port, or `unix:/path`; the host may be a DNS name, or `ip` the name of SRV records, see [Names](#names)", required, runtime),
		row("weight", func(h *Host) *int { return &h.Weight }, integer(0, MaxWeight), 1,
			"share of new clients; 0: none. rand, roundr and leastc obey only 0", always, runtime),
		row("backup", func(h *Host) *bool { return &h.Backup }, boolean, false,
			"takes clients only when no other host is left", runtime),
		row("state", func(h *Host) *string { return &h.State }, word("ready", "drain", "maint"), "ready",
			"`drain`: no new clients, sessions continue; `maint`: also no health checks", runtime),
		row("maxSessions", func(h *Host) *int { return &h.MaxSessions }, integer(0, maxMaxSessions), 0,
			"sessions of the host at once, of each of its addresses; 0: no limit. When all hosts are full, clients wait, see [Full hosts](#full-hosts)", runtime),
		row("slowStart", func(h *Host) *time.Duration { return &h.SlowStart }, unlimited, 0,
			"how long the host's share grows after it comes back", runtime),
		row("resolve", func(h *Host) *time.Duration { return &h.Resolve }, everySecond, DefaultResolve,
			"how often the name in `ip` is looked up, a second or longer; `0`: until it has resolved once", runtime),
		row("source", func(h *Host) *string { return &h.Source }, sourceAddress, "",
			"the address of this machine that connections to the host come from, those of checks too, see [Sources](#sources); `client`: that of the client (Linux); the kernel's choice if left out", runtime),
		row("interface", func(h *Host) *string { return &h.Interface }, interfaceName, "",
			"the interface, or VRF, by which connections to the host go out, those of checks too (Linux); as the routes say if left out", runtime),
		row("proxyProtocol", func(h *Host) *string { return &h.ProxyProtocol }, orOff("v1", "v2"), "",
			"send the host a [PROXY header](#proxy-protocol) of this version ahead of each stream, and with health checks", runtime),
		row("zone", func(h *Host) *string { return &h.Zone }, zoneName, "",
			"where the host is, see [Zones](#zones); if left out, it is near every node", runtime),
		row("tls", func(h *Host) *string { return &h.TLS }, orWord("no", "yes", Unverified), "",
			"`yes`: connections to the host are encrypted, checks too, and its certificate is verified; `unverified`: encrypted, whatever its certificate is, see [TLS](#tls)", runtime),
		row("ca", func(h *Host) *string { return &h.CA }, filePath, "",
			"with `tls`: PEM file of certificate authorities to trust; the system's if left out", runtime),
		row("sni", func(h *Host) *string { return &h.SNI }, tlsName, "",
			"with `tls`: the name to ask for (SNI), which its certificate must be for; the name or the address in `ip` if left out", runtime),
		row("eject", func(h *Host) *bool { return &h.NeverEject }, either("auto", "never"), false,
			"`never`: the host takes clients while it is up, see [Grey hosts](health.md#grey-hosts)", runtime),
	),
	of("mirror",
		row("ip", func(m *Mirror) *string { return &m.Address }, checked(TypeTarget, nil), "",
			"address and port, or `unix:/path`, of who gets a copy of what the clients of the group send; the host may be a DNS name. Unique within the group", required),
		row("percent", func(m *Mirror) *int { return &m.Percent }, integer(0, 100), 100,
			"of each 100 sessions about this many are copied, drawn by lot; 0: none", runtime),
		row("resolve", func(m *Mirror) *time.Duration { return &m.Resolve }, everySecond, DefaultResolve,
			"how often the name in `ip` is looked up, a second or longer; `0`: until it has resolved once", runtime),
		row("proxyProtocol", func(m *Mirror) *string { return &m.ProxyProtocol }, orOff("v1", "v2"), "",
			"send the mirror a [PROXY header](#proxy-protocol) of this version ahead of each copy, whatever the hosts get", runtime),
	),
	of("admin",
		row("targets", func(a *Admin) *string { return &a.Targets }, targetRule, targetsTCP,
			"what [commands](security.md#what-commands-may-name) may name at run time: `tcp`: TCP addresses, no `unix:` socket and no file; `any`; or networks such as `10.0.0.0/8 192.168.0.0/16` in which hosts have to be. The file may name anything"),
	),
	of("web",
		row("listen", func(a *AdminListen) *string { return &a.Listen }, adminAddress, "localhost:7000",
			"address of the admin page; its host is an accepted name of the page", always),
		row("enable", func(a *AdminListen) *bool { return &a.Enable }, boolean, false,
			"on if left out and `listen` is a loopback address", always),
		row("secure", func(a *AdminListen) *bool { return &a.Secure }, boolean, true, "use TLS 1.2 or newer", always),
		row("refresh", func(a *AdminListen) *time.Duration { return &a.Refresh }, pageRefresh, defaultRefresh,
			"seconds between refreshes of the page without JavaScript", always),
		row("certificate", func(a *AdminListen) *string { return &a.Certificate }, filePath, "",
			"PEM file, needs `key`; if both are left out, txlb creates one at the first start and keeps it"),
		row("key", func(a *AdminListen) *string { return &a.Key }, filePath, "", "see `certificate`"),
		row("readyz", func(a *AdminListen) *string { return &a.Readyz }, or("process", word("any", "all")), "",
			"when `/readyz` says 503: `process`: while draining; `any`, `all`: also while any or all services have no usable host"),
		row("names", func(a *AdminListen) *[]string { return &a.Names }, hostNames, nil,
			"host names that the page may be called by, beside its own, separated by spaces: `ops.example`"),
		row("trustedProxies", func(a *AdminListen) *[]string { return &a.TrustedProxies }, proxies, nil,
			"addresses and networks of reverse proxies, separated by spaces: their `X-Forwarded-For`, `-Host` and `-Prefix` count, see "+
				"[Behind a reverse proxy](admin-page.md#behind-a-reverse-proxy)"),
		row("allow", func(a *AdminListen) *Networks { return &a.Allow }, allowedNetworks, "", allowHelp),
	),
	of("ssh",
		row("listen", func(a *AdminListen) *string { return &a.Listen }, adminAddress, "localhost:2222",
			"address of the SSH server", always),
		row("enable", func(a *AdminListen) *bool { return &a.Enable }, boolean, false,
			"on if left out and `listen` is a loopback address", always),
		row("hostKey", func(a *AdminListen) *string { return &a.HostKey }, filePath, "",
			"file; if left out, txlb creates one at the first start and keeps it"),
		row("allow", func(a *AdminListen) *Networks { return &a.Allow }, allowedNetworks, "", allowHelp),
	),
	of("socket",
		row("path", func(s *Socket) *string { return &s.Path }, checked(TypeFile, checkSocketPath), "",
			"UNIX socket for commands, an absolute path of at most 107 bytes", required),
		row("mode", func(s *Socket) *fs.FileMode { return &s.Mode }, fileMode, 0o600,
			"who may open it: **everyone who can has full access**, without a login", always),
		row("group", func(s *Socket) *string { return &s.Group }, plain, "",
			"name or number of the group that owns it; the process's if left out"),
	),
	of("metrics",
		row("listen", func(a *Admin) *string { return &a.Metrics }, checked(TypeListen, nil), "", "where Prometheus reads them", required),
		row("allow", func(a *Admin) *Networks { return &a.MetricsAllow }, allowedNetworks, "", allowHelp),
	),
	of("user",
		row("name", func(u *User) *string { return &u.Name }, identifier, "", "unique", required),
		row("password", func(u *User) *string { return &u.Password }, plain, "", "a crypt(3) hash", always, runtime, secret),
		row("access", func(u *User) *string { return &u.Access }, word("full", "readonly"), "readonly", "what the user may do", always, runtime),
	),
	of("hostCheck", periodic(func(m *Manager) *Check { return &m.HostCheck }, 10*time.Second, true,
		"hosts of groups without a `<check>` that are down are checked by a TCP connect; one success brings a host back")...),
	of("heartbeat", periodic(func(m *Manager) *Check { return &m.Heartbeat }, 60*time.Second, false,
		"hosts of groups without a `<check>` that are up are checked; the third failure in a row marks one down")...),
	of("configCheck", append(periodic(func(m *Manager) *Check { return &m.ConfigCheck }, 30*time.Second, false,
		"run-time changes are written to the file, see [Save](changes.md#save)"),
		row("backups", func(m *Manager) *int { return &m.Backups }, integer(0, maxBackups), 10,
			"number of old files to keep, also by `saveConfig`", always))...),
	of("dns",
		row("servers", func(d *DNS) *[]string { return &d.Servers }, fieldList, nil,
			"up to eight addresses separated by spaces, port 53 if none is given; the system's resolver if left out"),
	),
	of("control",
		row("socket", func(c *Control) *string { return &c.Socket }, controlSocket, "", "path of a UNIX socket"),
	),
	of("logging",
		row("file", func(l *Logging) *string { return &l.File }, filePath, "", "file or FIFO; standard error if left out"),
		row("level", func(l *Logging) *string { return &l.Level }, word("debug", "info", "warn", "error"), "info", "what is logged"),
		row("format", func(l *Logging) *string { return &l.Format }, word("text", "json"), "text", "format of the log lines"),
		row("audit", func(l *Logging) *string { return &l.Audit }, filePath, "", "file or FIFO for logins, refusals, commands and reads of secrets, as JSON lines; none if left out"),
		row("access", func(l *Logging) *string { return &l.Access }, accessTarget, "",
			"where a line for each session that has ended goes: a file or FIFO, `stderr`, `journal`, `syslog:udp:HOST:PORT`, `syslog:tcp:HOST:PORT` or `syslog:unix:PATH`; nowhere if left out, see [Access log](logs.md#access-log)"),
		row("accessFormat", func(l *Logging) *string { return &l.AccessFormat }, word("tcplog", "json"), "tcplog",
			"`tcplog`: as HAProxy writes it; `json`: one object a line"),
	),
)

// accessRows makes the rows of a rule of <access>.
func accessRows() []Attribute {
	return []Attribute{
		row("net", func(r *AccessRule) *string { return &r.Nets }, accessNetworks, "",
			"networks (CIDR) and addresses, separated by spaces; `*`: every address"),
		row("file", func(r *AccessRule) *string { return &r.File }, filePath, "",
			"file with one network a line, instead of `net`; blank lines and what follows a # are ignored"),
	}
}

// allowHelp is what allow means wherever it is.
const allowHelp = "networks (CIDR) and addresses that may connect, separated by spaces; all others are reset before TLS or SSH begins. A change is for new connections"

// periodic makes the rows of a task of <manager>.
func periodic(task func(*Manager) *Check, interval time.Duration, on bool, help string) []Attribute {
	return []Attribute{
		row("interval", func(m *Manager) *time.Duration { return &task(m).Interval }, bareSeconds, interval, "in seconds", always),
		row("enable", func(m *Manager) *bool { return &task(m).Enable }, boolean, on, help, always),
	}
}

// of names the element of rows.
func of(element string, rows ...Attribute) []Attribute {
	for i := range rows {
		rows[i].Element = element
	}
	return rows
}

func table(elements ...[]Attribute) map[string][]Attribute {
	m := make(map[string][]Attribute, len(elements))
	for _, rows := range elements {
		m[rows[0].Element] = rows
	}
	return m
}
