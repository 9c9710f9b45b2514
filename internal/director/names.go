package director

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

const (
	// maxLookups is how many look-ups are under way at once.
	maxLookups = 64
	// lookupTimeout bounds one look-up.
	lookupTimeout = 5 * time.Second
	// lookupAgain is how long after a failed look-up the next one comes.
	lookupAgain = 5 * time.Second
)

// name is a DNS name that hosts use.
type name struct {
	addrs   []netip.Addr // empty until it has resolved
	err     error        // of the last look-up
	looking bool
	next    time.Time // of the next look-up, while it does not resolve
}

// lookup is a look-up that has ended.
type lookup struct {
	host  string
	addrs []netip.Addr
	err   error
}

// look resolves a name, whatever the family, and keeps one family: a host that
// listens on IPv4 alone would otherwise look half dead under a name that has
// both.
func (d *Director) look(ctx context.Context, host string) lookup {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := d.opt.Resolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	if slices.ContainsFunc(addrs, netip.Addr.Is4) {
		addrs = slices.DeleteFunc(addrs, netip.Addr.Is6)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("%s has no address", host)
	}
	return lookup{host, addrs, err}
}

// lookupAll resolves every name of a configuration before the start.
func (d *Director) lookupAll(cfg *config.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), startLookup)
	defer cancel()
	results := make(chan lookup)
	slots := make(chan struct{}, maxLookups)
	var wg sync.WaitGroup
	for host := range hostNames(cfg) {
		d.names[host] = &name{looking: true}
		wg.Go(func() {
			slots <- struct{}{}
			l := d.look(ctx, host)
			<-slots
			results <- l
		})
	}
	go func() {
		wg.Wait()
		close(results)
	}()
	for l := range results {
		d.note(l)
	}
}

// note takes in a look-up and tells whether the addresses have changed.
func (d *Director) note(l lookup) (changed bool) {
	n := d.names[l.host]
	if n == nil {
		return false
	}
	n.looking = false
	n.err = l.err
	if l.err != nil {
		n.next = time.Now().Add(lookupAgain)
		return false
	}
	changed = !slices.Equal(n.addrs, l.addrs)
	n.addrs = l.addrs
	return changed
}

// resolved takes in a look-up made while running.
func (d *Director) resolved(l lookup) {
	if d.note(l) && hostNames(d.config)[l.host] {
		d.log.Info("name resolved", "name", l.host, "addrs", fmt.Sprint(l.addrs))
		if _, err := d.adopt(d.config, d.State().Generation); err != nil {
			d.log.Warn("the engine did not take the new addresses", "name", l.host, "err", err)
		}
	}
	d.forgetNames()
	d.finish()
}

// hostNames returns the DNS names that a configuration uses.
func hostNames(cfg *config.Config) map[string]bool {
	used := map[string]bool{}
	for _, s := range cfg.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if isLiteral(h.Address) {
					continue
				}
				if host, _, _, err := hostName(h.Address); err == nil && host != "" {
					used[host] = true
				}
			}
		}
	}
	return used
}

// lookedUp tells whether every name of a configuration has been looked up,
// whatever came of it.
func (d *Director) lookedUp(cfg *config.Config) bool {
	for host := range hostNames(cfg) {
		if n := d.names[host]; len(n.addrs) == 0 && n.err == nil {
			return false
		}
	}
	return true
}

// addresses returns what a host's address stands for now, or why it stands for
// nothing. Its name must have been looked up.
func (d *Director) addresses(address string) ([]sched.Addr, error) {
	host, port, addr, err := hostName(address)
	if err != nil {
		return nil, err
	}
	if host == "" {
		return []sched.Addr{addr}, nil
	}
	n := d.names[host]
	if len(n.addrs) == 0 {
		return nil, fmt.Errorf("name %s: %w", host, n.err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address %q: port %q is no number", address, port)
	}
	addrs := make([]sched.Addr, len(n.addrs))
	for i, ip := range n.addrs {
		addrs[i] = sched.TCPAddr(netip.AddrPortFrom(ip, uint16(number)))
	}
	return addrs, nil
}

// forgetNames drops names that neither what runs nor what is pending uses.
func (d *Director) forgetNames() {
	used := hostNames(d.config)
	if d.pending != nil {
		maps.Copy(used, hostNames(d.pending.config))
	}
	for host, n := range d.names {
		if !used[host] && !n.looking {
			delete(d.names, host)
		}
	}
}

// leftOut is a host whose name does not resolve.
type leftOut struct{ service, group, host, address string }

// reportLeftOut says which hosts are left out, each once until it is back.
func (d *Director) reportLeftOut(state *State) {
	now := map[leftOut]bool{}
	for _, s := range state.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if len(h.Targets) > 0 {
					continue
				}
				key := leftOut{s.Config.Name, g.Config.Name, h.Config.Name, h.Config.Address}
				now[key] = true
				if !d.leftOut[key] {
					d.log.Warn("host left out until its name resolves", "service", key.service,
						"group", key.group, "host", key.host, "reason", h.Problem)
				}
			}
		}
	}
	d.leftOut = now
}

// startLookups starts the look-ups that are due and returns the time until
// the next one is.
func (d *Director) startLookups(ctx context.Context, now time.Time) time.Duration {
	soonest := lookupAgain
	looking := 0
	for _, n := range d.names {
		if n.looking {
			looking++
		}
	}
	for host, n := range d.names {
		if len(n.addrs) > 0 || n.looking {
			continue
		}
		if wait := n.next.Sub(now); wait > 0 {
			soonest = min(soonest, wait)
		} else if looking < maxLookups {
			looking++
			n.looking = true
			go d.lookUp(ctx, host)
		}
	}
	return soonest
}

// lookUp is the goroutine of one look-up.
func (d *Director) lookUp(ctx context.Context, host string) {
	d.looked <- d.look(ctx, host) // has room for every look-up
}
