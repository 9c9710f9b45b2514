package servers

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Processes that run at once are given different ports.
func TestFreePortsOfOtherProcesses(t *testing.T) {
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
