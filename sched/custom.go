package sched

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Scheduler chooses hosts for a group in place of one of the schedulers in [Names]. A
// program that embeds txlb writes one.
//
// The table does everything else: it counts sessions, tries another host when a connect
// fails, keeps to weights of 0, limits, drains, zones and backups, and sends clients back
// to their hosts with ",sticky". So Pick sees only hosts that the session may have, and
// decides nothing but which.
//
// All event loops call Pick, several at the same moment. While it runs, the sessions of its
// loop stand still. So Pick must not lock, wait or do input and output, and should not
// allocate: keep what it looks at in atomic values, and change that elsewhere. It must not
// end its goroutine (runtime.Goexit), which is the loop's.
//
// A Pick that panics, or returns no index of hosts, is a fault. The session then gets the
// next host in turn, and the fault is counted, see [Custom.Faults].
type Scheduler interface {
	// Pick returns the index of the host that a new session gets. There is at least
	// one. client is the client's address, without its port; of clients of UNIX sockets it
	// is the zero Addr. hosts belongs to the table: Pick must neither change nor keep it.
	//
	// A host among them may have gone down, or filled up, this moment. If Pick returns that,
	// it is called again without it. It is also called again for a session whose host could
	// not be connected to, without the hosts that the session has tried.
	Pick(client netip.Addr, hosts []Candidate) int
}

// SchedulerFunc is a function that is a [Scheduler].
type SchedulerFunc func(client netip.Addr, hosts []Candidate) int

// Pick calls the function.
func (f SchedulerFunc) Pick(client netip.Addr, hosts []Candidate) int { return f(client, hosts) }

// Candidate is a host that a [Scheduler] may pick. Its methods take no locks. They return
// what is so now, but for the weight.
type Candidate struct {
	host   *Host
	weight int
}

// NewCandidate returns a candidate, for tests of a [Scheduler].
func NewCandidate(h *Host, weight int) Candidate { return Candidate{h, weight} }

// Name returns the name that the configuration gives the host. A name that stands for
// several addresses stands for as many candidates.
func (c Candidate) Name() string { return c.host.Name() }

// Addr returns the host's address.
func (c Candidate) Addr() Addr { return c.host.Addr() }

// Weight returns the host's weight, 1 to MaxWeight. During a slow start it is the part of it
// that the host has now.
func (c Candidate) Weight() int { return c.weight }

// Sessions returns how many sessions the host has, over all loops.
func (c Candidate) Sessions() int64 { return c.host.Sessions() }

// Stats returns the host's counters.
func (c Candidate) Stats() HostStats { return c.host.Stats() }

// customPrefix begins the name of a scheduler that is a program's own.
const customPrefix = "custom:"

// CustomName returns NAME of a scheduler "custom:NAME" or "custom:NAME,sticky": a [Scheduler]
// of the program, which has given it that name. NAME is letters, digits, and the
// characters - _ . between them.
func CustomName(scheduler string) (name string, ok bool) {
	name, ok = strings.CutPrefix(strings.TrimSuffix(scheduler, sticking), customPrefix)
	if !ok || name == "" || len(name) > longestCustom || strings.Trim(name, customLetters) != "" {
		return "", false
	}
	return name, true
}

const (
	customLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	longestCustom = 64
)

// Custom is a Scheduler with the count of its faults. It outlives tables, and may be used
// by any number of them.
type Custom struct {
	scheduler Scheduler
	faults    atomic.Uint64
	first     atomic.Pointer[string] // of the faults that Faults has not told
	rooms     sync.Pool              // of *room
}

// room is where the candidates of a pick are listed if they are not all of the table's.
type room struct {
	hosts []*Host
	list  []Candidate
}

// NewCustom returns s for Policy.Custom. s must not be nil.
func NewCustom(s Scheduler) *Custom { return &Custom{scheduler: s} }

// Count returns how many faults there have been.
func (c *Custom) Count() uint64 { return c.faults.Load() }

// Faults returns how many faults there have been, and what the first one since the last
// call was, "" if there was none: which panic, and where, or which index.
func (c *Custom) Faults() (n uint64, what string) {
	n = c.faults.Load()
	if first := c.first.Swap(nil); first != nil {
		what = *first
	}
	return n, what
}

// ask returns an index of hosts, or -1 after a fault.
func (c *Custom) ask(client netip.Addr, hosts []Candidate) (i int) {
	defer func() {
		if v := recover(); v != nil {
			i = -1
			c.fault(func() string { return fmt.Sprintf("panic in %s: %v", panicked(), v) })
		}
	}()
	i = c.scheduler.Pick(client, hosts)
	if i < 0 || i >= len(hosts) {
		c.fault(func() string { return fmt.Sprintf("Pick returned %d for %d hosts", i, len(hosts)) })
		return -1
	}
	return i
}

// fault counts a fault. Only the first one of a moment is put into words.
func (c *Custom) fault(what func() string) {
	c.faults.Add(1)
	if c.first.Load() == nil {
		text := what()
		c.first.CompareAndSwap(nil, &text)
	}
}

// panicked tells where the panic was that is being recovered.
func panicked() string {
	var at [64]uintptr
	frames := runtime.CallersFrames(at[:runtime.Callers(1, at[:])])
	for before := true; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			before = false
		case !before && !strings.HasPrefix(f.Function, "runtime."):
			return fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line)
		}
		if !more {
			return "Pick"
		}
	}
}

// custom lets a Scheduler choose among the hosts of a tier.
type custom struct {
	tier
	how  *Custom
	list []Candidate // of hosts
}

func newCustom(members []Member, c *cursor, how *Custom) *custom {
	o := &custom{newTier(members, c), how, make([]Candidate, len(members))}
	for i, m := range members {
		o.list[i] = Candidate{m.Host, m.Weight}
	}
	return o
}

// choose is that of a chooser, for a client. Mostly every host is free, so the scheduler is
// first asked about all of them: that costs the same with any number of hosts.
func (o *custom) choose(client netip.Addr, tried *Tried) *Host {
	n := o.cursor.next()
	if tried.n > 0 {
		return o.chooseFree(client, tried, n)
	}
	i := o.how.ask(client, o.list)
	if i < 0 {
		return o.from(n%uint64(len(o.hosts)), n, tried)
	}
	if h := o.hosts[i]; free(h, tried) && h.claim(n) {
		return h
	}
	return o.chooseFree(client, tried, n)
}

// asks is how often a scheduler is asked about the free hosts, if others take the last room
// of its choice meanwhile.
const asks = 3

// chooseFree asks about the hosts that are free.
func (o *custom) chooseFree(client netip.Addr, tried *Tried, n uint64) *Host {
	r, _ := o.how.rooms.Get().(*room)
	if r == nil {
		r = new(room)
	}
	defer o.how.rooms.Put(r)
	if n := len(o.hosts); cap(r.hosts) < n {
		r.hosts, r.list = make([]*Host, 0, n), make([]Candidate, 0, n)
	}
	for range asks {
		r.hosts, r.list = r.hosts[:0], r.list[:0]
		for i, h := range o.hosts {
			if free(h, tried) {
				r.hosts, r.list = append(r.hosts, h), append(r.list, o.list[i])
			}
		}
		if len(r.hosts) == 0 {
			return nil
		}
		i := o.how.ask(client, r.list)
		if i < 0 {
			break
		}
		if h := r.hosts[i]; h.claim(n) {
			return h
		}
	}
	return o.from(n%uint64(len(o.hosts)), n, tried)
}
