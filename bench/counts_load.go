//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"strconv"

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
	request []byte
	reply   int // bytes
	lanes   []int
	buf     []byte
	done    stepped
}

func (s *stepper) prepare() error {
	to, err := net.ResolveTCPAddr("tcp4", s.Address)
	if err != nil {
		return err
	}
	s.at.Port = to.Port
	copy(s.at.Addr[:], to.IP.To4())
	s.request = []byte{opDown}
	if s.Page != "" {
		head := "GET /" + s.Page + " HTTP/1.1\r\nHost: " + s.Address + "\r\n"
		if s.Closing {
			head += closeHeader + "\r\n"
		}
		s.request = []byte(head + "\r\n")
		if s.Closing {
			return nil
		}
		if s.reply, err = learn(s.Address, s.request); err != nil {
			return fmt.Errorf("first request: %w", err)
		}
	}
	for range s.Lanes {
		fd, err := s.connect()
		if err != nil {
			return err
		}
		s.lanes = append(s.lanes, fd)
		if s.Page == "" {
			if err := send(fd, s.request); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *stepper) connect() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := uninterrupted(func() error { return unix.Connect(fd, &s.at) }); err != nil {
		return -1, errors.Join(fmt.Errorf("connect: %w", err), unix.Close(fd))
	}
	return fd, nil
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
		lanes = make([]int, s.Lanes)
		for i := range lanes {
			fd, err := s.connect()
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			lanes[i] = fd
			if err := send(fd, s.request); err != nil {
				return err
			}
		}
	} else {
		for _, fd := range lanes {
			if err := send(fd, s.request); err != nil {
				return err
			}
		}
	}
	for _, fd := range lanes {
		var err error
		if s.Closing {
			err = s.receiveAll(fd)
		} else {
			err = s.receive(fd, s.reply)
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
		for _, fd := range s.lanes {
			if err := s.receive(fd, block); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive reads n bytes.
func (s *stepper) receive(fd, n int) error {
	for left := n; left > 0; {
		most := len(s.buf)
		if s.Page == "" {
			most = left // what follows is for the next turn
		}
		got, err := s.read(fd, most)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if got == 0 {
			return fmt.Errorf("the reply ended %d bytes early", left)
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
func (s *stepper) receiveAll(fd int) error {
	all := 0
	for {
		n, err := s.read(fd, len(s.buf))
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if n == 0 {
			break
		}
		all += n
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

func (s *stepper) read(fd, most int) (n int, err error) {
	buf := s.buf[:most]
	err = uninterrupted(func() (err error) {
		n, err = unix.Read(fd, buf)
		return err
	})
	return n, err
}

func (s *stepper) close() {
	for _, fd := range s.lanes {
		_ = unix.Close(fd)
	}
}

func send(fd int, b []byte) error {
	return uninterrupted(func() error {
		n, err := unix.Write(fd, b)
		if err == nil && n != len(b) {
			err = io.ErrShortWrite
		}
		return err
	})
}

// uninterrupted calls f again after a signal.
func uninterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
