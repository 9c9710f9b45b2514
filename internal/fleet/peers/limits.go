package peers

import (
	"encoding/json"
	"errors"
	"fmt"
)

// What nodes say of shared limits. Here it is text with a key: what it means, only who says it
// and who reads it know.

// limitRow is a row of it.
type limitRow struct {
	Key  string          `json:"k"`
	Says json.RawMessage `json:"v,omitempty"`
}

// The bounds of what a node takes.
const (
	// MaxLimits is how many keys a node may have.
	MaxLimits = 1 << 13
	// maxLimit bounds the text of one, and maxLimitKey its key. What a node says of itself names
	// each node twice, with 80 bytes for both if the names are short and 160 if they are long.
	maxLimit, maxLimitKey = 256 << 10, 2 * maxName
	// maxLimits bounds all keys and texts of a node, in bytes.
	maxLimits = 32 << 20
)

// Say says what this node has to say of shared limits: JSON by keys, MaxLimits at most. What is
// not in the map is said no more. The map is read only during the call.
func (x *Exchange) Say(limits map[string]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.limits.replace(limits) {
		x.announce()
	}
}

// NodeLimits is what a live node has said of shared limits.
type NodeLimits struct {
	Node, Addr string
	Version    uint64            // another one whenever Says has changed
	Says       map[string]string // by key; it must not be changed, or kept
}

// Limits calls f with what each live node has said of shared limits. One that was lost since the
// Heard was made is not live: its tables are empty, as if it had never said anything.
func (h *Heard) Limits(f func(NodeLimits)) {
	for i, p := range h.peers {
		if p.live {
			f(NodeLimits{h.Names[i], p.member.Addr, p.limitsAt, p.limits})
		}
	}
}

// tellLimits says what is new of limits.
func (f *follower) tellLimits() error {
	for {
		f.x.mu.RLock()
		rows, next, ok := f.x.limits.since(f.limits, perEvent)
		f.x.mu.RUnlock()
		if !ok {
			return errBehind
		}
		if len(rows) == 0 {
			return nil
		}
		var c change[limitRow]
		for i, room := 0, maxEvent/2; i < len(rows); i++ {
			r := &rows[i]
			if room -= 6*len(r.key) + len(r.value); room < 0 && i > 0 {
				next = rows[i-1].version
				break
			}
			if r.gone {
				c.Gone = append(c.Gone, limitRow{Key: r.key})
			} else {
				c.Set = append(c.Set, limitRow{r.key, json.RawMessage(r.value)})
			}
		}
		f.limits = next
		if err := f.event("limits", c); err != nil {
			return err
		}
	}
}

// takeLimits takes in what an event says of limits.
func (t *tables) takeLimits(e event) error {
	var c change[limitRow]
	if err := c.read(e); err != nil {
		return err
	}
	for _, r := range c.Gone {
		if text, has := t.limits[r.Key]; has {
			t.limitText -= len(r.Key) + len(text)
			delete(t.limits, r.Key)
		}
	}
	for _, r := range c.Set {
		if len(r.Key) > maxLimitKey || len(r.Says) > maxLimit {
			return &dataError{e.name, errors.New("a limit is too long")}
		}
		was, has := t.limits[r.Key]
		more := len(r.Says) - len(was)
		if !has {
			more += len(r.Key)
		}
		switch {
		case !has && len(t.limits) >= MaxLimits:
			return fmt.Errorf("it tells of more than %d limits", MaxLimits)
		case more > 0 && t.limitText+more > maxLimits:
			return fmt.Errorf("it tells more than %d bytes of limits", maxLimits)
		}
		t.limits[r.Key] = string(r.Says)
		t.limitText += more
	}
	return nil
}
