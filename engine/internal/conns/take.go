package conns

import (
	"fmt"
	"net"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/core"
)

// Discard closes a connection of the program that an engine does not take.
func (c *Sessions) Discard(service string, conn net.Conn) {
	if conn != nil {
		_ = (&foreign{conn: conn, panicked: c.ofConnection(service)}).Close()
	}
}

// Take begins the session of a connection of the program, which has room for it. If it
// returns an error, the connection is closed and the room given back.
func (c *Sessions) Take(svc *core.Service, conn net.Conn) error {
	own, err := adopt(conn, c.ofConnection(svc.Name))
	if err != nil {
		c.Discard(svc.Name, conn)
		c.home.Left()
		return fmt.Errorf("service %q: %w", svc.Name, err)
	}
	s := c.begin(Client{Conn: own, From: PeerOf(own), Entry: core.Bare(svc)}, true)
	if s == nil {
		_ = own.Close()
		c.home.Left()
		return engine.ErrClosed
	}
	go s.run()
	return nil
}

// ofConnection reports panics of a connection that a service has taken.
func (c *Sessions) ofConnection(service string) func(value any) {
	return func(value any) { c.panicked(service, "connection", value) }
}
