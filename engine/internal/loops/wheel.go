//go:build linux

package loops

import "math/bits"

// A wheel keeps the timers of one loop: a hierarchical timing wheel (Varghese
// and Lauck, 1987) of four levels with 64 slots each. Adding and deleting are
// O(1) and allocate nothing; a timer is never early and at most one tick late.
// It knows no clock: times are nanoseconds on the loop's own clock.
type wheel struct {
	tick  int64              // the last tick that was run
	count int                // timers in the wheel
	full  [levels]uint64     // bit s: slot s of the level holds a timer
	slots [levels][64]*timer // heads of circular lists
	fire  func(t *timer, now int64)
}

const (
	levels    = 4
	tickShift = 23             // a tick is 2^23 ns, 8.4 ms
	tickSize  = 1 << tickShift // ns
)

// timer is one deadline, embedded in what waits for it. It is in a wheel
// exactly while next is not nil.
type timer struct {
	next, prev  *timer
	when        int64 // ns
	owner       *session
	level, slot uint8
}

func (t *timer) armed() bool { return t.next != nil }

// set moves t to fire at when, wherever it was before.
func (w *wheel) set(t *timer, when int64) {
	w.stop(t)
	t.when = when
	w.count++
	w.place(t, max((when+tickSize-1)>>tickShift, w.tick+1))
}

// stop takes t out of the wheel; one that is in none stays so.
func (w *wheel) stop(t *timer) {
	if !t.armed() {
		return
	}
	w.count--
	w.unlink(t)
}

// place links t into the slot of tick at, which must not lie before w.tick.
func (w *wheel) place(t *timer, at int64) {
	level, slot := levels-1, 0
	for k := range levels {
		if at>>(6*k)-w.tick>>(6*k) < 64 {
			level, slot = k, int(at>>(6*k))&63
			break
		}
		if k == levels-1 { // beyond the horizon (39 h): come back on the way
			slot = int(w.tick>>(6*k)+63) & 63
		}
	}
	t.level, t.slot = uint8(level), uint8(slot)
	head := w.slots[level][slot]
	if head == nil {
		t.next, t.prev = t, t
		w.slots[level][slot] = t
		w.full[level] |= 1 << slot
		return
	}
	t.next, t.prev = head, head.prev
	head.prev.next = t
	head.prev = t
}

func (w *wheel) unlink(t *timer) {
	if t.next == t {
		w.slots[t.level][t.slot] = nil
		w.full[t.level] &^= 1 << t.slot
	} else {
		t.prev.next, t.next.prev = t.next, t.prev
		if w.slots[t.level][t.slot] == t {
			w.slots[t.level][t.slot] = t.next
		}
	}
	t.next, t.prev = nil, nil
}

// nextTick returns the first tick after w.tick at which a slot is due, be it
// to fire or to be spread over the level below. It is false for an empty wheel.
func (w *wheel) nextTick() (int64, bool) {
	best, found := int64(0), false
	for k := range levels {
		from := w.tick>>(6*k) + 1
		ahead := bits.RotateLeft64(w.full[k], -int(from&63))
		if ahead == 0 {
			continue
		}
		at := (from + int64(bits.TrailingZeros64(ahead))) << (6 * k)
		if !found || at < best {
			best, found = at, true
		}
	}
	return best, found
}

// next returns the time of the next run, false for an empty wheel.
func (w *wheel) next() (int64, bool) {
	at, ok := w.nextTick()
	return at << tickShift, ok
}

// run fires every timer that is due at now. A callback may set and stop any
// timer; one that it sets fires in a later run.
func (w *wheel) run(now int64) {
	target := now >> tickShift
	for {
		at, ok := w.nextTick()
		if !ok || at > target {
			w.tick = max(w.tick, target)
			return
		}
		w.tick = at
		for k := levels - 1; k > 0; k-- {
			if at&(1<<(6*k)-1) != 0 {
				continue
			}
			// Spread the slot over the levels below. Each of its timers is
			// within reach of a lower level now, or beyond the horizon still.
			slot := int(at>>(6*k)) & 63
			for t := w.slots[k][slot]; t != nil; t = w.slots[k][slot] {
				w.unlink(t)
				w.place(t, max((t.when+tickSize-1)>>tickShift, at))
			}
		}
		slot := int(at) & 63
		for t := w.slots[0][slot]; t != nil; t = w.slots[0][slot] {
			w.unlink(t)
			w.count--
			w.fire(t, now)
		}
	}
}
