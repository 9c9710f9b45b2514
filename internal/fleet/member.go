package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/txlb/txlb/internal/fleet/peers"
	"github.com/txlb/txlb/internal/words"
)

// The bounds of what a node takes from the store. Who may write there can write anything.
const (
	// maxMember is the size of the largest key of a node.
	maxMember = 64 << 10
	// maxNodes is how many nodes a fleet may have.
	maxNodes = peers.MaxNodes
	// maxGeneration is the last generation: JSON has no larger numbers.
	maxGeneration = 1<<53 - 1
)

// memberKey is what the key of a node has.
type memberKey struct {
	Member
	// Place is where the process runs that is the node, see place.
	Place string `json:"place,omitempty"`
}

// encode writes the key of a node.
func (m Member) encode() []byte {
	m.Problem, m.Unready = short(m.Problem), short(m.Unready)
	data, err := json.Marshal(memberKey{m, m.place.String()})
	if err != nil {
		panic(err) // it is plain data
	}
	return data
}

// readMember reads what a node's key has.
func readMember(value []byte) (m Member, err error) {
	if len(value) > maxMember {
		return m, fmt.Errorf("it has %d bytes, and a node writes at most %d", len(value), maxMember)
	}
	var k memberKey
	if err := json.Unmarshal(value, &k); err != nil {
		return m, err
	}
	m = k.Member
	m.place = readPlace(k.Place)
	switch {
	case m.ID == "":
		return Member{}, errors.New("it has no id")
	case m.Sessions < 0:
		return Member{}, fmt.Errorf("%d sessions make no sense", m.Sessions)
	case m.Generation > maxGeneration:
		return Member{}, fmt.Errorf("generation %d makes no sense", m.Generation)
	}
	m.Version, m.Problem, m.Unready = note(m.Version), note(m.Problem), note(m.Unready)
	return m, nil
}

// note is a text of another node that people are shown.
func note(s string) string { return printable(short(s)) }

// complainEvery is the least time between two warnings of a key, and maxComplaints how many keys
// are logged in that time.
const complainEvery, maxComplaints = time.Minute, 32

// complain tells the log of a key that makes no sense, but not often. n.mu is held.
func (n *Node) complain(what, key string, err error) {
	key = short(key)
	now := time.Now()
	for k, at := range n.complaints {
		if now.Sub(at) >= complainEvery {
			delete(n.complaints, k)
		}
	}
	if _, has := n.complaints[key]; has || len(n.complaints) >= maxComplaints {
		return
	}
	n.complaints[key] = now
	n.log.Warn(what, "fleet", n.opt.Config.Name, "key", key, "err", oneLine(err))
}

// hearMember takes in what the key of a node has that is there. n.mu is held.
func (n *Node) hearMember(name string, e Entry) {
	m, err := readMember(e.Value)
	_, known := n.members[name]
	switch {
	case err == nil && !words.Plain(name):
		err = errors.New("this is not the name of a node")
	case err == nil && !known && len(n.members) >= maxNodes:
		err = fmt.Errorf("the fleet has %d nodes, and no more can be", maxNodes)
	}
	if err != nil {
		delete(n.members, name) // what it said before counts no more
		n.complain("not a node, ignored", e.Key, err)
		return
	}
	m.Name = name
	n.members[name] = m
}
