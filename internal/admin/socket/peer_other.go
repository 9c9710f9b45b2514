//go:build unix && !linux

package socket

import (
	"net"

	"github.com/txlb/txlb/internal/admin/users"
)

// callerOf does not know the user here.
func callerOf(net.Conn) users.Caller {
	return users.Caller{Name: "socket", From: "socket", Role: users.Full}
}
