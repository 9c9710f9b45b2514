//go:build !linux

package peers

import "net"

func boundUnacked(net.Conn) {}
