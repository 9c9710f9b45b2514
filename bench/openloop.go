//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// generator asks a web server for one page, over kept-alive connections or with a
// new one for each request. At a fixed rate it is an open loop: when a request is to be sent is fixed
// before the first one is, and its latency runs from that moment to the last
// byte of the reply, whether or not it could be sent in time. A server that
// stops for a moment is charged for all requests that should have been
// answered meanwhile; a load that waits for replies would leave them out and
// see one slow request (coordinated omission).
//
// One thread does everything with raw system calls: the runtime's timers are
// as coarse as a millisecond.
type generator struct {
	epoll   int
	lanes   []lane
	idle    []int // lanes without a request, the one that waits longest first
	to      unix.SockaddrInet4
	closing bool // a connection for each request
	request []byte
	reply   int // bytes of every reply
	head    []byte
	buf     []byte

	latencies []time.Duration
	failed    int
}

// lane is a connection.
type lane struct {
	fd   int
	due  time.Duration // when its request was to be sent
	left int           // bytes of the reply still to come
	wait bool          // the connection is not there yet
}

// patience is how long after its time the last request may take.
const patience = 5 * time.Second

// closeHeader asks for a connection for each request.
const closeHeader = "Connection: close"

// newGenerator opens connections to address, unless it opens one for each request.
// What every reply looks like is learnt from a first one.
func newGenerator(address string, lanes int, page string, closing bool) (*generator, error) {
	g := &generator{
		epoll: -1, head: []byte("HTTP/1.1 20"), buf: make([]byte, 64<<10), closing: closing,
		request: pageRequest(address, page, closing),
	}
	var err error
	if g.reply, err = learn(dialer{address: address}, g.request); err != nil {
		return nil, fmt.Errorf("first request: %w", err)
	}
	to, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	g.to.Port = to.Port
	copy(g.to.Addr[:], to.IP.To4())
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	for i := range lanes {
		g.lanes = append(g.lanes, lane{fd: -1})
		g.idle = append(g.idle, i)
		if !closing {
			if err := g.connect(i); err != nil {
				return nil, errors.Join(fmt.Errorf("connection %d: %w", i+1, err), g.close())
			}
		}
	}
	return g, nil
}

// pageRequest asks for a page of the web backend.
func pageRequest(address, page string, closing bool) []byte {
	text := "GET /" + page + " HTTP/1.1\r\nHost: " + address + "\r\n"
	if closing {
		text += closeHeader + "\r\n"
	}
	return []byte(text + "\r\n")
}

// learn sends a request over a connection of its own and returns how many
// bytes the reply has.
func learn(to dialer, request []byte) (int, error) {
	conn, err := to.dial(patience)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	var seen countingReader
	seen.from = conn
	r := bufio.NewReader(&seen)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/10 != 20 || resp.ContentLength < 0 {
		return 0, fmt.Errorf("status %s, length %d: want 200 or 204 and a length", resp.Status, resp.ContentLength)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	return seen.bytes - r.Buffered(), nil
}

type countingReader struct {
	from  io.Reader
	bytes int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.bytes += n
	return n, err
}

// connect opens lane number i. It does not wait for the connection.
func (g *generator) connect(i int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = unix.Connect(fd, &g.to)
	wait := errors.Is(err, unix.EINPROGRESS)
	if wait {
		err = nil
	}
	if err == nil && !g.closing {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if err == nil {
		events := uint32(unix.EPOLLIN)
		if wait {
			events = unix.EPOLLOUT
		}
		err = unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(i)})
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	g.lanes[i].fd, g.lanes[i].wait = fd, wait
	return nil
}

// close ends all connections.
func (g *generator) close() error {
	err := unix.Close(g.epoll)
	for i := range g.lanes {
		err = errors.Join(err, g.drop(i))
	}
	return err
}

// drop closes lane i, if it is open.
func (g *generator) drop(i int) error {
	fd := g.lanes[i].fd
	if fd < 0 {
		return nil
	}
	g.lanes[i].fd = -1
	return unix.Close(fd)
}

// outcome is what a run of a generator gave. A request that was late had no
// reply when the run was given up; the latencies count it with the time that
// it had waited until then.
type outcome struct {
	Answered, Late, Failed int
	Mean, P50, P99         time.Duration
	Slowest                time.Duration
}

// run sends for a length of time and waits for the replies. Rate is in
// requests a second; 0 sends the next request of a connection as soon as it
// has a reply. The calling goroutine should have its thread for itself.
func (g *generator) run(rate float64, length time.Duration) (outcome, error) {
	closed := rate <= 0
	total := int(rate * length.Seconds())
	dueAt := func(i int) time.Duration { return time.Duration(float64(i) / rate * float64(time.Second)) }
	g.failed, g.latencies = 0, make([]time.Duration, 0, max(total, 1<<16))
	start, sent := time.Now(), 0
	for {
		now := time.Since(start)
		for len(g.idle) > 0 {
			due := now
			switch {
			case closed && now >= length, !closed && sent == total:
				due = -1
			case !closed:
				due = dueAt(sent)
			}
			if due < 0 || due > now {
				break
			}
			sent++
			if err := g.send(due); err != nil {
				return outcome{}, err
			}
		}
		waiting := sent - len(g.latencies) - g.failed
		switch {
		case waiting == 0 && (closed && now >= length || !closed && sent == total):
			return g.outcome(), nil
		case waiting == 0 && len(g.idle) == 0:
			return outcome{}, errors.New("every connection has failed")
		case now > length+patience:
			return g.giveUp(start, sent, total, dueAt), nil
		}
		until := length + patience
		if !closed && sent < total && len(g.idle) > 0 {
			until = dueAt(sent)
		}
		if err := g.wait(max(0, until-time.Since(start))); err != nil {
			return outcome{}, err
		}
		if err := g.receive(start); err != nil {
			return outcome{}, err
		}
	}
}

// giveUp summarises a run that waits for requests, on lanes and unsent.
func (g *generator) giveUp(start time.Time, sent, total int, dueAt func(int) time.Duration) outcome {
	now, answered := time.Since(start), len(g.latencies)
	for _, l := range g.lanes {
		if l.left > 0 {
			g.latencies = append(g.latencies, now-l.due)
		}
	}
	for ; sent < total; sent++ {
		g.latencies = append(g.latencies, now-dueAt(sent))
	}
	o := g.outcome()
	o.Late, o.Answered = o.Answered-answered, answered
	return o
}

// outcome summarises a run.
func (g *generator) outcome() outcome { return outcomeOf(g.latencies, g.failed) }

func outcomeOf(latencies []time.Duration, failed int) outcome {
	sorted := sortedDurations(latencies)
	o := outcome{Answered: len(sorted), Failed: failed, P50: percentile(sorted, 50), P99: percentile(sorted, 99), Slowest: percentile(sorted, 100)}
	for _, l := range sorted {
		o.Mean += l
	}
	o.Mean /= time.Duration(max(1, len(sorted)))
	return o
}

// send gives the next idle lane a request. One that fails is a failed request
// and a lane less.
func (g *generator) send(due time.Duration) error {
	i := g.idle[0]
	g.idle = g.idle[1:]
	l := &g.lanes[i]
	l.due, l.left = due, g.reply
	if g.closing {
		if err := g.connect(i); err != nil {
			return g.fail(i)
		}
	}
	if l.wait {
		return nil // receive sends it
	}
	return g.write(i)
}

// write sends the request of lane i. A small one always fits into the empty buffer
// of a socket.
func (g *generator) write(i int) error {
	if n, err := unix.Write(g.lanes[i].fd, g.request); err != nil || n != len(g.request) {
		return g.fail(i)
	}
	return nil
}

// fail counts the request of lane i as failed and drops the lane.
func (g *generator) fail(i int) error {
	g.failed++
	g.lanes[i].left = 0
	return g.drop(i)
}

// wait returns when a reply is there or the time is over. The events stay
// with the kernel: receive asks for them.
func (g *generator) wait(d time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(g.epoll), Events: unix.POLLIN}}
	ts := unix.NsecToTimespec(int64(d))
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("ppoll: %w", err)
	}
	return nil
}

// receive reads the replies that are there.
func (g *generator) receive(start time.Time) error {
	var events [64]unix.EpollEvent
	n, err := unix.EpollWait(g.epoll, events[:], 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("epoll: %w", err)
	}
	for _, e := range events[:max(0, n)] {
		i := int(e.Fd)
		l := &g.lanes[i]
		if l.fd < 0 {
			continue
		}
		if l.wait {
			l.wait = false
			err := unix.EpollCtl(g.epoll, unix.EPOLL_CTL_MOD, l.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: e.Fd})
			if err == nil && l.left > 0 {
				err = g.write(i)
			}
			if err != nil {
				return err
			}
			continue
		}
		n, err := unix.Read(l.fd, g.buf)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		wrong := err != nil || n == 0 || n > l.left
		if !wrong && l.left == g.reply && n >= len(g.head) {
			wrong = !bytes.Equal(g.buf[:len(g.head)], g.head)
		}
		if wrong {
			// An idle lane that ends costs a request only when it is used.
			if l.left > 0 {
				err = g.fail(i)
			} else {
				g.idle = without(g.idle, i)
				err = g.drop(i)
			}
			if err != nil {
				return err
			}
			continue
		}
		if l.left -= n; l.left == 0 {
			g.latencies = append(g.latencies, time.Since(start)-l.due)
			g.idle = append(g.idle, i)
			if g.closing {
				if err := g.drop(i); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func without(list []int, x int) []int {
	var left []int
	for _, y := range list {
		if y != x {
			left = append(left, y)
		}
	}
	return left
}

// ramp is how long a load runs before anything is measured.
const ramp = 100 * time.Millisecond

// order is what a process that plays roleLoad is to do.
type order struct {
	Address, Page string
	Lanes         int
	Threads       int  // that share the lanes; 0 is 1
	Closing       bool // a connection for each request
	Rate          float64
	Length        time.Duration
	TLS           bool // as [clientTLS] has it, as fast as it goes
	Resume        bool // and each connection but the first of a lane resumes a session
}

// loadProcess is the process of a generator. It has one of its own, because
// neither a collector nor the goroutines of another load may be in its way. Over TLS
// alone it needs a collector, after so much memory.
func loadProcess(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	return playLoad(in, out)
}

// load is a generator, or several that run together.
type load interface {
	run(rate float64, length time.Duration) (outcome, error)
	close() error
}

// newLoad opens the connections that an order keeps.
func newLoad(o order) (load, error) {
	if o.TLS {
		return newSecureLoad(o)
	}
	var all together
	for i := range max(1, o.Threads) {
		share := (o.Lanes + i) / max(1, o.Threads)
		g, err := newGenerator(o.Address, share, o.Page, o.Closing)
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		all = append(all, g)
	}
	return all, nil
}

// playLoad takes an order, ramps up, says that it is ready, waits for a word
// and writes the outcome.
func playLoad(in io.Reader, out io.Writer) error {
	from, to := json.NewDecoder(in), json.NewEncoder(out)
	var o order
	if err := from.Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	all, err := newLoad(o)
	if err != nil {
		return err
	}
	defer func() { _ = all.close() }() // it has done its work
	warm, err := all.run(o.Rate, ramp)
	if err != nil || warm.Failed+warm.Late > 0 {
		return errors.Join(fmt.Errorf("%d requests failed and %d had no answer before the measurement", warm.Failed, warm.Late), err)
	}
	if err := to.Encode("ready"); err != nil {
		return err
	}
	var word string
	if err := from.Decode(&word); err != nil {
		return fmt.Errorf("wait for the word to go: %w", err)
	}
	result, err := all.run(o.Rate, o.Length)
	if err != nil {
		return err
	}
	return to.Encode(result)
}

// together are generators that run at the same time, each on a thread of its own.
type together []*generator

func (all together) close() error {
	var err error
	for _, g := range all {
		err = errors.Join(err, g.close())
	}
	return err
}

func (all together) run(rate float64, length time.Duration) (outcome, error) {
	late, errs := make([]int, len(all)), make([]error, len(all))
	var running sync.WaitGroup
	for i, g := range all {
		running.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			// The kernel may be 50 µs late to wake a thread that does not object.
			if errs[i] = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); errs[i] != nil {
				return
			}
			var o outcome
			o, errs[i] = g.run(rate/float64(len(all)), length)
			late[i] = o.Late
		})
	}
	running.Wait()
	var latencies []time.Duration
	failed, unanswered := 0, 0
	for i, g := range all {
		latencies, failed, unanswered = append(latencies, g.latencies...), failed+g.failed, unanswered+late[i]
	}
	o := outcomeOf(latencies, failed)
	o.Late, o.Answered = unanswered, o.Answered-unanswered
	return o, errors.Join(errs...)
}
