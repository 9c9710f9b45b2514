//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// countsNetwork says to a bench that it is in a network of its own.
const countsNetwork = "TXLB_BENCH_NETWORK"

// inOwnNetwork runs this program again with the same arguments, in a network of
// its own: what others send is in no count, and what is set there changes
// nothing outside. It returns the exit status.
func inOwnNetwork(ctx context.Context, args []string, stdout, progress io.Writer) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stdout, cmd.Stderr = stdout, progress
	cmd.Env = append(os.Environ(), countsNetwork+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	defer holdThread()()
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("a network of its own (as root): %w", err)
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		return 1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// settleCountsNetwork prepares the own network: the loopback interface is up, and TCP
// knows one congestion control that no clock drives.
func settleCountsNetwork() error {
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
	return os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte(countsControl), 0o644)
}

// countsControl is the congestion control under which everything is counted: the one that the kernel
// allows in every network.
const countsControl = "reno"
