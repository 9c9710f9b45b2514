package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// AMP's messages are boxes: pairs of a key and a value, each behind its length
// in two bytes, the higher first; a length of 0 in place of a key ends the box.
// See the documentation of twisted.protocols.amp.

const (
	maxBox = 4 << 10 // bytes of one box; AMP itself allows more
	maxKey = 255     // bytes
)

// box is one message.
type box map[string]string

// readBox reads one.
func readBox(r io.Reader) (box, error) {
	b := box{}
	var size [2]byte
	left := maxBox
	piece := func(most int) (string, error) {
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return "", err
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if left -= n + len(size); n > most || left < 0 {
			return "", errors.New("the box is too large")
		}
		p := make([]byte, n)
		_, err := io.ReadFull(r, p)
		return string(p), err
	}
	for {
		key, err := piece(maxKey)
		if err != nil || key == "" {
			return b, err
		}
		if _, twice := b[key]; twice {
			return nil, fmt.Errorf("the box has the key %q twice", key)
		}
		if b[key], err = piece(maxBox); err != nil {
			return nil, err
		}
	}
}

// appendBox writes a box of keys and values in turn.
func appendBox(to []byte, pairs ...string) []byte {
	for _, s := range pairs {
		to = binary.BigEndian.AppendUint16(to, uint16(len(s)))
		to = append(to, s...)
	}
	return append(to, 0, 0)
}

// amp answers a box: by nothing, if it asks for no answer.
func (s *server) amp(asked box) []byte {
	tag, ask := asked["_ask"]
	name, isCommand := asked["_command"]
	if !ask || !isCommand {
		return nil
	}
	fail := func(code, text string) []byte {
		return appendBox(nil, "_error", tag, "_error_code", code, "_error_description", text)
	}
	if name != command {
		return fail("UNHANDLED", fmt.Sprintf("Unhandled Command: %.80q", name))
	}
	i, err := s.ask(asked["host"], asked["port"], asked["backend"])
	if err != nil {
		// The command has one error; everything else would end the connection of
		// a client of txLoadBalancer.
		return fail(unknown, err.(refused).text)
	}
	return appendBox(nil, "_answer", tag, "host", i.Client.Addr().String(), "port", strconv.Itoa(int(i.Client.Port())))
}
