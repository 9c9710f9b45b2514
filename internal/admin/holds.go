package admin

import (
	"fmt"
	"time"

	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/edits"
	"github.com/txlb/txlb/internal/status"
)

const (
	usualHold   = 30 * time.Second
	longestHold = 24 * time.Hour
	mostHeld    = 1_000_000
)

// released is the Data of release.
type released struct {
	Clients int `json:"clients"` // that waited
}

func (k *call) hold() (Result, error) {
	service, targets, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	o := director.HoldOrder{By: k.caller.Name, From: k.caller.From, Service: service, Group: k.args.text("group"), For: usualHold}
	if d, given := k.args.duration("for"); given {
		o.For = d
	}
	if n, given := k.args.number("max"); given {
		o.Most = int(n)
	}
	active := 0
	for _, t := range targets {
		active += int(t.Host.Sessions())
	}
	g := edits.StateGroup(k.state(), service, o.Group)
	waits := fmt.Sprintf("new clients of group %s wait for %v", show(o.Group), o.For)
	if !g.Takes {
		waits = fmt.Sprintf("group %s takes no clients now; if it does within %v, they wait", show(o.Group), o.For)
	}
	waits += fmt.Sprintf(" at most, until release; %s go on", count(active, "session"))
	if k.args.set("dry-run") {
		return Result{Text: "would hold: " + waits}, nil
	}
	h, was, err := k.admin.opt.Director.Hold(k.ctx, o)
	if err != nil {
		return Result{}, err
	}
	did := "held: "
	if was {
		did = "still held: "
	}
	data := status.Hold{Why: "operator", By: h.By, Since: h.Since, Until: &h.Until, Max: h.Most, Held: g.Times.Queue.Len()}
	return Result{Text: did + waits, Data: data}, nil
}

func (k *call) release() (Result, error) {
	service, _, err := k.targets()
	if err != nil {
		return Result{}, err
	}
	group := k.args.text("group")
	over, _ := k.args.duration("over")
	evenly := ""
	if over > 0 {
		evenly = fmt.Sprintf(", evenly over %v", over)
	}
	if k.args.set("dry-run") {
		g := edits.StateGroup(k.state(), service, group)
		if g.Hold() == nil {
			return Result{Text: fmt.Sprintf("nothing to release: group %s is not held", show(group)), Data: released{}}, nil
		}
		n := g.Times.Queue.Len()
		return Result{Text: fmt.Sprintf("would release %s%s", count(n, "client"), evenly), Data: released{n}}, nil
	}
	r, err := k.admin.opt.Director.Release(k.ctx, director.ReleaseOrder{By: k.caller.Name, From: k.caller.From, Service: service, Group: group, Over: over})
	if err != nil {
		return Result{}, err
	}
	n := r.Waiting
	if r.Alone != nil && r.Held {
		others := "released on this node alone: %s%s; other nodes hold until their time is over: %v"
		if r.Alone.Unknown {
			others = "released on this node: %s%s; other nodes may still hold, look at status there: %v"
		}
		return Result{Text: fmt.Sprintf(others, count(n, "client"), evenly, r.Alone), Data: released{n}}, nil
	}
	if !r.Held {
		return Result{Text: fmt.Sprintf("nothing to release: group %s is not held", show(group)), Data: released{}}, nil
	}
	return Result{Text: fmt.Sprintf("released: %s%s", count(n, "client"), evenly), Data: released{n}}, nil
}
