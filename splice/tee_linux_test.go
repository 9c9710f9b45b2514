package splice

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// What is filled into one pipe goes to two sockets, in order, whatever is left in the copy
// from before.
func TestTee(t *testing.T) {
	from, src := pair(t)
	dst, to := pair(t)
	copyDst, copyTo := pair(t)
	p, q := pipe(t, 1<<20), pipe(t, 1<<20)
	var want, got, copied []byte
	buf := make([]byte, 64<<10)
	read := func(fd int, into *[]byte) {
		n, err := unix.Read(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		*into = append(*into, buf[:n]...)
	}
	for i := range 20 {
		data := bytes.Repeat([]byte{byte(i), 'x'}, 1000+i)
		write(t, from, data)
		want = append(want, data...)
		for p.Held() < len(data) {
			if _, st, err := p.Fill(src, 1<<20); err != nil || st != OK {
				t.Fatalf("fill: %v, %v", st, err)
			}
		}
		had := q.Held()
		if n, err := p.Tee(q); n != p.Held() || err != nil || q.Held() != had+n {
			t.Fatalf("a copy of %d bytes: %d, %v; the copy holds %d", p.Held(), n, err, q.Held())
		}
		if _, st, err := p.Drain(dst); st != OK || err != nil {
			t.Fatalf("drain: %v, %v", st, err)
		}
		read(to, &got)
		if i%3 == 0 {
			if _, st, err := q.Drain(copyDst); st != OK || err != nil {
				t.Fatalf("drain the copy: %v, %v", st, err)
			}
			for len(copied) < len(want) {
				read(copyTo, &copied)
			}
		}
	}
	if _, _, err := q.Drain(copyDst); err != nil {
		t.Fatal(err)
	}
	for len(copied) < len(want) {
		read(copyTo, &copied)
	}
	if !bytes.Equal(got, want) || !bytes.Equal(copied, want) {
		t.Error("other bytes came")
	}
}

// A pipe that is full takes a part, or nothing, and neither is an error. What it takes is the
// beginning.
func TestTeeIntoAFullPipe(t *testing.T) {
	from, src := pair(t)
	p, q := pipe(t, 1<<20), pipe(t, 64<<10)
	copyDst, copyTo := pair(t)
	if n, err := p.Tee(q); n != 0 || err != nil {
		t.Errorf("a copy of nothing: %d, %v", n, err)
	}
	data := make([]byte, 100*100) // in a hundred pieces, each of which takes a slot
	for i := range data {
		data[i] = byte(i / 100)
	}
	for sent := 0; sent < len(data); sent += 100 {
		write(t, from, data[sent:sent+100])
		for p.Held() < sent+100 {
			if _, st, err := p.Fill(src, 1<<20); err != nil || st != OK {
				t.Fatalf("fill: %v, %v", st, err)
			}
		}
	}
	n, err := p.Tee(q)
	if n == 0 || n >= len(data) || err != nil {
		t.Fatalf("into 16 slots fit %d of %d bytes, %v", n, len(data), err)
	}
	if again, err := p.Tee(q); again != 0 || err != nil {
		t.Errorf("into a full pipe: %d, %v", again, err)
	}
	if p.Held() != len(data) || q.Held() != n {
		t.Errorf("they hold %d and %d bytes, want %d and %d", p.Held(), q.Held(), len(data), n)
	}
	if _, _, err := q.Drain(copyDst); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, n)
	for at := 0; at < n; {
		k, err := unix.Read(copyTo, got[at:])
		if err != nil {
			t.Fatal(err)
		}
		at += k
	}
	if !bytes.Equal(got, data[:n]) {
		t.Error("other bytes came")
	}
	if _, err := p.Tee(p); err != unix.EINVAL {
		t.Errorf("into itself: %v", err)
	}
}
