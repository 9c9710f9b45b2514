package servers

import (
	"fmt"
	"net"
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
