//go:build linux

package loops

import (
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/txlb/txlb/engine/internal/core"
	"github.com/txlb/txlb/internal/testkit"
)

func TestFates(t *testing.T) {
	t.Parallel()
	open := func(read, written uint64) core.Meter { return core.Meter{Known: true, Read: read, Written: written} }
	ended := func(m core.Meter) core.Meter { m.Ended = true; m.Written++; return m }
	gone := core.Meter{Known: true, Closed: true}
	for _, test := range []struct {
		name            string
		c, b            core.Meter
		aside           aside
		client, backend fate
	}{
		{"silent", open(0, 0), open(0, 1), aside{}, goesOn, goesOn},
		{"all passed on", open(7, 9), open(9, 8), aside{}, goesOn, goesOn},
		{"from the client on the way", open(8, 9), open(9, 8), aside{}, lost, lost},
		{"from the backend on the way", open(7, 9), open(10, 8), aside{}, lost, lost},
		{"behind a header", open(7, 9), open(9, 36), aside{header: 28}, goesOn, goesOn},
		{"a part of the header", open(0, 0), open(0, 21), aside{header: 28}, lost, lost},
		{"bytes of the client's own header", open(47, 0), open(0, 8), aside{took: 40}, goesOn, goesOn},
		{"half-closed", open(7, 9), ended(open(9, 8)), aside{}, goesOn, goesOn},
		{"both ends passed on", ended(open(7, 9)), ended(open(9, 8)), aside{}, whole, whole},
		{"an end passed on, bytes lost", open(7, 9), ended(open(10, 8)), aside{}, lost, lost},
		{"the client is gone", gone, open(9, 8), aside{}, lost, lost},
		{"the backend is gone, all of it was passed on", ended(open(7, 9)), gone, aside{}, whole, lost},
		{"not known", core.Meter{}, open(0, 1), aside{}, lost, lost},
	} {
		client, backend := test.aside.fatesOf(test.c, test.b)
		if client != test.client || backend != test.backend {
			t.Errorf("%s: %d, %d", test.name, client, backend)
		}
	}
}

// What the meters tell of streams is exact, whoever has ended.
func TestStreams(t *testing.T) {
	t.Parallel()
	for range 30 {
		near, far := [2]*net.TCPConn{}, [2]*net.TCPConn{} // client, backend
		far[client], near[client] = tcpPair(t)
		near[backend], far[backend] = tcpPair(t)
		var wantRead, wantWritten [2]int64
		for side := range near {
			if n := rand.IntN(100_000); n > 0 {
				if _, err := near[side].Write(make([]byte, n)); err != nil {
					t.Fatal(err)
				}
				wantWritten[1-side] = int64(n)
			}
			n := 1 + rand.IntN(100_000)
			if _, err := far[side].Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			got, err := near[side].Read(make([]byte, 1+rand.IntN(n)))
			if err != nil {
				t.Fatal(err)
			}
			wantRead[side] = int64(got)
			switch rand.IntN(3) {
			case 0:
				_ = near[side].CloseWrite()
			case 1:
				_ = far[side].CloseWrite()
			}
		}
		read, written := aside{}.streams(meterOf(int32(fdOf(t, near[client]))), meterOf(int32(fdOf(t, near[backend]))))
		if read != wantRead || written != wantWritten {
			t.Errorf("read %v, written %v; want %v and %v", read, written, wantRead, wantWritten)
		}
	}
}

// tcpPair returns both ends of a connection: that of the side that has connected first.
func tcpPair(t *testing.T) (active, passive *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	one, err := net.DialTimeout("tcp", ln.Addr().String(), testkit.Patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(testkit.Patience))
	two, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = one.Close(), two.Close() })
	return one.(*net.TCPConn), two.(*net.TCPConn)
}

func fdOf(t *testing.T, conn *net.TCPConn) (fd int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(p uintptr) { fd = int(p) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// What begins and ends together is not kept; what was kept is forgotten first, also if it has
// been given to the keeper again.
func TestSortNotes(t *testing.T) {
	t.Parallel()
	begin := func(id uint64) *keepNote { return &keepNote{id: id, begins: true, fds: [2]int32{1, 2}} }
	end := func(id uint64, fd int32) *keepNote { return &keepNote{id: id, fd: fd} }
	order := []*keepNote{begin(1), end(2, 20), begin(3), end(3, 31), begin(3), end(1, 10), end(1, 11), begin(4), end(5, -1)}
	var newestFirst []*keepNote
	for _, n := range order {
		newestFirst = append([]*keepNote{n}, newestFirst...)
	}
	keep, forget, fds := sortNotes(newestFirst)
	if len(keep) != 2 || keep[0] != order[4] || keep[1] != order[7] {
		t.Errorf("keeps %v", keep)
	}
	if !slices.Equal(forget, []uint64{2, 3, 1, 1, 5}) { // what the keeper does not know is left out later
		t.Errorf("forgets %v", forget)
	}
	if len(fds) != 4 {
		t.Errorf("closes %v", fds)
	}
}
