package director

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/health"
	"github.com/txlb/txlb/sched"
)

// rule is how the hosts of a group are probed, what the results mean and what follows:
// what <check> and <group> say or, without a <check>, <manager>.
type rule struct {
	own   bool         // the group has a <check>
	probe health.Probe // but for the address and the time to connect
	port  uint16       // to probe, 0 for the host's own
	// rise successes in a row bring a host back, fall failures take it out.
	rise, fall int
	// How often: usually, while a host is on its way up or down, and while it
	// is down; 0 for never.
	usual, fast, down time.Duration

	eject ejectRule

	endWhenDown, endBackups bool // whose sessions end when a host goes down or comes up
}

func newRule(m *config.Manager, g *config.Group) *rule {
	r := checkRule(m, g)
	r.eject = newEjectRule(g)
	r.endWhenDown, r.endBackups = g.EndWhenDown, g.EndBackups
	return r
}

// checkRule returns how hosts are probed and what that means.
func checkRule(m *config.Manager, g *config.Group) *rule {
	if g.Check == nil {
		r := &rule{probe: health.Probe{Type: health.TCP, Timeout: probeTimeout}, rise: 1, fall: heartbeatFall}
		if m.Heartbeat.Enable {
			r.usual, r.fast = m.Heartbeat.Interval, m.Heartbeat.Interval
		}
		if m.HostCheck.Enable {
			r.down = m.HostCheck.Interval
		}
		return r
	}
	c := g.Check
	r := &rule{
		own: true, port: uint16(c.Port), rise: c.Rise, fall: c.Fall,
		usual: c.Interval, fast: c.FastInterval, down: c.DownInterval,
		probe: health.Probe{
			Type: probeTypes[c.Type], Timeout: c.Timeout, Path: c.Path, Host: c.Host, Send: c.Send, Expect: c.Expect,
			Verify: c.Verify, CA: c.CA,
		},
	}
	if r.fast == 0 {
		r.fast = r.usual
	}
	if r.down == 0 {
		r.down = r.usual
	}
	statuses, _ := config.ParseStatus(c.Status) // the model has been checked
	for _, s := range statuses {
		r.probe.Status = append(r.probe.Status, health.Status(s))
	}
	return r
}

var probeTypes = map[string]health.Type{
	"tcp": health.TCP, "http": health.HTTP, "tls": health.TLS, "expect": health.Expect,
}

// every returns the probe interval of a host, 0 for never. It is short while all
// hosts of the group are down, because clients wait for the first that answers.
func (r *rule) every(up, changing, allDown bool) time.Duration {
	every := r.usual
	switch {
	case changing:
		every = r.fast
	case !up:
		every = r.down
	}
	if up || !allDown {
		return every
	}
	if every == 0 {
		return lastResortInterval
	}
	return min(every, lastResortInterval)
}

// of returns the probe of a host. As in HAProxy, the interval bounds the connect,
// so that a silent host does not delay the next probe; a host that connects has the
// whole timeout to answer.
func (r *rule) of(host *sched.Host, addr sched.Addr, up, allDown bool) health.Probe {
	p := r.probe
	p.Addr, p.Proxy, p.Secure = addr, host.ProxyProtocol(), host.TLS()
	if s := host.Source(); s != nil { // there is no client whose address it could have
		p.Source, p.Interface = s.Addr, s.Interface
	}
	if r.port != 0 && addr.Path() == "" {
		p.Addr = sched.TCPAddr(netip.AddrPortFrom(addr.IP().Addr(), r.port))
		if p.Addr != addr {
			p.Proxy, p.Secure = 0, nil // what answers there is another server, as HAProxy has it
		}
	}
	// Not the fast interval: with that a host far away would seem down as soon
	// as it had failed once.
	interval := r.every(up, false, allDown)
	p.Connect = min(p.Timeout, interval-slack(interval))
	return p
}

// first returns with how many failures a new host starts: so many that its first
// failed check takes it down.
func (r *rule) first() int {
	if r.own {
		return r.fall - 1
	}
	return 0
}

// progress is HAProxy's n/m: of a host that is up, how many failures in a row
// it is away from going down; of one that is down, how many of the successes
// that bring it back it has had.
func (s Status) progress() (n, of int) {
	if s.Up {
		return s.Fall - s.Failed, s.Fall
	}
	return s.Passed, s.Rise
}

// Progress is how far a host is from changing, as HAProxy shows it: "2/3" of a host
// that is up and goes down with two more failures in a row, "1/2" of one that is
// down and comes back with one more success. It is "" if no change is pending.
func (s Status) Progress() string {
	if s.Up && s.Failed == 0 || !s.Up && s.Passed == 0 {
		return ""
	}
	n, of := s.progress()
	return strconv.Itoa(n) + "/" + strconv.Itoa(of)
}
