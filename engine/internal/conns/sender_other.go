//go:build !unix

package conns

import "net"

// sender is for systems whose sockets say when they have no room.
type sender struct{}

func senderTo(net.Conn, *patient) *sender { return nil }

func (*sender) write([]byte) (int, error) { panic("unreachable") }
