package admin

import (
	"context"
	"time"

	"github.com/txlb/txlb/internal/admin/users"
	"github.com/txlb/txlb/internal/words"
)

// webWaits is how long the page and the API wait for nodes, unless told: a browser gives up soon
// after that.
const webWaits = 10 * time.Second

// ofFleet adds the parameters that make a verb about the process one about other nodes.
func ofFleet(v Verb) Verb {
	v.Params = append(v.Params,
		Param{Name: "node", Kind: Node, Option: true, Help: "the node of the fleet that does it; without it, this one"},
		Param{
			Name: "wait", Kind: Duration, Option: true, Label: "Wait for nodes",
			Help: "how long to wait for nodes, which go on afterwards; default: to the end, but 10s on the page and in the API",
		})
	return v
}

// cancels are the parameters of upgrade that take an order back.
func cancels() []Param {
	return []Param{
		{
			Name: "cancel", Kind: Flag, Option: true,
			Help: "cancel what nodes of the fleet are told: one that has begun finishes, the others stay as they are; one that has stopped is forgotten",
		},
		{Name: "order", Kind: Text, Option: true, Help: "cancel that order alone, by its id in show fleet --json"},
	}
}

// cancelOffer is how people are offered to take an order back.
func cancelOffer() Offer {
	return Offer{
		Label: "Cancel the order", Note: "Nodes of the fleet that have not begun stay as they are.",
		Title: "Cancel the order to the nodes of the fleet?",
		Lines: []string{"{told}.", "A node that has begun finishes. The others stay as they are. If it has stopped, it is forgotten."},
		Set:   []words.Word{{Key: "cancel", Value: "yes"}}, Fields: []string{},
		Pin: func(s *Scene) []words.Word {
			switch {
			case s.Fleet == nil:
				return nil
			case s.Fleet.Order != nil:
				return []words.Word{{Key: "order", Value: s.Fleet.Order.ID}}
			case s.Fleet.OrderProblemID != "":
				return []words.Word{{Key: "order", Value: s.Fleet.OrderProblemID}}
			}
			return nil
		},
		When: func(s *Scene) bool { return s.Fleet != nil && s.Fleet.Cancellable() },
	}
}

// cancelFleet takes back what nodes of the fleet are told.
func (k *call) cancelFleet() (Result, error) {
	switch {
	case k.args.given("node") || k.args.given("wait"):
		return Result{}, refuse(ErrUsage, "--cancel is about the order of the whole fleet, and waits for nobody: leave node= and wait= out")
	case k.admin.opt.Fleet == nil:
		return Result{}, refuse(ErrNotServed, "not served here: it needs the fleet")
	}
	text, data, err := k.admin.opt.Fleet.Cancel(k.ctx, k.args.text("order"), k.caller.Name)
	return Result{Text: text, Data: data}, err
}

// orderFleet does a verb about the process on other nodes.
func (k *call) orderFleet() (Result, error) {
	node, all := k.args.given("node"), k.args.set("fleet")
	switch {
	case node && all:
		return Result{}, refuse(ErrUsage, "either --fleet, or node= for one of its nodes")
	case !node && !all:
		return Result{}, refuse(ErrUsage, "wait= is for nodes of a fleet; write node= too")
	case k.admin.opt.Fleet == nil:
		return Result{}, refuse(ErrNotServed, "not served here: it needs the fleet")
	}
	var nodes []string
	if node {
		nodes = []string{k.args.text("node")}
	}
	ctx := k.ctx
	wait, given := k.args.duration("wait")
	if !given && users.Via(ctx) == "web" {
		wait, given = webWaits, true
	}
	if given {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	text, data, err := k.admin.opt.Fleet.Order(ctx, k.verb.Name, nodes, k.caller.Name, k.caller.From)
	return Result{Text: text, Data: data}, err
}

// elsewhere tells what the verb means for the sessions that other nodes of the fleet have with the
// host that it is about, "" if there is none, or nothing is known of them.
func (s *Scene) elsewhere() string {
	if s.Host == nil || s.Host.Elsewhere == nil {
		return ""
	}
	if s.verb.edit == nil {
		return "Other nodes of the fleet have " + s.Host.Elsewhere.Words() + ", which go on."
	}
	return "Other nodes of the fleet have " + s.Host.Elsewhere.Words() + ", and do the same."
}
