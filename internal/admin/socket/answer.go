package socket

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"github.com/txlb/txlb/internal/admin"
)

// Answer is the answer to a line behind ctl, one line of JSON. Of a line with
// several commands Text has the texts one below the other, and Data is the list of
// what each of them has; those behind an error are not done.
type Answer struct {
	OK         bool            `json:"ok"`
	Text       string          `json:"text"`           // for people
	Data       json.RawMessage `json:"data,omitempty"` // the same for programs
	Raw        []byte          `json:"raw,omitempty"`  // a file instead, such as a profile
	Generation uint64          `json:"generation,omitempty"`
	Error      string          `json:"error,omitempty"` // one line
	// Kind is what the error is about: unknown (there is no such command),
	// forbidden (not allowed to the role), moved (generation=N is not the one
	// that runs), missing (not served here), confirm (it was not done, as it takes
	// the last usable host of a service away and the command had --ask) or failed.
	Kind string `json:"kind,omitempty"`
}

// Err returns the error that the answer tells, nil if it tells none. Its text
// is that of the server.
func (a Answer) Err() error {
	if a.OK {
		return nil
	}
	return errors.New(a.Error)
}

// answer is what came of a command.
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

// kindOf names an error for programs.
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

// frame gives the answer as a line of JSON.
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

// plain gives the answer as lines, of which the last is empty, and no other.
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
