package handover

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// Whatever comes is a message or an error, and what is read is written again as it came.
func FuzzHeader(f *testing.F) {
	f.Add(header{KindMove, 253, 100}.append(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		h, err := parseHeader(b)
		if err != nil {
			return
		}
		if h.body > MaxBody || h.files > MaxFiles || strings.HasPrefix(h.kind.String(), "kind ") {
			t.Errorf("%v was taken", h)
		}
		if again := h.append(nil); !bytes.Equal(again, b[:headerSize]) {
			t.Errorf("%x became %x", b[:headerSize], again)
		}
	})
}

// The same of parcels: none has bytes or descriptors that are not its own.
func FuzzUnpack(f *testing.F) {
	f.Add(Pack(nil), 0)
	f.Add(Pack([]Parcel{{[]byte("one"), 2}, {nil, 0}, {[]byte("three"), 1}}), 3)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 0)
	f.Add([]byte{0, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff}, 0)
	f.Fuzz(func(t *testing.T, body []byte, files int) {
		list, err := Unpack(body, files)
		if err != nil {
			return
		}
		if again := Pack(list); !bytes.Equal(again, body) {
			t.Errorf("%x became %x", body, again)
		}
		for i := range list {
			files -= list[i].Files
			_ = append(list[i].State, "more"...) // must not reach into the next
		}
		if files != 0 {
			t.Errorf("%d descriptors are left over", files)
		}
		if again := Pack(list); !bytes.Equal(again, body) {
			t.Error("a state has room that belongs to another")
		}
	})
}

// A program of another format is told from one of this.
func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"format":1,"version":"0.6","pid":7}`))
	f.Add([]byte(`{"format":2,"more":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, err := readHello(body)
		if other := (*FormatError)(nil); errors.As(err, &other) && (h.Format == Format || other.Peer != h) {
			t.Errorf("%v: %v", h, err)
		}
		if err == nil && (h.Format != Format || !json.Valid(body)) {
			t.Errorf("%q was taken", body)
		}
	})
}
