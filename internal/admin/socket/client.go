package socket

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Client sends commands to a running txlb over its socket. Its methods may be called
// from any goroutine; commands are sent one after the other.
type Client struct {
	// Version is the version of the server, such as "txlb 1.0".
	Version string

	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Reader
	err  error // why it cannot be used any more
}

// greetTimeout is how long a server may take to greet.
const greetTimeout = 10 * time.Second

// Dial connects to the socket at path. The error is one line and says what to do.
func Dial(path string) (*Client, error) {
	conn, err := net.DialTimeout("unix", path, greetTimeout)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no socket %s: is txlb running with <socket path=%q> in its configuration?", path, path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nobody answers at %s: txlb is not running", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s is not for this user: be its owner or in the group of <socket group>, or use sudo", path)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c := &Client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	ctx, cancel := context.WithTimeout(context.Background(), greetTimeout)
	defer cancel()
	a, err := c.Do(ctx, "ctl")
	if err == nil {
		err = a.Err()
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s is not the socket of a txlb: %w", path, err)
	}
	c.Version = a.Text
	return c, nil
}

// Do sends a line and returns the answer. After an error it is unknown whether the
// line was executed, and the Client must not be used any more. What txlb refuses is
// not an error of Do but an Answer that is not OK.
func (c *Client) Do(ctx context.Context, line string) (Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.ContainsRune(line, '\n') {
		return Answer{}, errors.New("a command is one line")
	}
	if c.err != nil {
		return Answer{}, c.err
	}
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	a, err := c.do(ctx, line)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		c.err = fmt.Errorf("txlb has not answered: %w", err)
		return Answer{}, c.err
	}
	return a, nil
}

func (c *Client) do(ctx context.Context, line string) (a Answer, err error) {
	// When ctx ends, a deadline in the past ends reads and writes.
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.conn.Write([]byte(line + "\n")); err != nil && !errors.Is(err, syscall.EPIPE) {
		// A server that has closed may have answered before.
		return a, err
	}
	text, err := c.in.ReadBytes('\n')
	if err != nil {
		return a, fmt.Errorf("the connection was closed: %w", err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		said := strings.TrimSpace(string(text[:min(len(text), 200)]))
		if strings.HasPrefix(said, "error: ") {
			return a, errors.New(strings.TrimPrefix(said, "error: "))
		}
		return a, fmt.Errorf("it said %q", said)
	}
	return a, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	err := c.conn.Close()
	if errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
