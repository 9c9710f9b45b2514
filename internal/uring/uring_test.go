//go:build linux

package uring

import (
	"testing"

	"golang.org/x/sys/unix"
)

// eachRing runs a test with the ring of this kernel, and with that of older ones.
func eachRing(t *testing.T, test func(t *testing.T, r *Ring)) {
	for name, old := range map[string]bool{"new": false, "old": true} {
		t.Run(name, func(t *testing.T) {
			r, err := New(old)
			if err != nil {
				t.Skipf("this system has no ring to give: %v", err)
			}
			defer r.Close()
			test(t, r)
		})
	}
}

// If the kernel refuses the call, none of its sends is made, and the ring goes on as if it
// had not been asked.
func TestRefused(t *testing.T) {
	eachRing(t, func(t *testing.T, r *Ring) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
		const batch = 5
		text := []byte("abcde") // on the heap: the ring has its address only
		send := func() int {
			for i := range batch {
				r.Put(i, Send(int32(fds[0]), text[i:i+1], unix.MSG_DONTWAIT))
			}
			return r.Submit(batch)
		}
		fd := r.fd
		r.fd = fds[0] // not a ring
		for range 3 {
			if n := send(); n != 0 {
				t.Fatalf("%d sends were made without a ring", n)
			}
		}
		r.fd = fd
		if n := send(); n != batch || *r.cqHead != *r.cqTail || r.Late() {
			t.Fatalf("%d of %d sends were made; or answers are left, or came late", n, batch)
		}
		for i := range batch {
			if n, errno := r.Result(i); n != 1 || errno != 0 {
				t.Errorf("send %d: %d, %v", i, n, errno)
			}
			got := make([]byte, 2)
			if n, err := unix.Read(fds[1], got); err != nil || n != 1 || got[0] != text[i] {
				t.Errorf("message %d: %d bytes, %v, %v", i, n, got[:1], err)
			}
		}
	})
}
