package conns

import (
	"sync"
	"time"

	"github.com/txlb/txlb/engine/internal/core"
)

// watch ends a session that has been silent for too long. Any goroutine may call
// its methods.
type watch struct {
	mu      sync.Mutex
	timer   *time.Timer // nil: not started, or stopped
	due     time.Time   // when it should go off
	grown   bool        // the session has lived for a while, and has its options
	excused bool        // it went off late, and waits for what has come meanwhile
}

// tolerated is how late a watch may go off in normal operation.
const tolerated = 20 * time.Millisecond

func (w *watch) start(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := w.next(s, s.left())
	w.due = time.Now().Add(left)
	w.timer = time.AfterFunc(left, func() { w.goOff(s) })
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}

// reset sets the watch again by the session's current activity and timeouts. It
// returns false if the watch does not run: the session has no backend yet, or has
// ended.
func (w *watch) reset(s *session) (runs bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(w.next(s, s.left()))
	return w.timer != nil
}

// retime is reset when the timeouts have changed.
func (w *watch) retime(s *session) (runs bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(w.next(s, min(s.silence(), s.until(s.admission.LateAgeLimit(int32(s.id), s.of.home.Clock())))))
	return w.timer != nil
}

// next returns when the watch has to look at a session that has so much time left: it also
// sees to it that the session gets its options.
func (w *watch) next(s *session, left time.Duration) time.Duration {
	if !w.grown {
		left = min(left, max(time.Duration(core.TuneAfter)-time.Since(s.started), 0))
	}
	return left
}

func (w *watch) set(left time.Duration) {
	if w.timer != nil {
		w.due = time.Now().Add(left)
		w.timer.Reset(max(left, 0))
	}
}

// goOff is called by the timer. If it is late, the process may have stood still,
// and what has come meanwhile is not read yet. The goroutines that read it then get
// as much time as the watch was late, a second at most.
func (w *watch) goOff(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil && !w.grown && time.Since(s.started) >= time.Duration(core.TuneAfter) {
		w.grown = true
		s.grownUp()
	}
	if left := s.left(); left > 0 {
		w.excused = false
		w.set(w.next(s, left))
		return
	}
	if s.until(s.admission.AgeLimit(int32(s.id))) <= 0 {
		s.end(core.Aged)
		return
	}
	if late := time.Since(w.due); late > tolerated && !w.excused {
		w.excused = true
		w.set(min(late, time.Second))
		return
	}
	if s.over[client].Load() && !s.over[backend].Load() {
		s.end(core.ServerTimeout)
	} else {
		s.end(core.ClientTimeout)
	}
}
