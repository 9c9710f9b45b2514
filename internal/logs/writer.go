package logs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ringBytes bounds the lines that wait for the sink.
	ringBytes = 1 << 20
	// reserved of them are for warnings and errors.
	reserved = ringBytes / 4
	// gapBytes is room for the line about lines that are missing.
	gapBytes = 1 << 10
	// chunkBytes is how much the sink gets at once, unless a line has more.
	chunkBytes = 64 << 10
	// keptBytes is how large a buffer is kept when it is empty: what an access log has in
	// 25 ms at 20,000 sessions a second. To make it again each time took a third of the
	// log's CPU time.
	keptBytes = 256 << 10
	// again is how long after a failure the sink is tried again.
	again = 250 * time.Millisecond
	// patience bounds the wait of Reopen and Move, once for the new sink to be open
	// and once for the old one to finish.
	patience = time.Second
	// flushTime bounds the wait of Close for the sink.
	flushTime = time.Second
	// stuckAfter is how long a sink may take for a chunk until Stats says so.
	stuckAfter = time.Second
)

// Writer writes lines to a sink: a file, a FIFO, standard error. No method waits
// for the sink for longer than Close and Reopen say; Write does not wait at all.
// All methods may be called from any goroutine.
type Writer struct {
	name    string
	off     bool        // without a path, lines are thrown away
	journal atomic.Bool // the sink is systemd's journal

	wake    chan struct{} // holds something if there is something for run to do
	closing chan struct{}
	close   sync.Once
	done    chan struct{} // closed when run has ended

	mu      sync.Mutex
	pending []byte // whole lines
	spare   []byte // the other buffer
	flight  int    // bytes that run has taken and not written
	closed  bool
	report  func(gap) []byte
	gap     gap // not reported
	stats   Stats
	busy    time.Time // since when the sink has a chunk; zero: it has none
	path    string    // where it should write
	wish    string    // path, or what is being opened
	asked   int       // how often another sink was asked for
	// next is the sink that was asked for last, until run takes it. While run
	// changes to it, changing is set. moved is closed, and replaced, after that.
	next     *sink
	changing bool
	moved    chan struct{}
}

// gap are lines that are missing at one place.
type gap struct {
	lines  uint64
	since  time.Time
	reason string
}

func (g gap) record(message string) slog.Record {
	r := slog.NewRecord(time.Now(), slog.LevelWarn, message, 0)
	r.AddAttrs(slog.Uint64("lines", g.lines), slog.Time("since", g.since), slog.String("reason", cut(g.reason, strangersValue)))
	return r
}

// Stats are what a Writer has to say of itself.
type Stats struct {
	Name    string    // log, audit or access
	Path    string    // "": standard error
	Dropped uint64    // lines, ever
	Last    time.Time // when the last line was dropped; zero: none was
	// Since is when the sink failed or began to hang, zero if it takes lines, and
	// Reason tells why.
	Since  time.Time
	Reason string
}

// Open starts the writer of the log at path, which is created if need be; lines
// are appended. An empty path is standard error. A FIFO need not have a reader.
func Open(path string) (*Writer, error) { return newWriter("log", path, false) }

// OpenAudit starts the writer of the audit file at path; see [Open]. With an
// empty path it throws everything away.
func OpenAudit(path string) (*Writer, error) { return newWriter("audit", path, true) }

// OpenAccess starts the writer of the access log at path; see [OpenAudit].
func OpenAccess(path string) (*Writer, error) { return newWriter("access", path, true) }

func newWriter(name, path string, off bool) (*Writer, error) {
	w := &Writer{
		name: name, off: off, path: path, wish: path,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
		moved: make(chan struct{}),
	}
	s, err := w.open(path)
	if err != nil {
		return nil, err
	}
	w.journal.Store(s.journal)
	go w.run(s)
	return w, nil
}

// title is what the writer is called in a sentence.
func (w *Writer) title() string {
	if w.name == "access" {
		return "access log"
	}
	return w.name
}

// open opens a sink.
func (w *Writer) open(path string) (*sink, error) {
	if path == "" && w.off {
		return newSink(nil, path), nil
	}
	s, err := openSink(path)
	if err != nil {
		return nil, fmt.Errorf("open the %s: %w", w.title(), err)
	}
	return s, nil
}

// Write takes whole lines. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	w.put(information, "", p)
	return len(p), nil
}

// put takes whole lines, or drops them.
func (w *Writer) put(as priority, prefix string, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.off && w.path == "" {
		return
	}
	room := ringBytes - len(w.pending) - w.flight - len(prefix) - len(p)
	if as < warning {
		room -= reserved
	}
	if w.gap.lines > 0 {
		room -= gapBytes
	}
	if room < 0 {
		w.drop(bytes.Count(p, newline))
		return
	}
	w.tellGap()
	w.pending = append(append(w.pending, prefix...), p...)
	w.signal()
}

// tellGap puts a line where lines are missing, if some are. mu is held.
func (w *Writer) tellGap() {
	if w.gap.lines > 0 && w.report != nil {
		w.pending = append(w.pending, w.report(w.gap)...)
		w.gap = gap{}
	}
}

var newline = []byte("\n")

// drop counts lines that nobody will see. mu is held.
func (w *Writer) drop(lines int) {
	if lines == 0 {
		return
	}
	now := time.Now()
	if w.gap.lines == 0 {
		_, reason := w.trouble(now)
		w.gap.since, w.gap.reason = now, cmp.Or(reason, "lines came faster than they were written")
	}
	w.gap.lines += uint64(lines)
	w.stats.Dropped += uint64(lines)
	w.stats.Last = now
}

// trouble tells since when and why the sink takes nothing; zero if it does. mu is
// held.
func (w *Writer) trouble(now time.Time) (since time.Time, reason string) {
	switch {
	case w.stats.Reason != "":
		return w.stats.Since, w.stats.Reason
	case !w.busy.IsZero() && now.Sub(w.busy) >= stuckAfter:
		return w.busy, "nobody reads it, or the write hangs"
	}
	return time.Time{}, ""
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) reportWith(report func(gap) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report = report
}

// Stats returns what the writer has to say of itself.
func (w *Writer) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Name, s.Path = w.name, w.path
	s.Since, s.Reason = w.trouble(time.Now())
	return s
}

// Reopen opens the path again, so that the file can have been moved away. If it
// cannot be opened, lines go on where they went. Reopen waits two seconds at most: a
// file that takes longer is used when it is open, and the error says so.
func (w *Writer) Reopen() error { return w.move(nil) }

// Move makes lines go to another path; see [Open] and [Writer.Reopen].
func (w *Writer) Move(path string) error { return w.move(&path) }

// move is Move, or Reopen if it gets no path. A Reopen does not undo a Move under way.
func (w *Writer) move(to *string) error {
	w.mu.Lock()
	if to != nil {
		w.wish = *to
	}
	path := w.wish
	w.asked++
	turn := w.asked
	w.mu.Unlock()
	opened := make(chan error, 1)
	go w.openNext(path, turn, opened)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case err := <-opened:
		if err != nil {
			return err
		}
	case <-late.C:
		return fmt.Errorf("open the %s: %s takes longer than %v; it is used when it is open", w.title(), path, patience)
	}
	// The old sink gets the time to finish, so that a caller may take its file away.
	late.Reset(patience)
	for {
		w.mu.Lock()
		waits, moved := w.next != nil || w.changing, w.moved
		w.mu.Unlock()
		if !waits {
			return nil
		}
		select {
		case <-moved:
		case <-w.done:
			return nil
		case <-late.C:
			return nil
		}
	}
}

// openNext opens a sink and gives it to run, if none was asked for later.
func (w *Writer) openNext(path string, turn int, opened chan<- error) {
	s, err := w.open(path)
	w.mu.Lock()
	unused := s
	switch latest := w.asked == turn; {
	case latest && err != nil:
		w.wish = w.path
	case latest && !w.closed:
		unused, w.path, w.next = w.next, path, s
		w.signal()
	}
	w.mu.Unlock()
	if unused != nil {
		unused.end()
	}
	opened <- err
}

// Close writes what is in the ring, waits a second for that at most, and closes
// the file. The error tells how many lines are lost.
func (w *Writer) Close() error {
	w.close.Do(func() {
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		close(w.closing)
	})
	<-w.done
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next != nil { // it was too late
		w.next.end()
		w.next = nil
	}
	if w.gap.lines > 0 {
		return fmt.Errorf("the %s lost %d lines: %s", w.title(), w.gap.lines, w.gap.reason)
	}
	return nil
}

// run gives lines to the sink until the writer is closed. Nothing that it does
// itself waits for the sink.
func (w *Writer) run(s *sink) {
	defer close(w.done)
	r := &runner{w: w, sink: s, retry: time.NewTimer(again)}
	defer r.retry.Stop()
	r.retry.Stop()
	for open := true; open; {
		if next := w.wanted(); next != nil {
			r.change(next)
			w.changed()
		}
		r.feed()
		select {
		case <-w.wake:
		case end := <-r.sink.out:
			r.ended(end)
		case <-r.retry.C:
			r.again()
		case <-w.closing:
			open = false
		}
	}
	r.again() // a last try, if it has failed
	r.drain(flushTime)
	w.lose(r.batch[r.done:])
	r.leave()
}

// runner is the state of run.
type runner struct {
	w       *Writer
	sink    *sink
	batch   []byte // lines that were taken from the ring
	done    int    // bytes of batch that are written
	chunk   int    // bytes that the sink is writing; 0: it is idle
	resting bool   // the sink has failed, and is not tried until retry
	retry   *time.Timer
}

// feed gives the idle sink something to write, if there is something.
func (r *runner) feed() {
	if r.chunk > 0 || r.resting || r.sink.off() { // lines that come while it is off are for the next one
		return
	}
	if r.done == len(r.batch) {
		r.batch, r.done = r.w.take(r.batch), 0
	}
	switch {
	case len(r.batch) == 0:
	case r.sink.absent:
		r.fail(errNoReader)
	default:
		r.chunk = chunkOf(r.batch[r.done:])
		r.w.began(len(r.batch) - r.done)
		r.sink.in <- r.batch[r.done : r.done+r.chunk]
	}
}

// ended takes in how a write ended.
func (r *runner) ended(end written) {
	r.chunk = 0
	r.done += end.n
	if end.err != nil {
		r.fail(end.err)
		return
	}
	r.w.wrote(len(r.batch) - r.done)
}

func (r *runner) fail(err error) {
	r.resting = true
	r.retry.Reset(again)
	r.w.failed(err)
}

// again tries a sink that has failed: a FIFO or a device is reopened, which
// does not wait, and others are written to again. A server is connected to by that write,
// which knows when it may.
func (r *runner) again() {
	if !r.resting {
		return // it was too late to stop the timer
	}
	r.resting = false
	if r.sink.shared || r.sink.lasting {
		return
	}
	next, err := r.w.open(r.sink.path)
	if err != nil {
		r.fail(err)
		return
	}
	r.change(next)
}

// change goes on with another sink. The old one gets the lines so far, if it
// takes them within patience.
func (r *runner) change(next *sink) {
	r.drain(patience)
	r.leave()
	r.sink, r.resting = next, false
	r.retry.Stop()
	r.w.journal.Store(next.journal)
	if next.off() {
		r.batch, r.done = nil, 0
		r.w.clear()
	}
}

// drain writes all lines, as far as the sink takes them within that time.
func (r *runner) drain(within time.Duration) {
	late := time.NewTimer(within)
	defer late.Stop()
	for r.feed(); r.chunk > 0; r.feed() {
		select {
		case end := <-r.sink.out:
			r.ended(end)
		case <-late.C:
			return
		}
	}
}

// leave closes the sink. What it may have written only in part is to be written
// again, whole: the chunk that it does not answer for, or the line in the middle
// of which it failed.
func (r *runner) leave() {
	r.done = bytes.LastIndexByte(r.batch[:r.done], '\n') + 1
	if r.chunk > 0 {
		r.batch, r.done, r.chunk = bytes.Clone(r.batch[r.done:]), 0, 0 // the sink keeps the old one
		r.sink.abandon()
	}
	r.sink.end()
}

// chunkOf returns how many bytes of lines go to the sink at once.
func chunkOf(lines []byte) int {
	if len(lines) <= chunkBytes {
		return len(lines)
	}
	if end := bytes.LastIndexByte(lines[:chunkBytes], '\n'); end >= 0 {
		return end + 1
	}
	return bytes.IndexByte(lines, '\n') + 1
}

// wanted takes the sink that was asked for, nil without one. changed has to
// follow.
func (w *Writer) wanted() *sink {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.next
	w.next, w.changing = nil, s != nil
	return s
}

// changed tells those who wait that lines go to the sink that was wanted.
func (w *Writer) changed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changing = false
	w.busy = time.Time{}
	w.stats.Since, w.stats.Reason = time.Time{}, "" // nothing is known of this one
	close(w.moved)
	w.moved = make(chan struct{})
}

// take returns the lines that wait, and takes back the buffer of those that are
// written. If lines are missing and nothing else will report it, it does.
func (w *Writer) take(written []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := cap(written); n > cap(w.spare) && n <= keptBytes { // nothing may have been written
		w.spare = written[:0]
	}
	if len(w.pending) == 0 && w.stats.Reason == "" {
		w.tellGap()
	}
	if len(w.pending) == 0 {
		return nil
	}
	taken := w.pending
	w.pending, w.spare = w.spare, nil
	w.flight = len(taken)
	return taken
}

func (w *Writer) began(left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy, w.flight = time.Now(), left
}

func (w *Writer) wrote(left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy, w.flight = time.Time{}, left
	w.stats.Since, w.stats.Reason = time.Time{}, ""
}

func (w *Writer) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = time.Time{}
	if w.stats.Reason == "" {
		w.stats.Since = time.Now()
	}
	w.stats.Reason = err.Error()
}

// clear throws away what waits, for a writer that is switched off.
func (w *Writer) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending, w.flight, w.gap = nil, 0, gap{}
	w.stats.Since, w.stats.Reason = time.Time{}, ""
}

// lose counts what will not be written any more.
func (w *Writer) lose(rest []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(bytes.Count(rest, newline) + bytes.Count(w.pending, newline))
	w.pending, w.flight = nil, 0
}

var errNoReader = errors.New("nobody reads the FIFO")
