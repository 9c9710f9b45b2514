package engine_test

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/testkit"
)

// Ten thousand clients wait, or as many as this process may have: all are served, in
// their order.
func TestB86ManyQueuedClients(t *testing.T) {
	testkit.Long(t)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := int(min(5_000, (limit.Cur-min(limit.Cur, 1000))/2))
	timeouts := enginetest.TestTimeouts
	r := newRig(t, onLoops(engine.Options{Loops: 4}), engine.Route{Timeouts: timeouts}, greeter(t))
	r.Hosts[0].SetMaxSessions(1)
	first := r.Dial()
	first.Expect([]byte("a"))
	clients := make([]net.Conn, n)
	for i := range clients {
		c, err := net.Dial("tcp", r.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		clients[i] = c
		for limit := time.Now().Add(testkit.Patience); queue(r).Len() != i+1; time.Sleep(50 * time.Microsecond) {
			if time.Now().After(limit) {
				t.Fatalf("client %d does not wait in the queue", i)
			}
		}
	}
	most := watchLimits(r.Hosts)
	_ = first.Close()
	for i, c := range clients {
		_ = c.SetReadDeadline(time.Now().Add(testkit.Patience))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		_ = c.Close()
	}
	if seen := most(); seen[0] > 1 || queue(r).Longest() != n {
		t.Errorf("at most %d sessions at once; at most %d waited, want %d", seen[0], queue(r).Longest(), n)
	}
}
