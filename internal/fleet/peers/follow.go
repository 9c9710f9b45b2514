package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	// connectWithin bounds a connection and its handshake.
	connectWithin = 3 * time.Second
	// firstPause and longestPause are how long a node waits before it follows another again.
	firstPause, longestPause = 50 * time.Millisecond, 2 * time.Second
	// steady is how long a stream lasts if nothing is wrong with it.
	steady = 10 * time.Second
	// resumeWithin is how long after the end of a stream a port may be closed before the node
	// counts as lost: the process that takes over opens it within that time.
	resumeWithin = 500 * time.Millisecond
	// warnEach is the least time between two warnings of a node that cannot be followed.
	warnEach = time.Minute
)

// errSilent is why a node is not live.
var errSilent = errors.New("it has said nothing for too long")

// errEnded is why a stream has ended that was in order.
var errEnded = errors.New("it has ended the stream")

// followPeer follows a node until ctx ends.
func (x *Exchange) followPeer(ctx context.Context, p *peer) {
	pause := firstPause
	var left time.Time // when a stream that was in order has ended
	for {
		began := time.Now()
		ready, err := x.stream(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if ready {
			left = time.Now()
			if left.Sub(began) >= steady {
				pause = firstPause
			}
		}
		wait := pause/2 + rand.N(pause/2) // many nodes do not come at the same moment
		x.mu.Lock()
		switch {
		case !ready && time.Since(left) < resumeWithin && closed(err): // it may be about to begin again
			p.why, wait = err, min(wait, firstPause)
		case !ready:
			// It was live a moment ago, and cannot be reached now: waiting for its silence
			// would leave its hosts unchecked for nothing.
			x.lose(p, err)
			if text := cause(err); text != p.told && (p.told == "" || time.Since(p.toldAt) >= warnEach) {
				p.told, p.toldAt = text, time.Now()
				x.opt.Log.Warn("cannot follow a node of the fleet", "node", p.member.Name, "addr", p.member.Addr, "err", err)
			}
		default:
			p.why = err
		}
		x.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		pause = min(2*pause, longestPause)
	}
}

// closed tells whether a node's port answers that nobody listens there.
func closed(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}

// cause is an error without the addresses of its connection, which are others each time.
func cause(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// stream follows a node until that ends. ready is whether it was live by that.
func (x *Exchange) stream(ctx context.Context, p *peer) (ready bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Until it is live, it has as long as a connection; then its beats count.
	silent := time.AfterFunc(2*connectWithin, func() { cancel(errSilent) })
	defer silent.Stop()
	defer func() {
		if cause := context.Cause(ctx); cause != nil && err != nil {
			err = cause
		}
	}()
	response, err := x.ask(ctx, p)
	if err != nil {
		return false, err
	}
	defer func() { _ = response.Body.Close() }()
	events, proved := newReader(response.Body), time.Now()
	who, err := readHello(events)
	if err != nil {
		return false, err
	}
	if err := who.check(x.opt.Fleet, p.member.Name); err != nil {
		return false, err
	}
	fresh := newTables()
	for {
		e, err := events.next()
		if err != nil {
			return ready, ended(err)
		}
		silent.Reset(silentBeats * who.Beat)
		if time.Since(proved) >= x.provesEvery {
			if err := x.opt.Auth.still(response.TLS, x509.ExtKeyUsageServerAuth, p.member.Addr); err != nil {
				return ready, err // it may have another certificate by now
			}
			proved = time.Now()
		}
		x.mu.Lock()
		if x.peers[p.member.Name] != p {
			x.mu.Unlock()
			return ready, context.Canceled
		}
		into := &fresh
		if ready {
			into = &p.tables
		}
		changed, err := into.take(e)
		if e.name == "limits" {
			x.limitsAt++
			into.limitsAt = x.limitsAt
		}
		if changed && ready {
			x.said = nil
		}
		if e.name == "ready" && !ready {
			ready, changed = true, true
			p.leave()
			fresh.join(x.totals)
			x.said = nil
			p.tables, p.version, p.instance, p.why = fresh, printable(who.Version), who.Instance, nil
			p.began = time.Now()
			if !p.live {
				p.live, p.since = true, time.Now()
				p.told = ""
				x.opt.Log.Info("node heard", "node", p.member.Name, "addr", p.member.Addr, "version", p.version)
			}
		}
		lost := ready && !p.live // silent for too long, and then not
		if ready && !lost {
			p.heard, p.patience = time.Now(), silentBeats*who.Beat
			p.silent.Reset(p.patience)
		}
		if changed && ready {
			x.opt.Changed()
		}
		if ready && (e.name == "limits" || e.name == "ready") {
			x.opt.Said()
		}
		x.mu.Unlock()
		switch {
		case err != nil:
			return ready, err
		case lost:
			return ready, errSilent // it is followed again from the beginning
		}
	}
}

// readHello reads the first event of a stream.
func readHello(events *reader) (who hello, err error) {
	e, err := events.next()
	if err != nil {
		return who, ended(err)
	}
	if e.name != "hello" || json.Unmarshal(e.data, &who) != nil {
		return who, errors.New("it does not say who it is")
	}
	return who, nil
}

// ended is the error of a stream that has ended.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errEnded
	}
	return err
}

// ask connects to a node and asks for its stream.
func (x *Exchange) ask(ctx context.Context, p *peer) (*http.Response, error) {
	host, _, err := net.SplitHostPort(p.member.Addr)
	if err != nil {
		return nil, err
	}
	secure, err := x.opt.Auth.client(host)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 8 << 10, ResponseHeaderTimeout: connectWithin,
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectWithin)
			defer cancel()
			return x.dial(ctx, addr, secure)
		},
	}
	query := url.Values{"fleet": {x.opt.Fleet}, "node": {x.opt.Node}}
	to := url.URL{Scheme: "https", Host: p.member.Addr, Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, refusal(err, p.member.Addr)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		said, _ := io.ReadAll(io.LimitReader(response.Body, maxReason))
		_ = response.Body.Close()
		return nil, fmt.Errorf("it answers %d: %s", response.StatusCode, clean(strings.TrimSpace(string(said))))
	}
	return response, nil
}

// dial connects to a node, and returns when both sides have proved who they are.
func (x *Exchange) dial(ctx context.Context, addr string, secure *tls.Config) (net.Conn, error) {
	c, err := x.opt.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	s := tls.Client(c, secure)
	if err := s.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return s, nil
}

// take takes in what an event says, and tells whether that is of interest at once.
func (t *tables) take(e event) (changed bool, err error) {
	switch e.name {
	case "checks":
		var c change[checkRow]
		if err := c.read(e); err != nil {
			return false, err
		}
		for _, r := range c.Gone {
			drop(t.checks, r.Host, &t.text)
		}
		for _, r := range c.Set {
			if !r.Valid() {
				continue
			}
			if r.Ago < 0 {
				return true, &dataError{e.name, errors.New("a host makes no sense")}
			}
			if err := put(t.checks, r.Host, Finding{r.Up, clean(r.Reason), time.Now().Add(-time.Duration(min(r.Ago, maxAgo)) * time.Millisecond)}, &t.text); err != nil {
				return true, err
			}
		}
		return true, nil
	case "limits":
		return false, t.takeLimits(e)
	case "sessions":
		var c change[sessionRow]
		if err := c.read(e); err != nil {
			return false, err
		}
		for _, r := range c.Gone {
			if err := t.setSessions(r.Host, 0); err != nil {
				return true, err
			}
		}
		for _, r := range c.Set {
			if !r.Valid() {
				continue
			}
			if r.Sessions < 0 || r.Sessions > maxSessions {
				return true, &dataError{e.name, errors.New("a host makes no sense")}
			}
			if err := t.setSessions(r.Host, r.Sessions); err != nil {
				return true, err
			}
		}
	case "beat":
		var b beatEvent
		t.counted = json.Unmarshal(e.data, &b) == nil && b.Counted
	}
	return false, nil
}

// maxAgo is the longest time in ms that is believed: a year.
const maxAgo = int64(366 * 24 * time.Hour / time.Millisecond)

// read reads what an event says of a table.
func (c *change[R]) read(e event) error {
	if err := json.Unmarshal(e.data, c); err != nil {
		return &dataError{e.name, err}
	}
	return nil
}

// put sets a row of a table that may not grow for ever. text counts the bytes of names in all
// tables of a node.
func put[V any](table map[Host]V, key Host, value V, text *int) error {
	if _, has := table[key]; !has {
		if len(table) >= maxRows {
			return fmt.Errorf("it tells of more than %d hosts", maxRows)
		}
		if *text += key.size(); *text > maxText {
			return fmt.Errorf("the names of the hosts that it tells of have more than %d bytes", maxText)
		}
	}
	table[key] = value
	return nil
}

// drop deletes a row.
func drop[V any](table map[Host]V, key Host, text *int) {
	if _, has := table[key]; has {
		*text -= key.size()
		delete(table, key)
	}
}

// size is how many bytes the names have.
func (h *Host) size() int { return len(h.Service) + len(h.Group) + len(h.Name) + len(h.Addr) }

// clean keeps a reason of another node from filling or changing a log.
func clean(s string) string {
	return strings.Map(visible, clip(s, maxReason))
}
