package peers

import (
	"hash/fnv"
	"io"
)

// Copies is how many nodes check each host.
const Copies = 2

// Nodes are the live nodes that share the checks out among them, this one included.
type Nodes struct {
	self   uint64
	others []uint64
}

// NewNodes returns the nodes with these names.
func NewNodes(self string, others []string) *Nodes {
	n := &Nodes{self: hash(self)}
	for _, name := range others {
		n.others = append(n.others, hash(name))
	}
	return n
}

// Mine tells whether this node is one of those that check a host, whose [Host.Hash] is given:
// Copies of all, by rendezvous hashing. So each node finds the same without asking, and if one
// goes, only its hosts find another.
func (n *Nodes) Mine(host uint64) bool {
	mine, above := mix(n.self^host), 0
	for _, other := range n.others {
		if mix(other^host) > mine {
			if above++; above == Copies {
				return false
			}
		}
	}
	return true
}

// Hash is the host's place in the rendezvous: the same on every node, for ever.
func (h Host) Hash() uint64 {
	return hash(h.Service + "\x00" + h.Group + "\x00" + h.Name + "\x00" + h.Addr)
}

func hash(s string) uint64 {
	f := fnv.New64a()
	_, _ = io.WriteString(f, s) // never fails
	return mix(f.Sum64())
}

// mix spreads the bits of a number over all of it: the last step of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
