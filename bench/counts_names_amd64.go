//go:build linux

package main

import "golang.org/x/sys/unix"

// oldCallNames are those that newer processors do not have.
var oldCallNames = map[int]string{
	unix.SYS_ACCEPT: "accept", unix.SYS_EPOLL_WAIT: "epoll_wait", unix.SYS_POLL: "poll", unix.SYS_FCNTL: "fcntl",
	unix.SYS_MMAP: "mmap", unix.SYS_SENDFILE: "sendfile", unix.SYS_CLOCK_GETTIME: "clock_gettime",
}
