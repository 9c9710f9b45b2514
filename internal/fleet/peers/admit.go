package peers

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// knownWithin is how long a node that this one does not know has to wait: the store may tell of
// it in a moment.
const knownWithin = 2 * time.Second

// admit lets a follower in. If its node has too many streams, the oldest ends. Otherwise it
// returns the status of the answer, and why.
func (x *Exchange) admit(ctx context.Context, f *follower) (status int, err error) {
	if len(f.name) > maxName {
		return http.StatusForbidden, errors.New("this is not the name of a node")
	}
	if x.opt.Auth.files != nil {
		if f.addr, err = x.knows(ctx, f.name); err != nil {
			return http.StatusForbidden, err
		}
		if err := names(f.secure.PeerCertificates[0], f.addr); err != nil { // TLS has verified the chain
			return http.StatusForbidden, fmt.Errorf("this is not the node %q: %w", printable(f.name), err)
		}
		f.proved = time.Now()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if f.guest = guestOf(ctx); f.guest != nil {
		if own := x.streams[f.name]; len(own) >= maxStreams { // the oldest may be dead, which nobody has told
			x.streams[f.name] = own[1:]
			_ = own[0].guest.Close()
		}
		if err := f.guest.enter(); err != nil {
			return http.StatusServiceUnavailable, err
		}
	}
	x.followers++
	x.streams[f.name] = append(x.streams[f.name], f)
	return 0, nil
}

// leaves notes that a follower has gone.
func (x *Exchange) leaves(f *follower) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.followers--
	own := slices.DeleteFunc(slices.Clone(x.streams[f.name]), func(o *follower) bool { return o == f })
	if x.streams[f.name] = own; len(own) == 0 {
		delete(x.streams, f.name)
	}
}

// knows returns the address that a node advertises. It waits a moment for the store to tell.
func (x *Exchange) knows(ctx context.Context, name string) (string, error) {
	late := time.NewTimer(knownWithin)
	defer late.Stop()
	for {
		x.mu.RLock()
		p, moved := x.peers[name], x.moved
		x.mu.RUnlock()
		if p != nil {
			return p.member.Addr, nil
		}
		select {
		case <-moved:
		case <-late.C:
			return "", fmt.Errorf("this node knows no node %q that shares checks: has one of the two not reached the store?", printable(name))
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// stays tells why a follower may not go on: the node is not in the fleet any more, has another
// address, or its certificate is not right any more.
func (x *Exchange) stays(f *follower) error {
	if f.addr == "" {
		return nil
	}
	x.mu.RLock()
	p := x.peers[f.name]
	x.mu.RUnlock()
	if p == nil {
		return fmt.Errorf("the node %q is not in the fleet any more", printable(f.name))
	}
	addr := p.member.Addr
	if addr == f.addr && time.Since(f.proved) < x.provesEvery {
		return nil
	}
	if err := x.opt.Auth.still(f.secure, x509.ExtKeyUsageClientAuth, addr); err != nil {
		return fmt.Errorf("this is not the node %q any more: %w", printable(f.name), err)
	}
	f.addr, f.proved = addr, time.Now()
	return nil
}

// refused is what the log was told last of followers that were refused.
type refused struct {
	text string
	at   time.Time
}

// tellRefused writes into the log that a follower was refused, but not often: who has a
// certificate of the authority can make it happen.
func (x *Exchange) tellRefused(name string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	text := err.Error()
	x.mu.Lock()
	silent := time.Since(x.refused.at) < warnEach && (text == x.refused.text || time.Since(x.refused.at) < warnOther)
	if !silent {
		x.refused = refused{text, time.Now()}
	}
	x.mu.Unlock()
	if !silent {
		x.opt.Log.Warn("a node must not follow this one", "node", printable(name), "err", text)
	}
}

// warnOther is the least time between two warnings of different kinds.
const warnOther = time.Second
