package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/sched"
)

// hostOf is where the node sends a client now.
func (m *member) hostOf(client int) string {
	m.eng.mu.Lock()
	defer m.eng.mu.Unlock()
	var tried sched.Tried
	at := sched.TCPAddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(client >> 8), byte(client)}), 4711))
	h, _ := m.eng.plan.Services[0].Route.Table.Pick(at, &tried)
	if h == nil {
		return "none"
	}
	return h.Name()
}

// With maglev a client has the same host on every node, whichever node it comes to: in whatever
// order hosts were added, by whichever node, and whether a node was there or joined later with a
// file that has them in another order.
func TestMaglevAgreesAcrossTheFleet(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		const doc = `<config><service name="web"><listen ip="unix:/run/web"/><group name="g" scheduler="maglev">%s</group></service></config>`
		host := func(name string, n int) string { return fmt.Sprintf(`<host name="%s" ip="10.0.0.%d:80"/>`, name, n) }
		store := newMemoryStore()
		a := join(t, store, "a", folder(t, fmt.Sprintf(doc, host("h1", 1)+host("h2", 2))))
		b := join(t, store, "b", folder(t, fmt.Sprintf(doc, host("h2", 2)+host("h1", 1))))
		add := func(m *member, name string, n, at int) {
			must(t)(m.dir.Do(t.Context(), director.Change{By: "ops", Verb: "addHost web g " + name, Apply: func(c *config.Config) error {
				one, err := config.Parse("host", fmt.Appendf(nil, doc, host(name, n)))
				if one == nil {
					return err
				}
				g := c.Services[0].Groups[0]
				g.Hosts = slices.Insert(g.Hosts, at, one.Services[0].Groups[0].Hosts[0])
				return nil
			}}))
			synctest.Wait()
		}
		add(b, "h3", 3, 2)
		add(a, "h4", 4, 0)
		add(b, "h5", 5, 1)
		late := join(t, store, "c", folder(t, fmt.Sprintf(doc, host("h5", 5)+host("h4", 4)+host("h3", 3)+host("h2", 2)+host("h1", 1))))
		used := map[string]int{}
		for client := range 5_000 {
			h := a.hostOf(client)
			used[h]++
			if b.hostOf(client) != h || late.hostOf(client) != h {
				t.Fatalf("client %d has host %s on a, %s on b, %s on c", client, h, b.hostOf(client), late.hostOf(client))
			}
		}
		if len(used) != 5 || used["none"] > 0 {
			t.Errorf("clients of hosts: %v", used)
		}
	})
}
