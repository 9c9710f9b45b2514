package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
)

const (
	// lowestPort is from where on ports are given out.
	lowestPort = 10_001 // a round number may also stand for something else in a text
	// blockSize is how many ports a process takes at once.
	blockSize = 500
)

// ports are those that this process may give out: blocks that no other process of
// ours has, until this one ends.
var ports struct {
	mu     sync.Mutex
	free   []int
	blocks int // each holds a descriptor
}

// FreePort returns a port that nothing listens on, at any address, and that neither
// this nor another process of ours has been given before, so that a server can be
// started there later, or never. It is below the range that outgoing connections take
// theirs from, so that it stays free, also while a server is killed and started again.
func FreePort() (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for {
		if len(ports.free) == 0 && !takeBlock() {
			return 0, errors.New("no free port")
		}
		port := ports.free[0]
		ports.free = ports.free[1:]
		ln, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue // a stranger has it
		}
		return port, ln.Close()
	}
}

// takeBlock makes ports free that no other process has.
func takeBlock() bool {
	for _, block := range rand.Perm((outgoingPorts() - lowestPort) / blockSize) {
		if !reserve(block) {
			continue
		}
		ports.blocks++
		for _, i := range rand.Perm(blockSize) {
			ports.free = append(ports.free, lowestPort+block*blockSize+i)
		}
		return true
	}
	return false
}

// Descriptors returns how many descriptors this process holds for its ports.
func Descriptors() int {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	return ports.blocks * descriptorsOfBlock
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
	if _, err := fmt.Sscan(string(text), &low); err != nil || low < lowestPort+blockSize {
		return usual
	}
	return low
}
