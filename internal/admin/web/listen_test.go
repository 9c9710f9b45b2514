package web

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/guard"
	"github.com/txlb/txlb/internal/testkit"
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

// TestOneSourceCannotTakeAllPlaces opens connections that say nothing. Each one
// too many takes the place of the source's oldest, and of nobody else.
func TestOneSourceCannotTakeAllPlaces(t *testing.T) {
	if _, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp4", "127.0.0.1:1"); err != nil && strings.Contains(err.Error(), "assign requested address") {
		t.Skip("this system has one loopback address")
	}
	r := newRig(t, twoHosts)
	other := r.dialFrom("127.0.0.2")
	var held []net.Conn
	for range guard.LimitsFor(guard.Page, 0).PerSource + 1 {
		held = append(held, r.dialFrom("127.0.0.9"))
	}
	if !ended(held[0]) {
		t.Error("one too many leaves the first")
	}
	for name, c := range map[string]net.Conn{"another source": other, "the second": held[1], "the last": held[len(held)-1]} {
		if err := healthy(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := strings.Count(r.log.String(), "admin connections rejected"); n != 1 {
		t.Errorf("%d lines are logged of it", n)
	}
}

// TestSlowClientsAreLeft sends headers a byte at a time, bodies that never come
// and answers that nobody reads. The times are shortened by a server of its own.
func TestSlowClientsAreLeft(t *testing.T) {
	testkit.Long(t)
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
	go func() { served <- h.Serve(guard.On(guard.Page, ln, s.log)) }()
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
