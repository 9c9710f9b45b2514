//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/txlb/txlb/internal/servers"
)

// The bare relays pass on every byte and every end, in whatever way they move them.
func TestBareRelays(t *testing.T) {
	for _, p := range peers() {
		if !strings.HasPrefix(p.name, "bare") {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			target, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer target.Close()
			go sums(target)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			at, err := servers.FreeAddr()
			if err != nil {
				t.Fatal(err)
			}
			defer holdThread()() // or the relay ends with the thread that has started it
			argv := p.argv(place{programs: map[string]string{"bench": self}, threads: 2, routes: []route{{at, target.Addr().String()}}})
			s, err := serve(t.Context(), 5*time.Minute, t.TempDir(), p.name, argv)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Stop()
			if err := s.Await(t.Context(), func() error { return sum(at, 1) }); err != nil {
				t.Fatal(err)
			}
			errs := make(chan error)
			sizes := []int{0, 1, 100, 64 << 10, 64<<10 + 1, 6 << 20}
			for _, n := range sizes {
				for range 8 {
					go func() { errs <- sum(at, n) }()
				}
			}
			for range 8 * len(sizes) {
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
			if err := s.Alive(); err != nil {
				t.Error(err)
			}
		})
	}
}

// sums answers each connection, once it has ended, with all that came, then with the sum
// of that.
func sums(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			all, err := io.ReadAll(c)
			if err != nil {
				return
			}
			sum := sha256.Sum256(all)
			_, _ = c.Write(append(all, sum[:]...)) // what is missing the client notices
		}()
	}
}

// sum sends n bytes through address and checks the answer.
func sum(address string, n int) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	text := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(text) // never fails
	if _, err := c.Write(text); err != nil {
		return fmt.Errorf("%d bytes: %w", n, err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	want := sha256.Sum256(text)
	if err != nil || !bytes.Equal(got, append(text, want[:]...)) {
		return fmt.Errorf("of %d bytes and their sum %d came, or others: %v", n, len(got), err)
	}
	return nil
}
