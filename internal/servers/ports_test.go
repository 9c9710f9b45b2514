package servers

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
)

func TestFreePort(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < lowestPort || port >= outgoingPorts() {
			t.Errorf("port %d: given twice, or where outgoing connections take theirs", port)
		}
		seen[port] = true
	}
	addr, err := FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
		t.Errorf("somebody listens on %s", addr)
	}
	_, port, _ := net.SplitHostPort(addr)
	ln, err := net.Listen("tcp", fmt.Sprintf(":%s", port))
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
}

// Processes that run at once are given different ports.
func TestFreePortsOfOtherProcesses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ports are reserved on Linux only")
	}
	const each = 400 // most of what a process takes at once
	if os.Getenv("TXLB_PORTS") != "" {
		var ports []string
		for range each {
			port, err := FreePort()
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, fmt.Sprint(port))
		}
		fmt.Println(strings.Join(ports, " "))
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the others are done
		return
	}
	seen := map[string]bool{}
	for range 4 {
		ports := strings.Fields(Other(t, t.Name(), "TXLB_PORTS"))
		if len(ports) != each {
			t.Fatalf("%d ports, want %d: %q", len(ports), each, ports)
		}
		for _, port := range ports {
			if seen[port] {
				t.Errorf("port %s is given to two processes", port)
			}
			seen[port] = true
		}
	}
}
