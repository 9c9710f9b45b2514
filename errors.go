package txlb

import (
	"context"
	"errors"
	"strings"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
)

// Errors of methods. What they return says more, and is one of these for errors.Is.
var (
	ErrClosed         = errors.New("txlb: the balancer is closed")
	ErrUnknownService = errors.New("txlb: unknown service")
	ErrUnknownGroup   = errors.New("txlb: unknown group")
	ErrUnknownHost    = errors.New("txlb: unknown host")
	ErrNoHost         = errors.New("txlb: no host for the connection") // of DialContext
	ErrExists         = errors.New("txlb: the name is taken")
	ErrInUse          = errors.New("txlb: the group takes clients")    // it cannot be removed
	ErrNotReady       = errors.New("txlb: no host of the group is up") // see Force
)

// failure is an error, mostly of one of the kinds above, with its own text.
type failure struct {
	kind, cause error
	text        string
}

func (f failure) Error() string { return f.text }

func (f failure) Unwrap() []error { return []error{f.kind, f.cause} }

// publicKinds are those of internal errors.
var publicKinds = []struct{ internal, public error }{
	{edits.ErrUnknownService, ErrUnknownService},
	{engine.ErrNoService, ErrUnknownService},
	{engine.ErrNoHost, ErrNoHost},
	{edits.ErrUnknownGroup, ErrUnknownGroup},
	{edits.ErrUnknownHost, ErrUnknownHost},
	{edits.ErrTaken, ErrExists},
	{edits.ErrInUse, ErrInUse},
	{edits.ErrNotReady, ErrNotReady},
	{director.ErrStopped, ErrClosed},
	{engine.ErrClosed, ErrClosed},
}

// explain makes an error one for programs: it says where, and in the words of this package.
func explain(where string, err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "txlb: ")
	if problems, ok := errors.AsType[config.Problems](err); ok {
		var lines []string
		for _, p := range problems {
			if !p.Warning {
				p.File = strings.TrimPrefix(p.File, "configuration") // the model; others are files that it names
				line := strings.TrimPrefix(p.String(), ": ")
				lines = append(lines, inGo(inLine.ReplaceAllString(line, "")))
			}
		}
		text = strings.Join(lines, "; ")
	}
	kind := err
	for _, k := range publicKinds {
		if errors.Is(err, k.internal) {
			kind = k.public
			text = strings.Replace(text, k.internal.Error(), strings.TrimPrefix(k.public.Error(), "txlb: "), 1)
			break
		}
	}
	if i := strings.LastIndex(where, "service "); i >= 0 {
		text = strings.TrimPrefix(text, where[i:]+": ") // where says it
	}
	if where != "" {
		text = where + ": " + text
	}
	return failure{kind, err, "txlb: " + text}
}

// ended makes the error of a call whose context may be the balancer's own.
func (b *Balancer) ended(err error) error {
	if b.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return ErrClosed
	}
	return err
}
