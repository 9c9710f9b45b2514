package engine

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/txlb/txlb/internal/zone"
)

// zoneEvery is how often the interfaces of listeners with a zone are looked for.
const zoneEvery = time.Second

// boundZone is the interface that a listening socket is bound to, because its
// address has a zone. An interface that goes and comes back has another index, and
// the socket hears nothing of it.
type boundZone struct {
	name  string // "" without a zone
	index int
}

// inZone returns the interface of an address, and the address by its number.
func inZone(host string) (z boundZone, numbered string, err error) {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() == "" {
		return z, host, nil // a name, or every address
	}
	z.name = ip.Zone()
	if z.index, err = zone.Index(z.name); err != nil {
		return z, host, err
	}
	return z, ip.WithZone(strconv.Itoa(z.index)).String(), nil
}

// moved tells whether the interface is there under another index.
func (z boundZone) moved() bool {
	if z.name == "" {
		return false
	}
	index, err := zone.Index(z.name)
	return err == nil && index != z.index
}

// followZones opens listeners anew whose interface has come back, until the engine
// closes. What cannot be opened yet is tried again: an address of a new interface
// is not usable for a second or two.
func (e *Engine) followZones() {
	defer e.following.Done()
	tick := time.NewTicker(zoneEvery)
	defer tick.Stop()
	for {
		select {
		case <-e.unzoned:
			return
		case <-tick.C:
		}
		// Whoever holds mu may be waiting for this goroutine to end.
		if !e.mu.TryLock() {
			continue
		}
		for key, ln := range e.serving.Load().listeners {
			if ln.zone.moved() {
				e.reopen(key, ln)
			}
		}
		e.mu.Unlock()
	}
}

// followIfZoned starts followZones with the first listener that has a zone. mu is
// held.
func (e *Engine) followIfZoned(fresh []*listener) {
	for _, ln := range fresh {
		if ln.zone.name != "" && e.unzoned == nil {
			e.unzoned = make(chan struct{})
			e.following.Add(1)
			go e.followZones()
		}
	}
}

// unfollow ends followZones. mu is held.
func (e *Engine) unfollow() {
	if e.unzoned != nil {
		close(e.unzoned)
		e.following.Wait()
	}
}

// samePort returns what opens a listener anew: the port stays also where the
// system has chosen it.
func samePort(key listenKey, bound string) string {
	a, err := parseListen(key.listen)
	_, port, err2 := net.SplitHostPort(bound)
	if err != nil || err2 != nil {
		return key.listen
	}
	return net.JoinHostPort(a.host, port)
}

// with returns what is served with one listener in the place of another.
func (s *serving) with(key listenKey, ln *listener) *serving {
	next := &serving{services: s.services, listeners: make(map[listenKey]*listener, len(s.listeners))}
	for k, other := range s.listeners {
		next.listeners[k] = other
	}
	next.listeners[key] = ln
	return next
}
