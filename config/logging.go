package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// checkAccessTarget tells what is wrong with <logging access>.
func checkAccessTarget(s string) error {
	if err := plain.check(s); err != nil {
		return err
	}
	to, isSyslog := strings.CutPrefix(s, "syslog:")
	if !isSyslog {
		return nil
	}
	const want = "want syslog:udp:HOST:PORT, syslog:tcp:HOST:PORT or syslog:unix:PATH"
	network, address, _ := strings.Cut(to, ":")
	switch network {
	case "unix":
		if !strings.HasPrefix(address, "/") || len(address) > maxUnixPath {
			return fmt.Errorf("%q is not the path of a socket: %s", s, want)
		}
	case "udp", "tcp":
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || !isPort(port) {
			return fmt.Errorf("%q is not a host and a port: %s", s, want)
		}
	default:
		return fmt.Errorf("%q: %s", s, want)
	}
	return nil
}

// isPort tells whether s is the number of a port.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
