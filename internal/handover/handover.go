// Package handover carries what one process of txlb hands over to the next: messages with
// descriptors, over a pair of UNIX sockets.
//
// A message has a kind, a body and descriptors. The receiver gets duplicates of them: both
// processes then have the same sockets. Each side begins with its [Hello], whose form never
// changes; the other messages are those of [Format]. What the messages mean, and their order,
// is in docs/design/hand-over.md.
//
// Descriptors that nobody has received yet count against the sender's limit of open files
// (unix(7)): a sender of many waits for an answer in between.
//
// Limits: it is for Linux. The peer is a program of the same user that was started for this,
// so that a message is checked for mistakes, and not against malice.
package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Format is the number of the messages that this program knows. A change that an earlier
// program would misunderstand needs another number.
const Format = 1

// Kind is what a message is.
type Kind uint16

// The messages in their order. O is the old process, N the new one.
const (
	KindHello   Kind = iota + 1 // both: a Hello
	KindState                   // O: what it knows
	KindSockets                 // O: listening sockets; N: Done
	KindPrepare                 // O: that was all; N: Done when it could serve, else Failed
	KindServe                   // O: serve from now on; N: Done
	KindNews                    // O: it accepts nothing more, and what it knows now; N: Done, and its admin interfaces are open
	KindMove                    // O: sessions; N: Done, and what became of each
	KindCommit                  // O: there is no way back; N: Done
	KindYours                   // O: its own part is given up; the service manager knows
	KindLeft                    // O, again and again: what it still has
	KindDone                    // the answer to the message before
	KindFailed                  // the answer to the message before: a text, why not
)

var kinds = []string{"", "hello", "state", "sockets", "prepare", "serve", "news", "move", "commit", "yours", "left", "done", "failed"}

func (k Kind) String() string {
	if int(k) < len(kinds) && k > 0 {
		return kinds[k]
	}
	return fmt.Sprintf("kind %d", uint16(k))
}

const (
	// MaxFiles is how many descriptors a message may have (SCM_MAX_FD of unix(7)).
	MaxFiles = 253
	// MaxBody is how long a body may be.
	MaxBody = 256 << 20

	headerSize = 8
)

// header is what a message begins with: the length of its body, its kind and how many
// descriptors come with it, as big-endian numbers.
type header struct {
	kind  Kind
	files int
	body  int
}

func (h header) append(to []byte) []byte {
	to = binary.BigEndian.AppendUint32(to, uint32(h.body))
	to = binary.BigEndian.AppendUint16(to, uint16(h.kind))
	return binary.BigEndian.AppendUint16(to, uint16(h.files))
}

// check tells what is wrong with a header.
func (h header) check() error {
	switch {
	case h.kind == 0 || int(h.kind) >= len(kinds):
		return fmt.Errorf("a message of %v, which this program does not know", h.kind)
	case h.files > MaxFiles:
		return fmt.Errorf("a message with %d descriptors; at most %d are possible", h.files, MaxFiles)
	case h.body < 0 || h.body > MaxBody: // an int may have 32 bits
		return fmt.Errorf("a message of %d bytes; at most %d are possible", h.body, MaxBody)
	}
	return nil
}

// parseHeader reads a header of headerSize bytes.
func parseHeader(b []byte) (h header, err error) {
	h.body = int(binary.BigEndian.Uint32(b))
	h.kind = Kind(binary.BigEndian.Uint16(b[4:]))
	h.files = int(binary.BigEndian.Uint16(b[6:]))
	return h, h.check()
}

// Hello is the first message of each side.
type Hello struct {
	Format  int    `json:"format"`
	Version string `json:"version"` // of the program
	PID     int    `json:"pid"`
	Moves   int    `json:"moves,omitempty"` // the latest format of sessions that it reads; 0: it does not say
}

// FormatError says that the other program speaks another format.
type FormatError struct{ Peer Hello }

func (e *FormatError) Error() string {
	return fmt.Sprintf("version %s hands over in format %d, and this program in format %d", e.Peer.Version, e.Peer.Format, Format)
}

// readHello reads a Hello and checks its format. It is also returned with a FormatError.
func readHello(body []byte) (h Hello, err error) {
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("hello: %w", err)
	}
	if h.Format != Format {
		return h, &FormatError{h}
	}
	return h, nil
}

// Parcel is one of many things that a message has: a state, and how many of the
// descriptors of the message belong to it.
type Parcel struct {
	State []byte
	Files int
}

// Pack writes parcels as a body.
func Pack(parcels []Parcel) []byte {
	size := 4
	for i := range parcels {
		size += 5 + len(parcels[i].State)
	}
	body := binary.BigEndian.AppendUint32(make([]byte, 0, size), uint32(len(parcels)))
	for i := range parcels {
		p := &parcels[i]
		body = append(body, byte(p.Files))
		body = binary.BigEndian.AppendUint32(body, uint32(len(p.State)))
		body = append(body, p.State...)
	}
	return body
}

// errPacked says that a body is not one of [Pack].
var errPacked = errors.New("handover: the parcels of a message are incomplete")

// Unpack reads what [Pack] has written. files is how many descriptors came with it: each
// belongs to a parcel. The states are part of body.
func Unpack(body []byte, files int) ([]Parcel, error) {
	if len(body) < 4 {
		return nil, errPacked
	}
	n, rest := binary.BigEndian.Uint32(body), body[4:]
	if uint64(n)*5 > uint64(len(rest)) {
		return nil, errPacked
	}
	list := make([]Parcel, n)
	for i := range list {
		if len(rest) < 5 {
			return nil, errPacked
		}
		size := binary.BigEndian.Uint32(rest[1:])
		list[i].Files = int(rest[0])
		rest = rest[5:]
		if uint64(size) > uint64(len(rest)) {
			return nil, errPacked
		}
		list[i].State, rest = slices.Clip(rest[:size]), rest[size:]
		files -= list[i].Files
	}
	if len(rest) > 0 {
		return nil, errPacked
	}
	if files != 0 {
		return nil, fmt.Errorf("handover: the parcels of a message have %d descriptors less than came with it", files)
	}
	return list, nil
}
