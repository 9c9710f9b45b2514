package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/txlb/txlb/engine"
)

// patient is how long a client waits for one answer.
const patient = 2 * time.Second

// Client implements [engine.Keeper]. It connects at the first call, and again at the first call
// after an error. Its methods are for one goroutine at a time.
type Client struct {
	path string
	conn *net.UnixConn
	room []byte
	was  bool // it has been connected before
}

// NewClient returns a client of the keeper that listens on a path.
func NewClient(path string) *Client { return &Client{path: path, room: make([]byte, maxMessage)} }

// connect connects, unless that is done.
func (c *Client) connect() error {
	if c.conn != nil {
		return nil
	}
	conn, err := net.DialTimeout("unixpacket", c.path, patient)
	if err != nil {
		return err
	}
	c.conn = conn.(*net.UnixConn)
	if _, err = c.ask([]byte{hello, version}, nil); err == nil && c.was {
		// What was left is this very process's, or of one whose place it has taken.
		_, err = c.ask([]byte{done}, nil)
	}
	c.was = true
	return c.check(err)
}

// check ends the connection on an error.
func (c *Client) check(err error) error {
	if err != nil && c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
	if err != nil {
		return fmt.Errorf("keeper %s: %w", c.path, err)
	}
	return nil
}

// tell sends a message.
func (c *Client) tell(b []byte, files []int) error {
	if err := c.conn.SetDeadline(time.Now().Add(patient)); err != nil {
		return err
	}
	return send(c.conn, b, files)
}

// ask sends a message and returns the body of its answer, which has the same kind.
func (c *Client) ask(b []byte, files []int) ([]byte, error) {
	if err := c.tell(b, files); err != nil {
		return nil, err
	}
	answer, more, err := receive(c.conn, c.room)
	closeAll(more)
	switch {
	case err != nil:
		return nil, err
	case answer[0] != b[0]:
		return nil, fmt.Errorf("answer %q to %q", answer[0], b[0])
	}
	return answer[1:], nil
}

// Keep implements [engine.Keeper].
func (c *Client) Keep(list []engine.Kept) (kept int, err error) {
	if err := c.connect(); err != nil {
		return 0, err
	}
	for i := range list {
		if len(list[i].State) > maxState {
			return 0, fmt.Errorf("the state of a session has %d bytes: at most %d", len(list[i].State), maxState)
		}
	}
	for first := true; first || len(list) > 0; first = false {
		b, files, n := pack([]byte{keep}, list)
		answer, err := c.ask(b, files)
		if err == nil && len(answer) != 2 {
			err = errors.New("an answer is cut off")
		}
		if err != nil {
			return kept, c.check(err)
		}
		got := int(binary.BigEndian.Uint16(answer))
		if kept += got; got < n { // it is full
			return kept, nil
		}
		list = list[n:]
	}
	return kept, nil
}

// Forget implements [engine.Keeper].
func (c *Client) Forget(ids []uint64) error {
	if c.conn == nil { // a keeper that is connected again has nothing of ours
		return nil
	}
	for some := range slices.Chunk(ids, maxForget) {
		if err := c.tell(appendIDs([]byte{forget}, some), nil); err != nil {
			return c.check(err)
		}
	}
	return nil
}

// Take implements [engine.Keeper].
func (c *Client) Take(f func([]engine.Kept)) error {
	if err := c.connect(); err != nil {
		return err
	}
	err := c.tell([]byte{take}, nil)
	for err == nil {
		var b []byte
		var files []int
		if b, files, err = receive(c.conn, c.room); err != nil {
			break
		}
		var list []engine.Kept
		if b[0] != give {
			err = fmt.Errorf("answer %q to %q", b[0], take)
		} else {
			list, err = decodeEntries(b[1:], files)
		}
		switch {
		case err != nil:
			closeAll(files)
		case len(list) == 0:
			return nil
		default:
			f(list)
			err = c.tell([]byte{next}, nil)
		}
	}
	return c.check(err)
}

// Done implements [engine.Keeper].
func (c *Client) Done() error {
	if err := c.connect(); err != nil {
		return err
	}
	_, err := c.ask([]byte{done}, nil)
	return c.check(err)
}

// Close ends the connection. What the keeper has is left to the next process.
func (c *Client) Close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
