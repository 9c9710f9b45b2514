package testkit

import (
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/txlb/txlb/internal/servers"
)

// Main is the TestMain of packages that open descriptors or start goroutines. It
// runs the tests and ends the process, with status 1 if a goroutine or a descriptor
// has outlived them.
func Main(m *testing.M) {
	before := OpenFDs()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if after := OpenFDs(); before >= 0 && after > before {
			fmt.Fprintln(os.Stderr, "descriptors left open:", after-before)
			code = 1
		}
	}
	os.Exit(code)
}

// OpenFDs counts this process's descriptors, -1 where that cannot be told.
// The runtime's own poller is opened first, so that it is not taken for a leak.
// Those that reserve ports are not counted.
func OpenFDs() int {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = ln.Close()
	}
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(dir) - servers.Descriptors()
}
