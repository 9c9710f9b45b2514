package fleet

import (
	"fmt"
	"time"
)

// hearAll takes in all that the fleet has.
func (n *Node) hearAll(entries []Entry) {
	n.mu.Lock()
	n.members = map[string]Member{}
	n.mu.Unlock()
	n.hear(entries)
	n.poke(n.wake) // also if there is no configuration
}

// hear takes in what has changed.
func (n *Node) hear(entries []Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard = time.Now()
	for _, e := range entries {
		switch name, is := cutPrefix(e.Key, n.nodePrefix()); {
		case e.Key == n.configKey():
			n.hearConfig(e)
		case is:
			n.hearNode(name, e)
		}
	}
}

func cutPrefix(key, prefix string) (string, bool) {
	if len(key) > len(prefix) && key[:len(prefix)] == prefix {
		return key[len(prefix):], true
	}
	return "", false
}

// hearConfig takes in what the key of the configuration has. n.mu is held.
func (n *Node) hearConfig(e Entry) {
	if e.Revision <= n.known {
		return
	}
	n.known, n.newest, n.unusable, n.newestAt = e.Revision, nil, nil, time.Now()
	if e.Deleted {
		n.known = 0
	} else if n.newest, n.unusable = decode(e.Value, n.opt.Config.Name); n.unusable != nil {
		n.unusable = fmt.Errorf("what the store has in %s %w", e.Key, n.unusable)
	}
	n.poke(n.wake)
}

// hearNode takes in what the key of a node has. n.mu is held.
func (n *Node) hearNode(name string, e Entry) {
	if e.Deleted {
		delete(n.members, name)
	} else if m, err := readMember(e.Value); err == nil {
		m.Name = name
		n.members[name] = m
	}
	if name == n.name && n.mine != 0 && e.Revision > n.mine && (e.Deleted || n.members[name].Instance != n.instance) {
		n.poke(n.dispossessed)
	}
}
