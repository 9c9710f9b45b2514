package guard

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"
)

// longestTurn is how long a request waits for its turn at most.
const longestTurn = 5 * time.Second

// connKey is where the context of a request has its connection.
type connKey struct{}

// Harden makes a server one for guarded connections: it speaks HTTP/1.1 alone,
// and the requests of connections that have not logged in wait for their turn. A
// request over HTTP/2 may be taken back before its answer, and frames that ask
// for nothing have no end, so it has no price.
func Harden(s *http.Server) {
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, ConnOf(c))
	}
	s.Handler = turns{s.Handler}
}

// FromContext returns the connection of a request to a server of Harden, nil if
// it has none.
func FromContext(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

// turns has requests wait.
type turns struct{ http.Handler }

func (t turns) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := FromContext(r.Context())
	if c != nil {
		c.Used()
		if !c.loggedIn.Load() {
			wait, ok := c.door.await(c, time.Now())
			if ok && wait > 0 {
				late := time.NewTimer(wait)
				defer late.Stop()
				select {
				case <-late.C:
				case <-r.Context().Done():
					return
				}
			}
			if !ok {
				w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
				w.Header().Set("Connection", "close")
				http.Error(w, "too many requests", http.StatusTooManyRequests)
				return
			}
		}
	}
	t.Handler.ServeHTTP(w, r)
}

// await takes the turn of a request and returns how long it has to wait for it.
// It is false if that is too long.
func (d *door) await(c *Conn, now time.Time) (time.Duration, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := d.requests.owe(d.limits.Requests, now)
	var s *source
	if c.source.IsValid() {
		s = d.source(c.source, now)
		wait = max(wait, s.requests.owe(d.limits.SourceRequests, now))
	}
	if wait > 0 {
		d.delayed++
	}
	if wait <= longestTurn {
		return wait, true
	}
	d.requests.repay()
	if s != nil {
		s.requests.repay()
	}
	return wait, false
}
