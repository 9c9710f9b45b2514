package peers

import "container/list"

// feed is a table that others follow: each follower has a cursor, and is given what has
// changed since. So a slow follower costs no memory: it misses what lies between, and gets
// what is there when it has time. Its owner locks it.
type feed[K, V comparable] struct {
	rows    map[K]*list.Element // of row[K, V]
	order   list.List           // of row[K, V]: what changed last is at the back
	version uint64              // of the last change
	gone    int                 // rows of order that say that there is none any more
	floor   uint64              // cursors before it have missed that a row has gone
}

// row is a key with its value.
type row[K, V comparable] struct {
	key     K
	value   V
	gone    bool
	version uint64
}

func newFeed[K, V comparable]() *feed[K, V] { return &feed[K, V]{rows: map[K]*list.Element{}} }

// put changes a row, and tells whether that is something new.
func (f *feed[K, V]) put(key K, value V) bool {
	e := f.rows[key]
	if e != nil && !e.Value.(*row[K, V]).gone && e.Value.(*row[K, V]).value == value {
		return false
	}
	f.version++
	if e == nil {
		f.rows[key] = f.order.PushBack(&row[K, V]{key: key, value: value, version: f.version})
		return true
	}
	r := e.Value.(*row[K, V])
	if r.gone {
		f.gone--
	}
	r.value, r.gone, r.version = value, false, f.version
	f.order.MoveToBack(e)
	return true
}

// spareGone is how many rows that have gone are kept at least.
const spareGone = 1024

// replace makes the feed say what all has, and tells whether that is something new.
func (f *feed[K, V]) replace(all map[K]V) (changed bool) {
	for k, v := range all {
		changed = f.put(k, v) || changed
	}
	if len(f.rows)-f.gone != len(all) {
		for k, e := range f.rows {
			r := e.Value.(*row[K, V])
			if _, has := all[k]; has || r.gone {
				continue
			}
			f.version++
			r.gone, r.version = true, f.version
			f.gone++
			f.order.MoveToBack(e)
			changed = true
		}
	}
	if f.gone > spareGone+len(all) {
		for k, e := range f.rows {
			if e.Value.(*row[K, V]).gone {
				f.order.Remove(e)
				delete(f.rows, k)
			}
		}
		f.gone, f.floor = 0, f.version
	}
	return changed
}

// since returns rows that have changed since a cursor, what changed first before, and the
// cursor behind them. ok is false if the follower has to begin again with cursor 0.
func (f *feed[K, V]) since(cursor uint64, most int) (rows []row[K, V], next uint64, ok bool) {
	if cursor != 0 && cursor < f.floor {
		return nil, 0, false
	}
	if cursor >= f.version {
		return nil, cursor, true
	}
	e, n := f.order.Back(), 0
	for ; e != nil && e.Value.(*row[K, V]).version > cursor; e = e.Prev() {
		n++
	}
	if e == nil {
		e = f.order.Front()
	} else {
		e = e.Next()
	}
	rows = make([]row[K, V], 0, min(n, most))
	next = cursor
	for ; e != nil && len(rows) < most; e = e.Next() {
		r := e.Value.(*row[K, V])
		rows = append(rows, *r)
		next = r.version
	}
	if e == nil {
		next = f.version
	}
	return rows, next, true
}
