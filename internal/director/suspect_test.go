package director

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/sched"
)

// doubt reports that a host has reset its clients.
func (w *world) doubt(t *Target) {
	w.failures <- engine.Failure{Host: t.Host, Err: errors.New("it reset clients"), Suspect: true}
	synctest.Wait()
}

// A host that resets its clients is taken out, but never more than maxEjected of
// the group, at least one, none of fewer than three, and never the last.
func TestSuspectHostsAreTakenOut(t *testing.T) {
	for _, test := range []struct {
		hosts, most, want int
	}{{1, 25, 0}, {2, 100, 0}, {3, 0, 0}, {3, 25, 1}, {3, 100, 2}, {8, 25, 2}, {11, 25, 2}, {12, 25, 3}} {
		synctest.Test(t, func(t *testing.T) {
			var hosts strings.Builder
			for i := range test.hosts {
				fmt.Fprintf(&hosts, `<host name="%d" ip="10.0.1.%d:80"/>`, i, 1+i)
			}
			w := newWorld()
			d := start(t, w, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:80"/>`+
				`<group name="g" maxEjected="%d"><check interval="10s" rise="1"/>%s</group></service></config>`, test.most, hosts.String()))
			for i := range test.hosts {
				w.doubt(target(t, d, "g", fmt.Sprint(i), 0))
			}
			out := 0
			for i := range test.hosts {
				if one := target(t, d, "g", fmt.Sprint(i), 0); !one.Host.Up() {
					out++
					if s := one.Status(); s.Up || s.Reason != "it reset clients" {
						t.Errorf("host %d is out, its status is %+v", i, s)
					}
				}
			}
			if out != test.want {
				t.Errorf("%d of %d hosts are out with maxEjected=%d, want %d", out, test.hosts, test.most, test.want)
			}
			time.Sleep(10 * time.Second) // a check brings them back
			synctest.Wait()
			for i := range test.hosts {
				if !target(t, d, "g", fmt.Sprint(i), 0).Host.Up() {
					t.Errorf("host %d has not come back", i)
				}
			}
		})
	}
}

// Hosts that are down for another reason do not count as taken out, but the last
// one that is up stays.
func TestSuspectHostStaysIfItIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, checked(`interval="60s"`, ""))
		a, b, c := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0), target(t, d, "g", "c", 0)
		w.fail(a)
		w.doubt(b)
		w.takes(t, "c", sched.Picked)
		w.doubt(c)
		w.takes(t, "c", sched.Picked)
		edited(t, d, func(*config.Config) {})
		w.takes(t, "c", sched.Picked)
	})
}
