package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/handover"
	"github.com/txlb/txlb/internal/status"
)

// This is the side of the process that hands over. The other one is in predecessor_linux.go,
// and docs/design/hand-over.md tells how both go on together.

const (
	// handoverVariable is where a process finds the socket to the one whose place it takes.
	handoverVariable = "TXLB_HANDOVER"
	// handoverFile is its number there: the first behind standard error.
	handoverFile = 3
	// stepWithin is how long one step of the new process may take once it serves.
	stepWithin = 10 * time.Second
	// leftEvery is how often the new process is told what the old one still has.
	leftEvery = time.Second
	// countsEvery is every how many times it is told counters as well.
	countsEvery = 5
)

// estate is what the new process gets beside sockets and sessions.
type estate struct {
	Director json.RawMessage   `json:"director"`          // of director.Export
	Samples  json.RawMessage   `json:"samples,omitempty"` // of status.Export
	Stored   map[string]string `json:"stored,omitempty"`
	Parts    *fleet.Parts      `json:"parts,omitempty"`   // of shared limits, as they are then
	Lineage  []string          `json:"lineage,omitempty"` // of the node in its fleet
}

// lot is a listening socket with what it is for: a service, or a surface.
type lot struct {
	Service string `json:"service,omitempty"`
	Listen  string `json:"listen"` // as the configuration says it
	Name    string `json:"name"`   // of the file
	Lent    bool   `json:"lent,omitempty"`
	Surface string `json:"surface,omitempty"`
}

// news are what has changed since the new process was given its estate.
type news struct {
	Director json.RawMessage `json:"director"` // of director.ExportChanges
	Samples  json.RawMessage `json:"samples"`  // of status.Source.Export
	Parts    *fleet.Parts    `json:"parts,omitempty"`
}

// settlement is what the new process learns with its sessions.
type settlement struct {
	Director json.RawMessage `json:"director,omitempty"` // of director.ExportChanges
	By       string          `json:"by"`                 // who asked for it
	From     string          `json:"from,omitempty"`
}

// left is what the old process still has.
type left struct {
	Sessions int64           `json:"sessions"`
	Director json.RawMessage `json:"director,omitempty"` // counters, of director.ExportChanges
}

// upgrader hands everything over to a new process: once, when it is asked to and all goes
// well. Until then any goroutine may ask.
type upgrader struct {
	log     *slog.Logger
	program string // to start
	demo    bool   // this is no txlb run
	engine  engine.Engine
	dir     *director.Director
	front   *front
	systemd *supervisor
	status  *status.Source
	store   *store
	node    *node         // nil: it is in no fleet
	within  time.Duration // upgradeWithin, but for tests

	ctx  context.Context // of attempts
	stop context.CancelFunc
	gone chan struct{} // closed when another process has taken over

	mu       sync.Mutex
	refusal  string // why none can be begun; "": one can
	running  sync.WaitGroup
	result   upgraded
	heir     *heir // once gone is closed
	finished bool
}

// newUpgrader returns one that refuses until open.
func newUpgrader(log *slog.Logger) *upgrader {
	u := &upgrader{log: log, within: upgradeWithin, gone: make(chan struct{}), refusal: "txlb is starting"}
	u.ctx, u.stop = context.WithCancel(context.Background())
	return u
}

// open makes upgrades possible.
func (u *upgrader) open() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.finished {
		u.refusal = u.never()
	}
}

// never tells why this process can never be upgraded.
func (u *upgrader) never() string {
	switch {
	case u.demo:
		return "only txlb run can be upgraded"
	case u.dir.State().Config.Engine.Keeper: // the keeper would give the sessions to both
		return "no hand-over with <engine keeper=\"yes\">. After systemctl kill --signal=KILL txlb, the new program goes on with silent sessions and resets the others; systemctl restart txlb drains, and sessions end"
	case os.Getpid() == 1:
		return "txlb is process 1, with whose end the container ends: start a new container instead"
	case !managed() && os.Getppid() == 1:
		return "the parent of txlb is process 1, which would not learn of the new process: it has started txlb, or what has started it is gone. Restart txlb instead (a unit of systemd needs Type=notify)"
	}
	return ""
}

// end ends an upgrade that is under way, unless the new process has taken over by then, and
// refuses all others. It waits for that.
func (u *upgrader) end(why string) {
	u.mu.Lock()
	u.finished, u.refusal = true, why
	u.mu.Unlock()
	u.stop()
	u.running.Wait()
}

// upgrade starts the installed program and hands over to it. It returns when that has taken
// over, or why not: then all is as it was. by and from say who asks. When ctx ends, the
// upgrade goes on.
func (u *upgrader) upgrade(ctx context.Context, by, from string) (upgraded, error) {
	u.mu.Lock()
	if u.refusal != "" {
		defer u.mu.Unlock()
		return upgraded{}, errors.New(u.refusal)
	}
	u.refusal = errUpgrading.Error()
	done := make(chan error, 1)
	u.running.Go(func() { done <- u.attempt(by, from) })
	u.mu.Unlock()
	select {
	case err := <-done:
		return u.result, err
	case <-ctx.Done():
		return upgraded{}, ctx.Err()
	}
}

// attempt does an upgrade.
func (u *upgrader) attempt(by, from string) error {
	began := time.Now()
	u.log.Info("upgrade begun", "program", u.program, "by", by)
	h, result, err := u.handOver(by, from)
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		if !u.finished {
			u.refusal = ""
		}
		u.log.Error("upgrade failed, going on", "program", u.program, "err", err)
		return err
	}
	u.finished, u.refusal = true, fmt.Sprintf("process %d has taken over: ask that", result.pid)
	u.result, u.heir = result, h
	u.log.Info("handed over", "pid", result.pid, "version", result.version, "moved", result.moved, "stay", result.stay, "took", time.Since(began).Round(time.Millisecond).String(), "lost", result.lost)
	close(u.gone)
	return nil
}

// handOver does the steps of an upgrade. On error it has undone them.
func (u *upgrader) handOver(by, from string) (_ *heir, result upgraded, err error) {
	h, err := startHeir(u.ctx, u.program)
	if err != nil {
		return nil, result, err
	}
	undo := []func(){h.kill} // in reverse
	defer func() {
		if err == nil {
			return
		}
		err = h.explain(err)
		for _, f := range slices.Backward(undo) {
			f()
		}
		h.close()
	}()
	interrupt := context.AfterFunc(u.ctx, h.interrupt)
	defer interrupt()
	h.limit(u.within)

	peer, err := h.conn.Greet(handover.Hello{Format: handover.Format, Version: version, PID: os.Getpid()})
	if err != nil {
		return nil, result, err
	}
	result.pid, result.version = peer.PID, peer.Version
	// Not for ever: a file may be on a disk that hangs, and all changes are refused until this ends.
	freezing, cancel := context.WithTimeout(u.ctx, u.within)
	defer cancel()
	thaw, err := u.dir.FreezeIn(freezing, errUpgrading)
	if err != nil {
		return nil, result, err
	}
	undo = append(undo, thaw)
	if why := u.never(); why != "" { // by a change since the start
		return nil, result, errors.New(why)
	}
	if err := u.give(h); err != nil {
		return nil, result, err
	}

	// The new process could serve, and holds the same listening sockets. From now on it does.
	h.limit(stepWithin)
	if err := h.ask(handover.KindServe, nil); err != nil {
		return nil, result, err
	}
	u.engine.Pause()
	u.front.pause()
	undo = append(undo, func() { u.engine.Resume(); u.front.resume() })
	// Who reads counters from now on asks the new process, and must not see less than before.
	undo = append(undo, u.node.keepParts, h.kill) // that process first: both would use one part
	h.limit(stepWithin)
	if err := u.tell(h); err != nil {
		return nil, result, err
	}
	move := engine.NewMove(0, int(u.active()), nil, nil) // an older program would reset them
	if peer.Moves >= engine.MoveFormat {
		move, err = u.engine.MoveSessions(u.ctx, h.move)
	}
	undo = append(undo, func() {
		h.kill()
		back, lost := move.TakeBack()
		u.log.Warn("sessions taken back", "back", back, "lost", lost)
	})
	if err != nil {
		return nil, result, err
	}
	result.moved, result.stay, result.lost = move.Moved-h.lost, move.Stay, h.lost
	last := settlement{By: by, From: from}
	if last.Director, err = u.dir.ExportChanges(); err != nil {
		return nil, result, err
	}
	body, err := json.Marshal(last)
	if err != nil {
		return nil, result, err
	}
	h.limit(stepWithin)
	if err := h.ask(handover.KindCommit, body); err != nil {
		return nil, result, err
	}
	// From here on there is no way back. If the new process dies, that is the crash of the
	// service, which systemd sees and restarts.
	u.node.handOver() // before the other process joins
	move.Commit()
	u.front.release()
	u.systemd.handOver(peer.PID)
	_ = h.conn.SetDeadline(time.Now().Add(stepWithin))
	_ = h.conn.Send(handover.KindYours, nil)
	return h, result, nil
}

// give gives the new process all that it needs to serve.
func (u *upgrader) give(h *heir) error {
	state, err := u.dir.Export()
	if err != nil {
		return err
	}
	samples, err := u.status.Export()
	if err != nil {
		return err
	}
	body, err := json.Marshal(estate{state, samples, u.store.stored(), u.node.parts(false), u.node.lineage()})
	if err != nil {
		return err
	}
	if err := h.conn.Send(handover.KindState, body); err != nil {
		return err
	}
	sockets, err := u.engine.Sockets()
	if err != nil {
		return err
	}
	var parcels []handover.Parcel
	var files []*os.File
	defer func() {
		for _, file := range files {
			_ = file.Close()
		}
	}()
	add := func(l lot, file *os.File) error {
		files = append(files, file)
		state, err := json.Marshal(l)
		parcels = append(parcels, handover.Parcel{State: state, Files: 1})
		return err
	}
	for _, s := range sockets {
		err = errors.Join(err, add(lot{Service: s.Service, Listen: s.Listen, Name: s.File.Name(), Lent: s.Lent}, s.File))
	}
	surfaces, problem := u.front.sockets()
	err = errors.Join(err, problem)
	for _, s := range surfaces {
		err = errors.Join(err, add(lot{Surface: s.surface, Listen: s.address, Name: s.address}, s.file))
	}
	for i := 0; err == nil && i < len(files); i += handover.MaxFiles {
		to := min(i+handover.MaxFiles, len(files))
		err = h.ask(handover.KindSockets, handover.Pack(parcels[i:to]), files[i:to]...)
	}
	if err != nil {
		return err
	}
	return h.ask(handover.KindPrepare, nil)
}

// tell tells the new process what has changed while it started.
func (u *upgrader) tell(h *heir) error {
	var n news
	var err error
	if n.Director, err = u.dir.ExportChanges(); err != nil {
		return err
	}
	if n.Samples, err = u.status.Export(); err != nil {
		return err
	}
	n.Parts = u.node.parts(true)
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return h.ask(handover.KindNews, body)
}

// tellLeft tells the new process what this one still has, until ctx ends, and what it has
// counted, the last time at the end. What before still has belongs to it.
func (u *upgrader) tellLeft(ctx context.Context, before *predecessor) {
	tick := time.NewTicker(leftEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		over := ctx.Err() != nil
		var has left
		if f := before.former(); f != nil {
			has.Sessions += f.Sessions
		}
		has.Sessions += u.active()
		if over || n%countsEvery == 0 {
			has.Director, _ = u.dir.ExportChanges() // without them, the next word has them
		}
		_ = u.heir.conn.SetDeadline(time.Now().Add(stepWithin))
		if u.heir.conn.SendJSON(handover.KindLeft, has) != nil || over {
			return // one of them has ended
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// active returns how many sessions this process has.
func (u *upgrader) active() (n int64) {
	for _, s := range u.engine.Snapshot().Services {
		n += s.Active
	}
	return n
}

// endSuccessor asks the process that has taken over to stop.
func (u *upgrader) endSuccessor() { _ = u.heir.process.Signal(syscall.SIGTERM) }

// succeeded tells whether the process that has taken over has not ended, as far as is known.
func (u *upgrader) succeeded() bool {
	if u.heir.pidfd < 0 {
		return true
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(u.heir.pidfd), Events: unix.POLLIN}}, 0)
	return n == 0 || err != nil
}

// heir is the process that takes over.
type heir struct {
	ctx     context.Context // of the attempt; its end interrupts what waits for the process
	conn    *handover.Conn
	allowed time.Duration // of limit
	process *os.Process
	pidfd   int // -1: the kernel has none
	lost    int // sessions that it could not take over, and has reset
	dead    sync.Once
}

// startHeir starts a program, with the arguments of this process, as the child of this
// process's parent: a service manager then sees its end as that of any main process.
func startHeir(ctx context.Context, program string) (*heir, error) {
	conn, there, err := handover.Pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = there.Close() }()
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return name == handoverVariable || name == "WATCHDOG_PID" || strings.HasPrefix(name, "LISTEN_")
	}), fmt.Sprintf("%s=%d", handoverVariable, handoverFile))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{there}
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT, PidFD: &pidfd}
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot start %s: %w", program, cause(err))
	}
	return &heir{ctx: ctx, conn: conn, process: cmd.Process, pidfd: pidfd}, nil
}

// cause leaves out the operation and the path of an error.
func cause(err error) error {
	if at := (*os.PathError)(nil); errors.As(err, &at) {
		return at.Err
	}
	return err
}

// limit bounds how long the process may take from now on.
func (h *heir) limit(d time.Duration) {
	h.allowed = d
	_ = h.conn.SetDeadline(time.Now().Add(d))
	if h.ctx.Err() != nil {
		h.interrupt() // this may have undone an earlier one
	}
}

// interrupt makes what waits for the process fail.
func (h *heir) interrupt() { _ = h.conn.SetDeadline(time.Unix(1, 0)) }

// ask sends a message and waits until the process has done what it says.
func (h *heir) ask(kind handover.Kind, body []byte, files ...*os.File) error {
	_, err := h.answer(kind, body, files...)
	return err
}

func (h *heir) answer(kind handover.Kind, body []byte, files ...*os.File) ([]byte, error) {
	if err := h.conn.Send(kind, body, files...); err != nil {
		// It may have said why before it went.
		if _, said := h.conn.Answer(); errors.As(said, new(*handover.ReportedError)) {
			return nil, said
		}
		return nil, err
	}
	return h.conn.Answer()
}

// move gives a batch of sessions to the process. On error, the process has ended.
func (h *heir) move(batch []engine.Moved) error {
	h.limit(stepWithin)
	for len(batch) > 0 {
		var parcels []handover.Parcel
		var files []*os.File
		for len(batch) > 0 && len(files)+len(batch[0].Files) <= handover.MaxFiles {
			p := handover.Parcel{State: batch[0].State}
			for _, file := range batch[0].Files {
				if file != nil {
					files = append(files, file)
					p.Files++
				}
			}
			parcels, batch = append(parcels, p), batch[1:]
		}
		answer, err := h.answer(handover.KindMove, handover.Pack(parcels), files...)
		if err != nil {
			h.kill()
			return err
		}
		lost := 0
		_ = json.Unmarshal(answer, &lost) // an older program may not say it
		h.lost += lost
	}
	return nil
}

// explain makes of the error of a step one that says what is wrong with the process.
func (h *heir) explain(err error) error {
	pid := h.process.Pid
	switch {
	case errors.As(err, new(*handover.ReportedError)), errors.As(err, new(*handover.FormatError)):
		return fmt.Errorf("the new process %d: %w", pid, err)
	case h.ctx.Err() != nil:
		return errors.New("txlb is going to stop")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the new process %d has not answered within %v", pid, h.allowed)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the new process %d has ended; what it said is in the log", pid)
	}
	return err
}

// kill ends the process and waits for that.
func (h *heir) kill() {
	h.dead.Do(func() {
		if h.process.Signal(syscall.SIGKILL) != nil {
			return // it has ended
		}
		// It is no child, to be waited for.
		for h.pidfd >= 0 {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}, int(stepWithin.Milliseconds()))
			if !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	})
}

// close gives up what this process has of it.
func (h *heir) close() {
	_ = h.conn.Close()
	_ = h.process.Release()
	if h.pidfd >= 0 {
		_ = unix.Close(h.pidfd)
		h.pidfd = -1
	}
}
