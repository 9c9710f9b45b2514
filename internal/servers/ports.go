package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

// lowestPort is from where on ports are given out.
const lowestPort = 10_000

// given are the ports that this process has been given.
var given sync.Map

// FreePort returns a port that nothing listens on, at any address, and that this
// process has not been given before. It is below the range that outgoing
// connections take theirs from, so that it stays free, also while a server is
// killed and started again; and it is chosen by chance, so that other processes
// hardly ask for the same one.
func FreePort() (int, error) {
	outgoing := outgoingPorts()
	for range 1000 {
		port := lowestPort + rand.IntN(outgoing-lowestPort)
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			return 0, err
		}
		if _, taken := given.LoadOrStore(port, true); !taken {
			return port, nil
		}
	}
	return 0, errors.New("no free port")
}

// FreeAddr returns an address on loopback with such a port.
func FreeAddr() (string, error) {
	port, err := FreePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// outgoingPorts is where the range of outgoing connections begins.
func outgoingPorts() int {
	const usual = 32_768
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	var low int
	if _, err := fmt.Sscan(string(text), &low); err != nil || low <= lowestPort {
		return usual
	}
	return low
}
