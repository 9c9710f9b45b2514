//go:build linux

package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// steps is what a process that plays roleSteps is to do: work in steps, each of
// which begins when the one before has been answered in full. What a proxy has to
// do in a step hardly depends on when it does it, which is what counts need.
type steps struct {
	Address string
	Lanes   int    // connections that work at the same time
	Page    string // what each asks for in a step; "" for an endless stream
	Closing bool   // with a new connection for each request
	TLS     bool   // as [clientTLS] has it; the lanes shake hands one after the other
	Resume  bool   // and each connection resumes the session of the one before
	Warm    int    // steps before the measurement
	Count   int    // and in it
}

// stride is what one lane receives of an endless stream in a step.
const stride = 4 << 20

// stepped is what was done.
type stepped struct {
	Requests int
	Bytes    int64
}

// stepsProcess is the process of a load that works in steps, on one core and with a
// priority above that of the backends.
func stepsProcess(core string, in io.Reader, out io.Writer) error {
	n, err := strconv.Atoi(core)
	if err != nil {
		return err
	}
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := confineThread(0, n, 2); err != nil {
		return err
	}
	return playSteps(in, out)
}

// playSteps takes its orders, warms up, says that it is ready, waits for a word,
// works and says what it did.
func playSteps(in io.Reader, out io.Writer) error {
	from, to := json.NewDecoder(in), json.NewEncoder(out)
	var o steps
	if err := from.Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	s := &stepper{steps: o, buf: make([]byte, block)}
	if o.TLS {
		s.config = clientTLS()
		if o.Resume {
			s.config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
	}
	defer s.close()
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.run(o.Warm); err != nil {
		return fmt.Errorf("before the measurement: %w", err)
	}
	if err := to.Encode("ready"); err != nil {
		return err
	}
	var word string
	if err := from.Decode(&word); err != nil {
		return fmt.Errorf("wait for the word to go: %w", err)
	}
	s.done = stepped{}
	if err := s.run(o.Count); err != nil {
		return err
	}
	if err := to.Encode(s.done); err != nil {
		return err
	}
	// The connections stay until the counters have been read.
	if err := from.Decode(&word); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// stepper works with blocking calls on one thread.
type stepper struct {
	steps
	at      unix.SockaddrInet4
	config  *tls.Config // nil: plain
	request []byte
	reply   int // bytes
	lanes   []net.Conn
	buf     []byte
	resumes bool // there is a session to resume
	done    stepped
}

// to is where the load goes, for what needs no blocking calls.
func (s *stepper) to() dialer { return dialer{s.Address, s.config} }

func (s *stepper) prepare() error {
	to, err := net.ResolveTCPAddr("tcp4", s.Address)
	if err != nil {
		return err
	}
	s.at.Port = to.Port
	copy(s.at.Addr[:], to.IP.To4())
	s.request = []byte{opDown}
	if s.Page != "" {
		s.request = pageRequest(s.Address, s.Page, s.Closing)
		if s.Closing {
			return nil
		}
		if s.reply, err = learn(s.to(), s.request); err != nil {
			return fmt.Errorf("first request: %w", err)
		}
	}
	for range s.Lanes {
		lane, err := s.connect()
		if err != nil {
			return err
		}
		s.lanes = append(s.lanes, lane)
		if s.Page == "" {
			if _, err := lane.Write(s.request); err != nil {
				return err
			}
		}
	}
	return nil
}

// connect returns a connection whose calls block the thread.
func (s *stepper) connect() (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	raw := blocking(fd)
	if err := uninterrupted(func() error { return unix.Connect(fd, &s.at) }); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), raw.Close())
	}
	if s.config == nil {
		return raw, nil
	}
	lane := tls.Client(raw, s.config)
	if err := lane.Handshake(); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return lane, nil
}

func (s *stepper) run(count int) error {
	for range count {
		if err := s.step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *stepper) step() error {
	if s.Page == "" {
		return s.stream()
	}
	lanes := s.lanes
	if s.Closing {
		lanes = make([]net.Conn, s.Lanes)
		for i := range lanes {
			lane, err := s.connect()
			if err != nil {
				return err
			}
			defer func() { _ = below(lane).Close() }()
			lanes[i] = lane
			if _, err := lane.Write(s.request); err != nil {
				return err
			}
		}
	} else {
		for _, lane := range lanes {
			if _, err := lane.Write(s.request); err != nil {
				return err
			}
		}
	}
	for _, lane := range lanes {
		var err error
		if s.Closing {
			err = s.receiveAll(lane)
		} else {
			err = s.receive(lane, s.reply)
		}
		if err != nil {
			return err
		}
		s.done.Requests++
	}
	return nil
}

// stream receives from all lanes by turns, as much from each.
func (s *stepper) stream() error {
	for got := 0; got < stride; got += block {
		for _, lane := range s.lanes {
			if err := s.receive(lane, block); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive reads n bytes.
func (s *stepper) receive(lane net.Conn, n int) error {
	for left := n; left > 0; {
		most := len(s.buf)
		if s.Page == "" {
			most = left // what follows is for the next turn
		}
		got, err := lane.Read(s.buf[:most])
		if err != nil {
			return fmt.Errorf("receive, with %d bytes to come: %w", left, err)
		}
		left -= got
		s.done.Bytes += int64(got)
		if left < 0 {
			return errors.New("the reply is longer than the first one")
		}
	}
	return nil
}

// receiveAll reads to the end of a connection. All replies are as long as the first.
func (s *stepper) receiveAll(lane net.Conn) error {
	all := 0
	for {
		n, err := lane.Read(s.buf)
		all += n
		if ended(err) {
			break
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
	}
	if secure, ok := lane.(*tls.Conn); ok && s.Resume {
		if s.resumes && !secure.ConnectionState().DidResume {
			return errNotResumed
		}
		s.resumes = true
	}
	if s.reply == 0 {
		s.reply = all
	}
	if all == 0 || all != s.reply {
		return fmt.Errorf("a reply of %d bytes, want %d", all, s.reply)
	}
	s.done.Bytes += int64(all)
	return nil
}

func (s *stepper) close() {
	for _, lane := range s.lanes {
		_ = below(lane).Close()
	}
}

// below is the connection that carries TLS, or the connection itself.
func below(lane net.Conn) net.Conn {
	if secure, ok := lane.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return lane
}

// blocking is a socket as a net.Conn whose calls block the thread: the runtime's poller
// has other threads do a part of the work, in an order that changes.
type blocking int

func (fd blocking) Read(b []byte) (n int, err error) {
	err = uninterrupted(func() (err error) {
		n, err = unix.Read(int(fd), b)
		return err
	})
	if err == nil && n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (fd blocking) Write(b []byte) (n int, err error) {
	err = uninterrupted(func() (err error) {
		n, err = unix.Write(int(fd), b)
		return err
	})
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	return max(n, 0), err
}

func (fd blocking) Close() error { return unix.Close(int(fd)) }

// What crypto/tls does not ask for.
func (blocking) LocalAddr() net.Addr              { return nil }
func (blocking) RemoteAddr() net.Addr             { return nil }
func (blocking) SetDeadline(time.Time) error      { return nil }
func (blocking) SetReadDeadline(time.Time) error  { return nil }
func (blocking) SetWriteDeadline(time.Time) error { return nil }

// uninterrupted calls f again after a signal.
func uninterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
