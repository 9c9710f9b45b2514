package admin

import (
	"errors"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
)

// Kinds of errors, for interfaces that turn them into a status.
var (
	ErrUnknownVerb = errors.New("unknown verb")
	ErrUsage       = errors.New("wrong words") // of a command, whatever runs
	ErrNotAllowed  = errors.New("not allowed")
	ErrMovedOn     = errors.New("the configuration has changed")
	ErrNotServed   = errors.New("not served")
	ErrUnknownName = edits.ErrUnknownName
	ErrConfirm     = errors.New("to be confirmed")
)

// refuse makes an error of one of the kinds.
func refuse(kind error, format string, args ...any) error {
	return edits.Refuse(kind, format, args...)
}

// oneLine makes an error fit on one line. Of the problems of a configuration it
// keeps those that are errors.
func oneLine(err error) error {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		var lines []string
		for _, p := range problems {
			switch {
			case p.Warning:
			case p.File == "configuration": // the model that a verb has changed
				lines = append(lines, p.Text)
			default: // a file that it names
				lines = append(lines, p.String())
			}
		}
		return errors.New(strings.Join(lines, "; "))
	}
	if _, ok := errors.AsType[*director.MovedError](err); ok {
		return edits.Refusal{Kind: ErrMovedOn, Text: err.Error()}
	}
	if text := err.Error(); strings.Contains(text, "\n") {
		for _, kind := range []error{director.ErrStopped, engine.ErrClosed} {
			if errors.Is(err, kind) {
				return edits.Refusal{Kind: kind, Text: strings.ReplaceAll(text, "\n", "; ")}
			}
		}
		return errors.New(strings.ReplaceAll(text, "\n", "; "))
	}
	return err
}
