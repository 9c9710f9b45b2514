package socket

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/txlb/txlb/internal/admin"
)

// Answer is the answer to a line after ctl, as one line of JSON. If the line has
// several commands, Text joins their texts and Data is the list of their data. After
// an error the rest is not executed.
type Answer struct {
	OK         bool            `json:"ok"`
	Text       string          `json:"text"`           // for people
	Data       json.RawMessage `json:"data,omitempty"` // the same for programs
	Raw        []byte          `json:"raw,omitempty"`  // a file instead, such as a profile
	Generation uint64          `json:"generation,omitempty"`
	Error      string          `json:"error,omitempty"` // one line
	// Kind is the kind of the error: unknown (no such command), forbidden (to the
	// role), moved (generation=N is not the current one), missing (not served here),
	// confirm (with --ask, because the command takes the last usable host of a
	// service away) or failed.
	Kind string `json:"kind,omitempty"`
}

// Err returns the error in the answer, or nil. Its text is the server's.
func (a Answer) Err() error {
	if a.OK {
		return nil
	}
	return errors.New(a.Error)
}

// answer is the result of a command.
type answer struct {
	text       string
	data       any
	raw        []byte // a file, in place of a text
	generation uint64
	err        error
	native     bool // one of HAProxy's
	json       bool // --json
	silent     bool // there is nothing to answer
}

// kindOf is the Kind of an error.
func kindOf(err error) string {
	switch {
	case errors.Is(err, admin.ErrUnknownVerb):
		return "unknown"
	case errors.Is(err, admin.ErrNotAllowed):
		return "forbidden"
	case errors.Is(err, admin.ErrMovedOn):
		return "moved"
	case errors.Is(err, admin.ErrNotServed):
		return "missing"
	case errors.Is(err, admin.ErrConfirm):
		return "confirm"
	}
	return "failed"
}

// frame returns the answer as a line of JSON.
func (a answer) frame() []byte {
	f := Answer{OK: a.err == nil, Text: a.text, Raw: a.raw, Generation: a.generation}
	if a.err != nil {
		f.Error, f.Kind = strings.ReplaceAll(a.err.Error(), "\n", "; "), kindOf(a.err)
	}
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	data, err := json.Marshal(a.data)
	if a.data != nil {
		f.Data = data
	}
	if err == nil {
		err = enc.Encode(f)
	}
	if err != nil {
		line.Reset()
		_ = enc.Encode(Answer{Error: "the answer cannot be written as JSON: " + err.Error(), Kind: "failed"})
	}
	return line.Bytes()
}

// plain returns the answer as lines. Only the last one is empty.
func (a answer) plain() string {
	text := a.text
	switch {
	case a.err != nil && a.native:
		text = a.err.Error()
	case a.err != nil:
		text = "error: " + a.err.Error()
	}
	if text = strings.TrimSuffix(text, "\n"); text == "" {
		return "\n"
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if l = strings.TrimSuffix(l, "\r"); l == "" {
			lines[i] = " "
		}
	}
	return strings.Join(lines, "\n") + "\n\n"
}
