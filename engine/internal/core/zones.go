package core

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/txlb/txlb/internal/zone"
)

// BoundZone is the interface that a listening socket is bound to, because its address has a
// zone or its options name one. An interface that goes and comes back has another index, and
// the socket hears nothing of it.
type BoundZone struct {
	name  string // "" without one
	index int
}

// InZone returns the interface of an address, and the address by its number. device is
// the interface that [engine.ListenOptions] asks for, "" without.
func InZone(host, device string) (z BoundZone, numbered string, err error) {
	if device != "" {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return z, host, fmt.Errorf("there is no interface %q: %w", device, syscall.ENODEV)
		}
		z = BoundZone{device, i.Index}
	}
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

// Zoned tells whether there is an interface.
func (z BoundZone) Zoned() bool { return z.name != "" }

// Moved tells whether the interface is there under another index.
func (z BoundZone) Moved() bool {
	if z.name == "" {
		return false
	}
	index, err := zone.Index(z.name)
	return err == nil && index != z.index
}

// zoned is a listener that embeds [BoundZone].
type zoned interface {
	Zoned() bool
	Moved() bool
}

// ZoneFollower reopens the listeners of an engine whose interfaces have come back.
// The zero value does not run.
type ZoneFollower[L zoned] struct {
	stop chan struct{}
	done sync.WaitGroup
}

// Follow starts to look every second, with the first listener of an interface; until
// then it does nothing. It calls reopen for each served listener whose interface has
// moved, again and again until another listener is served in its place. mu is held by
// the caller, and while reopen runs.
func (f *ZoneFollower[L]) Follow(fresh []L, mu *sync.Mutex, serving *atomic.Pointer[Serving[L]], reopen func(ListenKey, L)) {
	if f.stop == nil && slices.ContainsFunc(fresh, L.Zoned) {
		f.stop = make(chan struct{})
		f.done.Add(1)
		go f.run(mu, serving, reopen)
	}
}

func (f *ZoneFollower[L]) run(mu *sync.Mutex, serving *atomic.Pointer[Serving[L]], reopen func(ListenKey, L)) {
	defer f.done.Done()
	tick := time.NewTicker(zoneEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		// The holder of mu may be waiting in End for this goroutine.
		if !mu.TryLock() {
			continue
		}
		for key, ln := range serving.Load().Listeners {
			if ln.Moved() {
				reopen(key, ln)
			}
		}
		mu.Unlock()
	}
}

// End ends what Follow has started. mu is held.
func (f *ZoneFollower[L]) End() {
	if f.stop != nil {
		close(f.stop)
		f.done.Wait()
	}
}

// FreePort returns the address of a listener with port 0.
func FreePort(listen string) (string, error) {
	a, err := ParseListen(listen)
	return net.JoinHostPort(a.Host, "0"), err
}

// SamePort returns the address that reopens a listener on the port it is bound to, also
// where the system has chosen that port.
func SamePort(key ListenKey, bound string) string {
	a, err := ParseListen(key.Listen)
	_, port, err2 := net.SplitHostPort(bound)
	if err != nil || err2 != nil {
		return key.Listen
	}
	return net.JoinHostPort(a.Host, port)
}
