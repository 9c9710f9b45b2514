package director

import (
	"maps"
	"time"
)

// deniedReason is the engine's word for clients that an access rule rejects.
const deniedReason = "access"

const (
	// tellRejected is the least time between two lines of the log about clients
	// of one service that are rejected for one reason.
	tellRejected = 10 * time.Second
	// maxRejected is how many such lines one scan writes; further ones are summed
	// up in one.
	maxRejected = 10
)

// rejection is why clients of a service are rejected, in the engine's words.
type rejection struct{ service, reason string }

// rejected is what the log knows of a rejection.
type rejected struct {
	count uint64    // that the engine has counted, at the last scan
	told  uint64    // that the log has told
	at    time.Time // of its last line
	seen  time.Time // of the last scan; older: the service has gone

	// base is the count at the last scan of the window before, since when that window began.
	base, next uint64
	turned     time.Time
}

// Rejection is that clients of a service were rejected in the last seconds.
type Rejection struct {
	Service string
	Reason  string // the engine's word
	Clients uint64
}

// rejectedIn is how long ago at least clients were rejected that Rejections counts,
// and half of how long at most.
const rejectedIn = 5 * time.Second

// recent returns how many clients were rejected lately.
func (r *rejected) recent(now time.Time) uint64 {
	if r.turned.IsZero() {
		r.base, r.next, r.turned = 0, r.count, now
	}
	if now.Sub(r.turned) >= rejectedIn {
		r.base, r.next, r.turned = r.next, r.count, now
	}
	return r.count - min(r.base, r.count)
}

// Rejections returns which clients were rejected in the last five to ten seconds,
// as far as Run has seen it, but for those that access rules deny. Any goroutine may call it.
func (d *Director) Rejections() []Rejection {
	if list := d.recent.Load(); list != nil {
		return *list
	}
	return nil
}

// tellRejections logs why clients are rejected: at once, and then a summary each
// tellRejected while it goes on. The loops only count; this samples their counts.
func (d *Director) tellRejections(now time.Time) {
	lines, services, clients := 0, map[string]bool{}, uint64(0)
	var recent []Rejection
	d.eng.Refused(func(service, reason string, count uint64) {
		key := rejection{service, reason}
		r := d.rejections[key]
		if r == nil {
			r = new(rejected)
			d.rejections[key] = r
		}
		if count < r.count { // a service of the same name as one that has gone
			*r = rejected{at: r.at}
		}
		r.count, r.seen = count, now
		if n := r.recent(now); n > 0 && reason != deniedReason {
			recent = append(recent, Rejection{service, reason, n})
		}
		if r.count == r.told || now.Sub(r.at) < tellRejected {
			return
		}
		n := r.count - r.told
		r.told, r.at = r.count, now
		if lines++; lines > maxRejected {
			services[service] = true
			clients += n
			return
		}
		if reason == deniedReason { // as the configuration wants it
			d.log.Info("clients rejected", "service", service, "reason", reason, "clients", n)
			return
		}
		d.log.Warn("clients rejected", "service", service, "reason", reason, "clients", n)
	})
	d.recent.Store(&recent)
	maps.DeleteFunc(d.rejections, func(_ rejection, r *rejected) bool { return r.seen != now })
	if len(services) > 0 {
		d.log.Warn("clients of other services rejected", "services", len(services), "clients", clients)
	}
}
