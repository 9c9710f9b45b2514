package fleet

import "slices"

// Lineage returns this process as the node, and those before it by hand-over which may have
// written the node's key: for Succeed of the process that takes over.
func (n *Node) Lineage() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := append(slices.Clone(n.lineage), n.instance)
	return all[max(0, len(all)-maxInstances):]
}

// Succeed makes this process take the place of others, which the last of them hands over to it. So
// it is no copy, wherever their key says that they were: a step of the clock changes when the
// machine seems to have been booted. It is for the time before Run.
func (n *Node) Succeed(lineage []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lineage = slices.Clone(lineage[max(0, len(lineage)-maxInstances):])
}
