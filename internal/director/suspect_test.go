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
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// doubt reports that a host has reset its clients.
func (w *world) doubt(t *Target) {
	w.failures <- engine.Failure{Host: t.Host, Err: errors.New("it reset clients"), Suspect: true}
	synctest.Wait()
}

// A host that resets its clients is ejected, but never more than maxEjected of the group, at
// least one, none of fewer than three, and none if all do. Checks do not bring it back, and
// its sessions go on.
func TestB82HostsThatResetAreEjected(t *testing.T) {
	for _, test := range []struct {
		hosts, suspect, most, want int
	}{
		{1, 1, 25, 0}, {2, 1, 100, 0}, {3, 1, 0, 0}, {3, 1, 25, 1}, {3, 2, 100, 2}, {8, 7, 25, 2}, {11, 9, 25, 2}, {12, 11, 25, 3},
		{3, 3, 100, 0}, {8, 8, 25, 0},
	} {
		testkit.Bubble(t, func(t *testing.T) {
			var hosts strings.Builder
			for i := range test.hosts {
				fmt.Fprintf(&hosts, `<host name="%d" ip="10.0.1.%d:80"/>`, i, 1+i)
			}
			w := newWorld()
			d := start(t, w, fmt.Sprintf(`<config><service name="web"><listen ip="127.0.0.1:80"/>`+
				`<group name="g" maxEjected="%d" onMarkedDown="shutdown"><check interval="2s" rise="1"/>%s</group></service></config>`, test.most, hosts.String()))
			for i := range test.suspect {
				w.doubt(target(t, d, "g", fmt.Sprint(i), 0))
			}
			out := func() (n int) {
				for i := range test.hosts {
					one := target(t, d, "g", fmt.Sprint(i), 0)
					if !one.Host.Up() || !one.Status().Up {
						t.Errorf("host %d is down", i)
					}
					if e := one.Status().Ejected; e != nil {
						n++
						if e.Kind != "resets" || e.Why != "it reset clients" || e.Until.Sub(e.Since) != 30*time.Second {
							t.Errorf("host %d is ejected: %+v", i, e)
						}
					}
				}
				return n
			}
			takes := func() int {
				names, _ := w.picks()
				return len(strings.Join(strings.Fields(names), ""))
			}
			if n := out(); n != test.want {
				t.Errorf("%d of %d hosts are ejected with maxEjected=%d, want %d", n, test.hosts, test.most, test.want)
			}
			if test.hosts < 10 && takes() != test.hosts-test.want {
				t.Errorf("%d of %d hosts take clients", takes(), test.hosts)
			}
			time.Sleep(29 * time.Second) // checks pass meanwhile
			synctest.Wait()
			if n := out(); n != test.want {
				t.Errorf("after 29 s, %d hosts are ejected, want %d", n, test.want)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if n := out(); n != 0 {
				t.Errorf("after 31 s, %d hosts are ejected", n)
			}
			if test.hosts < 10 && takes() != test.hosts {
				t.Errorf("after 31 s, %d of %d hosts take clients", takes(), test.hosts)
			}
			if len(w.ended) > 0 {
				t.Errorf("sessions were ended: %v", w.ended)
			}
		})
	}
}

// Hosts that are down do not count as ejected, but the last one that is up stays, and when
// all others go down, the ejected one takes clients at once.
func TestB82SuspectHostStaysIfItIsTheLast(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		d := start(t, w, checked(`interval="60s"`, ""))
		a, b, c := target(t, d, "g", "a", 0), target(t, d, "g", "b", 0), target(t, d, "g", "c", 0)
		w.fail(a)
		w.doubt(b)
		w.takes(t, "c", sched.Picked)
		w.doubt(c)
		w.takes(t, "bc", sched.Picked) // both are as bad
		edited(t, d, func(*config.Config) {})
		w.takes(t, "bc", sched.Picked)
		time.Sleep(11 * time.Second) // nobody has complained for long enough
		synctest.Wait()
		w.doubt(b)
		w.takes(t, "c", sched.Picked)
		w.fail(c)
		w.takes(t, "b", sched.Picked)
	})
}
