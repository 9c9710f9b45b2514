package admin

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/txlb/txlb/engine"
)

// Clients are summed up by address, IPv6 ones by network.
func TestShowClients(t *testing.T) {
	now := time.Now()
	one := func(client string, age time.Duration, in uint64) engine.SessionInfo {
		s := engine.SessionInfo{Started: now.Add(-age), In: in, Out: 2 * in}
		if client != "" {
			s.Client = netip.MustParseAddrPort(client)
		}
		return s
	}
	got := clientsOf([]engine.SessionInfo{
		one("10.0.0.1:1", time.Second, 5), one("[2001:db8::1]:1", time.Minute, 1), one("[2001:db8::2:3]:1", time.Second, 1), one("[::ffff:10.0.0.1]:9", time.Minute, 2),
		one("10.0.0.1:2", time.Hour, 1), one("", time.Second, 0), one("[2001:db8:0:1::1]:1", time.Minute, 4),
	}, now)
	want := []ClientInfo{
		{"10.0.0.1", 3, 0.1, 8, 16}, {"2001:db8::/64", 2, 0.1, 2, 4}, {"2001:db8:0:1::/64", 1, 0, 4, 8}, {"", 1, 0.1, 0, 0},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	r := newRig(t, plainDoc())
	r.contains(r.do("show clients"), "client  sessions  new/s  in  out")
	r.refused("show clients none", "unknown service")
}
