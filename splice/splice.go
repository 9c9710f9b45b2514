// Package splice moves bytes between two sockets without bringing them into
// the program.
//
// On Linux a [Pipe] stands between the two: [Pipe.Fill] moves bytes from a
// socket into it, [Pipe.Drain] from it into a socket, both by splice(2), which
// hands over references to pages. Neither ever blocks. A [Pool] lends pipes
// for as long as bytes move; one event loop owns one pool, so nothing here
// takes a lock. [Copy] is for two net.Conns and a goroutine, on every system.
//
// Limits: the caller owns the order of calls. A pipe that holds bytes must be
// drained to the socket that they are for, or be closed: [Pool.Put] closes
// such a pipe, so that the bytes of one stream can never enter another.
package splice

import (
	"fmt"
	"io"
	"net"
)

// Copy copies from src to dst until src ends, and returns the number of bytes
// written. The end of src is no error. On Linux the runtime splices where it
// can; elsewhere, and for connections it does not know, it is a plain copy.
func Copy(dst, src net.Conn) (int64, error) {
	n, err := io.Copy(dst, src)
	if err != nil {
		return n, fmt.Errorf("copy to %v: %w", dst.RemoteAddr(), err)
	}
	return n, nil
}
