package director

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// Whatever happens to hosts, no probe is later than one look: most looks go through those alone
// that a look at all has found.
func TestNoProbeIsLate(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		doc := `<config>`
		for i, check := range []string{`interval="3s" fastInterval="200ms" downInterval="700ms"`, `interval="30ms"`, `interval="20s" downInterval="5s"`} {
			doc += fmt.Sprintf(`<service name="s%d"><listen ip=":%d"/><group name="g"><check type="tcp" %s rise="2" fall="3"/>`, i, 1+i, check)
			for n := range 12 {
				doc += fmt.Sprintf(`<host name="h%d" ip="10.0.%d.%d:80"/>`, n, i, 1+n)
			}
			doc += `</group></service>`
		}
		c, problems := config.Parse("c.xml", []byte(doc+`</config>`))
		if c == nil {
			t.Fatal(problems)
		}
		var ended sync.Map // when the last probe of an address has
		d := startWith(t, w, c, func(ctx context.Context, p health.Probe) health.Result {
			defer func() { ended.Store(p.Addr, time.Now()) }()
			return w.probe(ctx, p)
		})
		random := rand.New(rand.NewPCG(1, 2))
		met := map[sched.Addr]time.Time{} // when the test has last done something to an address
		looks := 0
		for range 3000 {
			s := random.IntN(3)
			n := random.IntN(12)
			x := d.State().Services[s].Groups[0].Hosts[n].Targets[0]
			met[x.key.addr] = time.Now()
			addr := x.key.addr.String()
			switch random.IntN(9) {
			case 0:
				w.set(w.dead, addr, true)
			case 1:
				w.set(w.slow, addr, true)
			case 2, 3:
				w.set(w.dead, addr, false)
				w.set(w.slow, addr, false)
			case 4:
				w.fail(x)
			case 5:
				if err := d.Rule(t.Context(), []Ruling{{Target: x, Elsewhere: random.IntN(2) == 0, Up: random.IntN(3) > 0, By: "b"}}); err != nil {
					t.Fatal(err)
				}
			case 6:
				change(t, d, func(c *config.Config) {
					h := c.Services[s].Groups[0].Hosts[n]
					h.State = map[string]string{"ready": "maint", "maint": "ready"}[h.State]
				})
			case 7: // another process has seen something else
				inDirector(t, d, func() {
					e, now := x.export(), time.Now()
					e.Up, e.Since, e.Next = !e.Up, now, now.Add(time.Duration(random.IntN(3000))*time.Millisecond)
					d.hear(&e, d.State().Services[s].Groups[0].Hosts[n], now)
				})
			}
			time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
			inDirector(t, d, func() {
				for key, x := range d.targets {
					if _, ok := x.due(time.Now()); !ok {
						continue
					}
					looks++
					since := x.next
					if at := met[key.addr]; at.After(since) { // it was not to be probed before
						since = at
					}
					if end, is := ended.Load(key.addr); is && end.(time.Time).After(since) { // it took longer than the interval
						since = end.(time.Time)
					}
					if late := time.Since(since); late > coarse {
						t.Errorf("%v of %s is late by %v", key.addr, key.service, late)
					}
				}
			})
		}
		if looks < 10_000 {
			t.Errorf("%d targets seen: the test has nothing to show", looks)
		}
	})
}

func inDirector(t *testing.T, d *Director, f func()) {
	t.Helper()
	if err := d.order(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// While nothing changes, however many probes are due, all targets are looked at about four
// times a second.
func TestLooksAtAllAreFew(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		w := newWorld()
		hosts, addrs := many(500)
		for _, addr := range addrs[:50] {
			w.set(w.slow, addr, true)
			w.set(w.dead, addr, true)
		}
		d := start(t, w, `<config><service name="web"><listen ip=":1"/><group name="g"><check type="tcp" interval="1s"/>`+hosts+`</group></service></config>`)
		time.Sleep(time.Minute) // all that are to be down are
		looks, was := 0, time.Time{}
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			inDirector(t, d, func() {
				if d.soon.until != was {
					was = d.soon.until
					looks++
				}
			})
		}
		if looks > 44 {
			t.Errorf("%d looks at all in ten seconds", looks)
		}
		if n := w.probed(addrs[499]); n < 70 {
			t.Errorf("%d probes of a host", n)
		}
	})
}
