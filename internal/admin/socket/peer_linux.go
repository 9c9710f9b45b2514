package socket

import (
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/admin/users"
)

// callerOf returns the user who has connected, by name or number, as the kernel
// says. Who can open the socket has the role full.
func callerOf(c net.Conn) users.Caller {
	caller := users.Caller{Name: "socket", From: "socket", Role: users.Full}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return caller
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return caller
	}
	var peer *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || peer == nil {
		return caller
	}
	caller.Name = "uid " + strconv.FormatUint(uint64(peer.Uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(peer.Uid), 10)); err == nil {
		caller.Name = u.Username
	}
	caller.From = fmt.Sprintf("socket pid %d", peer.Pid)
	return caller
}
