package director

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/certs"
)

// serverKey and clientKey name a listener and a host to package certs.
func serverKey(service, listen string) string { return service + "\x00" + listen }

func clientKey(service, group, host string) string { return service + "\x00" + group + "\x00" + host }

// wantedTLS is what a configuration wants of package certs.
func wantedTLS(c *config.Config) certs.Wanted {
	w := certs.Wanted{Servers: map[string]certs.Server{}, Clients: map[string]certs.Client{}}
	for _, s := range c.Services {
		for i := range s.Listen {
			l := &s.Listen[i]
			if l.TLS == "" {
				continue
			}
			one := certs.Server{ClientCA: l.ClientCA, ALPN: l.Protocols()}
			for _, p := range l.TLS.List() {
				one.Pairs = append(one.Pairs, certs.Pair(p))
			}
			w.Servers[serverKey(s.Name, l.Address)] = one
		}
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if h.TLS != "" {
					w.Clients[clientKey(s.Name, g.Name, h.Name)] = certs.Client{
						Name: h.ServerName(), CA: h.CA, Unverified: h.TLS == config.Unverified,
					}
				}
			}
		}
	}
	return w
}

// encrypts tells whether connections to a host of the group are encrypted.
func (g *Group) encrypts() bool {
	return slices.ContainsFunc(g.Hosts, func(h *Host) bool { return h.Config.TLS != "" })
}

// CheckTLS reads the files of certificates that a configuration names, and tells what is
// wrong with them. An expired certificate is a warning: clients that do not look are
// served. file stands for the configuration.
func CheckTLS(c *config.Config, file string) config.Problems {
	set, err := certs.NewStore(slog.New(slog.DiscardHandler)).Reread(wantedTLS(c))
	if err != nil {
		problems, _ := errors.AsType[config.Problems](tlsProblems(c, file, err))
		return problems
	}
	var found config.Problems
	now := time.Now()
	for _, s := range c.Services {
		for i := range s.Listen {
			l := &s.Listen[i]
			for _, one := range set.Certificates(serverKey(s.Name, l.Address)) {
				if why := one.Certificate.Spoilt(now); why != "" {
					found = append(found, config.Problem{
						File: file, Line: l.Pos.Line, Warning: true,
						Text: fmt.Sprintf("<listen tls> of service %q: the certificate in %s (%s) %s", s.Name, one.Pair.Certificate, one.Certificate.Names[0], why),
					})
				}
			}
		}
	}
	return found
}

// tlsProblems tells where in a configuration files are named that cannot be used.
func tlsProblems(c *config.Config, file string, err error) error {
	faults, ok := errors.AsType[certs.Faults](err)
	if !ok {
		return err
	}
	type place struct {
		line int
		what string
	}
	servers, clients := map[string]place{}, map[string]place{}
	for _, s := range c.Services {
		for i := range s.Listen {
			servers[serverKey(s.Name, s.Listen[i].Address)] = place{s.Listen[i].Pos.Line, fmt.Sprintf("service %q", s.Name)}
		}
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				clients[clientKey(s.Name, g.Name, h.Name)] = place{h.Pos.Line, fmt.Sprintf("host %q", h.Name)}
			}
		}
	}
	var problems config.Problems
	for _, f := range faults {
		element, at := "listen", servers[f.Key]
		if f.Client {
			element, at = "host", clients[f.Key]
		}
		problems = append(problems, config.Problem{File: file, Line: at.line, Text: fmt.Sprintf("<%s %s> of %s: %v", element, f.Attribute, at.what, f.Err)})
	}
	slices.SortStableFunc(problems, func(a, b config.Problem) int { return cmp.Compare(a.Line, b.Line) })
	return problems
}

// looker looks at the files of certificates, one look at a time, beside the director.
type looker struct {
	store *certs.Store
	busy  atomic.Bool
}

// look begins a look if there is something to look at.
func (l *looker) look(beside *sync.WaitGroup) {
	if l.store.Idle() || !l.busy.CompareAndSwap(false, true) {
		return
	}
	beside.Go(func() {
		l.store.Look(time.Now())
		l.busy.Store(false)
	})
}

// Certificate is a certificate of a listener as its files were when they could last be
// used.
type Certificate struct {
	Service, Listen string
	File            string   // of the certificate
	Names           []string // that it is for; never empty
	From, To        time.Time
	Trouble         string // why the files as they are now cannot be used, "" if they can
}

// Certificates returns the certificates of all listeners.
func (s *State) Certificates() (list []Certificate) {
	if s.tls == nil {
		return nil
	}
	for _, svc := range s.Services {
		first := len(list) // of this service
		for i := range svc.Config.Listen {
			address := svc.Config.Listen[i].Address
			for _, one := range s.tls.Certificates(serverKey(svc.Config.Name, address)) {
				c := Certificate{Service: svc.Config.Name, Listen: address, File: one.Pair.Certificate, Names: one.Certificate.Names}
				c.From, c.To = one.Certificate.Good()
				if one.Trouble != nil {
					c.Trouble = one.Trouble.Err.Error()
				}
				same := func(o Certificate) bool { return o.Listen == c.Listen && o.File == c.File }
				if !slices.ContainsFunc(list[first:], same) { // several listeners may have port 0
					list = append(list, c)
				}
			}
		}
	}
	return list
}

// Distrusted returns why files of certificate authorities, as they are now, cannot be
// used. Those that were read before are in use.
func (s *State) Distrusted() (list []string) {
	for _, one := range s.tls.Authorities() {
		if one.Trouble != nil {
			list = append(list, one.Trouble.Err.Error())
		}
	}
	return list
}
