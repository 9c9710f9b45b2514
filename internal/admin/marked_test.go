package admin

import (
	"strings"
	"testing"
)

// A host that is marked down loses its sessions, on real sockets: its clients reconnect
// to the others.
func TestMarkedDownClosesSessions(t *testing.T) {
	a, b, c := serve(t, "a"), serve(t, "b"), serve(t, "c")
	r := newRig(t, doc(a.addr, b.addr, c.addr))
	clients := r.clientsOf(100)
	r.do("setGroup web main onMarkedDown=shutdown")
	_ = a.listener.Close() // its sessions would go on
	eventually(t, "a client's connect fails", func() bool {
		one, err := dial(r.addr)
		if err == nil {
			_, err = one.ask()
			_ = one.Close()
		}
		if err != nil {
			t.Errorf("a new client: %v", err)
		}
		return !r.target("web", "main", "a").Up()
	})
	for _, one := range clients["a"] {
		one.expectGone(t)
	}
	if n := alive(clients["b"]); n != 100 {
		t.Errorf("%d sessions of b go on", n)
	}
	eventually(t, "they are counted", func() bool { return r.eng.Snapshot().Services["web"].Ended["DD"] == 100 })
	eventually(t, "the log tells of it", func() bool {
		return strings.Contains(r.log.String(), `msg="sessions of hosts that are down closed" closed=100 hosts=1`)
	})
}
