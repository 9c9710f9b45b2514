//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// secureLoad asks a web server for one page over TLS, as fast as it is answered, by
// crypto/tls: with a goroutine for each connection. It is dearer than a [generator];
// what it takes is shown, and is not the proxy's.
type secureLoad struct {
	order
	request []byte
	reply   int
	lanes   []*secureLane
}

// secureLane is one connection after the other, or one that is kept.
type secureLane struct {
	config *tls.Config // with tickets of its own
	conn   *tls.Conn   // kept; nil: none
	seen   bool        // it has had a connection, so a ticket too
	buf    []byte
	took   []time.Duration
	failed int
	why    error // the last of the failures
}

// errNotResumed is why a connection counts as failed though it was answered.
var errNotResumed = errors.New("the session was not resumed")

func newSecureLoad(o order) (*secureLoad, error) {
	l := &secureLoad{order: o, request: pageRequest(o.Address, o.Page, o.Closing)}
	var err error
	if l.reply, err = learn(dialer{o.Address, clientTLS()}, l.request); err != nil {
		return nil, fmt.Errorf("first request: %w", err)
	}
	for i := range o.Lanes {
		lane := &secureLane{config: clientTLS(), buf: make([]byte, 32<<10)}
		if o.Resume {
			lane.config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		l.lanes = append(l.lanes, lane)
		if o.Closing {
			continue
		}
		if err := l.connect(lane); err != nil {
			return nil, errors.Join(fmt.Errorf("connection %d: %w", i+1, err), l.close())
		}
	}
	return l, nil
}

// run works until length is over and all that was asked is answered. It has no rate.
func (l *secureLoad) run(_ float64, length time.Duration) (outcome, error) {
	end := time.Now().Add(length)
	var working sync.WaitGroup
	for _, lane := range l.lanes {
		lane.took, lane.failed = lane.took[:0], 0
		working.Go(func() { l.work(lane, end) })
	}
	working.Wait()
	var took []time.Duration
	failed := 0
	for _, lane := range l.lanes {
		took, failed = append(took, lane.took...), failed+lane.failed
		if lane.why != nil {
			fmt.Fprintln(os.Stderr, "over TLS:", lane.why) // shown where the load fails as a whole
			lane.why = nil
		}
	}
	return outcomeOf(took, failed), nil
}

// work is the goroutine of a lane, which asks once at least. One that has lost its kept
// connection does no more.
func (l *secureLoad) work(lane *secureLane, end time.Time) {
	for began := time.Now(); ; {
		if err := l.once(lane); err != nil {
			lane.failed, lane.why = lane.failed+1, err
			if !l.Closing {
				return
			}
		} else {
			lane.took = append(lane.took, time.Since(began))
		}
		if began = time.Now(); began.After(end) {
			return
		}
	}
}

// once has one request answered.
func (l *secureLoad) once(lane *secureLane) error {
	if !l.Closing {
		return l.ask(lane)
	}
	if err := l.connect(lane); err != nil {
		return err
	}
	defer lane.close()
	if err := l.ask(lane); err != nil {
		return err
	}
	// To the end, so that every program has had the time to end it.
	if n, err := lane.conn.Read(lane.buf); n > 0 || !ended(err) {
		return fmt.Errorf("%d bytes after the reply, %w", n, err)
	}
	if l.Resume && lane.seen && !lane.conn.ConnectionState().DidResume {
		return errNotResumed
	}
	lane.seen = true
	return nil
}

// ended tells whether a read has met the end: not every program says so within TLS.
func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// connect has a lane connect and shake hands.
func (l *secureLoad) connect(lane *secureLane) error {
	raw, err := net.DialTimeout("tcp", l.Address, patience)
	if err != nil {
		return err
	}
	if err := raw.SetDeadline(time.Now().Add(l.Length + time.Minute)); err != nil {
		return errors.Join(err, raw.Close())
	}
	conn := tls.Client(raw, lane.config)
	if err := conn.Handshake(); err != nil {
		return errors.Join(err, raw.Close())
	}
	lane.conn = conn
	return nil
}

func (l *secureLoad) ask(lane *secureLane) error {
	if _, err := lane.conn.Write(l.request); err != nil {
		return err
	}
	for left := l.reply; left > 0; {
		n, err := lane.conn.Read(lane.buf[:min(left, len(lane.buf))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// close ends the connection of a lane below TLS: the other side has ended already.
func (lane *secureLane) close() {
	if lane.conn != nil {
		_ = lane.conn.NetConn().Close()
		lane.conn = nil
	}
}

func (l *secureLoad) close() error {
	for _, lane := range l.lanes {
		lane.close()
	}
	return nil
}
