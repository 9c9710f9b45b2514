package fleet

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// memoryStore is a store in memory with faults to inject. Each node has a link to it.
type memoryStore struct {
	mu        sync.Mutex
	revision  int64
	compacted int64
	keys      map[string]Entry
	owned     map[string]Lease
	leases    map[Lease]*memoryLease
	last      Lease
	log       []Entry       // all writes, the oldest first
	changed   chan struct{} // replaced at each write
	down      error         // what every call answers; nil: it works
	full      error         // what writes answer
	calls     []call        // for simulations; nil: they are not noted
}

// call is what a node has asked, or what it has been told by a watch.
type call struct {
	at        time.Time
	what      string
	bytes     int // of keys and values both ways
	documents int // of those, what is a document
}

// note notes a call. m.mu is held.
func (m *memoryStore) note(what string, entries ...Entry) {
	if m.calls == nil {
		return
	}
	c := call{at: time.Now(), what: what}
	for _, e := range entries {
		c.bytes += len(e.Key) + len(e.Value)
		if strings.HasSuffix(e.Key, "/config") && !e.Deleted {
			c.documents++
			c.bytes -= len(e.Value)
		}
	}
	m.calls = append(m.calls, c)
}

type memoryLease struct {
	ttl   time.Duration
	timer *time.Timer
}

func newMemoryStore() *memoryStore {
	return &memoryStore{keys: map[string]Entry{}, owned: map[string]Lease{}, leases: map[Lease]*memoryLease{}, changed: make(chan struct{})}
}

// set changes the store as somebody else does: faults, or its keys.
func (m *memoryStore) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	m.signal()
}

func (m *memoryStore) signal() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// put writes a key as somebody else does. m.mu is held.
func (m *memoryStore) put(key string, value []byte, lease Lease) int64 {
	m.revision++
	e := Entry{Key: key, Value: bytes.Clone(value), Revision: m.revision}
	m.keys[key], m.owned[key] = e, lease
	m.log = append(m.log, e)
	m.signal()
	return m.revision
}

// remove deletes a key. m.mu is held.
func (m *memoryStore) remove(key string) {
	if _, there := m.keys[key]; !there {
		return
	}
	m.revision++
	delete(m.keys, key)
	delete(m.owned, key)
	m.log = append(m.log, Entry{Key: key, Revision: m.revision, Deleted: true})
	m.signal()
}

// end ends a lease. m.mu is held.
func (m *memoryStore) end(lease Lease) {
	l := m.leases[lease]
	if l == nil {
		return
	}
	l.timer.Stop()
	delete(m.leases, lease)
	for _, key := range slices.Sorted(maps.Keys(m.owned)) {
		if m.owned[key] == lease {
			m.remove(key)
		}
	}
}

// backup returns what puts the store back to what it is now, in place: leases stay.
func (m *memoryStore) backup() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	revision, keys, owned, log := m.revision, maps.Clone(m.keys), maps.Clone(m.owned), slices.Clone(m.log)
	return func() {
		m.set(func() { m.revision, m.keys, m.owned, m.log = revision, keys, owned, log })
	}
}

// link is the connection of one node.
type link struct {
	*memoryStore
	cut       error             // what its calls answer; nil: they arrive. Under memoryStore.mu
	lostReply bool              // the next Swap without a lease takes effect, and its answer is lost
	late      time.Duration     // how long the answer of a Swap is under way
	stalled   bool              // its watches hear nothing
	mute      bool              // a Swap without a lease is not answered
	sessions  func() int64      // that the node has; nil: always 7
	slow      int               // so many calls of Renew are not answered
	readOnly  bool              // nothing can be written
	full      error             // what writes of keys without a lease answer
	compact   bool              // its watch has missed something, once
	wrap      func(Store) Store // what the node gets instead; nil: the link
}

func (m *memoryStore) link() *link { return &link{memoryStore: m} }

func (l *link) connect(context.Context) (Store, error) {
	if l.wrap != nil {
		return l.wrap(l), nil
	}
	return l, nil
}

// count is how many sessions the node has.
func (l *link) count() int64 {
	if l.sessions != nil {
		return l.sessions()
	}
	return 7
}

func (l *link) Close() error { return nil }

var errReadOnly = errors.New("the store takes no writes")

var errCut = errors.New("no route to the store")

// fails is what a call answers. mu is held.
func (l *link) fails() error {
	if l.cut != nil || l.down != nil {
		l.note("failed")
	}
	if l.cut != nil {
		return l.cut
	}
	return l.down
}

func (l *link) Get(_ context.Context, prefix string) (list []Entry, revision int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fails(); err != nil {
		return nil, 0, err
	}
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		if strings.HasPrefix(key, prefix) {
			list = append(list, l.keys[key])
		}
	}
	l.note("read", list...)
	return list, l.revision, nil
}

func (l *link) Swap(ctx context.Context, key string, value []byte, was int64, lease Lease, also ...Write) (int64, Entry, error) {
	var late time.Duration
	defer func() { time.Sleep(late) }() // when the lock is free
	l.mu.Lock()
	late = l.late
	if l.mute && lease == 0 {
		l.mu.Unlock()
		<-ctx.Done()
		return 0, Entry{}, &UnknownError{ctx.Err()}
	}
	defer l.mu.Unlock()
	if err := l.fails(); err != nil {
		return 0, Entry{}, &UnknownError{err}
	}
	l.note("write", Entry{Key: key, Value: value})
	if l.memoryStore.full != nil || l.readOnly {
		return 0, Entry{}, cmp.Or(l.memoryStore.full, errReadOnly)
	}
	if l.full != nil && lease == 0 {
		return 0, Entry{}, l.full
	}
	if is := l.keys[key]; is.Revision != was {
		return 0, is, ErrMoved
	}
	for _, w := range append([]Write{{Lease: lease}}, also...) {
		if w.Lease != 0 && l.leases[w.Lease] == nil {
			return 0, Entry{}, ErrLeaseGone
		}
	}
	revision := l.revision + 1
	if value == nil {
		l.remove(key)
	} else {
		l.put(key, value, lease)
	}
	for _, w := range also {
		if l.revision--; w.Delete { // all have one revision
			l.remove(w.Key)
			l.revision = revision
		} else {
			l.put(w.Key, w.Value, w.Lease)
		}
	}
	if l.lostReply && lease == 0 {
		l.lostReply = false
		return 0, Entry{}, &UnknownError{errors.New("the answer was lost")}
	}
	return revision, Entry{}, nil
}

func (l *link) Watch(ctx context.Context, prefix string, after int64, hear func([]Entry)) error {
	for {
		l.mu.Lock()
		err, changed := l.fails(), l.changed
		if l.stalled {
			l.mu.Unlock()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		if err == nil && (after < l.compacted || l.compact) {
			err, l.compact = ErrCompacted, false
		}
		var news []Entry
		fresh, _ := slices.BinarySearchFunc(l.log, after+1, func(e Entry, revision int64) int { return cmp.Compare(e.Revision, revision) })
		for _, e := range l.log[fresh:] {
			if strings.HasPrefix(e.Key, prefix) {
				news = append(news, e)
				l.note("event", e)
			}
		}
		after = max(after, l.revision)
		l.mu.Unlock()
		if err != nil {
			return err
		}
		if len(news) > 0 {
			hear(news)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (l *link) Grant(_ context.Context, ttl time.Duration) (Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fails(); err != nil {
		return 0, err
	}
	l.note("lease")
	l.last++
	lease, m := l.last, l.memoryStore
	l.leases[lease] = &memoryLease{ttl, time.AfterFunc(ttl, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.end(lease)
	})}
	return lease, nil
}

func (l *link) Renew(ctx context.Context, lease Lease) error {
	l.mu.Lock()
	if l.slow > 0 {
		l.slow--
		l.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	defer l.mu.Unlock()
	if err := l.fails(); err != nil {
		return err
	}
	l.note("renew")
	one := l.leases[lease]
	if one == nil {
		return ErrLeaseGone
	}
	one.timer.Reset(one.ttl)
	return nil
}

func (l *link) Revoke(_ context.Context, lease Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fails(); err != nil {
		return err
	}
	l.end(lease)
	return nil
}
