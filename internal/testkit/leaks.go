package testkit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/txlb/txlb/internal/servers"
)

// Main is the TestMain of packages that open descriptors or start goroutines. It
// runs the tests and ends the process, with status 1 if a goroutine or a descriptor
// has outlived them. What is about to end gets [Patience] for it.
func Main(m *testing.M) {
	before := OpenFDs()
	code := m.Run()
	if code == 0 {
		err := left(before)
		for end := time.Now().Add(Patience); err != nil && time.Now().Before(end); err = left(before) {
			time.Sleep(10 * time.Millisecond) // between two looks
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// left returns an error if goroutines, or more descriptors than before, are there.
func left(before int) error {
	err := goleak.Find()
	if after := OpenFDs(); before >= 0 && after > before {
		err = errors.Join(err, fmt.Errorf("descriptors left open: %d", after-before))
	}
	return err
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
