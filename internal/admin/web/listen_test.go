package web

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// dialFrom connects from an address of this machine.
func (r *rig) dialFrom(ip string) net.Conn {
	r.t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.DialContext(r.t.Context(), "tcp4", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// healthy asks for /healthz on a connection of its own.
func healthy(c net.Conn) error {
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	if a.StatusCode != http.StatusOK {
		return errors.New(a.Status)
	}
	_, err = io.Copy(io.Discard, a.Body)
	return err
}

// ended tells whether the server has closed a connection.
func ended(c net.Conn) bool {
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestOneSourceCannotTakeAllPlaces opens connections that say nothing.
func TestOneSourceCannotTakeAllPlaces(t *testing.T) {
	if _, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp4", "127.0.0.1:1"); err != nil && strings.Contains(err.Error(), "assign requested address") {
		t.Skip("this system has one loopback address")
	}
	r := newRig(t, twoHosts)
	var held []net.Conn
	for range maxPerSource {
		held = append(held, r.dialFrom("127.0.0.9"))
	}
	eventually(t, "one too many is closed", func() bool { return ended(r.dialFrom("127.0.0.9")) })
	if err := healthy(r.dialFrom("127.0.0.2")); err != nil {
		t.Errorf("another source: %v", err)
	}
	if err := healthy(held[0]); err != nil {
		t.Errorf("one that has a place: %v", err)
	}
	eventually(t, "the place is free again", func() bool { return healthy(r.dialFrom("127.0.0.9")) == nil })
	if !strings.Contains(r.log.String(), "limit reached") {
		t.Error("nothing is logged of it")
	}
	if n := strings.Count(r.log.String(), "limit reached"); n > 2 {
		t.Errorf("%d lines are logged of it", n)
	}
}

// TestPlacesAreCounted opens and closes from many sources at once.
func TestPlacesAreCounted(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBounded(ln, 8, slog.New(slog.DiscardHandler))
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := b.Accept()
			if err != nil {
				return
			}
			accepting.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
				_ = c.Close() // gives no second place back
			})
		}
	})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 20 {
				if c, err := net.Dial("tcp4", ln.Addr().String()); err == nil {
					_, _ = c.Write([]byte("x"))
					_ = c.Close()
				}
			}
		})
	}
	clients.Wait()
	eventually(t, "all places are free", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.open == 0 && len(b.sources) == 0
	})
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	accepting.Wait()
}

// weary is a listener whose accepts fail a few times.
type weary struct {
	net.Listener
	left int
}

func (w *weary) Accept() (net.Conn, error) {
	if w.left--; w.left >= 0 {
		return nil, errors.New("too many open files")
	}
	return w.Listener.Accept()
}

// TestAcceptGoesOnWithoutDescriptors has what would close net/http pass.
func TestAcceptGoesOnWithoutDescriptors(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBounded(&weary{ln, 3}, 0, slog.New(slog.DiscardHandler))
	c, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	got, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Close()
	b.Listener = &weary{ln, 1 << 30}
	failed := make(chan error, 1)
	go func() {
		_, err := b.Accept()
		failed <- err
	}()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestSlowClientsAreLeft sends headers a byte at a time, bodies that never come
// and answers that nobody reads. The times are shortened by a server of its own.
func TestSlowClientsAreLeft(t *testing.T) {
	r := newRig(t, twoHosts)
	s, err := newServer(r.opt, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7000})
	if err != nil {
		t.Fatal(err)
	}
	h := s.http()
	if h.ReadHeaderTimeout != headerTime || h.ReadTimeout != readTime || h.WriteTimeout != writeTime || h.IdleTimeout != idleTime || h.MaxHeaderBytes != maxHeader {
		t.Errorf("the limits are %+v", h)
	}
	h.ReadHeaderTimeout, h.ReadTimeout, h.WriteTimeout, h.IdleTimeout = 300*time.Millisecond, 600*time.Millisecond, time.Second, 300*time.Millisecond
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(newBounded(ln, 0, s.log)) }()
	defer func() {
		_ = h.Close()
		<-served
	}()
	r.addr = ln.Addr().String()
	const login = "Authorization: Basic Ym9zczp3b25kZXI=\r\n"
	for name, sent := range map[string]string{
		"nothing":   "",
		"a header":  "GET /running.txt HTTP/1.1\r\nHost: localhost\r\nX: ",
		"a body":    "POST /setHost HTTP/1.1\r\nHost: localhost\r\n" + login + "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
		"a chunk":   "POST /setHost HTTP/1.1\r\nHost: localhost\r\n" + login + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
		"idle":      "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"two hosts": "GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
		"rubbish":   "\x16\x03\x01\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			c := r.dialFrom("127.0.0.1")
			if _, err := io.WriteString(c, sent); err != nil {
				t.Fatal(err)
			}
			if name == "a header" {
				go func() { // ends with the connection
					for {
						if _, err := c.Write([]byte("x")); err != nil {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it is never closed")
			}
			_ = c.Close()
		})
	}
	if g := r.dir.State().Generation; g != 1 {
		t.Errorf("half a request has changed something: generation %d", g)
	}
}
