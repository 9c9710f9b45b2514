package admin

import (
	"context"
	"time"

	"github.com/txlb/txlb/internal/admin/users"
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
