package director

import (
	"net/netip"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

func TestRelativeTargets(t *testing.T) {
	for text, want := range map[string]bool{
		"127.0.0.1:80": true, "127.9.9.9:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true, "0.0.0.0:80": true, "[::]:80": true,
		"169.254.1.2:80": true, "[fe80::1]:80": true, "[fe80::1%eth0]:80": true, "[2001:db8::1%eth0]:80": true,
		"10.0.0.1:80": false, "192.0.2.1:80": false, "[2001:db8::1]:80": false, "[fd00::1]:80": false,
	} {
		target := &Target{key: targetKey{addr: sched.TCPAddr(netip.MustParseAddrPort(text))}}
		if got := target.Relative(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if target := (&Target{key: targetKey{addr: sched.UnixAddr("/run/app.sock")}}); !target.Relative() {
		t.Error("a UNIX socket is the same on each machine")
	}
}

// What a client met, or others have found, is no finding of this node's probes.
func TestFindingIsOfOwnProbes(t *testing.T) {
	now := time.Now()
	g := &Group{rule: &rule{usual: time.Second, fast: time.Second, down: time.Second}}
	for _, c := range []struct {
		since, checked time.Duration // ago
		want           bool
	}{{2 * time.Second, time.Second, true}, {time.Second, time.Second, true}, {time.Second, 2 * time.Second, false}, {time.Minute, 10 * time.Second, false}} {
		target := new(Target)
		target.status.Store(&Status{Since: now.Add(-c.since), Checked: now.Add(-c.checked), Check: health.Result{Code: health.L4Con}})
		if _, fresh := g.Finding(target, now); fresh != c.want {
			t.Errorf("%+v: fresh %v", c, fresh)
		}
	}
}
