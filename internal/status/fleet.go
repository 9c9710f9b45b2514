package status

import (
	"fmt"

	"github.com/txlb/txlb/internal/fleet"
)

// judgeFleet tells what is wrong between this node and its fleet.
func (r *Reading) judgeFleet(f *fleet.Status, add func(kind Kind, level Level, text, remedy string)) {
	if !f.Joined {
		add(FleetStore, Warning, fmt.Sprintf("The node %s is not in its fleet %s, so changes are refused: %s", f.Node, f.Fleet, f.Why), "clients are served meanwhile; the node joins by itself when the cause is gone")
	}
	if text := f.Silence(); text != "" {
		add(FleetStore, Warning, fmt.Sprintf("The node %s is in its fleet %s, but %s: changes are not made until it does", f.Node, f.Fleet, text), "clients are served meanwhile; look at the store")
	}
	if f.Refused != "" {
		add(FleetStore, Warning, fmt.Sprintf("The node %s is in its fleet %s, but %s: changes are refused until it can", f.Node, f.Fleet, f.Refused), "clients are served meanwhile; look at the store: its space, and the rights and the login of this node")
	}
	if text := f.Behind(); text != "" {
		add(FleetBehind, Warning, fmt.Sprintf("The node %s does not run all that its fleet %s has: %s", f.Node, f.Fleet, text), "fix the cause; it is tried again every few seconds")
	}
	if f.Older != "" {
		add(FleetBehind, Warning, fmt.Sprintf("The node %s runs what its fleet %s has, but without the store it would start with something older: %s", f.Node, f.Fleet, f.Older),
			"reload the file if it was edited; otherwise fix the cause, it is tried again every few seconds")
	}
	if f.Apart != "" {
		add(FleetApart, Warning, fmt.Sprintf("The node %s does not share checks with all of its fleet %s: %s", f.Node, f.Fleet, f.Apart), "each node checks what it is not told; "+f.Shares.Remedy())
	}
	if f.Waits != "" {
		add(FleetWaits, Notice, fmt.Sprintf("The node %s: %s", f.Node, f.Waits), "give upgrade, which refuses no client")
	}
	if _, stopped := f.Upgrade(); stopped {
		add(FleetUpgrade, Warning, fmt.Sprintf("The fleet %s is upgraded in part: %s", f.Fleet, f.Order.Headline()), "fix that node, then give upgrade --fleet again; upgrade --cancel forgets it")
	}
}
