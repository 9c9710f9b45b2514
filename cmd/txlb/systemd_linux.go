package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
)

// inheritSockets takes the listening sockets that systemd passes to the process
// (sd_listen_fds(3)): those of txlb.socket, which it lends, and those that a former process has
// stored. names are how systemd calls them.
func inheritSockets() (list []engine.Inherited, names []string) {
	for _, file := range activation.Files(true) {
		list = append(list, engine.Inherited{File: file, Lent: !strings.HasPrefix(file.Name(), storePrefix)})
		names = append(names, file.Name())
	}
	return list, names
}

// reloading says that a reload has begun (sd_notify(3)).
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return "RELOADING=1"
	}
	return "RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)
}

// reloadSocket is where `txlb reload` waits for the result of the reload, "" outside of
// systemd.
func reloadSocket() string {
	dirs := filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY"))
	if len(dirs) == 0 {
		return ""
	}
	return filepath.Join(dirs[0], "reload.sock")
}

// answerReload tells the result to `txlb reload`, if it waits. It does not wait itself.
func answerReload(result error) {
	path := reloadSocket()
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	text := ""
	if result != nil {
		text = result.Error()
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte(text[:min(len(text), maxResult)]))
}

// maxResult is how long the text of a result may be: what fits into a datagram.
const maxResult = 60 << 10

// reloadOf makes a process reload its configuration and waits for the result. within bounds
// that.
func reloadOf(pid int, within time.Duration) error {
	path := reloadSocket()
	if path == "" {
		return errors.New("$RUNTIME_DIRECTORY is not set: this is for ExecReload= of the systemd unit; use txlb ctl reload, or kill -HUP")
	}
	_ = os.Remove(path) // of one that was killed; systemd runs one at a time
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() {
		_ = conn.Close()
		_ = os.Remove(path)
	}()
	process, err := os.FindProcess(pid)
	if err == nil {
		err = process.Signal(unix.SIGHUP)
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	text := make([]byte, maxResult)
	n, err := conn.Read(text)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("process %d has not answered for %v", pid, within)
	case err != nil:
		return err
	case n > 0:
		return errors.New(string(text[:n]))
	}
	return nil
}
