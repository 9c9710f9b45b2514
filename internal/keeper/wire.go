package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/txlb/txlb/engine"
)

// Every message is one packet. It begins with its kind; numbers are in big endian. Client and
// server have the same version, or the server ends the connection.
const (
	version = 1

	hello  = 'h' // version; answered with the same
	keep   = 'k' // entries with their descriptors; answered with how many of the first were kept
	forget = 'f' // numbers of entries; no answer
	take   = 't' // answered with give, again and again, each acknowledged with next
	give   = 'g' // entries with their descriptors; none: these were all
	next   = 'n'
	done   = 'd' // what others have left is of no use any more; answered with the same
)

const (
	perMessage  = 126      // entries: 252 descriptors, of 253 that the kernel allows
	maxState    = 2 << 10  // bytes of an entry's state
	maxMessage  = 64 << 10 // bytes of a message
	entryHeader = 10
	maxForget   = 4096 // numbers in a message
)

// appendEntry appends number and state of an entry. Its descriptors go beside the bytes.
func appendEntry(b []byte, id uint64, state []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(state)))
	return append(b, state...)
}

// decodeEntries reads what appendEntry has written, with two descriptors for each entry.
func decodeEntries(b []byte, files []int) (list []engine.Kept, err error) {
	for len(b) > 0 {
		if len(b) < entryHeader {
			return nil, errors.New("an entry is cut off")
		}
		id, size := binary.BigEndian.Uint64(b), int(binary.BigEndian.Uint16(b[8:]))
		if b = b[entryHeader:]; size > len(b) || size > maxState {
			return nil, errors.New("the state of an entry is cut off, or too long")
		}
		list = append(list, engine.Kept{ID: id, State: append([]byte(nil), b[:size]...)})
		b = b[size:]
	}
	if len(files) != 2*len(list) {
		return nil, fmt.Errorf("%d descriptors for %d entries", len(files), len(list))
	}
	for i := range list {
		list[i].Client, list[i].Backend = files[2*i], files[2*i+1]
	}
	return list, nil
}

func appendIDs(b []byte, ids []uint64) []byte {
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return b
}

func decodeIDs(b []byte) (ids []uint64, err error) {
	if len(b)%8 != 0 {
		return nil, errors.New("a number is cut off")
	}
	for ; len(b) > 0; b = b[8:] {
		ids = append(ids, binary.BigEndian.Uint64(b))
	}
	return ids, nil
}
