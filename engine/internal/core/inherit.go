package core

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/zone"
)

// Heirs are the sockets that an engine has inherited and may still use. They belong to who
// holds the engine's mutex; nil has none.
type Heirs struct{ all []heir }

type heir struct {
	engine.Inherited
	at   net.Addr
	used bool
}

// NewHeirs takes over listening sockets, also on error.
func NewHeirs(list []engine.Inherited) (*Heirs, error) {
	h := &Heirs{}
	var problems []error
	for _, one := range list {
		// It looks at the socket, and duplicates it.
		ln, err := net.FileListener(one.File)
		if err != nil {
			problems = append(problems, fmt.Errorf("engine: the inherited descriptor %q is not a listening stream socket: %w", one.File.Name(), err))
		} else {
			h.all = append(h.all, heir{Inherited: one, at: ln.Addr()})
			err = ln.Close()
		}
		if err != nil {
			_ = one.File.Close()
		}
	}
	if len(problems) > 0 {
		h.Close()
		return nil, errors.Join(problems...)
	}
	return h, nil
}

// For returns the sockets for a listener of a service, and whether they are lent. If there are
// some of its address, but with other options, why says which.
func (h *Heirs) For(service string, key ListenKey, o engine.ListenOptions) (files []*os.File, lent bool, why error) {
	if h == nil || len(h.all) == 0 {
		return nil, false, nil
	}
	a, err := ParseListen(key.Listen)
	if err != nil {
		return nil, false, err
	}
	var bound *net.TCPAddr
	if a.Path == "" && a.Host != "" && a.Port != "0" {
		if bound, err = net.ResolveTCPAddr("tcp", net.JoinHostPort(zone.Named(a.Host), a.Port)); err != nil {
			return nil, false, err
		}
	}
	for i := range h.all {
		one := &h.all[i]
		switch {
		case one.used:
			continue
		case a.Port == "0":
			if one.Listen != key.Listen || one.Service != service {
				continue
			}
		case !sameAddress(one.at, a, bound):
			continue
		}
		if err := fits(one.File, a, o); err != nil {
			why = err
			continue
		}
		one.used = true
		files, lent = append(files, one.File), lent || one.Lent
		if a.Port == "0" { // another socket of the same group has the same port
			for j := i + 1; j < len(h.all); j++ {
				if other := &h.all[j]; !other.used && other.at.String() == one.at.String() && fits(other.File, a, o) == nil {
					other.used = true
					files = append(files, other.File)
				}
			}
			return files, lent, nil
		}
	}
	return files, lent, why
}

// sameAddress tells whether a socket is where an address asks for. bound is the address as
// the system has it, nil if it names no host.
func sameAddress(at net.Addr, a ListenAddr, bound *net.TCPAddr) bool {
	if a.Path != "" {
		return at.Network() == "unix" && at.String() == a.Path
	}
	tcp, ok := at.(*net.TCPAddr)
	switch {
	case !ok:
		return false
	case bound == nil: // every address
		return tcp.IP.IsUnspecified() && fmt.Sprint(tcp.Port) == a.Port
	}
	return tcp.Port == bound.Port && tcp.IP.Equal(bound.IP) && (tcp.IP.To4() == nil) == (bound.IP.To4() == nil) && tcp.Zone == bound.Zone
}

// Reset makes all sockets usable again, for another plan.
func (h *Heirs) Reset() {
	if h != nil {
		for i := range h.all {
			h.all[i].used = false
		}
	}
}

// Settle closes the sockets that were not lent: those in use have been duplicated, and the others
// are of no use. Those of a service are not ended: the process that serves it still does.
func (h *Heirs) Settle() {
	if h == nil {
		return
	}
	var stay []heir
	for _, one := range h.all {
		if one.Lent {
			stay = append(stay, one)
			continue
		}
		if !one.used && one.Service == "" {
			EndListening(one.File)
			if path := one.at.String(); one.at.Network() == "unix" && !strings.HasPrefix(path, "@") {
				_ = ClearStale(path)
			}
		}
		_ = one.File.Close()
	}
	h.all = stay
}

// Spare returns the lent sockets at addresses where none of these listens.
func (h *Heirs) Spare(all []engine.Listener) (list []engine.Inherited) {
	if h == nil {
		return nil
	}
	used := map[string]bool{}
	for _, l := range all {
		used[l.Addr] = true
	}
	for _, one := range h.all {
		at := one.at.String()
		if one.at.Network() == "unix" {
			at = "unix:" + at
		}
		if one.Lent && !used[at] {
			list = append(list, one.Inherited)
		}
	}
	return list
}

// Close closes all.
func (h *Heirs) Close() {
	if h == nil {
		return
	}
	for _, one := range h.all {
		_ = one.File.Close()
	}
	h.all = nil
}

// Misfit adds to an error of a listener why an inherited socket of its address was not used.
func Misfit(err, why error) error {
	if err == nil || why == nil {
		return err
	}
	return fmt.Errorf("%w; the socket that was passed to the process does not fit: %w", err, why)
}
