//go:build linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// callName returns the name of a system call: of those that proxies make on every
// processor, and of some that only x86-64 has.
func callName(number int) string {
	if name, ok := callNames[number]; ok {
		return name
	}
	if name, ok := oldCallNames[number]; ok {
		return name
	}
	return fmt.Sprintf("#%d", number)
}

var callNames = map[int]string{
	unix.SYS_ACCEPT4: "accept4", unix.SYS_CLOSE: "close", unix.SYS_CONNECT: "connect", unix.SYS_SOCKET: "socket",
	unix.SYS_BIND: "bind", unix.SYS_SHUTDOWN: "shutdown", unix.SYS_SETSOCKOPT: "setsockopt", unix.SYS_GETSOCKOPT: "getsockopt",
	unix.SYS_GETSOCKNAME: "getsockname", unix.SYS_GETPEERNAME: "getpeername", unix.SYS_IOCTL: "ioctl",
	unix.SYS_EPOLL_CTL: "epoll_ctl", unix.SYS_EPOLL_PWAIT: "epoll_pwait", unix.SYS_EPOLL_PWAIT2: "epoll_pwait2",
	unix.SYS_READ: "read", unix.SYS_READV: "readv", unix.SYS_RECVFROM: "recvfrom", unix.SYS_RECVMSG: "recvmsg",
	unix.SYS_WRITE: "write", unix.SYS_WRITEV: "writev", unix.SYS_SENDTO: "sendto", unix.SYS_SENDMSG: "sendmsg",
	unix.SYS_SPLICE: "splice", unix.SYS_PIPE2: "pipe2", unix.SYS_IO_URING_ENTER: "io_uring_enter",
	unix.SYS_FUTEX: "futex", unix.SYS_SCHED_YIELD: "sched_yield", unix.SYS_NANOSLEEP: "nanosleep",
	unix.SYS_TIMERFD_SETTIME: "timerfd_settime", unix.SYS_TGKILL: "tgkill", unix.SYS_GETPID: "getpid",
	unix.SYS_RT_SIGRETURN: "rt_sigreturn", unix.SYS_MADVISE: "madvise", unix.SYS_MUNMAP: "munmap",
}

// copying are the calls whose bytes go through the memory of the program.
var copying = []int{
	unix.SYS_READ, unix.SYS_READV, unix.SYS_RECVFROM, unix.SYS_RECVMSG,
	unix.SYS_WRITE, unix.SYS_WRITEV, unix.SYS_SENDTO, unix.SYS_SENDMSG,
}

// byClock are the calls that Go's scheduler and signals make. How many depends on
// time: the scheduler's monitor looks every few milliseconds.
var byClock = []int{unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_SCHED_YIELD, unix.SYS_TGKILL, unix.SYS_GETPID, unix.SYS_RT_SIGRETURN}

// The operations of io_uring whose bytes go through the memory of the program
// (io_uring.h), and the names of those that programs here use.
var (
	ringCopying = []int{1, 2, 4, 5, 9, 10, 22, 23, 26, 27}
	ringNames   = map[int]string{
		0: "nop", 1: "readv", 2: "writev", 4: "read fixed", 5: "write fixed", 6: "poll", 9: "sendmsg", 10: "recvmsg",
		13: "accept", 16: "connect", 19: "close", 22: "read", 23: "write", 26: "send", 27: "recv", 29: "epoll_ctl", 30: "splice",
		34: "shutdown", 45: "socket",
	}
)
