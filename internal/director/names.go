package director

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/sched"
)

const (
	// maxLookups is how many names are looked up at once.
	maxLookups = 64
	// lookupAgain is the longest time from a failed look-up to the next one.
	lookupAgain = 5 * time.Second
)

// name is a DNS name that hosts use.
type name struct {
	ends    []endpoint    // of the last look-up that found any; empty until it has resolved
	err     error         // of the last look-up; then ends are older, or not all
	since   time.Time     // of the first look-up in a row that failed
	every   time.Duration // the shortest interval of its hosts, 0: until it has resolved
	source  *source       // that was asked last
	looking bool
	next    time.Time // of the next look-up; zero: there was none yet
}

// names are the DNS names that a configuration uses, each with the shortest
// interval of its hosts, 0 if none is looked up again.
type names map[string]time.Duration

// lookup is a look-up that has ended.
type lookup struct {
	host   string
	source *source
	ends   []endpoint
	err    error
}

// errNotYet is the error of a name whose first look-up has not ended.
var errNotYet = errors.New("its first look-up is not finished")

// lookupAll resolves every name of a configuration before the start. The error is that of
// Options.Starting.
func (d *Director) lookupAll(used names) error {
	ctx := d.opt.Starting
	if ctx == nil {
		ctx = context.Background()
	}
	for host, every := range used {
		d.names[host] = &name{looking: true, every: every}
	}
	d.source.lookAll(ctx, used, func(l lookup) { d.note(l) })
	return ctx.Err()
}

// lookAll looks names up and hands over the results one by one. It takes no longer
// than startLookup, and than ctx.
func (s *source) lookAll(ctx context.Context, used names, each func(lookup)) {
	ctx, cancel := context.WithTimeout(ctx, startLookup)
	defer cancel()
	results := make(chan lookup)
	slots := make(chan struct{}, maxLookups)
	var wg sync.WaitGroup
	for host := range used {
		wg.Go(func() {
			slots <- struct{}{}
			ends, err := s.look(ctx, host, nil)
			<-slots
			results <- lookup{host, s, ends, err}
		})
	}
	go func() {
		wg.Wait()
		close(results)
	}()
	for l := range results {
		each(l)
	}
}

// Unresolved looks up the names of the hosts, as New would, and tells why those
// that do not resolve do not. It takes no longer than five seconds.
func Unresolved(cfg *config.Config) map[*config.Host]error {
	failed := map[string]error{}
	newSource(&cfg.DNS, nil).lookAll(context.Background(), namesOf(cfg), func(l lookup) {
		if l.err != nil && len(l.ends) == 0 {
			failed[l.host] = l.err
		}
	})
	hosts := map[*config.Host]error{}
	for _, s := range cfg.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if isLiteral(h.Address) {
					continue
				}
				if name, _, _, err := hostName(h.Address); err == nil && failed[name] != nil {
					hosts[h] = failed[name]
				}
			}
		}
	}
	return hosts
}

// note stores the result of a look-up and tells whether the addresses have changed.
func (d *Director) note(l lookup) (changed bool) {
	n := d.names[l.host]
	if n == nil {
		return false
	}
	now := time.Now()
	n.looking = false
	n.source = l.source
	was, known := n.err, len(n.ends) > 0
	n.err = l.err
	if was == nil {
		n.since = now
	}
	if len(l.ends) > 0 {
		changed = !slices.Equal(n.ends, l.ends)
		n.ends = l.ends
	}
	n.plan(now)
	if l.source != d.source && (d.underway == nil || l.source != d.underway.source) {
		n.next = now // an answer of servers that are asked no more
	}
	d.lookFrom(n.next)
	switch {
	case n.err != nil && len(n.ends) > 0 && (was == nil || !known):
		d.log.Warn("name does not resolve, keeping its last addresses", "name", l.host, "addrs", addrs(n.ends), "reason", n.err.Error())
	case n.err == nil && was != nil && known:
		d.log.Info("name resolves again", "name", l.host, "addrs", addrs(n.ends), "failed_for", now.Sub(n.since).Round(time.Millisecond).String())
	}
	if _, used := d.used[l.host]; used && (changed || fmt.Sprint(was) != fmt.Sprint(n.err)) {
		d.behind(l.host, changed)
	}
	return changed
}

// behind notes that the state has to catch up with a name: with its addresses, or
// only with what is shown of it.
func (d *Director) behind(host string, addrs bool) { d.moved[host] = d.moved[host] || addrs }

// addrs shows what a name stands for in the log.
func addrs(ends []endpoint) string {
	list := make([]string, len(ends))
	for i, e := range ends {
		list[i] = e.ip.String()
		if e.port != 0 {
			list[i] = netip.AddrPortFrom(e.ip, e.port).String()
		}
	}
	return fmt.Sprint(list)
}

// plan sets when the next look-up is due: a little sooner than configured, so that
// look-ups of many names spread and none is late although it is noticed up to
// coarse after it is due; but never within a second. The answer's time to live does
// not count, because the resolver does not return it.
func (n *name) plan(now time.Time) {
	every := n.every
	if n.err != nil && (every == 0 || every > lookupAgain) {
		every = lookupAgain
	}
	every = max(every, config.MinResolve)
	n.next = now.Add(max(config.MinResolve, every-coarse-time.Duration(rand.Int64N(int64(every)/5+1))))
}

// settled tells whether the name needs no further look-up.
func (n *name) settled() bool { return n.every == 0 && n.err == nil && len(n.ends) > 0 }

// resolved handles the result of a look-up at run time. Its changes take effect
// with the next settleNames, so that many names that change at once cost one plan.
func (d *Director) resolved(l lookup) {
	_, used := d.used[l.host]
	if d.note(l) && used {
		d.log.Info("name resolved", "name", l.host, "addrs", addrs(l.ends))
	}
	if !used {
		d.forgetNames()
	}
	d.finish()
}

// settleNames applies the results of look-ups, and forgets what nothing needs any
// more.
func (d *Director) settleNames() {
	if len(d.moved) == 0 && !d.forgotten {
		return
	}
	for _, u := range d.unsettled {
		if d.moved[u.host.name] {
			d.changed(u.service)
		}
	}
	clear(d.moved)
	d.forgotten = false
	if _, err := d.adopt(d.config, d.State().Generation); err != nil {
		d.log.Warn("engine rejected new addresses", "err", err)
	}
}

// namesOf returns the names that a configuration uses.
func namesOf(cfg *config.Config) names {
	used := names{}
	for _, s := range cfg.Services {
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				used.add(h.Address, h.Resolve)
			}
			for i := range g.Mirrors {
				used.add(g.Mirrors[i].Address, g.Mirrors[i].Resolve)
			}
		}
	}
	return used
}

// add adds the name in an address, if it has one.
func (n names) add(address string, again time.Duration) {
	if isLiteral(address) {
		return
	}
	host, _, _, err := hostName(address)
	if err != nil || host == "" {
		return
	}
	every, ok := n[host]
	if !ok || every == 0 || again != 0 && again < every {
		n[host] = again
	}
}

// useNames makes names those that are looked up from now on.
func (d *Director) useNames(used names) {
	now := time.Now()
	for host, every := range used {
		n := d.names[host]
		if n.every == every {
			continue
		}
		n.every = every
		if due := n.next; !due.IsZero() {
			n.plan(now)
			if due.Before(n.next) {
				n.next = due
			}
			d.lookFrom(n.next)
		}
	}
	d.used = used
	d.forgetNames()
}

// useSource makes source the one to ask from now on. Earlier results hold until it
// has answered.
func (d *Director) useSource(s *source) {
	if d.source == s {
		return
	}
	d.source = s
	now := time.Now()
	for _, n := range d.names {
		if n.source != s && !n.next.IsZero() {
			n.next = now
		}
	}
	d.lookFrom(now)
}

// lookedUp tells whether every name has been looked up, successfully or not.
func (d *Director) lookedUp(used names) bool {
	for host := range used {
		if n := d.names[host]; len(n.ends) == 0 && n.err == nil {
			return false
		}
	}
	return true
}

// part is one address that a host stands for, and what it gets of the sessions.
type part struct {
	addr sched.Addr
	Share
}

// parts fills in the addresses that a host stands for now, and the problem with its
// name, if any.
func (d *Director) parts(host *Host) []part {
	h := host.Config
	all := Share{h.Weight, h.Backup}
	dns, port, addr, err := hostName(h.Address)
	if err != nil {
		host.Problem = err.Error()
		return nil
	}
	if dns == "" {
		return []part{{addr, all}}
	}
	host.name = dns
	n := d.names[dns]
	switch {
	case n.err != nil:
		host.Problem, host.ProblemSince = n.err.Error(), n.since
	case len(n.ends) == 0:
		host.Problem, host.ProblemSince = fmt.Sprintf("%s: %v", dns, errNotYet), time.Now()
	}
	if config.IsSRV(dns) {
		return srvParts(n.ends, all)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		host.Problem = fmt.Sprintf("address %q: port %q is not a number", h.Address, port)
		return nil
	}
	parts := make([]part, len(n.ends))
	for i, e := range n.ends {
		parts[i] = part{sched.TCPAddr(netip.AddrPortFrom(e.ip, uint16(number))), all}
	}
	return parts
}

// srvParts gives each endpoint of SRV records its share: its weight times the
// host's. All but those with the lowest priority number are backups. Weight 0 means
// a small share in SRV records and none here, so it counts as 1. ends are ordered
// by priority.
func srvParts(ends []endpoint, host Share) []part {
	var parts []part
	at := map[sched.Addr]int{}
	heaviest := 0
	for _, e := range ends {
		addr := sched.TCPAddr(netip.AddrPortFrom(e.ip, e.port))
		p := part{addr, Share{max(1, int(e.weight)) * host.Weight, host.Backup || e.priority > ends[0].priority}}
		i, twice := at[addr]
		switch {
		case !twice:
			i = len(parts)
			at[addr] = i
			parts = append(parts, p)
		case parts[i].Backup == p.Backup:
			parts[i].Weight += p.Weight
		}
		heaviest = max(heaviest, parts[i].Weight)
	}
	if heaviest > sched.MaxWeight {
		for i := range parts {
			parts[i].Weight = max(1, parts[i].Weight*sched.MaxWeight/heaviest)
		}
	}
	return parts
}

// unsettled is a host whose state can change while its configuration does not.
type unsettled struct {
	service string
	host    *Host
}

// noteUnsettled finds them.
func (d *Director) noteUnsettled(state *State) {
	d.unsettled = nil
	for _, s := range state.Services {
		if !s.unsettled {
			continue
		}
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if !h.settled() {
					d.unsettled = append(d.unsettled, unsettled{s.Config.Name, h})
				}
			}
		}
	}
}

// forgetDeparted notes whether a departed target can become its host's past.
func (d *Director) forgetDeparted() {
	now := time.Now()
	for _, u := range d.unsettled {
		d.forgotten = d.forgotten || u.host.forgets(now)
	}
}

// forgetNames drops names that neither what runs nor the change that is under way uses.
func (d *Director) forgetNames() {
	coming := names{}
	if d.underway != nil {
		coming = d.underway.names
	}
	maps.DeleteFunc(d.names, func(host string, n *name) bool {
		_, used := d.used[host]
		_, wanted := coming[host]
		return !used && !wanted && !n.looking
	})
}

// leftOut is a host whose name does not resolve.
type leftOut struct{ service, group, host, address string }

// reportLeftOut logs which hosts are left out, each once until it is back.
func (d *Director) reportLeftOut(state *State) {
	now := map[leftOut]bool{}
	for _, s := range state.Services {
		if !s.lacking {
			continue
		}
		for _, g := range s.Groups {
			for _, h := range g.Hosts {
				if len(h.Targets) > 0 {
					continue
				}
				key := leftOut{s.Config.Name, g.Config.Name, h.Config.Name, h.Config.Address}
				now[key] = true
				if !d.leftOut[key] {
					d.log.Warn("host not used until its name resolves", "service", key.service,
						"group", key.group, "host", key.host, "reason", h.Problem)
				}
			}
		}
	}
	d.leftOut = now
}

// lookFrom makes startLookups look no later than at a time.
func (d *Director) lookFrom(at time.Time) {
	if at.Before(d.nextLook) {
		d.nextLook = at
	}
}

// startLookups starts the look-ups that are due, those of new names first, and
// returns the time until it should look again.
func (d *Director) startLookups(ctx context.Context, now time.Time) time.Duration {
	if wait := d.nextLook.Sub(now); wait > 0 {
		return wait
	}
	soonest := lookupAgain
	looking := 0
	var due []string
	for host, n := range d.names {
		switch wait := n.next.Sub(now); {
		case n.looking:
			looking++
		case n.settled():
		case wait > 0:
			soonest = min(soonest, wait)
		default:
			due = append(due, host)
		}
	}
	slices.SortFunc(due, func(a, b string) int { return d.names[a].next.Compare(d.names[b].next) })
	start := min(len(due), maxLookups-looking)
	for _, host := range due[:start] {
		n := d.names[host]
		n.looking = true
		from := d.source
		if _, used := d.used[host]; !used && d.underway != nil {
			from = d.underway.source
		}
		go d.lookUp(ctx, from, host, n.ends)
	}
	if start < len(due) {
		soonest = coarse
	}
	soonest = max(soonest, coarse)
	d.nextLook = now.Add(soonest)
	return soonest
}

// lookUp is the goroutine of one look-up.
func (d *Director) lookUp(ctx context.Context, from *source, host string, before []endpoint) {
	begun := time.Now()
	ends, err := from.look(ctx, host, before)
	if err != nil && ctx.Err() == nil && time.Since(begun) > lookupTimeout+tooLate {
		// This process stood still: the answer may have come in time.
		ends, err = from.look(ctx, host, before)
	}
	d.looked <- lookup{host, from, ends, err} // has room for every look-up
}
