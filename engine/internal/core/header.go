package core

import (
	"crypto/tls"
	"net/netip"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/proxyproto"
	"github.com/txlb/txlb/sched"
)

// MaxHeader is how many bytes of what a client has sent Heard has to see at most.
const MaxHeader = proxyproto.MaxHeader

// Entry is what a listener has for the sessions that it accepts. It is immutable.
type Entry struct {
	Svc   *Service
	proxy engine.ProxyHeaders
	from  []netip.Prefix
	TLS   *tls.Config // ends the TLS of clients; nil: none does

	startTLS startTLS
	dialed   bool // of the program itself, see Dialed
}

// Bare returns the entry of connections that no listener has accepted.
func Bare(svc *Service) *Entry { return &Entry{Svc: svc} }

// Dialed returns the entry of connections that the program asks for: there is no client to
// be heard.
func Dialed(svc *Service) *Entry { return &Entry{Svc: svc, dialed: true} }

// Goroutines tells whether goroutines carry the sessions that begin now: a loop cannot, or
// the client may have to be given to the program.
func (e *Entry) Goroutines() bool {
	r := e.Svc.Route.Load()
	return e.TLS != nil || r.Goroutines || r.Fallback != nil && lacksHosts(r)
}

// lacksHosts tells whether a group of a route has no host.
func lacksHosts(r *engine.Route) bool {
	if r.Table.Empty() {
		return true
	}
	for _, t := range r.Groups {
		if t.Empty() {
			return true
		}
	}
	return false
}

func newEntry(svc *Service, o engine.ListenOptions) *Entry {
	if o.Proxy != engine.ProxyOff {
		svc.proxies.Store(true)
	}
	if o.TLS != nil {
		svc.tls.Store(true)
	}
	e := &Entry{Svc: svc, proxy: o.Proxy, from: o.ProxyFrom, TLS: o.TLS}
	switch o.StartTLS {
	case engine.StartTLSPostgres:
		e.startTLS = postgres
	case engine.StartTLSSMTP:
		e.startTLS = smtp
	}
	return e
}

// first returns the state in which a session from an address begins.
func (e *Entry) first(from sched.Addr) admissionState {
	switch {
	case e.proxy == engine.ProxyOff:
		return looking
	case e.trusts(from):
		return unheard
	case e.proxy == engine.ProxyRequire:
		return unwelcome
	}
	return looking
}

// trusts tells whether the word of an address counts.
func (e *Entry) trusts(from sched.Addr) bool {
	if len(e.from) == 0 {
		return e.proxy == engine.ProxyRequire
	}
	ip := from.IP().Addr().WithZone("")
	for _, p := range e.from {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// Hears tells whether the session waits for what its client says.
func (a *Admission) Hears() bool { return a.state == unheard || a.state == untold }

// Listens is how many bytes of what the client has sent Heard has to see at most.
func (a *Admission) Listens() int {
	switch {
	case a.state == untold && a.attempt.startTLS == smtp:
		return maxCommands * maxLine
	case a.state == untold:
		return MaxHello
	}
	return MaxHeader
}

// Heard takes in what the client has sent: the first bytes, as many as Listens says, or
// fewer if no more have come. ended says that no more will come. The first take bytes
// are not the stream's: they have to be off it before the step is carried out. With the
// step Hear they have to be looked at again from there.
func (a *Admission) Heard(now int64, b []byte, ended bool, free *Attempts) (take int, step Step) {
	switch a.state {
	case unheard:
	case untold:
		return a.heardHello(now, b, ended, free)
	default:
		return 0, Step{}
	}
	h, size, state := proxyproto.Parse(b)
	switch {
	case state == proxyproto.Short && ended:
		return 0, a.refuse(proxyEnd)
	case state == proxyproto.Short:
		return 0, a.awaitHeader(size)
	case state != proxyproto.Whole:
		return 0, a.refuse(malformed(state))
	}
	if h.Source.IsValid() {
		a.noteHeader(free, h.Source, h.Destination)
		a.attempt.from = sched.TCPAddr(h.Source)
	}
	a.Count().proxied.Add(1)
	a.noteHeard(now, free)
	a.state, a.attempt.since = looking, now
	return size, a.Next(now)
}

// awaitHeader waits for the rest of the client's header.
func (a *Admission) awaitHeader(need int) Step {
	return Step{Do: Hear, Until: a.helloLimit(), Need: need}
}

// helloLimit returns when the client has had its time for what it has to say.
func (a *Admission) helloLimit() int64 {
	return after(a.attempt.since, a.Svc.Route.Load().Timeouts.Hello)
}

// Left is how a session ends whose client has reset the connection before it had a host.
func (a *Admission) Left() Termination {
	switch {
	case a.Hears() || a.state == shaking:
		return helloEnded
	case a.state == queued:
		return queueLeft
	}
	return ClientGone
}

// Header appends the PROXY header for the session's host to b: nothing, if it gets
// none. No byte of the session may have moved yet. local returns the address that the
// client has connected to, as the kernel has it.
func (a *Admission) Header(b []byte, local func() netip.AddrPort) []byte {
	v := proxyproto.Version(a.Host.ProxyProtocol())
	if v == proxyproto.Off || a.attempt == nil {
		return b
	}
	return a.header(b, v, a.attempt.from.IP(), local)
}

// header appends a PROXY header for a session whose client was accepted from an address.
func (a *Admission) header(b []byte, v proxyproto.Version, from netip.AddrPort, local func() netip.AddrPort) []byte {
	if o := a.Origin(); o != nil {
		return proxyproto.Append(b, v, o.Client, o.To)
	}
	var to netip.AddrPort
	if from.IsValid() {
		to = local()
	}
	return proxyproto.Append(b, v, from, to)
}

// MaxHeaderOut is how many bytes Header appends at most.
const MaxHeaderOut = proxyproto.MaxAppend

// HeaderSize is how long the PROXY header is that goes ahead of a session to its host.
func HeaderSize(h *sched.Host, p *Passport, local func() netip.AddrPort) int {
	a := Admission{Host: h, attempt: new(Attempt)}
	if p.Origin != nil {
		a.notes = &Notes{origin: *p.Origin, headed: true}
	}
	if p.Try != nil {
		a.attempt.from = clientOf(p.Try.From)
	}
	return len(a.Header(nil, local))
}
