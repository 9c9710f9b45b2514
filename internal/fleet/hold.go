package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/txlb/txlb/internal/director"
)

// Holds of the fleet: a key for each group, on a lease for as long as the hold lasts. A release
// is written into the same key, so that all nodes learn of it, and stays for releasedFor.
// Nodes count by their own clocks too, so that no client waits for a store that is gone. A store
// that was restarted keeps the key for longer: see holdend.go.

// releasedFor is how long the store tells of a release after that is over: longer than a node
// needs to hear of it. One that was away for longer finds the key gone, which means the same.
const releasedFor = 10 * time.Second

// held is what the key of a hold says.
type held struct {
	Service  string    `json:"service"`
	Group    string    `json:"group"`
	ID       string    `json:"id"` // of the order
	Node     string    `json:"node"`
	By       string    `json:"by"`
	Time     time.Time `json:"time"`
	For      duration  `json:"for"`
	Max      int       `json:"max,omitempty"` // 0: as the node does it
	Released *released `json:"released,omitempty"`

	revision int64     // of the key
	heard    time.Time // when this node has heard of that
}

// lasts tells whether a release that takes its time may still hold on some node.
func (h *held) lasts() bool {
	over := time.Duration(h.Released.Over)
	return over > 0 && time.Since(h.heard) < over+releasedFor
}

// released is a release.
type released struct {
	ID   string    `json:"id,omitempty"` // of the order; "": by a node that did not know it
	Node string    `json:"node"`
	By   string    `json:"by"`
	Time time.Time `json:"time"`
	Over duration  `json:"over,omitempty"`
}

// duration is a time as text, such as 30s.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

// maxHold is how long a hold, or its release, may last. A key that says more is damaged.
const maxHold = 24 * time.Hour

// maxHeld is how many clients a hold may let wait. A key that says more is damaged.
const maxHeld = 1 << 30

// readHeld reads the key of a hold.
func readHeld(value []byte) (h *held, err error) {
	h = new(held)
	if err := json.Unmarshal(value, h); err != nil {
		return nil, err
	}
	switch over := h.Released; {
	case h.ID == "" || h.Service == "" || h.Group == "":
		return nil, errors.New("it has no id, service or group")
	case h.For <= 0 || time.Duration(h.For) > maxHold || h.Max < 0:
		return nil, fmt.Errorf("for %v and max %d are not a hold", time.Duration(h.For), h.Max)
	case h.Max > maxHeld:
		return nil, fmt.Errorf("max %d is not a number of clients", h.Max)
	case over != nil && (over.Over < 0 || time.Duration(over.Over) > maxHold):
		return nil, fmt.Errorf("over %v is not a time", time.Duration(over.Over))
	}
	h.ID, h.Node, h.By = note(h.ID), note(h.Node), note(h.By)
	if r := h.Released; r != nil {
		r.ID, r.Node, r.By = note(r.ID), note(r.Node), note(r.By)
	}
	return h, nil
}

func (n *Node) holdPrefix() string { return n.prefix() + "hold/" }

// holdKey is the key of a group: names may have any characters.
func (n *Node) holdKey(service, group string) string {
	return n.holdPrefix() + url.PathEscape(service) + "/" + url.PathEscape(group)
}

// hearHold takes in what the key of a hold has. n.mu is held.
func (n *Node) hearHold(e Entry) {
	if was := n.holds[e.Key]; was != nil && e.Revision <= was.revision {
		return
	}
	var h *held
	if !e.Deleted {
		var err error
		h, err = readHeld(e.Value)
		if err == nil && n.holdKey(h.Service, h.Group) != e.Key {
			err = errors.New("it is about another group")
		}
		if err != nil {
			n.complain("not a hold, ignored", e.Key, err)
			h = nil
		} else {
			h.revision = e.Revision
		}
	}
	n.noteHold(e.Key, h)
	n.poke(n.wake)
}

// Hold holds a group on all nodes, for [director.Options].Fleet. The error is a *RefusedError
// if the store does not take it, and wraps an *UnknownError if it may still.
func (n *Node) Hold(ctx context.Context, o director.HoldOrder) error {
	err := n.order(ctx, o.Service, o.Group, o.For, func(*held) *held {
		return &held{Service: o.Service, Group: o.Group, ID: newID(), Node: n.name, By: o.By, Time: time.Now(), For: duration(o.For), Max: o.Most}
	})
	if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
		return fmt.Errorf("the store of fleet %s has not said whether it takes the hold, which may still take effect; look at status: %w", n.opt.Config.Name, err)
	}
	if err != nil && ctx.Err() == nil {
		err = &RefusedError{n.opt.Config.Name, err}
	}
	return err
}

// Release ends a hold on all nodes, for [director.Options].Fleet.
func (n *Node) Release(ctx context.Context, o director.ReleaseOrder) (is bool, err error) {
	err = n.order(ctx, o.Service, o.Group, o.Over+releasedFor, func(was *held) *held {
		if is = was != nil && (was.Released == nil || was.lasts()); !is {
			return nil
		}
		next := *was
		next.Released = &released{newID(), n.name, o.By, time.Now(), duration(o.Over)}
		return &next
	})
	if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
		err = fmt.Errorf("the store of fleet %s has not said whether it takes the release: %w", n.opt.Config.Name, err)
		return is, &director.AloneError{Why: err, Unknown: true}
	}
	if err != nil && ctx.Err() == nil {
		return is, &director.AloneError{Why: &RefusedError{n.opt.Config.Name, err}}
	}
	return is, err
}

// order writes the key of a hold, which f makes of what is there, for a time, and tells the
// director. If f returns nil, there is nothing to write.
func (n *Node) order(ctx context.Context, service, group string, lasts time.Duration, f func(was *held) *held) error {
	key := n.holdKey(service, group)
	for range commitTries {
		n.mu.Lock()
		store, was, why := n.store, n.holds[key], n.why
		n.mu.Unlock()
		if store == nil {
			return why
		}
		next := f(was)
		if next == nil {
			return nil
		}
		value, err := json.Marshal(next)
		if err != nil {
			return err
		}
		var lease Lease
		var is Entry
		err = within(ctx, commitWithin, func(ctx context.Context) (err error) {
			if lease, err = store.Grant(ctx, lasts); err == nil {
				next.revision, is, err = store.Swap(ctx, key, value, was.at(), lease)
			}
			return err
		})
		if unknown := (*UnknownError)(nil); lease != 0 && err != nil && !errors.As(err, &unknown) {
			n.release(store, lease) // nothing has it
		}
		if err == nil || errors.Is(err, ErrMoved) {
			n.mu.Lock()
			if err != nil {
				n.hearHold(is.orDeleted(key, was.at()))
			} else if n.store == store && n.upTo < next.revision { // else it has been heard of, and what came then
				n.noteHold(key, next)
				n.poke(n.wake) // its time runs
			}
			n.mu.Unlock()
		}
		if errors.Is(err, ErrMoved) {
			continue
		}
		if err != nil {
			return err
		}
		_ = n.tellHolds(ctx) // if the director hands over, the next process is told
		return ctx.Err()
	}
	return errors.New("the hold changes all the time; try again")
}

// at is the revision of the key; 0: there is none.
func (h *held) at() int64 {
	if h == nil {
		return 0
	}
	return h.revision
}

// tellHolds tells the director which groups are held, if this node knows.
func (n *Node) tellHolds(ctx context.Context) error {
	n.telling.Lock() // the last that is told is the newest
	defer n.telling.Unlock()
	n.mu.Lock()
	joined, list := n.store != nil, make([]director.SharedHold, 0, len(n.holds))
	for _, h := range n.holds {
		s := h.shared(n.name)
		s.End = n.holdEnd(h)
		list = append(list, s)
	}
	n.mu.Unlock()
	if !joined {
		return nil
	}
	return n.dir.HoldShared(ctx, list)
}

// shared is the hold as the director of a node knows it.
func (h *held) shared(node string) director.SharedHold {
	s := director.SharedHold{HoldOrder: director.HoldOrder{
		By: h.By, From: "node " + h.Node, Service: h.Service, Group: h.Group, For: time.Duration(h.For), Most: h.Max, ID: h.ID,
	}, Here: h.Node == node}
	if r := h.Released; r != nil {
		s.Release = &director.ReleaseOrder{By: r.By, From: "node " + r.Node, Service: h.Service, Group: h.Group, Over: time.Duration(r.Over), ID: r.ID}
		s.Here = r.Node == node
	}
	return s
}
