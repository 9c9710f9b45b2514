package peers

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// MaxNodes is how many nodes a fleet may have.
const MaxNodes = 1024

const (
	// maxStrangers is how many connections may prove who they are at once, and maxFollowers
	// how many may have done so: all nodes, each with two processes.
	maxStrangers, maxFollowers = 128, 2 * MaxNodes
	// maxStreams is how many of them one node may have: two, if its process is upgraded, and
	// as many that have ended without this side knowing.
	maxStreams = 4
)

// Why a guest does not become a follower.
var (
	errFull     = fmt.Errorf("this node has %d followers, and takes no more", maxFollowers)
	errSentAway = errors.New("its connection was closed before it was admitted, perhaps to make room for others")
)

// door is a listener with so many connections at once. Anybody can connect, so one that comes
// when there is no room takes the place of a stranger: the one that has been there for longest
// of the address that has most. Who has proved to be a node keeps its place.
type door struct {
	net.Listener

	mu        sync.Mutex
	strangers list.List // of *guest, who came first is in front
	from      map[netip.Prefix]int
	followers int
}

func newDoor(ln net.Listener) *door { return &door{Listener: ln, from: map[netip.Prefix]int{}} }

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	boundUnacked(c)
	g := &guest{Conn: c, door: d, from: source(c.RemoteAddr())}
	d.mu.Lock()
	var out *guest
	if d.strangers.Len() >= maxStrangers {
		out = d.victim()
		d.forget(out)
	}
	g.at = d.strangers.PushBack(g)
	d.from[g.from]++
	d.mu.Unlock()
	if out != nil {
		_ = out.Conn.Close()
	}
	return g, nil
}

// victim is the stranger that goes. d.mu is held.
func (d *door) victim() *guest {
	most, first := 0, (*guest)(nil)
	for e := d.strangers.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*guest); d.from[g.from] > most {
			most, first = d.from[g.from], g
		}
	}
	return first
}

// forget takes a stranger out of the books. d.mu is held.
func (d *door) forget(g *guest) {
	if g.at == nil {
		return
	}
	d.strangers.Remove(g.at)
	g.at = nil
	if d.from[g.from]--; d.from[g.from] == 0 {
		delete(d.from, g.from)
	}
}

// source is who counts as one: an address, or a network of IPv6.
func source(a net.Addr) netip.Prefix {
	tcp, is := a.(*net.TCPAddr)
	if !is {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// guest is a connection of a door.
type guest struct {
	net.Conn
	door *door
	from netip.Prefix
	// Under door.mu.
	at       *list.Element // among the strangers; nil: it is none
	follower bool
	closed   bool
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.door.mu.Lock()
	g.door.forget(g)
	if g.follower {
		g.follower = false
		g.door.followers--
	}
	g.closed = true
	g.door.mu.Unlock()
	return g.Conn.Close()
}

// enter makes a stranger a follower. The error is errFull if there is no room, and errSentAway if
// the guest is no stranger any more.
func (g *guest) enter() error {
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	if g.closed || g.at == nil {
		return errSentAway
	}
	if g.door.followers >= maxFollowers {
		return errFull
	}
	g.door.forget(g)
	g.follower = true
	g.door.followers++
	return nil
}

// guestKey is where the context of a request has its guest.
type guestKey struct{}

func withGuest(ctx context.Context, c net.Conn) context.Context {
	if t, is := c.(interface{ NetConn() net.Conn }); is {
		c = t.NetConn()
	}
	if g, is := c.(*guest); is {
		return context.WithValue(ctx, guestKey{}, g)
	}
	return ctx
}

func guestOf(ctx context.Context) *guest {
	g, _ := ctx.Value(guestKey{}).(*guest)
	return g
}
