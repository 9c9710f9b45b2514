package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/txlb/txlb/engine"
	"github.com/txlb/txlb/internal/director"
	"github.com/txlb/txlb/internal/status"
	"github.com/txlb/txlb/internal/words"
)

const (
	// statusEvery is the least time between two status texts for systemd.
	statusEvery = 5 * time.Second
	// extendEvery is how often a process that drains asks systemd for extendBy more.
	extendEvery, extendBy = 5 * time.Second, 20 * time.Second
	// maxStatus is how many bytes of status systemd gets.
	maxStatus = 1500
)

// supervisor tells systemd what becomes of the process (sd_notify(3)): ready, reloading,
// stopping, the figures and problems of the moment, and that it works (the watchdog). Without
// systemd it does nothing.
type supervisor struct {
	log    *slog.Logger
	status *status.Source
	alive  func() // returns when all that serves clients has answered

	ctx     context.Context // of its goroutines
	end     context.CancelFunc
	running sync.WaitGroup
	now     chan struct{} // holds something if the status should be told at once

	mu   sync.Mutex
	told string // the status that systemd has

	voice sync.Mutex // held while something is said
	mute  bool       // another process is the main one
}

// newSupervisor returns one that tells nothing before ready.
func newSupervisor(log *slog.Logger, source *status.Source, alive func()) *supervisor {
	s := &supervisor{log: log, status: source, alive: alive, now: make(chan struct{}, 1)}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s
}

// managed tells whether a service manager wants to know.
func managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// close ends what ready and stopping have begun.
func (s *supervisor) close() {
	s.end()
	s.running.Wait()
}

// handOver tells systemd that another process is the main one, and tells nothing any more:
// it would not be believed.
func (s *supervisor) handOver(pid int) {
	if managed() {
		s.say(fmt.Sprintf("MAINPID=%d", pid))
	}
	s.voice.Lock()
	s.mute = true
	s.voice.Unlock()
	s.close()
}

// say tells systemd lines.
func (s *supervisor) say(lines ...string) {
	s.voice.Lock()
	defer s.voice.Unlock()
	if s.mute {
		return
	}
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		s.log.Warn("cannot notify systemd", "state", lines[0], "err", err)
	}
}

// ready says that clients are served, and goes on with status and watchdog.
func (s *supervisor) ready() {
	if !managed() {
		return
	}
	s.sayReady()
	s.running.Go(s.tellStatus)
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("cannot feed the watchdog of systemd", "err", err)
	}
	if interval > 0 {
		s.running.Go(func() { feed(s.ctx, interval, s.alive, func() { s.say(daemon.SdNotifyWatchdog) }) })
	}
}

func (s *supervisor) sayReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = s.line()
	s.say(daemon.SdNotifyReady, s.told)
}

// reload does a reload.
func (s *supervisor) reload(do func()) {
	if !managed() {
		do()
		return
	}
	s.say(reloading())
	defer s.sayReady()
	do()
}

// stopping says that the process is going to end, and asks for time until close.
func (s *supervisor) stopping() {
	if !managed() {
		return
	}
	s.say(daemon.SdNotifyStopping, extension())
	s.nudge()
	s.running.Go(s.extend)
}

// extend asks for more time again and again.
func (s *supervisor) extend() {
	tick := time.NewTicker(extendEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.say(extension())
		}
	}
}

func extension() string { return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extendBy.Microseconds()) }

// nudge has the status told at once.
func (s *supervisor) nudge() { nudge(s.now) }

// tellStatus tells systemd the status when it has changed.
func (s *supervisor) tellStatus() {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.now:
		}
		s.mu.Lock()
		if line := s.line(); line != s.told {
			s.told = line
			s.say(line)
		}
		s.mu.Unlock()
	}
}

// line is the status in one line: figures, and what is wrong, the worst first.
func (s *supervisor) line() string { return "STATUS=" + statusLine(s.status.Read()) }

func statusLine(r *status.Reading) string {
	up, hosts := 0, 0
	for i := range r.Services {
		for j := range r.Services[i].Groups {
			if g := &r.Services[i].Groups[j]; g.Takes {
				up, hosts = up+g.Up, hosts+len(g.Hosts)
			}
		}
	}
	text := fmt.Sprintf("%s, %d of %s up, %s, %.0f new/s", words.Count(len(r.Services), "service"), up, words.Count(hosts, "host"),
		words.Count(int(r.Sessions), "session"), r.All.Rate)
	for i := range r.Problems {
		if p := &r.Problems[i]; p.Level > status.Notice {
			text += "; " + p.String()
		}
	}
	return strings.ReplaceAll(shortened(text, maxStatus), "\n", " ")
}

// shortened cuts a text to at most so many bytes, between two letters.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most -= len("…"); !utf8.RuneStart(text[most]); most-- {
	}
	return text[:most] + "…"
}

// responding returns what returns when every loop and the director have answered. A director
// that has stopped, as while the process drains, is not asked.
func responding(e engine.Engine, d *director.Director) func() {
	return func() {
		askLoops(e)
		d.Respond()
	}
}

// feed feeds a watchdog that bites after interval: four times in it, but only if alive has
// returned since the last time. One that does not return holds one goroutine.
func feed(ctx context.Context, interval time.Duration, alive, pat func()) {
	tick := time.NewTicker(max(interval/4, time.Millisecond))
	defer tick.Stop()
	answer := make(chan struct{}, 1)
	ask := func() {
		go func() {
			alive()
			answer <- struct{}{}
		}()
	}
	ask()
	for {
		select {
		case <-ctx.Done():
			return
		case <-answer:
			pat()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			ask()
		}
	}
}
