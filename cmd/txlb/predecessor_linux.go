package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/fleet"
	"github.com/txlb/txlb/internal/handover"
	"github.com/txlb/txlb/internal/status"
)

// predecessor is the process whose place this one takes.
type predecessor struct {
	conn *handover.Conn
	peer handover.Hello

	state    *director.Inherited
	samples  []byte
	stored   map[string]string // what is in the descriptor store of systemd
	parts    *fleet.Parts      // of shared limits, as they were when it began
	lineage  []string          // of the node in its fleet
	sockets  []engine.Inherited
	surfaces []entranceFile

	over  bool         // it has committed, or ended: this process owes it nothing
	left  atomic.Int64 // sessions that it still has
	ended chan struct{}
}

// findPredecessor returns the process that has started this one to take its place, with all
// that it gives; nil: nobody has.
func findPredecessor() (*predecessor, error) {
	number := os.Getenv(handoverVariable)
	if number == "" {
		return nil, nil
	}
	_ = os.Unsetenv(handoverVariable)
	if number != fmt.Sprint(handoverFile) {
		return nil, fmt.Errorf("%s=%q is not from a process of txlb", handoverVariable, number)
	}
	unix.CloseOnExec(handoverFile)
	conn, err := handover.Open(os.NewFile(handoverFile, "handover"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", handoverVariable, err)
	}
	p := &predecessor{conn: conn, ended: make(chan struct{})}
	_ = conn.SetDeadline(time.Now().Add(upgradeWithin))
	if p.peer, err = conn.Greet(handover.Hello{Format: handover.Format, Version: version, PID: os.Getpid(), Moves: engine.MoveFormat}); err == nil {
		err = p.receive()
	}
	if err != nil {
		p.fail(err)
		return nil, fmt.Errorf("take over from process %d: %w", p.peer.PID, err)
	}
	return p, nil
}

// fail tells the predecessor why this process does not take over. That goes on then, and ends
// this process, which so does not close what both have. It returns if nobody ends it.
func (p *predecessor) fail(err error) {
	if p == nil || p.over {
		return
	}
	p.over = true
	_ = p.conn.SetDeadline(time.Now().Add(stepWithin))
	p.report(err)
	_ = p.conn.Close()
	for _, one := range p.sockets {
		_ = one.File.Close() // also if the engine has done so
	}
	for _, one := range p.surfaces {
		_ = one.file.Close()
	}
}

// report says why this process does not take over, and waits until the predecessor has ended
// it, or is gone.
func (p *predecessor) report(err error) {
	text := "it was told to stop"
	if err != nil && !errors.Is(err, context.Canceled) {
		text = err.Error()
	}
	for gone := p.conn.Send(handover.KindFailed, []byte(text)); gone == nil; {
		var m handover.Message
		m, gone = p.conn.Receive()
		m.Close()
	}
}

// receive takes what is needed to serve.
func (p *predecessor) receive() error {
	for {
		m, err := p.conn.Receive()
		if err != nil {
			return err
		}
		switch m.Kind {
		case handover.KindState:
			var e estate
			if err = json.Unmarshal(m.Body, &e); err == nil {
				p.stored, p.samples, p.parts, p.lineage = e.Stored, e.Samples, e.Parts, e.Lineage
				p.state, err = director.ReadState(e.Director)
			}
		case handover.KindSockets:
			if err = p.unpack(&m); err == nil {
				err = p.conn.Send(handover.KindDone, nil)
			}
		case handover.KindPrepare:
			if p.state == nil {
				return errors.New("it has not told its state")
			}
			return nil
		default:
			err = fmt.Errorf("it says %v, which does not come here", m.Kind)
		}
		m.Close()
		if err != nil {
			return err
		}
	}
}

// unpack takes listening sockets.
func (p *predecessor) unpack(m *handover.Message) error {
	parcels, err := handover.Unpack(m.Body, len(m.Files))
	if err != nil {
		return err
	}
	files := m.Files
	for i := range parcels {
		var l lot
		if err := json.Unmarshal(parcels[i].State, &l); err != nil {
			return fmt.Errorf("sockets: %w", err)
		}
		if parcels[i].Files != 1 {
			return fmt.Errorf("sockets: %d descriptors for %s", parcels[i].Files, l.Listen)
		}
		file, err := duplicate(files[0], l.Name)
		if err != nil {
			return err
		}
		_ = files[0].Close()
		files[0], files = nil, files[1:]
		if l.Surface != "" {
			p.surfaces = append(p.surfaces, entranceFile{l.Surface, l.Listen, file})
		} else {
			p.sockets = append(p.sockets, engine.Inherited{File: file, Service: l.Service, Listen: l.Listen, Lent: l.Lent})
		}
	}
	return nil
}

// duplicate returns a duplicate with a name.
func duplicate(file *os.File, name string) (dup *os.File, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlled := raw.Control(func(fd uintptr) {
		var n int
		if n, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			dup = os.NewFile(uintptr(n), name)
		}
	})
	return dup, errors.Join(controlled, err)
}

// service is what a process does when it takes over.
type service struct {
	log   *slog.Logger
	serve func()                       // from now on, clients are served
	adopt func([]engine.Moved) []error // takes on sessions
	hear  func(news) error             // what has changed since the state was written; admin interfaces are open then
	learn func(settlement) error       // what has changed since, with the sessions
	count func(counters []byte) error  // what the predecessor counts while it drains
}

// takeOver tells the predecessor that this process could serve, and does what that says then.
// It returns nil when this process is the one that serves, also if that has died by then.
func (p *predecessor) takeOver(ctx context.Context, s service) error {
	_ = p.conn.SetDeadline(time.Time{}) // it has its own limits, and ends this process if need be
	interrupted := make(chan struct{})
	uninterrupted := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = p.conn.SetDeadline(time.Unix(1, 0))
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err := p.conn.Send(handover.KindDone, nil)
	serving := false
	for err == nil {
		var m handover.Message
		if m, err = p.conn.Receive(); err != nil {
			break
		}
		var answer []byte
		switch m.Kind {
		case handover.KindServe:
			s.serve()
			serving = true
		case handover.KindNews:
			var n news
			if err = json.Unmarshal(m.Body, &n); err == nil {
				err = s.hear(n)
			}
		case handover.KindMove:
			answer, err = p.adopt(s, &m)
		case handover.KindCommit:
			p.over = true
			var last settlement
			problem := json.Unmarshal(m.Body, &last)
			if problem == nil {
				problem = s.learn(last)
			}
			if problem != nil { // no reason to stop now
				s.log.Warn("what has changed during the upgrade is not known", "err", problem)
			}
		case handover.KindYours:
			m.Close()
			uninterrupted()
			go p.watch(s)
			return nil
		default:
			err = fmt.Errorf("handover: %v does not come here", m.Kind)
		}
		m.Close()
		if err == nil {
			err = p.conn.Send(handover.KindDone, answer)
		}
	}
	if !uninterrupted() {
		<-interrupted
		err = cmp.Or(ctx.Err(), err)
	}
	if !serving {
		return fmt.Errorf("take over from process %d: %w", p.peer.PID, err)
	}
	if !p.over {
		// An orderly end would reset the sessions that it has given. It takes them back, and
		// kills this process.
		_ = p.conn.SetDeadline(time.Time{})
		p.report(err)
	}
	// It has died: else it would have ended this process.
	s.log.Warn("the former process has ended in the middle of the upgrade, going on", "pid", p.peer.PID, "err", err)
	p.over = true
	_ = p.conn.Close()
	close(p.ended)
	return nil
}

// adopt takes on a batch of sessions. The answer is how many of them were lost.
func (p *predecessor) adopt(s service, m *handover.Message) (answer []byte, err error) {
	parcels, err := handover.Unpack(m.Body, len(m.Files))
	if err != nil {
		return nil, err
	}
	batch := make([]engine.Moved, len(parcels))
	files := m.Files
	for i := range parcels {
		one := &batch[i]
		if parcels[i].Files > len(one.Files) {
			return nil, fmt.Errorf("handover: a session with %d descriptors", parcels[i].Files)
		}
		one.State = parcels[i].State
		copy(one.Files[:], files[:parcels[i].Files])
		files = files[parcels[i].Files:]
	}
	m.Files = nil // they are the engine's now
	lost := 0
	for _, err := range s.adopt(batch) {
		if err != nil {
			lost++
			s.log.Warn("a session could not be taken over, both sides got a reset", "err", err)
		}
	}
	return json.Marshal(lost)
}

// watch takes in what the predecessor still has, until it has ended.
func (p *predecessor) watch(s service) {
	defer close(p.ended)
	defer func() { _ = p.conn.Close() }()
	_ = p.conn.SetDeadline(time.Time{})
	for {
		m, err := p.conn.Receive()
		if err != nil {
			return
		}
		var has left
		if m.Kind == handover.KindLeft && json.Unmarshal(m.Body, &has) == nil {
			p.left.Store(has.Sessions)
			if len(has.Director) > 0 {
				if err := s.count(has.Director); err != nil && !errors.Is(err, director.ErrStopped) {
					s.log.Warn("what the former process counts is not known", "pid", p.peer.PID, "err", err)
				}
			}
		}
		m.Close()
	}
}

// former is what the status says of it; nil: there is nothing to say.
func (p *predecessor) former() *status.Former {
	if p == nil {
		return nil
	}
	select {
	case <-p.ended:
		return nil
	default:
		return &status.Former{PID: p.peer.PID, Sessions: p.left.Load()}
	}
}

// await waits until it has ended, or ctx.
func (p *predecessor) await(ctx context.Context) {
	if p == nil {
		return
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
	}
}
