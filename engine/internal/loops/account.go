//go:build linux

package loops

import "github.com/txlb/txlb/engine/internal/core"

// fate is what becomes of a socket that a process has left.
type fate uint8

const (
	lost   fate = iota // reset: the rest of its stream is lost
	whole              // close: all of its stream was sent, and the end of it
	goesOn             // go on
)

// aside is what a session has moved that is none of its streams.
type aside struct {
	header int // bytes of a PROXY header that the backend was sent ahead of the client's stream
	took   int // bytes of the client's own header, which the backend did not get
}

// streams returns what was read from the client and what was written to the backend of the
// client's stream, and the same of the backend's, by the meters of both sockets. The backend's has
// counted the SYN: an acknowledged one counts, and only who connects has it acknowledged.
func (a aside) streams(client, backend core.Meter) (read, written [2]int64) {
	plain := func(m core.Meter) int64 {
		if m.Ended {
			return int64(m.Written) - 1
		}
		return int64(m.Written)
	}
	read = [2]int64{int64(client.Read) - int64(a.took), int64(backend.Read)}
	written = [2]int64{plain(backend) - 1 - int64(a.header), plain(client)}
	return read, written
}

// fatesOf tells what becomes of a session that a process has left, by the meters of its sockets.
//
// An end was only ever sent behind all bytes of its stream. Where as much was written as was
// read, both ways, no byte was in the hands of the process, and the session goes on. Where not,
// the bytes are lost, and both peers have to learn of it.
func (a aside) fatesOf(client, backend core.Meter) (ofClient, ofBackend fate) {
	read, written := a.streams(client, backend)
	switch {
	case !client.Known || !backend.Known:
		return lost, lost
	case client.Closed || backend.Closed:
		return endFate(client), endFate(backend)
	case read != written:
		return lost, lost
	case client.Ended && backend.Ended:
		return whole, whole
	}
	return goesOn, goesOn
}

// endFate is the fate of a socket whose session is over.
func endFate(m core.Meter) fate {
	if m.Ended {
		return whole
	}
	return lost
}
