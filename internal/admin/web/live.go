package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/web/page"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/guard"
)

// Hello is the data of the event hello, the first one of a stream.
type Hello struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Boot    string    `json:"boot"` // another one: the process was restarted
	// Generation is that of the configuration now.
	Generation uint64 `json:"generation"`
	// Resync: events may be missing since the one named by Last-Event-ID or since.
	Resync bool `json:"resync"`
}

const (
	maxWatchers  = 64
	maxPerUser   = 16                    // of them
	waitingFor   = 32                    // messages in the queue of a watcher; one with a full queue is dropped
	eventTime    = 10 * time.Second      // for the kernel to take a message
	beatEvery    = 15 * time.Second      // a comment is sent if nothing else was
	retryMS      = 2000                  // after which a browser reconnects
	changeSettle = 20 * time.Millisecond // between a new state and its event
)

// live makes the events, once for all watchers, on one goroutine.
type live struct {
	s *server

	quit    chan struct{}
	once    sync.Once
	poke    chan struct{} // a watcher has come
	running sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]bool
	told     uint64 // Seq of the last event that was sent to all
}

// watcher is a client of a stream. Its channel is closed when it is dropped.
type watcher struct {
	user     string
	messages chan []byte
	fresh    bool // it has got no figures yet
}

func newLive(s *server) *live {
	return &live{
		s: s, quit: make(chan struct{}), poke: make(chan struct{}, 1),
		watchers: map[*watcher]bool{},
	}
}

// boot names the run that events belong to. An upgrade begins no new one: who watches goes
// on behind the last event that it has got.
func (l *live) boot() string { return strconv.FormatInt(l.s.opt.Status.Origin().UnixNano(), 36) }

// start begins to send. close ends that.
func (l *live) start() { l.running.Go(l.run) }

// close drops all watchers; wait waits until nothing more is sent.
func (l *live) close() {
	l.once.Do(func() { close(l.quit) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for w := range l.watchers {
		l.drop(w)
	}
}

func (l *live) wait() { l.running.Wait() }

// drop ends a watcher. l.mu is held.
func (l *live) drop(w *watcher) {
	if l.watchers[w] {
		delete(l.watchers, w)
		close(w.messages)
	}
}

// run is the goroutine that sends, until close.
func (l *live) run() {
	var feed page.Feed
	settle := time.NewTimer(0)
	settle.Stop()
	defer settle.Stop()
	state, sampled := l.s.opt.Director.State(), l.s.opt.Status.Sampled()
	for {
		select {
		case <-l.quit:
			return
		case <-state.Replaced():
			state = l.s.opt.Director.State()
			settle.Reset(changeSettle)
		case <-settle.C:
			l.tellEvents()
		case <-l.poke:
			l.tellFresh(&feed)
		case <-sampled:
			sampled = l.s.opt.Status.Sampled()
			l.tell(&feed)
			l.tellEvents()
		}
	}
}

// watching tells whether there are watchers, and whether one of them is fresh.
func (l *live) watching() (any, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watchers {
		fresh = fresh || w.fresh
	}
	return len(l.watchers) > 0, fresh
}

// tell sends the figures of the sample that was just taken.
func (l *live) tell(feed *page.Feed) {
	if any, _ := l.watching(); !any {
		return
	}
	src := l.s.source()
	l.broadcast(message("", "figures", feed.Next(&src)), func(w *watcher) bool { return !w.fresh })
	l.tellFresh(feed)
}

// tellFresh sends the figures of all hosts to fresh watchers.
func (l *live) tellFresh(feed *page.Feed) {
	if _, fresh := l.watching(); !fresh {
		return
	}
	src := l.s.source()
	l.broadcast(message("", "figures", feed.Full(&src)), func(w *watcher) bool {
		was := w.fresh
		w.fresh = false
		return was
	})
}

// tellEvents sends new events. It holds l.mu while it sends an event and advances
// told, as watch does. So a new watcher gets each event once: in its backlog or
// from here.
func (l *live) tellEvents() {
	d := l.s.opt.Director
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.watchers) == 0 || d.LastEvent() == l.told {
		return
	}
	for _, e := range d.Events() {
		if e.Seq > l.told {
			l.told = e.Seq
			l.send(l.event(e), nil)
		}
	}
}

// event makes the message of an event.
func (l *live) event(e director.Event) []byte {
	return message(l.boot()+"-"+strconv.FormatUint(e.Seq, 10), string(e.Kind), admin.NewEventInfo(e))
}

// broadcast sends a message to the chosen watchers, and drops those that do not
// keep up.
func (l *live) broadcast(m []byte, chosen func(*watcher) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.send(m, chosen)
}

// send is broadcast with l.mu held.
func (l *live) send(m []byte, chosen func(*watcher) bool) {
	for w := range l.watchers {
		if chosen != nil && !chosen(w) {
			continue
		}
		select {
		case w.messages <- m:
		default:
			l.s.log.Debug("live client dropped, it does not read fast enough")
			l.drop(w)
		}
	}
}

// message writes an event of a stream. id "": it has none.
func message(id, name string, data any) []byte {
	var b bytes.Buffer
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: ", name)
	if err := json.NewEncoder(&b).Encode(data); err != nil {
		panic(err) // these types can always be written as JSON
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// watch adds a watcher. backlog has the messages that it gets first: the events
// since the last one that it knows.
func (l *live) watch(user, last string) (w *watcher, backlog []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, nil, busy("txlb is shutting down")
	case len(l.watchers) >= maxWatchers:
		return nil, nil, busy(fmt.Sprintf("limit of %d live clients reached", maxWatchers))
	case l.of(user) >= maxPerUser:
		return nil, nil, busy(fmt.Sprintf("limit of %d live clients of one user reached", maxPerUser))
	}
	d := l.s.opt.Director
	if len(l.watchers) == 0 {
		l.told = d.LastEvent()
	}
	hello := Hello{
		Version: l.s.opt.Status.Version, Started: l.s.opt.Status.Origin(), Boot: l.boot(), Generation: d.State().Generation,
	}
	var missed []byte
	if last != "" {
		seq, ok := l.sequence(last)
		list := d.Events()
		hello.Resync = !ok || len(list) > 0 && list[0].Seq > seq+1
		for _, e := range list {
			if ok && e.Seq > seq && e.Seq <= l.told {
				missed = append(missed, l.event(e)...)
			}
		}
	}
	w = &watcher{user: user, messages: make(chan []byte, waitingFor), fresh: true}
	l.watchers[w] = true
	backlog = fmt.Appendf(nil, "retry: %d\n", retryMS)
	backlog = append(backlog, message("", "hello", hello)...)
	select {
	case l.poke <- struct{}{}:
	default:
	}
	return w, append(backlog, missed...), nil
}

// of counts the watchers of a user. l.mu is held.
func (l *live) of(user string) int {
	n := 0
	for w := range l.watchers {
		if w.user == user {
			n++
		}
	}
	return n
}

// sequence reads the ID of an event of this process, or its number alone.
func (l *live) sequence(id string) (seq uint64, ok bool) {
	if boot, n, both := strings.Cut(id, "-"); both {
		if boot != l.boot() {
			return 0, false
		}
		id = n
	}
	seq, err := strconv.ParseUint(id, 10, 64)
	return seq, err == nil
}

func (l *live) leave(w *watcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(w)
}

// serveEvents is the stream of live events. It ends when the client leaves or does
// not keep up, when the server ends, or when the user loses the right to look.
func (s *server) serveEvents(rw http.ResponseWriter, q *request) error {
	last := q.Header.Get("Last-Event-ID")
	if last == "" {
		last = q.URL.Query().Get("since")
	}
	w, backlog, err := s.live.watch(q.caller.Name, last)
	if err != nil {
		return err
	}
	defer s.live.leave(w)
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.Header().Set("X-Accel-Buffering", "no") // nginx would wait for more
	if q.Method == http.MethodHead {
		rw.WriteHeader(http.StatusOK)
		return nil
	}
	c := http.NewResponseController(rw)
	// The read deadline is that of the request, which has been read. With HTTP/1,
	// reaching it would look as if the client had gone.
	if err := c.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil // the client is gone
	}
	conn := guard.FromContext(q.Context())
	beat := time.NewTimer(beatEvery)
	defer beat.Stop()
	for m := backlog; ; {
		if err := c.SetWriteDeadline(time.Now().Add(eventTime)); err != nil {
			return nil
		}
		if _, err := rw.Write(m); err != nil {
			return nil
		}
		if err := c.Flush(); err != nil {
			return nil
		}
		if conn != nil {
			conn.Used()
		}
		beat.Reset(beatEvery)
		open := true
		select {
		case <-q.Context().Done():
			return nil
		case m, open = <-w.messages:
		case <-beat.C:
			m = []byte(": nothing new\n\n")
		}
		if caller, is := s.opt.Users.Still(q.caller); !open || !is || caller.Role < q.route.role {
			return nil
		}
	}
}
