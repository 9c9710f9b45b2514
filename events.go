package txlb

import (
	"fmt"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/director"
)

// EventKind is what an [Event] is about.
type EventKind string

const (
	HostDown       EventKind = "host down"       // Host is down, for Reason
	HostUp         EventKind = "host up"         // it is up again, or for the first time with Group.StartDown
	HostEjected    EventKind = "host ejected"    // Host is up and gets no new clients for a time, for Reason: it is slow, silent or resets its clients
	HostReadmitted EventKind = "host readmitted" // it gets clients again
	ServiceDown    EventKind = "no usable host"  // the clients of Service that go to Group find no host that is up and takes clients
	ServiceUp      EventKind = "usable host"     // they find one again
	ConfigChanged  EventKind = "config changed"  // a method of the balancer has changed what it does, see Change
)

// Event is something that has happened.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Service string // "" for ConfigChanged
	Group   string // "" for ConfigChanged
	Host    string // the name of the host, of HostDown, HostUp, HostEjected and HostReadmitted
	Addr    string // its address that is meant, if its name stands for several
	Reason  string // of HostDown and HostEjected, such as "connection refused"; of ConfigChanged, why or until when, with ConfirmWithin
	Change  string // of ConfigChanged: the method and what it was about
	// Generation counts the changes of the configuration, from 1 on; it is that of what
	// ran when the event happened.
	Generation uint64
	// Missed is how many events before this one were lost, because OnEvent took too long
	// with earlier ones.
	Missed int
}

// String tells of the event in one line.
func (e Event) String() string {
	text := string(e.Kind)
	switch e.Kind {
	case HostDown, HostUp, HostEjected, HostReadmitted:
		text += fmt.Sprintf(": %s (%s), group %s of service %s", e.Host, e.Addr, e.Group, e.Service)
	case ServiceDown, ServiceUp:
		text += fmt.Sprintf(": group %s of service %s", e.Group, e.Service)
	case ConfigChanged:
		text += fmt.Sprintf(": generation %d, %s", e.Generation, e.Change)
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// kinds are those of the director's notices.
var kinds = [...]EventKind{
	director.HostDown: HostDown, director.HostUp: HostUp, director.HostEjected: HostEjected, director.HostReadmitted: HostReadmitted,
	director.NoHost: ServiceDown, director.HostAgain: ServiceUp, director.ConfigMoved: ConfigChanged,
}

// eventOf turns a notice into an event.
func eventOf(n director.Notice) Event {
	return Event{
		Kind: kinds[n.Kind], Time: n.Time, Service: n.Service, Group: n.Group, Host: n.Host, Addr: n.Addr,
		Reason: n.Reason, Change: n.Verb, Generation: n.Generation,
	}
}

// maxWaiting is how many events, and how many lines of the log, wait for a slow receiver.
const maxWaiting = 1024

// queue hands values to a function of the program, one after the other and in their order,
// on a goroutine that is there while values wait. put never waits: what has no room pushes
// out the oldest. The zero queue with a call is ready.
type queue[T any] struct {
	call func(value T, missed int) // missed: values lost right before this one

	mu      sync.Mutex
	values  []T
	missed  int
	running bool
	closed  bool
	idle    chan struct{} // closed when nothing waits any more; nil: nobody wants to know
}

// put adds a value.
func (q *queue[T]) put(v T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if len(q.values) == maxWaiting {
		q.values = q.values[1:]
		q.missed++
	}
	q.values = append(q.values, v)
	if !q.running {
		q.running = true
		go q.run()
	}
}

// run is the goroutine of a queue.
func (q *queue[T]) run() {
	ended := false
	defer func() {
		if !ended { // the function has ended the goroutine (runtime.Goexit)
			go q.run()
		}
	}()
	for {
		q.mu.Lock()
		if len(q.values) == 0 {
			q.values, q.running = nil, false
			if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			ended = true
			q.mu.Unlock()
			return
		}
		v, missed := q.values[0], q.missed
		q.values, q.missed = q.values[1:], 0
		q.mu.Unlock()
		q.call(v, missed)
	}
}

// close drops what waits. It does not wait for a call that is under way: that may be waiting
// for the caller.
func (q *queue[T]) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.values, q.missed = true, nil, 0
}

// flush waits until nothing waits any more, but no longer than most.
func (q *queue[T]) flush(most time.Duration) {
	q.mu.Lock()
	if !q.running {
		q.mu.Unlock()
		return
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}
