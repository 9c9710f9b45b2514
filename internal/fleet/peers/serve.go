package peers

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"time"
)

const (
	// path is where the stream is.
	path = "/v1/follow"
	// proveWithin is how long a connection may take to prove who it is and to say what it
	// wants.
	proveWithin = 5 * time.Second
	// writeWithin is how long a follower may take to read what it is told.
	writeWithin = 3 * time.Second
	// unackedFor is how long it may take until its side acknowledges that. Linux alone counts.
	unackedFor = 10 * time.Second
	// gather is the least time between two looks at what there is to tell.
	gather = 20 * time.Millisecond
	// perBeat is how many rows of sessions a follower is told with each beat.
	perBeat = 2048
)

// openAgain is how long it waits before it tries again to listen, and quietFor how long it does
// so without a word: the process that was this node before may still be there.
const openAgain, quietFor = 250 * time.Millisecond, 5 * time.Second

// listen serves those that follow this node until ctx ends.
func (x *Exchange) listen(ctx context.Context) {
	began, told := time.Now(), false
	for ctx.Err() == nil {
		ln, err := x.opt.Network.Listen(ctx, x.opt.Listen)
		if err == nil {
			if told {
				x.opt.Log.Info("other nodes can follow this one now", "listen", x.opt.Listen)
			}
			told, began = false, time.Now()
			x.noteOpened(nil)
			x.serve(ctx, ln)
			continue
		}
		x.noteOpened(err)
		if ctx.Err() == nil && !told && time.Since(began) > quietFor {
			told = true
			x.opt.Log.Error("other nodes cannot follow this one", "listen", x.opt.Listen, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(openAgain):
		}
	}
	x.noteOpened(context.Canceled)
}

func (x *Exchange) noteOpened(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.opened = err
	x.noteClosed()
}

// noteClosed keeps since when nobody can follow this node. x.mu is held.
func (x *Exchange) noteClosed() {
	switch {
	case x.opened == nil && x.unfit == nil:
		x.closed = time.Time{}
	case x.closed.IsZero():
		x.closed = time.Now()
	}
}

// serve serves a listener until ctx ends, or the listener fails.
func (x *Exchange) serve(ctx context.Context, ln net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, x.tell)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: proveWithin, IdleTimeout: proveWithin, MaxHeaderBytes: 8 << 10,
		ErrorLog:    log.New(strangers{x}, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withGuest,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	_ = server.Serve(tls.NewListener(newDoor(ln), x.opt.Auth.listener()))
	_ = server.Close()
}

// strangers takes what the server writes of connections that prove nothing. Anybody can make
// it write, and a node that is refused tells why in its own log.
type strangers struct{ x *Exchange }

func (s strangers) Write(p []byte) (int, error) {
	s.x.opt.Log.Debug("a connection to the port of the fleet was refused", "err", string(p))
	return len(p), nil
}

// tell is the goroutine of one follower.
func (x *Exchange) tell(w http.ResponseWriter, r *http.Request) {
	if fleet := r.URL.Query().Get("fleet"); fleet != x.opt.Fleet {
		http.Error(w, "this is a node of another fleet", http.StatusForbidden)
		return
	}
	f := &follower{x: x, w: w, rc: http.NewResponseController(w), name: r.URL.Query().Get("node"), secure: r.TLS}
	if status, err := x.admit(r.Context(), f); err != nil {
		x.tellRefused(f.name, err)
		http.Error(w, err.Error(), status)
		return
	}
	defer x.leaves(f)
	w.Header().Set("Content-Type", "text/event-stream")
	if err := f.begin(); err != nil {
		return
	}
	beat := time.NewTicker(x.opt.Beat)
	defer beat.Stop()
	for {
		news, err := f.catchUp(false)
		if err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			if err := x.stays(f); err != nil {
				x.tellRefused(f.name, err)
				return
			}
			if _, err := f.catchUp(true); err != nil || f.event("beat", beatEvent{f.counted && f.x.counts()}) != nil {
				return
			}
		case <-news:
			select {
			case <-r.Context().Done():
				return
			case <-time.After(gather):
			}
		}
	}
}

// follower is one that follows this node.
type follower struct {
	x                        *Exchange
	w                        http.ResponseWriter
	rc                       *http.ResponseController
	checks, sessions, limits uint64 // cursors
	counted                  bool   // it has been told the sessions of all hosts

	guest  *guest // its connection
	name   string // of the node, as it says
	secure *tls.ConnectionState
	addr   string // that the node advertises, for which its certificate is; "": it has proved a secret
	proved time.Time
}

// begin says who this node is, and all that it knows.
func (f *follower) begin() error {
	o := &f.x.opt
	err := f.event("hello", hello{
		Protocol: protocol, Least: 1, Fleet: o.Fleet, Node: o.Node, Instance: o.Instance, Version: o.Version, Beat: o.Beat,
	})
	if err == nil {
		_, err = f.catchUp(false)
	}
	if err == nil {
		err = f.event("ready", struct{}{})
	}
	return err
}

// errBehind ends a stream whose follower has missed too much: it begins again.
var errBehind = errors.New("too much has changed meanwhile")

// catchUp says what is new, and returns what is closed when there is more. Sessions are a
// matter of the beat.
func (f *follower) catchUp(beat bool) (news <-chan struct{}, err error) {
	f.x.mu.RLock()
	news = f.x.news
	f.x.mu.RUnlock()
	if err := f.tellLimits(); err != nil {
		return nil, err
	}
	for {
		f.x.mu.RLock()
		checks, next, ok := f.x.checks.since(f.checks, perEvent)
		f.x.mu.RUnlock()
		if !ok {
			return nil, errBehind
		}
		checks, f.checks = fit(checks, next)
		if len(checks) == 0 {
			break
		}
		var c change[checkRow]
		for _, r := range checks {
			if r.gone {
				c.Gone = append(c.Gone, checkRow{Host: r.key})
				continue
			}
			c.Set = append(c.Set, checkRow{r.key, r.value.Up, clip(r.value.Reason, maxReason), time.Since(r.value.Since).Milliseconds()})
		}
		if err := f.event("checks", c); err != nil {
			return nil, err
		}
	}
	for range perBeat / perEvent {
		if !beat {
			break
		}
		f.x.mu.RLock()
		sessions, next, ok := f.x.sessions.since(f.sessions, perEvent)
		f.x.mu.RUnlock()
		if !ok {
			return nil, errBehind
		}
		sessions, f.sessions = fit(sessions, next)
		if len(sessions) == 0 {
			f.counted = true
			break
		}
		var c change[sessionRow]
		for _, r := range sessions {
			if r.gone {
				c.Gone = append(c.Gone, sessionRow{Host: r.key})
				continue
			}
			c.Set = append(c.Set, sessionRow{r.key, r.value})
		}
		if err := f.event("sessions", c); err != nil {
			return nil, err
		}
	}
	return news, nil
}

// fit returns as many rows as one event has room for, and the cursor behind them.
func fit[V comparable](rows []row[Host, V], next uint64) ([]row[Host, V], uint64) {
	const escaped, more = 6, 128 // bytes that JSON makes of one; of a row without its texts
	room := maxEvent - more
	for i := range rows {
		h := &rows[i].key
		room -= escaped*(len(h.Service)+len(h.Group)+len(h.Name)+len(h.Addr)+maxReason) + more
		if room < 0 && i > 0 {
			return rows[:i], rows[i-1].version
		}
	}
	return rows, next
}

// event says one event.
func (f *follower) event(name string, v any) error {
	_ = f.rc.SetWriteDeadline(time.Now().Add(writeWithin))
	if err := writeEvent(f.w, name, v); err != nil {
		return err
	}
	return f.rc.Flush()
}
