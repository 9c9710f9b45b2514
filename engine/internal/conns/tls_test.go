package conns

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/txlb/txlb/engine/internal/enginetest"
	"github.com/txlb/txlb/internal/gate"
	"github.com/txlb/txlb/internal/testkit"
	"github.com/txlb/txlb/splice"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// Records are followed however they are cut into pieces.
func TestRecordsAreFollowed(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var stream []byte
	whole := map[int]bool{0: true} // where no record is in the middle
	for range 50 {
		size := []int{0, 1, 4, 5, 255, 256, 16 << 10, rng.IntN(3000)}[rng.IntN(8)]
		stream = append(append(stream, 23, 3, 3, byte(size>>8), byte(size)), make([]byte, size)...)
		whole[len(stream)] = true
	}
	for most := range 40 {
		var r records
		for at := 0; at < len(stream); {
			n := min(1+rng.IntN(1+most*most*10), len(stream)-at)
			r.pass(stream[at : at+n])
			at += n
			if r.partial() == whole[at] {
				t.Fatalf("after %d bytes: partial: %v, want %v", at, r.partial(), !whole[at])
			}
		}
	}
}

// A write is one write of the socket, however many records it makes.
func TestOneWriteForAllRecords(t *testing.T) {
	id := enginetest.Identify(t, "a.test")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a, b := tcpPair(t)
		count := &counted{Conn: a}
		w := &wire{Conn: count, to: count, src: splice.NewSource(count)}
		s := &secured{Conn: tls.Server(w, &tls.Config{Certificates: []tls.Certificate{id.Pair}, MinVersion: version, MaxVersion: version, SessionTicketsDisabled: true}), wire: w}
		c := tls.Client(b, id.Client())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Handshake(); err != nil {
				t.Error(err)
			}
		})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		want := enginetest.Payload(200_000, 1)
		var got []byte
		wg.Go(func() { got, _ = io.ReadAll(c) })
		for at, n := range []int{64 << 10, 1, 64 << 10, 64 << 10} {
			count.writes = 0
			if k, err := s.Write(want[:n]); k != n || err != nil {
				t.Fatalf("%d of %d: %v", k, n, err)
			}
			if count.writes != 1 {
				t.Errorf("write %d of %d bytes: %d writes", at, n, count.writes)
			}
		}
		if n, err := s.Write(nil); n != 0 || err != nil {
			t.Error(n, err)
		}
		_ = s.CloseWrite()
		_ = a.CloseWrite()
		wg.Wait()
		if sum := bytes.Join([][]byte{want[:64<<10], want[:1], want[:64<<10], want[:64<<10]}, nil); !bytes.Equal(got, sum) {
			t.Errorf("%d bytes came, want %d", len(got), len(sum))
		}
		// A peer that is gone fails the write.
		_ = b.SetLinger(0)
		_ = b.Close()
		testkit.Eventually(t, "the write fails", func() bool {
			_, err := s.Write([]byte("x"))
			return err != nil
		})
	}
}

type counted struct {
	net.Conn
	writes int
}

func (c *counted) Write(p []byte) (int, error) { c.writes++; return c.Conn.Write(p) }

// tcpPair returns the two ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln := enginetest.ListenLoopback(t)
	defer func() { _ = ln.Close() }()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	return in.(*net.TCPConn), out.(*net.TCPConn)
}

// A handshake has a place of the gate while it computes, not while it waits; it gives the
// place back when it is broken off, and one that takes too long loses it.
func TestTurnsOfAHandshake(t *testing.T) {
	testkit.Bubble(t, func(t *testing.T) {
		turns := gate.New(1, int(kindsOfWork))
		mine, theirs := net.Pipe()
		done := make(chan struct{})
		w := &wire{Conn: mine, to: mine, src: splice.NewSource(mine), next: []byte("a"), turn: &turn{turns: turns, done: done, kind: begins}}
		b := make([]byte, 1)
		read := func(want byte) {
			t.Helper()
			if n, err := w.Read(b); n != 1 || err != nil || b[0] != want {
				t.Fatalf("%d, %v, %q", n, err, b)
			}
		}
		read('a')
		if turns.Free() != 0 {
			t.Error("it works without a place")
		}
		var wg sync.WaitGroup
		wg.Go(func() { read('b') })
		synctest.Wait()
		if turns.Free() != 1 {
			t.Error("it waits with a place")
		}
		if !turns.Enter(done, toHost) {
			t.Fatal("another has no place")
		}
		_, _ = theirs.Write([]byte("b"))
		synctest.Wait()
		if turns.Waiting(finishes) != 1 {
			t.Error("it does not wait for its turn behind those that have begun")
		}
		turns.Leave()
		wg.Wait()
		time.Sleep(maxHold - time.Nanosecond)
		synctest.Wait()
		if turns.Free() != 0 {
			t.Error("it has lost its place too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if turns.Free() != 1 {
			t.Error("it keeps its place")
		}
		wg.Go(func() { _, _ = io.ReadFull(theirs, b) })
		_, _ = w.Write([]byte("c"))
		wg.Wait()
		turns.Enter(done, begins)
		wg.Go(func() {
			if _, err := w.Read(make([]byte, 1)); !errors.Is(err, errNoTurn) {
				t.Errorf("broken off: %v", err)
			}
		})
		_, _ = theirs.Write([]byte("d"))
		synctest.Wait()
		close(done)
		wg.Wait()
		turns.Leave()
		w.turn.leave()
		if turns.Free() != 1 || turns.Waiting(finishes) != 0 {
			t.Errorf("%d places are free", turns.Free())
		}
		w = &wire{Conn: mine, to: mine, src: splice.NewSource(mine)}
		wg.Go(func() {
			if _, err := w.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after Close: %v", err)
			}
		})
		_ = w.Close() // as package tls does when its context has ended
		wg.Wait()
		_, _ = mine.Close(), theirs.Close()
	})
}
