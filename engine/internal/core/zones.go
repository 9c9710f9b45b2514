package core

import (
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/zone"
)

// BoundZone is the interface that a listening socket is bound to, because its
// address has a zone. An interface that goes and comes back has another index, and
// the socket hears nothing of it.
type BoundZone struct {
	Name  string // "" without a zone
	index int
}

// InZone returns the interface of an address, and the address by its number.
func InZone(host string) (z BoundZone, numbered string, err error) {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() == "" {
		return z, host, nil // a name, or every address
	}
	z.Name = ip.Zone()
	if z.index, err = zone.Index(z.Name); err != nil {
		return z, host, err
	}
	return z, ip.WithZone(strconv.Itoa(z.index)).String(), nil
}

// Moved tells whether the interface is there under another index.
func (z BoundZone) Moved() bool {
	if z.Name == "" {
		return false
	}
	index, err := zone.Index(z.Name)
	return err == nil && index != z.index
}

// ZoneFollower looks for interfaces that have come back. The zero value does not run.
type ZoneFollower struct {
	stop chan struct{}
	done sync.WaitGroup
}

// Start calls look every second, with mu held, until end. Further calls change
// nothing. mu is held.
func (f *ZoneFollower) Start(mu *sync.Mutex, look func()) {
	if f.stop == nil {
		f.stop = make(chan struct{})
		f.done.Add(1)
		go f.run(mu, look)
	}
}

func (f *ZoneFollower) run(mu *sync.Mutex, look func()) {
	defer f.done.Done()
	tick := time.NewTicker(zoneEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		// Whoever holds mu may be waiting for this goroutine to end.
		if mu.TryLock() {
			look()
			mu.Unlock()
		}
	}
}

// End ends what start has begun. mu is held.
func (f *ZoneFollower) End() {
	if f.stop != nil {
		close(f.stop)
		f.done.Wait()
	}
}

// SamePort returns what opens a listener anew: the port stays also where the
// system has chosen it.
func SamePort(key ListenKey, bound string) string {
	a, err := ParseListen(key.Listen)
	_, port, err2 := net.SplitHostPort(bound)
	if err != nil || err2 != nil {
		return key.Listen
	}
	return net.JoinHostPort(a.Host, port)
}
