package fleet

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"
)

// hearAll takes in all that the fleet has at a revision.
func (n *Node) hearAll(entries []Entry, revision int64) {
	last := n.latest(entries)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.takeAll(entries, last, revision)
}

// takeAll is hearAll with what latest has returned. n.mu is held.
func (n *Node) takeAll(entries []Entry, last configuration, revision int64) {
	n.upTo = revision // not more: it may be another store
	n.members = map[string]Member{}
	// What this node has written since stays.
	maps.DeleteFunc(n.running, func(_ uint64, at int64) bool { return at <= revision })
	maps.DeleteFunc(n.holds, func(_ string, h *held) bool { return h.revision <= revision })
	there := slices.ContainsFunc(entries, func(e Entry) bool { return e.Key == n.configKey() })
	if !there && n.known <= revision { // nobody tells that it was deleted
		n.known, n.newest, n.unusable, n.emptyAt = 0, nil, nil, time.Now()
	}
	n.plan, n.orderAt, n.orderBad, n.orderGone = nil, 0, nil, 0
	counted := n.counted
	n.counted = map[string]counting{}
	n.take(entries, last)
	n.countOn(counted)
	n.tellWaiters()
	n.poke(n.wake) // also if there is no configuration
}

// hear takes in what has changed.
func (n *Node) hear(entries []Entry) {
	last := n.latest(entries)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.take(entries, last)
}

// latest reads the last configuration of entries.
func (n *Node) latest(entries []Entry) configuration {
	for _, e := range slices.Backward(entries) {
		if e.Key == n.configKey() { // what came before is over
			return n.read(e)
		}
	}
	return configuration{}
}

// take takes in entries, with what latest has returned, as one: keys that the store has changed
// together belong together. n.mu is held.
func (n *Node) take(entries []Entry, last configuration) {
	n.heard = time.Now()
	before := n.upTo
	for _, e := range entries {
		n.upTo = max(n.upTo, e.Revision)
		n.revision = max(n.revision, e.Revision)
		if name, is := cutPrefix(e.Key, n.nodePrefix()); is {
			n.hearNode(name, e)
		} else if name, is := cutPrefix(e.Key, n.confirmPrefix()); is {
			n.hearDeadline(name, e)
		} else if _, is := cutPrefix(e.Key, n.holdPrefix()); is {
			n.hearHold(e)
		} else if e.Key == n.orderKey() {
			n.hearOrder(e)
		}
	}
	if before < n.known && n.upTo >= n.known && n.newest != nil && len(n.newest.Unconfirmed) > 0 {
		n.poke(n.wake) // what is over may be undone now
	}
	n.hearConfig(last)
	n.poke(n.glance)
}

func cutPrefix(key, prefix string) (string, bool) {
	if len(key) > len(prefix) && key[:len(prefix)] == prefix {
		return key[len(prefix):], true
	}
	return "", false
}

// configuration is what the key of the configuration has. The zero one is nothing heard.
type configuration struct {
	Entry
	document *document
	err      error // why it cannot be used
}

// read reads what the key of the configuration has. With many hosts that takes a while, so
// n.mu is not held. What this node has written itself needs no reading.
func (n *Node) read(e Entry) configuration {
	n.mu.Lock()
	old, mine := e.Revision <= n.known, n.offered
	n.mu.Unlock()
	if old {
		return configuration{}
	}
	c := configuration{Entry: e}
	switch {
	case e.Deleted:
	case mine.document != nil && bytes.Equal(e.Value, mine.value):
		c.document = mine.document
	default:
		if c.document, c.err = decode(e.Value, n.opt.Config.Name); c.err != nil {
			c.err = fmt.Errorf("what the store has in %s %w", e.Key, c.err)
		}
	}
	return c
}

// hearConfig takes in what the key of the configuration has. n.mu is held.
func (n *Node) hearConfig(c configuration) {
	if c.Revision <= n.known {
		return
	}
	n.known, n.newest, n.unusable, n.newestAt = c.Revision, c.document, c.err, time.Now()
	if c.Deleted {
		n.known, n.emptyAt = 0, time.Now()
	}
	n.poke(n.wake)
}

// offer is a document that this node has sent to the store, and its value there.
type offer struct {
	document *document
	value    []byte
}

// offers notes a document that this node is about to write.
func (n *Node) offers(doc *document, value []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.offered = offer{doc, value}
}

// hearNode takes in what the key of a node has. n.mu is held.
func (n *Node) hearNode(name string, e Entry) {
	if e.Deleted {
		delete(n.members, name)
	} else {
		n.hearMember(name, e)
	}
	if n.sharing != nil {
		n.poke(n.sharing.wake)
	}
	n.heardLimits()
	if name == n.name && n.mine != 0 && e.Revision > n.mine && (e.Deleted || n.members[name].Instance != n.instance) {
		n.loses(errDispossessed)
	}
}
