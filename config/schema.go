package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/sched"
)

// The schema: one row for each attribute of each element, and nothing about an
// attribute anywhere else. Reading, writing, checking, differences, the runtime
// verbs, their completion and help, the admin page and the tables of
// docs/configuration.md all go through these rows. To add an attribute, add a
// field to the model and a row here.
//
// Only what earlier versions wrote in a way of its own is read by hand, in
// elements.go.

// Attribute is one row of the schema. It is immutable and safe for concurrent
// use; the model that Get, Set and Check are given is not.
type Attribute struct {
	Element string // the tag of the element that has it
	Name    string
	Type    Type
	// Low and High bound a Number, and a Duration in nanoseconds, both
	// included. Zero bounds of a Duration mean that 0 stands for "no limit".
	Low, High int64
	Choices   []string // of a Choice
	Default   string   // as a document says it; "" if there is none, or see Help
	// Words are further values with a meaning of their own, such as auto.
	Words []string
	Help  string // its meaning in one line of Markdown, without a full stop
	// Runtime tells that a verb can change it while the process runs.
	Runtime bool

	required bool // a document must say it
	always   bool // written even if it is the default
	lenient  bool // an empty value counts as none

	read      func(p any, s string) error
	write     func(p any) string
	check     func(p any) error // nil: every value of the field is right
	reset     func(p any)       // sets the default
	isDefault func(p any) bool
	canonical func(s string) (string, error)
}

// Type is what the values of an attribute look like.
type Type uint8

const (
	TypeText      Type = iota
	TypeBool           // yes or no
	TypeNumber         // Low to High
	TypeDuration       // with a unit: 500ms, 2s, 5m, 1h
	TypeSeconds        // without a unit
	TypeSize           // bytes, with or without a unit
	TypeChoice         // one of Choices
	TypeScheduler      // a name or an alias of package sched
	TypeTarget         // an address to connect to
	TypeListen         // an address to listen on
	TypeFile           // the path of a file or of a socket
	TypeOther          // Help says it
)

// Attributes returns the rows of an element in the order in which they are
// written. The caller must not change them.
func Attributes(element string) []Attribute { return schema[element] }

// Get returns the value that p, a pointer to the struct of the element, has, as
// a document says it.
func (a *Attribute) Get(p any) string { return a.write(p) }

// Set reads a value into p, a pointer to the struct of the element. An error
// says what would be right, and leaves p as it was.
func (a *Attribute) Set(p any, s string) error { return a.read(p, s) }

// Parse returns a value in its canonical form.
func (a *Attribute) Parse(s string) (string, error) { return a.canonical(s) }

// Values describes the values in a few words.
func (a *Attribute) Values() string {
	text := ""
	switch a.Type {
	case TypeBool:
		text = "yes, no"
	case TypeNumber:
		text = fmt.Sprintf("%d to %d", a.Low, a.High)
	case TypeDuration:
		text = "a duration"
		switch {
		case a.Low == 0:
			text += " or 0"
		case a.High < int64(longest):
			text = duration(time.Duration(a.Low)) + " to " + duration(time.Duration(a.High))
		}
	case TypeSeconds:
		text = "seconds"
	case TypeSize:
		text = "a size"
		if a.High < maxBytes {
			text = formatSize(a.Low) + " to " + formatSize(a.High)
		}
	case TypeChoice:
		text = strings.Join(a.Choices, ", ")
	case TypeScheduler:
		text = "a scheduler"
	case TypeTarget, TypeListen:
		text = "an address"
	case TypeFile:
		text = "a path"
	}
	list := slices.Clone(a.Words)
	if text != "" {
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// Explain is Help and Values in one line of plain text.
func (a *Attribute) Explain() string {
	text := strings.NewReplacer("`", "", "**", "").Replace(a.Help)
	if v := a.Values(); v != "" {
		text += " (" + v + ")"
	}
	return text
}

// Find returns the row of an element's attribute, nil if there is none.
func Find(element, name string) *Attribute { return find(schema[element], name) }

func find(rows []Attribute, name string) *Attribute {
	for i := range rows {
		if rows[i].Name == name {
			return &rows[i]
		}
	}
	return nil
}

// values is a type of values: how they are read, written and bounded.
type values[T any] struct {
	kind      Type
	low, high int64
	choices   []string
	words     []string
	parse     func(string) (T, error) // within the bounds
	format    func(T) string
	check     func(T) error // the bounds, for a model that was not read; nil: none
}

// option completes a row.
type option func(*Attribute)

func required(a *Attribute) { a.required, a.always = true, true }
func always(a *Attribute)   { a.always = true }
func lenient(a *Attribute)  { a.lenient = true }
func runtime(a *Attribute)  { a.Runtime = true }

// row makes a row of the field that at finds in a P. def is the default of the
// field, which the functions New… of the model set.
func row[P, T any](name string, at func(*P) *T, v values[T], def T, help string, options ...option) Attribute {
	std := v.format(def)
	a := Attribute{
		Name: name, Type: v.kind, Low: v.low, High: v.high, Choices: v.choices, Words: v.words, Default: std, Help: help,
		read: func(p any, s string) error {
			value, err := v.parse(s)
			if err == nil {
				*at(p.(*P)) = value
			}
			return err
		},
		write: func(p any) string { return v.format(*at(p.(*P))) },
		canonical: func(s string) (string, error) {
			value, err := v.parse(s)
			if err != nil {
				return "", err
			}
			return v.format(value), nil
		},
		isDefault: func(p any) bool { return same(*at(p.(*P)), def) },
		reset:     func(p any) { *at(p.(*P)) = def },
	}
	if v.check != nil {
		a.check = func(p any) error { return v.check(*at(p.(*P))) }
	}
	for _, o := range options {
		o(&a)
	}
	return a
}

// same compares two values of a field.
func same[T any](a, b T) bool {
	if list, ok := any(a).([]string); ok {
		return slices.Equal(list, any(b).([]string))
	}
	return any(a) == any(b)
}

// What follows are the types of values.

var plain = values[string]{
	kind:   TypeText,
	parse:  func(s string) (string, error) { return s, nil },
	format: func(s string) string { return s },
	check: func(s string) error {
		if !printable(s) {
			return fmt.Errorf("%q has a non-printable character", s)
		}
		return nil
	},
}

// filePath names a file.
var filePath = checked(TypeFile, plain.check)

// identifier is the name of a service, a group, a host or a user, which is
// checked together with its neighbours.
var identifier = checked(TypeText, nil)

// checked is plain text that check accepts.
func checked(kind Type, check func(string) error) values[string] {
	v := plain
	v.kind, v.check = kind, check
	return v
}

var boolean = values[bool]{
	kind: TypeBool, parse: parseBool,
	format: func(b bool) string {
		if b {
			return "true"
		}
		return "false"
	},
}

func integer(low, high int) values[int] {
	return values[int]{
		kind: TypeNumber, low: int64(low), high: int64(high),
		parse:  func(s string) (int, error) { return parseInt(s, low, high) },
		format: func(n int) string { return fmt.Sprint(n) },
		check: func(n int) error {
			if n < low || n > high {
				return fmt.Errorf("%d is not between %d and %d", n, low, high)
			}
			return nil
		},
	}
}

// or gives the zero value of T a word of its own. The word "" stands for an
// attribute that is left out.
func or[T comparable](word string, v values[T]) values[T] {
	var zero T
	return named(word, zero, v)
}

// named gives a value of T a word of its own, as or does for the zero value.
func named[T comparable](word string, special T, v values[T]) values[T] {
	w := v
	if word != "" {
		w.words = []string{word}
	}
	w.parse = func(s string) (T, error) {
		if s == word {
			return special, nil
		}
		value, err := v.parse(s)
		if err != nil && word != "" {
			err = fmt.Errorf("%w, nor %s", err, word)
		}
		return value, err
	}
	w.format = func(value T) string {
		if value == special {
			return word
		}
		return v.format(value)
	}
	w.check = func(value T) error {
		if value == special {
			return nil
		}
		return v.check(value)
	}
	return w
}

// between is a duration from low to high.
func between(low, high time.Duration) values[time.Duration] {
	bounds := func(d time.Duration) error {
		if d < low || d > high {
			return fmt.Errorf("%s is not between %s and %s", duration(d), duration(low), duration(high))
		}
		return nil
	}
	return values[time.Duration]{
		kind: TypeDuration, low: int64(low), high: int64(high), format: duration, check: bounds,
		parse: func(s string) (time.Duration, error) {
			d, err := parseDuration(s)
			if err == nil {
				err = bounds(d)
			}
			return d, err
		},
	}
}

// unlimited is a duration for which 0 means that there is none.
var unlimited = values[time.Duration]{
	kind: TypeDuration, high: int64(longest), parse: parseDuration, format: duration, check: checkDuration,
}

// everySecond is how often a name is looked up.
var everySecond = values[time.Duration]{
	kind: TypeDuration, low: int64(MinResolve), high: int64(longest), parse: parseResolve, format: duration, check: checkResolve,
}

var bareSeconds = values[time.Duration]{kind: TypeSeconds, parse: parseSeconds, format: seconds, check: checkSeconds}

func size(low, high int64) values[int64] {
	bounds := func(n int64) error {
		if n < low || n > high {
			return fmt.Errorf("%s is not between %s and %s", formatSize(n), formatSize(low), formatSize(high))
		}
		return nil
	}
	return values[int64]{
		kind: TypeSize, low: low, high: high, format: formatSize, check: bounds,
		parse: func(s string) (int64, error) {
			n, err := parseSize(s)
			if err == nil {
				err = bounds(n)
			}
			return n, err
		},
	}
}

func word(choices ...string) values[string] {
	check := func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("%q is not one of %s", s, strings.Join(choices, ", "))
		}
		return nil
	}
	return values[string]{
		kind: TypeChoice, choices: choices, check: check,
		parse:  func(s string) (string, error) { return s, check(s) },
		format: func(s string) string { return s },
	}
}

// either is a choice of two, of which yes stands for true.
func either(no, yes string) values[bool] {
	v := word(no, yes)
	return values[bool]{
		kind: TypeChoice, choices: v.choices,
		parse: func(s string) (bool, error) {
			_, err := v.parse(s)
			return s == yes, err
		},
		format: func(b bool) string {
			if b {
				return yes
			}
			return no
		},
	}
}

var scheduler = values[string]{
	kind: TypeScheduler, parse: ParseScheduler, format: func(s string) string { return s },
	check: func(s string) error {
		if !slices.Contains(sched.Names(), s) {
			return fmt.Errorf("unknown scheduler %q%s", s, suggest(s, sched.Names()))
		}
		return nil
	},
}

// fieldList is words with spaces between them.
var fieldList = values[[]string]{
	kind:   TypeOther,
	parse:  func(s string) ([]string, error) { return strings.Fields(s), nil },
	format: func(list []string) string { return strings.Join(list, " ") },
}

// hostNames are the names of hosts with spaces between them.
var hostNames = values[[]string]{kind: TypeOther, parse: parseHostNames, format: fieldList.format}

// proxies are the networks of those whose word counts for that of others.
var proxies = values[[]string]{kind: TypeOther, parse: parseProxies, format: fieldList.format}

// bytesAsText is bytes with escapes for those that do not show.
var bytesAsText = values[string]{
	kind: TypeText, parse: unescape, format: escape,
	check: func(s string) error {
		if len(s) > maxCheckText {
			return fmt.Errorf("%d bytes are more than %d", len(s), maxCheckText)
		}
		return nil
	},
}

var fileMode = values[fs.FileMode]{kind: TypeOther, parse: parseMode, format: formatMode, check: func(m fs.FileMode) error {
	if m&^fs.ModePerm != 0 {
		return fmt.Errorf("%o is not between 0 and 0777", uint32(m))
	}
	return nil
}}

// adminAddress is where a page or an SSH server listens. Earlier versions saved
// None for no address, and a bare port for one of localhost.
var adminAddress = values[string]{
	kind: TypeListen, format: plain.format, check: plain.check,
	parse: func(s string) (string, error) {
		switch {
		case s == "None" || s == "":
			return "", nil
		case strings.Trim(s, "0123456789") == "":
			return net.JoinHostPort("localhost", s), nil
		}
		return s, nil
	},
}

// pageRefresh is bare seconds. txLoadBalancer took the number for a boolean and
// saved that, so True and False stand for the default.
var pageRefresh = values[time.Duration]{
	kind: TypeSeconds, format: seconds, check: checkSeconds,
	parse: func(s string) (time.Duration, error) {
		if s == "True" || s == "False" {
			return defaultRefresh, nil
		}
		return parseSeconds(s)
	},
}

// controlSocket is a path; txLoadBalancer saved None for none.
var controlSocket = values[string]{
	kind: TypeFile, format: plain.format, check: checkControl,
	parse: func(s string) (string, error) {
		if s == "None" {
			return "", nil
		}
		return s, nil
	},
}

// sourceAddress is an address of this machine to connect from.
var sourceAddress = values[string]{
	kind: TypeText, format: plain.format,
	parse: func(s string) (string, error) {
		if err := checkSource(s); err != nil || s == "" {
			return "", err
		}
		a, _ := netip.ParseAddr(s)
		return a.Unmap().String(), nil
	},
	check: checkSource,
}

func checkSource(s string) error {
	if s == "" {
		return nil
	}
	if s == "client" {
		return errors.New("\"client\", the client's own address, is not supported by this version yet; give an address of this machine")
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an IP address; give one of this machine, without a port", s)
	case a.Zone() != "":
		return fmt.Errorf("%q has a zone; leave it out, that of the host counts", s)
	case a.IsUnspecified() || a.IsMulticast():
		return fmt.Errorf("%q is not an address to connect from; give one of this machine", s)
	}
	return nil
}

// The bounds of what the kernel takes: TCP_KEEPIDLE is at most 32767 s. Below a
// second a lost packet would end a connection.
const (
	minUnacked, maxUnacked     = time.Second, 24 * time.Hour
	minKeepAlive, maxKeepAlive = time.Second, 9 * time.Hour
)

// schema holds all rows by their element, each list in the order of writing.
var schema = table(
	of("engine",
		row("loops", func(e *Engine) *int { return &e.Loops }, or("auto", integer(1, maxLoops)), 0,
			"number of event loops; `auto`: one for each CPU. At low load, few threads run all of them"),
		row("ring", func(e *Engine) *string { return &e.Ring }, word("auto", "off"), "auto",
			"`auto`: sends a batch with one system call if the kernel has io_uring (Linux 6.6 or newer, not forbidden); `off`: one call for each send"),
		row("splice", func(e *Engine) *string { return &e.Splice }, word("auto", "always", "never"), "auto",
			"`auto`: streams that fill the buffer go through a pipe; `always`: all, from the first byte; `never`: none"),
		row("pipeSize", func(e *Engine) *int64 { return &e.PipeSize }, size(minPipeSize, maxPipeSize), 1<<20,
			"capacity of a pipe; the kernel may grant less"),
		row("pipeMemory", func(e *Engine) *int64 { return &e.PipeMemory }, size(1, maxBytes), 256<<20,
			"capacity of all pipes together; beyond it, streams are copied"),
		row("maxSessions", func(e *Engine) *int { return &e.MaxSessions }, or("auto", integer(1, maxMaxSessions)), 0,
			"maximum of open sessions; `auto`: what the limit of open files allows, two for each session. At the limit, clients wait in the kernel's queue"),
		row("backlog", func(e *Engine) *int { return &e.Backlog }, integer(1, maxBacklog), 4096,
			"length of each listener's queue"),
		row("drain", func(e *Engine) *time.Duration { return &e.Drain }, unlimited, 30*time.Second,
			"how long SIGTERM waits for sessions to finish"),
	),
	of("service",
		row("name", func(s *Service) *string { return &s.Name }, identifier, "", "unique", required),
	),
	of("listen",
		row("ip", func(l *Listen) *string { return &l.Address }, checked(TypeListen, nil), "", "where clients connect", required),
		row("freeBind", func(l *Listen) *bool { return &l.FreeBind }, boolean, false,
			"listen although no interface has the address yet (Linux); not for UNIX sockets", runtime),
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
	),
	of("limits",
		row("tries", func(l *Limits) *int { return &l.Tries }, integer(0, maxTries), 0,
			"how many hosts txlb tries for one client, the first included; 0: each host that is up once, then at most three that are down", runtime),
	),
	of("group",
		row("name", func(g *Group) *string { return &g.Name }, identifier, "", "unique within the service", required),
		row("scheduler", func(g *Group) *string { return &g.Scheduler }, scheduler, "leastc",
			"how txlb chooses a host, see the schedulers below", always, runtime),
		row("enable", func(g *Group) *bool { return &g.Enabled }, boolean, false,
			"this group is active; one group of a service is", always),
		row("allDown", func(g *Group) *string { return &g.AllDown }, word("try", "refuse"), "try",
			"when every host is down: `try` them anyway, or `refuse` the client", runtime),
		row("start", func(g *Group) *bool { return &g.StartDown }, either("up", "down"), false,
			"`down`: a host takes no client before it has passed a check", runtime),
		row("maxFails", func(g *Group) *int { return &g.MaxFails }, integer(0, maxMaxFails), 1,
			"this many failed connects of clients within `failWindow` mark a host down; 1: each one, at once; 0: none", runtime),
		row("failWindow", func(g *Group) *time.Duration { return &g.FailWindow }, between(shortest, longestCheck), 10*time.Second,
			"see `maxFails`", runtime),
		row("maxEjected", func(g *Group) *int { return &g.MaxEjected }, integer(0, 100), 25,
			"percentage of the hosts that may be ejected at once because they [reset their clients](operations.md#resets-before-the-first-byte); 0: none, else at least one", runtime),
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
		row("send", func(c *HealthCheck) *string { return &c.Send }, bytesAsText, "", "expect: bytes to send first"),
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
		row("slowStart", func(h *Host) *time.Duration { return &h.SlowStart }, unlimited, 0,
			"how long the host's share grows after it comes back", runtime),
		row("resolve", func(h *Host) *time.Duration { return &h.Resolve }, everySecond, DefaultResolve,
			"how often the name in `ip` is looked up, a second or longer; `0`: until it has resolved once", runtime),
		row("source", func(h *Host) *string { return &h.Source }, sourceAddress, "",
			"the address of this machine that connections to the host come from, those of checks too; the kernel's choice if left out", runtime),
	),
	of("admin",
		row("targets", func(a *Admin) *string { return &a.Targets }, targetRule, targetsTCP,
			"what [commands](operations.md#what-commands-may-name) may name at run time: `tcp`: TCP addresses, no `unix:` socket and no file; `any`; or networks such as `10.0.0.0/8 192.168.0.0/16` in which hosts have to be. The file may name anything"),
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
				"[Behind a reverse proxy](operations.md#behind-a-reverse-proxy)"),
	),
	of("ssh",
		row("listen", func(a *AdminListen) *string { return &a.Listen }, adminAddress, "localhost:2222",
			"address of the SSH server", always),
		row("enable", func(a *AdminListen) *bool { return &a.Enable }, boolean, false,
			"on if left out and `listen` is a loopback address", always),
		row("hostKey", func(a *AdminListen) *string { return &a.HostKey }, filePath, "",
			"file; if left out, txlb creates one at the first start and keeps it"),
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
	),
	of("user",
		row("name", func(u *User) *string { return &u.Name }, identifier, "", "unique", required),
		row("password", func(u *User) *string { return &u.Password }, plain, "", "a crypt(3) hash", always),
		row("access", func(u *User) *string { return &u.Access }, word("full", "readonly"), "readonly", "what the user may do", always),
	),
	of("hostCheck", periodic(func(m *Manager) *Check { return &m.HostCheck }, 10*time.Second, true,
		"hosts of groups without a `<check>` that are down are checked by a TCP connect; one success brings a host back")...),
	of("heartbeat", periodic(func(m *Manager) *Check { return &m.Heartbeat }, 60*time.Second, false,
		"hosts of groups without a `<check>` that are up are checked; the third failure in a row marks one down")...),
	of("configCheck", append(periodic(func(m *Manager) *Check { return &m.ConfigCheck }, 30*time.Second, false,
		"run-time changes are written to the file, see [Save](operations.md#save)"),
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
	),
)

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

// reset gives every field of p that has a row its default.
func reset[P any](element string, p *P) *P {
	rows := schema[element]
	for i := range rows {
		rows[i].reset(p)
	}
	return p
}
