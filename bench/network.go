//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/internal/debian"
)

// networkMark is set in the environment of a bench that has a network of its own.
const networkMark = "TXLB_BENCH_NETWORK"

func inNetwork() bool { return os.Getenv(networkMark) != "" }

// enterNetwork gives this process a network of its own: what other programs send is
// in no count, and the congestion control that is set there changes nothing
// outside. It starts this program again, in the same process, and returns only if
// it cannot: root alone may do so.
func enterNetwork(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the network is the thread's; exec leaves no other thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("no network of its own: %w", err)
	}
	// On an error the thread ends with its goroutine: it is locked.
	return unix.Exec(self, append([]string{self}, args...), append(os.Environ(), networkMark+"=own"))
}

// settleNetwork brings the loopback interface up.
func settleNetwork() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring up the loopback interface: %w", err)
	}
	return nil
}

// controlFile has the congestion control of this network.
const controlFile = "/proc/sys/net/ipv4/tcp_congestion_control"

func currentControl() string { return wordOf(controlFile) }

// setControl sets the congestion control of the connections that are made from now
// on, at both ends. It stands in the route to the loopback address: a network that
// is not the machine's may not have every one as its default.
func setControl(ctx context.Context, name string) error {
	const loopback = "route replace local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1 congctl "
	ip := debian.Path("ip")
	if ip == "" {
		return errors.New("no ip (Debian: iproute2) to set the congestion control with")
	}
	if out, err := command(ctx, append([]string{ip}, strings.Fields(loopback+name)...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip route: %w: %s", err, strings.TrimSpace(string(out)))
	}
	got, err := controlHere()
	if err == nil && got != name {
		err = fmt.Errorf("connections have %s instead of %s", got, name)
	}
	return err
}

// controlHere returns the congestion control of a new connection.
func controlHere() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return "", err
	}
	var name string
	if e := raw.Control(func(fd uintptr) { name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) }); e != nil {
		return "", e
	}
	return strings.TrimRight(name, "\x00"), err
}
