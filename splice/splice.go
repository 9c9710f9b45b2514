// Package splice moves bytes between two sockets.
//
// On Linux a [Pipe] connects them: [Pipe.Fill] moves bytes from a socket into it,
// [Pipe.Drain] from it into a socket, both by splice(2), which moves references to
// pages instead of copying the bytes into the program. Neither ever blocks. A
// [Pool] lends pipes for as long as bytes move; one event loop owns one pool, and
// pools share a [Budget] by atomic operations, so nothing here takes a lock.
//
// [Copy] is for two net.Conns and a goroutine, on every system.
//
// Limits: the caller owns the order of calls. A pipe that holds bytes must be
// drained to the socket that they are for, or be closed: [Pool.Put] closes
// such a pipe, so that the bytes of one stream can never enter another.
//
// Compatibility: this package may change in a minor version; package txlb does not.
package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
)

// ErrRead and ErrWrite tell which side made a Copy fail.
var (
	ErrRead  = errors.New("read")
	ErrWrite = errors.New("write")
)

// Copy copies from src to dst until src ends, which is no error. It calls moved
// after every write with the number of bytes written. An error wraps ErrRead or
// ErrWrite and what the connection reported. To stop a Copy from elsewhere, set
// a deadline on the connections or close them.
//
// While src is silent, a Copy holds no more than a [Source] does: thousands of sessions may
// be idle.
func Copy(dst, src net.Conn, moved func(n int)) error {
	from := NewSource(src)
	defer from.Release()
	for {
		b, rerr := from.Next()
		if len(b) > 0 {
			w, werr := dst.Write(b)
			moved(w)
			if werr != nil {
				return fmt.Errorf("%w: %w", ErrWrite, werr)
			}
		}
		switch {
		case rerr == io.EOF:
			return nil
		case rerr != nil:
			return fmt.Errorf("%w: %w", ErrRead, rerr)
		}
	}
}
