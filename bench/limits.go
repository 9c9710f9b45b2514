//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// freePorts returns addresses on loopback that nobody listens on. They lie
// below the range that outgoing connections take their ports from, so they
// stay free.
func freePorts(n int) ([]string, error) {
	low, err := lowestOutgoingPort()
	if err != nil {
		return nil, err
	}
	const lowest = 10_000
	var free []string
	for port := low - 1; port >= lowest && len(free) < n; port-- {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		free = append(free, addr)
	}
	if len(free) < n {
		return nil, fmt.Errorf("only %d of %d ports are free between %d and %d, where outgoing connections begin (net.ipv4.ip_local_port_range)", len(free), n, lowest, low)
	}
	return free, nil
}

func lowestOutgoingPort() (int, error) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, err
	}
	var low, high int
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return 0, fmt.Errorf("ip_local_port_range: %w", err)
	}
	return low, nil
}

// raiseFileLimit allows this process and its children as many open files as
// the hard limit does, and returns that number.
func raiseFileLimit() (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("file limit: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("file limit: %w", err)
	}
	return l.Cur, nil
}
